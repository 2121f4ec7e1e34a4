#pragma once
#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "auth/token.h"
#include "base/executor.h"
#include "room_server/data_streams.h"
#include "room_server/host.h"
#include "room_server/rtc_stream.h"
#include "room_server/signal_codec.h"
#include "room_server/transcoder.h"
#include "webrtc/engine.h"

namespace parley::room_server {

// One participant with a LiveKit SDK: its signalling comes on an RtcStream, its media on a peer
// connection (/rtc/v1) or on two, one each way (/rtc). An adapter between these and libs/room. The
// room holds it; when its stream breaks it waits `rtc.resume` for another.
class RtcSession final : public room::ParticipantSink,
                         public std::enable_shared_from_this<RtcSession> {
 public:
  // `engine` must outlive the stream that makes it.
  RtcSession(std::shared_ptr<Host> host, webrtc::Engine& engine,
             std::shared_ptr<RtcSessions> sessions, bool two_connections);
  ~RtcSession() override;

  // First call, once.
  void Join(std::shared_ptr<RtcStream> stream, Ticket ticket, lk::JoinRequest join);
  // Thread-safe, as all below. The client is back, on another stream.
  void Resume(std::shared_ptr<RtcStream> stream, const Ticket& ticket, const lk::JoinRequest& join);
  void OnRequest(std::shared_ptr<RtcStream> stream, lk::SignalRequest request);
  void OnStreamClosed(std::shared_ptr<RtcStream> stream);

  // room::ParticipantSink, under the room's lock.
  void OnJoined(const room::Joined& joined) override;
  void OnEvent(const room::Event& event) override;
  void OnFrame(uint32_t track_number, const room::Frame& frame) override;
  void OnPictureWanted(uint32_t index, uint8_t layer) override;
  bool TakesOpaque() const override { return true; }
  bool SaysWhenItHears() const override { return true; }

 private:
  // What a peer connection says, on the engine's thread. Holds the session weakly: the engine may
  // be the last to let go of it.
  class Media final : public webrtc::PeerObserver {
   public:
    // Before the peer connection carries anything.
    void Bind(std::weak_ptr<RtcSession> session) { session_ = std::move(session); }
    // Frames go to this seat from now on.
    void Seat(std::shared_ptr<room::Participant> participant);

    void OnConnected() override;
    void OnAudio(uint32_t tag, const webrtc::AudioPacket& packet) override;
    void OnVideo(uint32_t tag, const webrtc::VideoPacket& packet) override;
    void OnPictureWanted(uint32_t track, uint8_t layer) override;
    void OnChannelOpen(std::string_view) override {}
    void OnData(std::string_view label, webrtc::Bytes message) override;
    void OnLink(const webrtc::LinkFigures& figures) override;
    void OnClosed(std::string_view why) override;

   private:
    std::shared_ptr<room::Participant> participant() const;

    std::weak_ptr<RtcSession> session_;
    mutable Mutex mutex_;
    std::shared_ptr<room::Participant> participant_ ABSL_GUARDED_BY(mutex_);
  };

  struct Heard {  // a track we send to the client
    std::string sid;
    bool video = false;
    std::shared_ptr<Transcoder> transcoder;  // null: frames pass as they are
  };

  // ---- rtc_session.cc; on the strand unless said otherwise ----
  // Any thread. Does `work` on the strand unless too much waits there already: then the client is
  // lost.
  void Later(std::function<void()> work);
  void Fail(const absl::Status& status);
  void Leave(std::string_view why);  // the connection is lost
  void OnAdmitted(absl::StatusOr<std::shared_ptr<room::Participant>> participant);
  void GoOn(const std::shared_ptr<RtcStream>& stream);
  void Do(const lk::SignalRequest& request);
  void AddTrack(const lk::AddTrackRequest& request);
  void TakeOffer(const lk::SessionDescription& offer);
  void TakeAnswer(const lk::SessionDescription& answer);
  void Subscribe(const lk::UpdateSubscription& request);
  void UpdateTrackSettings(const lk::UpdateTrackSettings& request);
  void UpdateSelf(const lk::UpdateParticipantMetadata& request);
  // Of the tracks that the client receives.
  void Hear(uint32_t number, const room::Track& track, const std::string& stream);
  // Tells the room what the client hears by now.
  void TellHeard();
  void Unhear(const std::string& track_sid);
  void Renegotiate();
  void AskForOffer();
  void MakeOffer();

  void OnMediaClosed(const std::string& why);
  void OnLink(bool down, const webrtc::LinkFigures& figures);
  void OnData(const std::string& label, const std::string& message);
  void SendPacket(const lk::DataPacket& packet, bool reliable);
  void Send(const lk::SignalResponse& response);  // to nobody while the client is away
  void SendToken();

  // ---- rtc_events.cc ----
  void SendJoin(const room::Joined& joined);
  void SendResumed();
  void Tell(const room::Event& event);
  void TellPublished(const room::TrackPublished& event);
  void TellUnpublished(const room::TrackUnpublished& event);
  void TellMuted(const room::TrackMuted& event);
  void TellLeft(const room::ParticipantLeft& event);
  void TellSubscription(const room::SubscriptionStarted& event);
  void TellData(const room::DataPacket& packet);
  void TellSpeakers(const room::SpeakersChanged& event);
  void TellQuality(const room::QualityChanged& event);
  void TellDisconnected(const room::Disconnected& event);
  void TellParticipant(const lk::ParticipantInfo& info);
  lk::ParticipantInfo* Known(const std::string& identity);

  const std::shared_ptr<Host> host_;
  const std::shared_ptr<RtcSessions> sessions_;
  Strand strand_;
  const bool two_connections_;
  // What the client receives on, and sends on: the same unless there are two.
  const std::shared_ptr<Media> down_media_;
  const std::shared_ptr<Media> up_media_;
  const std::shared_ptr<webrtc::Peer> down_;
  const std::shared_ptr<webrtc::Peer> up_;
  std::atomic<int> waiting_{0};  // on the strand
  std::atomic<bool> overflowed_{false};

  // On the strand.
  std::shared_ptr<RtcStream> stream_;  // null: the client is away
  int64_t away_since_us_ = 0;
  bool connected_ = false;           // media flowed
  bool down_connected_ = false;      // towards the client
  std::vector<uint32_t> placed_;     // tracks in the last description that both sides know
  webrtc::Negotiation negotiation_;  // of what the client offers
  webrtc::Offering offering_;        // to the client, with two connections
  lk::JoinRequest join_;
  auth::Claims claims_;
  bool over_ = false;
  bool offer_wanted_ = false;    // the client was asked for one that has not come
  size_t missing_sections_ = 0;  // when it was asked
  std::shared_ptr<room::Participant> participant_;
  std::vector<lk::SignalRequest> early_;
  std::map<std::string, uint32_t> own_by_cid_;         // index of the published track
  std::map<std::string, bool> own_muted_;              // by sid, as the client asked last
  std::map<std::string, uint32_t> heard_by_sid_;       // number of the track
  std::map<std::string, lk::ParticipantInfo> others_;  // by identity; oneself included
  lk::Room room_;
  std::string own_identity_;
  std::string own_sid_;
  DataStreams streams_;
  std::array<float, 2> opinion_{};  // of the connection down and up; 0 = not measured
  int64_t next_token_us_ = 0;

  // In calls of the room, which come one at a time.
  std::map<uint32_t, Heard> heard_;
  std::atomic<int> transcoding_{0};  // frames waiting on the strand
};

}  // namespace parley::room_server
