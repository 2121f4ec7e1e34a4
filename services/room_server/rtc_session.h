#pragma once
#include <parley/room/v1/signalling.grpc.pb.h>

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "room_server/host.h"
#include "room_server/signal_codec.h"
#include "room_server/text_streams.h"
#include "room_server/transcoder.h"
#include "rpc/bidi.h"
#include "webrtc/engine.h"

namespace parley::room_server {

// One participant with a LiveKit SDK: its signalling frames come on a SignallingService.Connect
// stream, its media on a peer connection. An adapter between both and libs/room.
class RtcSession final
    : public rpc::BidiSession<room::v1::ConnectRequest, room::v1::ConnectResponse>,
      public room::ParticipantSink {
 public:
  RtcSession(std::shared_ptr<Host> host, webrtc::Engine& engine);
  ~RtcSession() override;

  // room::ParticipantSink, under the room's lock.
  void OnJoined(const room::Joined& joined) override;
  void OnEvent(const room::Event& event) override;
  void OnFrame(uint32_t track_number, const room::Frame& frame) override;

 private:
  // What the peer connection says, on the engine's thread. Holds the session weakly: the engine may
  // be the last to let go of it.
  class Media final : public webrtc::PeerObserver {
   public:
    // Before the peer connection carries anything.
    void Bind(std::weak_ptr<RtcSession> session) { session_ = std::move(session); }
    // Frames go to this seat from now on.
    void Seat(std::shared_ptr<room::Participant> participant);

    void OnConnected() override {}
    void OnAudio(uint32_t tag, const webrtc::AudioPacket& packet) override;
    void OnChannelOpen(std::string_view) override {}
    void OnData(std::string_view label, webrtc::Bytes message) override;
    void OnClosed(std::string_view why) override;

   private:
    std::weak_ptr<RtcSession> session_;
    Mutex mutex_;
    std::shared_ptr<room::Participant> participant_ ABSL_GUARDED_BY(mutex_);
  };

  struct Heard {  // a track we send to the client
    std::string sid;
    std::shared_ptr<Transcoder> transcoder;  // null: frames pass as they are
  };

  // rpc::BidiSession, on the strand.
  void OnMessage(const room::v1::ConnectRequest& message) override;
  void OnClosed() override;

  // Does `work` on the strand unless too much waits there already: then the client is lost.
  void Later(std::function<void()> work);

  void Open(const room::v1::OpenSignalling& open);
  absl::Status ReadOpen(const room::v1::OpenSignalling& open, Ticket* ticket);
  void OnAdmitted(absl::StatusOr<std::shared_ptr<room::Participant>> participant);
  void OnFrameOfClient(const room::v1::SignalFrame& frame);
  void Do(const lk::SignalRequest& request);
  void AddTrack(const lk::AddTrackRequest& request);
  void TakeOffer(const lk::SessionDescription& offer);
  void Subscribe(const lk::UpdateSubscription& request);
  void UpdateSelf(const lk::UpdateParticipantMetadata& request);
  void AskForOffer();

  void SendJoin(const room::Joined& joined);
  void Tell(const room::Event& event);
  void TellPublished(const room::TrackPublished& event);
  void TellUnpublished(const room::TrackUnpublished& event);
  void TellMuted(const room::TrackMuted& event);
  void TellLeft(const room::ParticipantLeft& event);
  void TellSubscription(const room::SubscriptionStarted& event);
  void TellData(const room::DataPacket& packet);
  void TellDisconnected(const room::Disconnected& event);
  void TellParticipant(const lk::ParticipantInfo& info);
  lk::ParticipantInfo* Known(const std::string& identity);
  void Unhear(const std::string& track_sid);

  void OnMediaClosed(const std::string& why);
  void OnData(const std::string& label, const std::string& message);
  void SendPacket(const lk::DataPacket& packet, bool reliable);
  void SendResponse(const lk::SignalResponse& response);
  // Says why, and ends. `action`: what the client shall do.
  void Dismiss(lk::DisconnectReason reason, lk::LeaveRequest::Action action);

  const std::shared_ptr<Host> host_;
  const std::shared_ptr<Media> media_;
  const std::shared_ptr<webrtc::Peer> peer_;
  std::atomic<int> waiting_{0};  // on the strand

  // On the strand.
  webrtc::Negotiation negotiation_;
  lk::JoinRequest join_;
  bool asked_ = false;
  bool over_ = false;
  bool json_ = false;
  bool offer_wanted_ = false;    // the client was asked for one that has not come
  size_t missing_sections_ = 0;  // when it was asked
  std::shared_ptr<room::Participant> participant_;
  std::vector<lk::SignalRequest> early_;
  std::map<std::string, uint32_t> own_by_cid_;         // index of the published track
  std::map<std::string, bool> own_muted_;              // by sid, as the client asked last
  std::map<std::string, uint32_t> heard_by_sid_;       // number of the track
  std::map<std::string, lk::ParticipantInfo> others_;  // by identity; oneself included
  std::string own_identity_;
  TextStreams text_;

  // In calls of the room, which come one at a time.
  std::map<uint32_t, Heard> heard_;
  std::atomic<int> transcoding_{0};  // frames waiting on the strand
};

}  // namespace parley::room_server
