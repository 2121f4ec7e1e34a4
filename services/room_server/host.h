#pragma once
// The rooms of this replica: opened under a claim in the directory, joined with tokens, closed when
// due; their agents asked for. Shared by all gRPC services of the room server.
#include <absl/status/statusor.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "auth/token.h"
#include "base/executor.h"
#include "base/mutex.h"
#include "room/rooms.h"
#include "room_redis/directory.h"
#include "room_server/admission_log.h"
#include "room_server/dispatcher.h"
#include "room_server/metrics.h"
#include "room_server/presence.h"
#include "room_server/room_config.h"
#include "room_server/room_server.h"
#include "room_server/ticker.h"
#include "room_server/turn.h"

namespace parley::room_server {

// What a verified token asks for.
struct Ticket {
  room::RoomOptions room;  // used if the join creates it
  room::JoinRequest join;
  std::vector<Wish> agents;  // without room_sid
  TraceContext trace;        // what the join belongs to
  auth::Claims claims;       // of the token
};

// The wish for an agent of a roomConfig.
Wish MakeWish(std::string project, std::string room, const auth::RoomAgent& agent);

// Thread-safe. Lives as long as the last stream: sessions hold it by shared_ptr.
class Host {
 public:
  // `context` must outlive it. InvalidArgument, NotFound: the admission log or the secret of the
  // relays cannot be opened, or the file of presets is not there or holds something else.
  static absl::StatusOr<std::shared_ptr<Host>> Create(const RoomServerConfig& config,
                                                      service::Context& context);
  ~Host();

  // The listener is open; from now on rooms can be opened.
  void Start(std::string media_url);
  // Refuses new rooms, waits until people have left or `drain` passed, and closes what is left,
  // which goes on at another server.
  void Drain(absl::Duration drain);
  // Ends the background threads. Idempotent.
  void Stop();

  // Reads a participant's token, for the calling thread's trace. Does not block.
  //   Unauthenticated with the cause
  absl::StatusOr<Ticket> ReadToken(std::string_view token) const;

  using Admitted = std::function<void(absl::StatusOr<std::shared_ptr<room::Participant>>)>;
  // Lets the ticket's holder in, opening the room if need be and asking for its agents. `done` is
  // called once: at once when the room is here, else from a thread that may block.
  //   as Room::Join, and FailedPrecondition (ROOM_ELSEWHERE, metadata media_url), Unavailable
  void Admit(Ticket ticket, std::shared_ptr<room::ParticipantSink> sink, Admitted done);

  // The calls below may block for a round trip to the store.

  // The room of this name: the one here, a new one, or one whose server died, as far as the
  // directory knows it: `created` means that nobody has asked for its agents yet.
  //   as Rooms::Open, and FailedPrecondition (ROOM_ELSEWHERE), Unavailable (STORE_UNAVAILABLE, or
  //   DRAINING: another server takes it)
  absl::StatusOr<room::Rooms::Opened> Open(const room::RoomOptions& options);
  // The room, if this replica has it. NotFound: nobody has; FailedPrecondition: ROOM_ELSEWHERE.
  absl::StatusOr<std::shared_ptr<room::Room>> Require(const std::string& project,
                                                      const std::string& name);
  absl::Status Delete(const std::string& project, const std::string& name);
  absl::StatusOr<std::vector<room_redis::ListedRoom>> ListEverywhere(const std::string& project);
  absl::Status Fence(const std::string& project, const std::string& name, const std::string& job_id,
                     uint64_t lowest_token);

  // Wishes for each agent, for the calling thread's trace; drops them when the room closed
  // meanwhile. Does not block. Until they are there the room keeps what is said.
  void WantAgents(room::Room& room, const std::vector<Wish>& wishes);
  // The same, waiting for the broker; the dispatch's id.
  absl::StatusOr<std::string> WantAgentNow(room::Room& room, Wish wish);

  room::Rooms& rooms() { return rooms_; }
  std::string media_url() const;
  RoomServerMetrics& metrics() { return metrics_; }
  service::Context& context() { return context_; }
  Executor& control() { return control_; }  // for work that may block
  Ticker& ticker() { return ticker_; }
  const TurnServers& turn() const { return turn_; }
  const RoomServerConfig& config() const { return config_; }
  const RoomPresets& presets() const { return presets_; }

 private:
  Host(const RoomServerConfig& config, service::Context& context,
       std::unique_ptr<AdmissionLog> admission_log, RoomPresets presets, TurnServers turn);

  absl::StatusOr<std::shared_ptr<room::Participant>> JoinHere(
      const Ticket& ticket, const std::shared_ptr<room::Room>& room, bool created,
      const std::shared_ptr<room::ParticipantSink>& sink);
  absl::StatusOr<std::shared_ptr<room::Participant>> OpenAndJoin(
      const Ticket& ticket, const std::shared_ptr<room::ParticipantSink>& sink);
  // `want` tells the dispatcher, and says whether the wish was new.
  void Expect(room::Room& room, Wish wish, const std::function<bool(Wish)>& want);
  absl::StatusOr<std::shared_ptr<room_redis::Directory>> directory() const;
  absl::Status Elsewhere(std::string_view name, const std::string& media_url) const;
  // What the directory is to know of a room, for this server's successor.
  std::string Summary(const room::RoomInfo& info) const;
  // `options`, or as the heritage says if that can be read.
  absl::StatusOr<room::Rooms::Opened> OpenTaken(const room::RoomOptions& options,
                                                const std::string& heritage);
  Mutex& StripeOf(const std::string& project, const std::string& name);
  // A room of ours is over: tell the dispatcher and the directory.
  void Forget(const room::Room& room);
  void LeaveDirectory();
  void Housekeep();
  void Heartbeats();
  void Heartbeat(room_redis::Directory& directory, const std::string& project);
  void UpdateGauges();

  const RoomServerConfig config_;
  service::Context& context_;
  RoomServerMetrics metrics_;
  const std::unique_ptr<AdmissionLog> admission_log_;
  const RoomPresets presets_;
  const TurnServers turn_;
  redis::Pool redis_;
  room::Rooms rooms_;
  Executor control_;
  Executor admissions_;  // of its own: a broker that is slow to answer CreateRoom delays no join
  Ticker ticker_;
  Dispatcher dispatcher_;
  PresenceReporter presence_;
  std::atomic<bool> draining_{false};

  // Opening and forgetting a room of one name happen one after the other.
  static constexpr size_t kStripes = 64;
  std::array<Mutex, kStripes> stripes_;

  mutable Mutex mutex_;
  CondVar wake_;
  std::string media_url_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<room_redis::Directory> directory_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> projects_ ABSL_GUARDED_BY(mutex_);  // with rooms of ours since the start
  // Rooms, by project, in which somebody was when the drain was over.
  std::map<std::string, std::vector<std::string>> left_behind_ ABSL_GUARDED_BY(mutex_);
  // Rooms that are over but could not be freed in the directory: (project, name).
  std::set<std::pair<std::string, std::string>> to_free_ ABSL_GUARDED_BY(mutex_);
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread housekeeper_;
};

}  // namespace parley::room_server
