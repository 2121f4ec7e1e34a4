#pragma once
// A seat in a room of somebody else's LiveKit server: joins as LiveKit's SDKs do (/rtc, one peer
// connection each way), publishes, hears, and comes back when the connection breaks.
#include <absl/status/status.h>
#include <absl/time/time.h>
#include <parley/livekit/v1/rtc.pb.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "http/websocket_client.h"
#include "webrtc/client_engine.h"

namespace parley::signalling {

namespace lk = ::parley::livekit::v1;

// What the room says. Calls come on the engine's loop: they must not block.
class ExternalRoomObserver {
 public:
  virtual ~ExternalRoomObserver() = default;
  // The first call; comes again when the seat had to be taken anew. Complete: who is not in it has
  // left, and what was published is published again by itself.
  virtual void OnJoined(const lk::JoinResponse& joined) = 0;
  // What changed of others or oneself; state DISCONNECTED: has left.
  virtual void OnParticipant(const lk::ParticipantInfo& participant) = 0;
  virtual void OnRoom(const lk::Room& room) = 0;
  // An own track: published, heard by somebody, muted by the server.
  virtual void OnPublished(const std::string& cid, const std::string& track_sid) = 0;
  virtual void OnTrackHeard(const std::string& track_sid) = 0;
  virtual void OnMuted(const std::string& track_sid, bool muted) = 0;
  virtual void OnQuality(const lk::ConnectionQualityInfo& quality) = 0;
  // Audio of this track comes under `tag` from now on.
  virtual void OnTrack(uint32_t tag, const std::string& track_sid) = 0;
  virtual void OnAudio(uint32_t tag, const webrtc::AudioPacket& packet) = 0;
  virtual void OnPacket(const lk::DataPacket& packet, bool reliable) = 0;
  // For later connections.
  virtual void OnToken(const std::string& token) = 0;
  // Last call.
  //   OK               the server ended it; `reason` says why
  //   Unauthenticated  the token is not accepted
  //   Unavailable      not reached, or lost and not come back in time
  virtual void OnClosed(const absl::Status& status, lk::DisconnectReason reason) = 0;
};

struct ExternalRoomOptions {
  std::string url;                             // ws://…, wss://…; http and https count as these
  std::string token;                           // of a participant
  absl::Duration give_up = absl::Seconds(60);  // without a connection
};

// On the engine's loop, but for SendAudio. Held by shared_ptr.
class ExternalRoom final : public std::enable_shared_from_this<ExternalRoom> {
 public:
  // `engine` and `sockets` must outlive it. The observer is held weakly.
  static std::shared_ptr<ExternalRoom> Join(webrtc::ClientEngine& engine,
                                            http::WebSocketClient& sockets,
                                            ExternalRoomOptions options,
                                            std::weak_ptr<ExternalRoomObserver> observer);
  ~ExternalRoom();

  // An Opus track; `number` names it in SendAudio. At most kMaxTracks.
  static constexpr size_t kMaxTracks = 16;
  void Publish(uint32_t number, const std::string& cid, const std::string& name,
               lk::TrackSource source);
  void Unpublish(uint32_t number);
  void SetMuted(uint32_t number, bool muted);
  // Own name, metadata, attributes ("" deletes). Said again after the seat was taken anew.
  void UpdateSelf(const lk::UpdateParticipantMetadata& change);
  // Thread-safe; no allocation. False: dropped.
  bool SendAudio(uint32_t number, uint32_t timestamp, uint32_t level, std::string_view payload);
  void SendPacket(lk::DataPacket packet, bool reliable);
  // Says goodbye. The observer hears nothing any more.
  void Leave();

 private:
  class Wire;
  class Media;
  struct Published {
    std::string cid;
    std::string name;
    lk::TrackSource source = lk::MICROPHONE;
    bool muted = false;
    std::string sid;  // empty: asked for
  };
  enum class Phase { kJoining, kJoined, kResuming, kOver };

  ExternalRoom(webrtc::ClientEngine& engine, http::WebSocketClient& sockets,
               ExternalRoomOptions options, std::weak_ptr<ExternalRoomObserver> observer);
  void Start();
  void Connect();
  void OnMessage(uint64_t wire, const http::WebSocketMessage& message);
  void OnWireClosed(uint64_t wire, const absl::Status& why);
  void Lost(const absl::Status& why);  // the connection; tries again
  void Rejoin();                       // the seat is gone; takes another
  bool GaveUp(const absl::Status& why);
  void End(const absl::Status& status, lk::DisconnectReason reason);
  void Tick();

  void Do(const lk::SignalResponse& response);
  void OnJoin(const lk::JoinResponse& join);
  void OnResumed();
  void OnLeave(const lk::LeaveRequest& leave);
  void OnOffer(const lk::SessionDescription& offer);
  void OnAnswer(const lk::SessionDescription& answer);
  void OnTrickle(const lk::TrickleRequest& trickle);
  void OnTrackPublished(const lk::TrackPublishedResponse& published);

  absl::Status OpenUp();
  absl::Status OpenDown(bool server_has_ice_lite);
  void ClosePeers();
  void AskToPublish(const Published& published);
  void MakeOffer();
  void SendCandidate(bool subscriber, const std::string& line);
  void OnData(std::string_view label, webrtc::Bytes message);
  void OnPeerLost(std::string_view why);
  void Send(const lk::SignalRequest& request);

  webrtc::ClientEngine& engine_;
  http::WebSocketClient& sockets_;
  const ExternalRoomOptions options_;
  const std::weak_ptr<ExternalRoomObserver> observer_;
  std::string token_;
  event::Timer timer_;

  Phase phase_ = Phase::kJoining;
  uint64_t wire_ = 0;                        // number of the connection; what others say is late
  std::shared_ptr<http::WebSocket> socket_;  // null: waits for the next attempt
  bool greeted_ = false;                     // the first message of this connection has come
  int attempts_ = 0;                         // since the last connection that went well
  int64_t next_attempt_us_ = 0;
  int64_t away_since_us_ = 0;
  int64_t dialled_us_ = 0;
  int64_t next_ping_us_ = 0;
  int64_t heard_us_ = 0;
  int64_t ping_every_us_ = 0;
  int64_t ping_timeout_us_ = 0;
  bool joined_once_ = false;
  std::string own_sid_;

  std::shared_ptr<webrtc::ClientPeer> up_;
  std::shared_ptr<webrtc::ClientPeer> down_;
  std::unique_ptr<webrtc::Offering> offering_;        // of up_
  std::unique_ptr<webrtc::Negotiation> negotiation_;  // of down_
  std::string remote_ufrag_;                          // of the last offer
  lk::SessionDescription last_offer_;
  lk::SessionDescription last_answer_;
  int64_t heal_after_us_ = 0;  // a path was lost: look again then

  std::map<uint32_t, Published> published_;
  lk::UpdateParticipantMetadata self_;  // all that was said of oneself
  uint32_t last_request_ = 0;
  uint32_t last_sequence_ = 0;            // of reliable packets
  std::map<std::string, uint32_t> tags_;  // by track sid
  uint32_t last_tag_ = 0;

  // For SendAudio.
  mutable Mutex audio_mutex_;
  std::shared_ptr<webrtc::ClientPeer> audio_peer_ ABSL_GUARDED_BY(audio_mutex_);
};

// The candidate of a TrickleRequest: "candidate:…". Empty: the end of them, or none.
std::string ReadCandidate(std::string_view candidate_init);
std::string WriteCandidate(std::string_view line);

}  // namespace parley::signalling
