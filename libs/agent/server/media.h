#pragma once
// Rooms for jobs: one Attach stream per room server, shared by all jobs whose rooms are there,
// their audio batched. Redirects, broken streams and rooms that go on at another server, since
// theirs died or stopped, are dealt with here; a job sees joined, events and audio, and a last
// `disconnected`.
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "agent/server/metrics.h"
#include "event/loop.h"
#include "log/log.h"
#include "parley/room/v1/room.grpc.pb.h"
#include "rpc/bidi.h"

namespace parley::agent {

// Where a job's room news goes. Called on the loop.
class RoomSink {
 public:
  virtual ~RoomSink() = default;
  virtual void OnJoined(const parley::room::v1::Joined& joined) = 0;
  // Could not enter; the session is over.
  virtual void OnJoinFailed(const parley::room::v1::SessionClosed& why) = 0;
  // After `disconnected` the session is over.
  virtual void OnRoomEvent(const parley::room::v1::RoomEvent& event) = 0;
  virtual void OnRoomAudio(const parley::room::v1::SessionFrame& frame) = 0;
};

// Loop thread only.
class MediaHub {
 public:
  struct Options {
    std::string default_url;  // for rooms whose place is not known
    std::string worker_id;
    std::string instance;
    std::function<std::string()> token;  // of the stream
    absl::Duration flush_interval = absl::Milliseconds(10);
    // After so long a session is over: one that has not been in its room yet, and one that has. The
    // latter is to outlive the time after which a dead server's rooms go on elsewhere (6 s), and
    // what their people then take to come back.
    absl::Duration give_up = absl::Seconds(10);
    absl::Duration give_up_again = absl::Seconds(30);
  };
  MediaHub(std::shared_ptr<event::Loop> loop, Options options, AgentServerMetrics& metrics,
           log::Logger log);
  ~MediaHub();
  MediaHub(const MediaHub&) = delete;
  MediaHub& operator=(const MediaHub&) = delete;

  using Handle = uint64_t;  // 0 = none
  // How long before its time a session's audio may come: frames wait here and leave in time, those
  // of all sessions together.
  static constexpr absl::Duration kAudioAhead = absl::Milliseconds(240);
  // Enters the room that `room_token` is for. `sink` must live until the session is over or
  // Leave() was called. Never calls `sink` from within.
  Handle Join(RoomSink& sink, const std::string& media_url, const std::string& room_token,
              const parley::room::v1::JoinOptions& options);
  void Command(Handle handle, const parley::room::v1::ParticipantCommand& command);
  // `frame.session` is filled in here. Dropped while the session is not open. `due_us`: not before,
  // by the loop's clock; kAudioAhead and some away at most, else the frame is dropped and counted.
  void SendAudio(Handle handle, parley::room::v1::SessionFrame frame, int64_t due_us = 0);
  // Frames of this track of its own that wait for a time later than `after_us` are dropped.
  void CutAudio(Handle handle, uint32_t track_number, int64_t after_us);
  // Leaves the room; `sink` hears nothing any more. No effect on sessions that are over.
  void Leave(Handle handle, parley::room::v1::DisconnectReason reason);
  // Whether the session is open on a living stream just now.
  bool Connected(Handle handle) const;
  // While true no outage ends a session: nobody could be told, and nobody else could be sent.
  void KeepTrying(bool on);
  // This process goes on under a new worker id: streams are opened anew under it.
  void SetWorker(std::string worker_id, std::string instance);

 private:
  using Stream = rpc::ClientBidi<parley::room::v1::AttachRequest, parley::room::v1::AttachResponse>;
  struct Link;
  struct Session;

  Link& LinkTo(const std::string& url);
  void Connect(Link& link);
  void OnMessage(const std::string& url, uint64_t generation,
                 const parley::room::v1::AttachResponse& response);
  void OnBroken(const std::string& url, uint64_t generation, const absl::Status& status);
  void Open(Session& session);
  void Reopen(Session& session, absl::Duration delay);
  // The room is not, or no more, where it was: asks anew where it is.
  void AskAnew(Session& session);
  absl::Duration GiveUpAfter(const Session& session) const;
  void OnOpened(Session& session, const parley::room::v1::Joined& joined);
  void OnClosed(Session& session, const parley::room::v1::SessionClosed& closed);
  void OnEvent(Session& session, const parley::room::v1::RoomEvent& event);
  void OnFrames(Link& link, const parley::room::v1::FrameBatch& frames);
  // The session is over for its sink too.
  void Fail(Session& session, const parley::room::v1::SessionClosed& why);
  static void SayLeave(Link& link, uint32_t number, parley::room::v1::DisconnectReason reason);
  void Detach(Session& session);
  void Flush(Link& link);
  // Within a flush_interval of the flush before.
  void FlushSoon(Link& link, int64_t now_us);
  // Moves what is due by `until_us` to the link's batch.
  static void TakeDue(Link& link, Session& session, int64_t until_us);
  void Pace();
  void Sweep();

  const std::shared_ptr<event::Loop> loop_;
  Options options_;
  AgentServerMetrics& metrics_;
  const log::Logger log_;
  std::map<std::string, std::unique_ptr<Link>> links_;
  std::map<Handle, std::unique_ptr<Session>> sessions_;
  Handle last_handle_ = 0;
  std::set<Handle> ahead_;  // sessions with frames that wait for their time
  event::Timer pace_;       // runs only while there are any
  bool pacing_ = false;
  event::Timer sweep_;  // runs only while a session waits for its room server
  bool sweeping_ = false;
  bool keep_trying_ = false;
  std::shared_ptr<MediaHub*> self_ = std::make_shared<MediaHub*>(this);
};

}  // namespace parley::agent
