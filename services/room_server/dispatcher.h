#pragma once
// Asks the broker for the agents that rooms want. A wish is kept until a broker has confirmed or
// refused it, or its room is over: a broker outage delays an agent, it does not lose it.
#include <absl/status/statusor.h>
#include <absl/time/time.h>
#include <grpcpp/grpcpp.h>
#include <parley/dispatch/v1/dispatch.grpc.pb.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <thread>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/trace_context.h"
#include "log/log.h"
#include "room_server/metrics.h"

namespace parley::room_server {

// An agent wanted in a room.
struct Wish {
  std::string project;
  std::string room;
  std::string room_sid;
  std::string agent_name;  // empty: automatic dispatch
  std::string metadata;
  std::map<std::string, std::string> attributes;
  std::string deployment;
  bool never_restart = false;
  std::string session_id;
  std::string idempotency_key;  // default <room sid>/<agent name>, /<instance> if there is one
  std::string instance;         // not "": not the room's one, but another of the same name
  TraceContext trace;           // what it is wished for
  // Called once, when no agent will come of it: refused, or served by nobody. With the dispatcher's
  // lock held: return at once, call nothing of it. May be empty.
  std::function<void()> on_nobody;
};

// Thread-safe.
class Dispatcher {
 public:
  using TokenSource = std::function<std::string(const std::string& project)>;
  // Everything passed by reference must outlive it.
  Dispatcher(std::shared_ptr<grpc::Channel> channel, TokenSource tokens, RoomServerMetrics& metrics,
             log::Logger log, Clock& clock);
  ~Dispatcher();  // as Stop()

  // Each agent name and instance at most once per room; a second wish for it changes nothing. Does
  // not block. Says whether it was new.
  bool Want(Wish wish);
  // The same, and waits for the broker's answer (at most ~2 s): the dispatch's id. The id of an
  // agent that was wished for before is that of its first dispatch. On Unavailable and
  // DeadlineExceeded the wish stays and is retried; other errors of the broker end it. `added`, if
  // given: whether it was new.
  absl::StatusOr<std::string> WantNow(Wish wish, bool* added = nullptr);
  // The room's agents that a broker has confirmed: name → id of the dispatch. At most 64.
  std::map<std::string, std::string> Confirmed(const std::string& room_sid) const;
  // What another room server said so of this room before it died: these are not asked for again.
  void Inherit(const std::string& room_sid, const std::map<std::string, std::string>& confirmed);
  // The room is over: its wishes are dropped. What the broker confirmed ends by itself.
  void RoomClosed(const std::string& room_sid);
  // Cancels calls under way and waits for them. Nothing is sent any more.
  void Stop();

 private:
  struct Entry;
  struct Call;
  using Entries = std::map<std::string, std::shared_ptr<Entry>>;  // by agent name and instance

  // `added`, if given: whether it is new. Null: stopped.
  std::shared_ptr<Entry> AddLocked(Wish wish, bool* added = nullptr)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SendLocked(const std::shared_ptr<Entry>& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnAnswer(const std::shared_ptr<Call>& call, const grpc::Status& status);
  void SettleLocked(Entry& entry, const absl::Status& status, std::string dispatch_id)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RetryLoop();

  const TokenSource tokens_;
  RoomServerMetrics& metrics_;
  const log::Logger log_;
  Clock& clock_;
  const std::unique_ptr<dispatch::v1::DispatchService::Stub> stub_;

  mutable Mutex mutex_;
  CondVar changed_;
  std::map<std::string, Entries> rooms_ ABSL_GUARDED_BY(mutex_);  // by room sid
  // Confirmed by no broker yet.
  std::map<Entry*, std::shared_ptr<Entry>> pending_ ABSL_GUARDED_BY(mutex_);
  std::map<Call*, std::shared_ptr<Call>> calls_ ABSL_GUARDED_BY(mutex_);
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread retries_;
};

}  // namespace parley::room_server
