#pragma once
// Mirrors of rooms of external LiveKit servers: see connector.proto.
#include <parley/room/v1/connector.grpc.pb.h>

#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "room_server/data_streams.h"
#include "room_server/host.h"
#include "rpc/bidi.h"
#include "signalling/external_room.h"

namespace parley::room_server {

namespace lk = ::parley::livekit::v1;

// What connectors share. Must outlive them and their streams.
class ConnectorParts {
 public:
  //   as WebSocketClient::Start, ClientEngine::Start
  static absl::StatusOr<std::unique_ptr<ConnectorParts>> Start();

  const std::unique_ptr<http::WebSocketClient> sockets;
  const std::unique_ptr<webrtc::ClientEngine> engine;

 private:
  ConnectorParts(std::unique_ptr<http::WebSocketClient> s, std::unique_ptr<webrtc::ClientEngine> e)
      : sockets(std::move(s)), engine(std::move(e)) {}
};

class Connectors;

// One mirror. Everybody of the external room has a seat in the local one; a hidden watcher there
// sees and hears the agent. On the engine's loop but for what is said to be thread-safe.
class Connector final : public signalling::ExternalRoomObserver,
                        public std::enable_shared_from_this<Connector> {
 public:
  // How an owner hears of it. Calls come on the loop.
  using Tell = std::function<void(const room::v1::MirrorResponse& response)>;

  Connector(std::shared_ptr<Host> host, Connectors& connectors, std::shared_ptr<room::Room> room);
  ~Connector() override;

  // Thread-safe. Once.
  void Start(std::string url, std::string token);
  // Thread-safe. The owner from now on; what is known is said at once. Null: nobody.
  void Own(uint64_t owner, Tell tell);
  void Disown(uint64_t owner);
  // Thread-safe. Leaves the external room and ends the local one.
  void Stop();

  const std::shared_ptr<room::Room>& room() const { return room_; }

 private:
  class WatcherSink;
  class SeatSink;
  struct Remote {  // a track of the external room
    uint32_t index = 0;
    std::string local_sid;
    bool muted = false;
  };
  struct Seat {
    std::string sid;
    lk::ParticipantInfo info;
    std::shared_ptr<room::Participant> participant;
    std::map<std::string, Remote> tracks;  // by external sid
    DataStreams in;
    DataStreams out;
  };
  struct OwnTrack {  // a track of the agent's
    std::string local_sid;
    std::string sid;  // external; empty until it is published
  };
  struct Heard {
    room::Participant* participant = nullptr;
    uint32_t index = 0;
  };

  // signalling::ExternalRoomObserver
  void OnJoined(const lk::JoinResponse& joined) override;
  void OnParticipant(const lk::ParticipantInfo& participant) override;
  void OnRoom(const lk::Room& room) override;
  void OnPublished(const std::string& cid, const std::string& track_sid) override;
  void OnTrackHeard(const std::string& track_sid) override;
  void OnMuted(const std::string& track_sid, bool muted) override;
  void OnQuality(const lk::ConnectionQualityInfo& quality) override;
  void OnTrack(uint32_t tag, const std::string& track_sid) override;
  void OnAudio(uint32_t tag, const webrtc::AudioPacket& packet) override;
  void OnPacket(const lk::DataPacket& packet, bool reliable) override;
  void OnToken(const std::string& token) override;
  void OnClosed(const absl::Status& status, lk::DisconnectReason reason) override;

  void Post(std::function<void()> work);  // to the loop; any thread
  void Begin(const std::string& url, const std::string& token);
  void AddSeat(const lk::ParticipantInfo& info);
  void Unseat(const std::string& identity, room::LeaveReason reason);
  void UpdateSeat(Seat& seat, const lk::ParticipantInfo& info);
  void UpdateTracks(Seat& seat, const lk::ParticipantInfo& info);
  void ConnectTags();

  void OnRoomJoined(const room::Joined& joined);
  void OnRoomEvent(const room::Event& event);
  void OnAgent(const room::ParticipantInfo& agent);
  void OnAgentChanged(const room::ParticipantInfo& agent);
  void OnAgentLeft();
  void OnAgentTrack(const room::Track& track);
  void OnAgentTrackGone(const std::string& local_sid);
  // What the agent says to `to`; empty: to everybody.
  void SendOut(const room::Event& event, const std::string& to, DataStreams& streams);
  std::string OutIdentity(const std::string& identity) const;
  void TranslateTracks(google::protobuf::Map<std::string, std::string>* attributes) const;
  void SayAgent();
  void Say(const room::v1::MirrorResponse& response);
  void End(const absl::Status& status);
  void CheckAbandoned();

  const std::shared_ptr<Host> host_;
  Connectors& connectors_;
  const std::shared_ptr<room::Room> room_;
  event::Loop& loop_;

  std::shared_ptr<signalling::ExternalRoom> external_;
  std::shared_ptr<room::Participant> watcher_;
  std::unique_ptr<event::Timer> timer_;
  bool over_ = false;
  uint64_t owner_ = 0;
  Tell tell_;
  int64_t alone_since_us_ = 0;  // without an owner and an agent
  std::string own_identity_;    // in the external room
  std::string own_sid_;
  std::string token_;
  std::string agent_identity_;  // in the local room; empty: it is not there
  std::string agent_sid_;
  room::ParticipantInfo agent_;
  std::map<std::string, std::unique_ptr<Seat>> seats_;  // by identity
  DataStreams out_;                                     // to everybody
  std::map<uint32_t, OwnTrack> own_;                    // by number
  uint32_t last_own_ = 0;
  std::map<uint32_t, std::string> tags_;  // external track sid
  std::vector<Heard> heard_;              // by tag
  std::atomic<int> waiting_{0};

  // For frames: number of the published track, by the watcher's number of the subscription.
  static constexpr size_t kMaxHeard = 256;
  std::array<std::atomic<uint32_t>, kMaxHeard> outgoing_{};
  Mutex external_mutex_;
  std::shared_ptr<signalling::ExternalRoom> audio_ ABSL_GUARDED_BY(external_mutex_);
};

// All mirrors of this replica. Thread-safe.
class Connectors {
 public:
  explicit Connectors(ConnectorParts& parts) : parts_(parts) {}

  // The mirror of this local room; made, and started with these, when there is none.
  std::shared_ptr<Connector> FindOrStart(const std::shared_ptr<Host>& host,
                                         const std::shared_ptr<room::Room>& room,
                                         const std::string& url, const std::string& token);
  void Forget(const Connector& connector);
  ConnectorParts& parts() { return parts_; }

 private:
  ConnectorParts& parts_;
  Mutex mutex_;
  std::map<std::string, std::shared_ptr<Connector>> connectors_
      ABSL_GUARDED_BY(mutex_);  // by the local room's sid
};

// One owner's stream.
class MirrorStream final
    : public rpc::BidiSession<room::v1::MirrorRequest, room::v1::MirrorResponse> {
 public:
  MirrorStream(std::shared_ptr<Host> host, Connectors& connectors, bool is_service);

 private:
  void OnMessage(const room::v1::MirrorRequest& message) override;
  void OnHalfClose() override {}  // the owner goes on listening
  void OnClosed() override;
  void Open(const room::v1::OpenMirror& open);
  void OnOpened(const room::v1::OpenMirror& open, absl::StatusOr<room::Rooms::Opened> opened);

  const std::shared_ptr<Host> host_;
  Connectors& connectors_;
  const bool is_service_;
  const uint64_t number_;
  bool asked_ = false;
  bool over_ = false;
  std::shared_ptr<Connector> connector_;
};

class ConnectorServiceImpl final : public room::v1::ConnectorService::CallbackService {
 public:
  // `parts` must outlive the last stream.
  ConnectorServiceImpl(std::shared_ptr<Host> host, ConnectorParts& parts)
      : host_(std::move(host)), connectors_(parts) {}
  grpc::ServerBidiReactor<room::v1::MirrorRequest, room::v1::MirrorResponse>* Connect(
      grpc::CallbackServerContext* context) override;

 private:
  const std::shared_ptr<Host> host_;
  Connectors connectors_;
};

}  // namespace parley::room_server
