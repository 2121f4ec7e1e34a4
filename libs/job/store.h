#pragma once
#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "job/records.h"

namespace parley::job {

// Keeps dispatches, jobs, workers and their leases, and decides everything about them: callers only
// carry. Implementations are safe for concurrent use. Calls block for a round trip or two (below
// 1 ms when the store is well, at most about 0.5 s): never make them on an event loop or in a gRPC
// reaction.
//
// All calls may answer
//   Unavailable  (reason STORE_UNAVAILABLE) out of reach: the outcome of a write is unknown; the
//   same
//                call may be repeated, since calling twice is calling once
//   Unavailable  (reasons NOT_REPLICATED, JOURNAL_FAILED) stored, but not as safely as was asked
//   for: not acknowledged; say the same again
//   Unavailable  (reason STORE_RECOVERING) the store came back a moment ago and waits for reports
class JobStore {
 public:
  // Whom to tell. Called from inside the calls below, on their thread, before they return.
  struct Listener {
    // For a worker whose stream is on this broker. Must not block, nor call the store.
    std::function<void(const Message&)> message;
    // The store of `pool` was restarted or replaced: call Replay, ask the pool's workers for
    // reports, register them again, then call CheckedIn. Must not call the store.
    std::function<void(const std::string& pool)> recovering;
  };

  virtual ~JobStore() = default;

  // ---- dispatches and jobs ----

  // Ids of a pool, chosen before Create, so that a retry is the same create. Makes the pool when it
  // is new. ResourceExhausted: too many pools.
  virtual absl::StatusOr<std::string> NewDispatchId(const std::string& pool) = 0;
  virtual absl::StatusOr<std::string> NewJobId(const std::string& pool) = 0;

  struct Created {
    Dispatch dispatch;  // with its job; as stored before when the key or id was known
    bool existed = false;
  };
  // Durable when it answers, and matched if somebody is free.
  //   AlreadyExists (KEY_REUSED)  the idempotency key belongs to a different request
  //   ResourceExhausted (OVER_QUOTA)  too many wait: of the project, in the pool, or with different
  //                               selectors for one agent; or there are too many pools
  virtual absl::StatusOr<Created> Create(const NewDispatch& dispatch) = 0;

  // The same for many: one decision for each pool. One answer per dispatch, in order.
  virtual std::vector<absl::StatusOr<Created>> CreateMany(
      const std::vector<NewDispatch>& dispatches) = 0;

  // Who is in these rooms: brings and ends the jobs of dispatches that stay there, in every pool.
  // True for rooms that have any: say it again within 2 minutes, or the room counts as closed.
  virtual absl::StatusOr<std::vector<bool>> SetPresence(const std::vector<RoomPresence>& rooms) = 0;

  // NotFound: never was, or ended more than an hour ago. While the store recovers, what it does not
  // have may come back: STORE_RECOVERING.
  virtual absl::StatusOr<Dispatch> GetDispatch(std::string_view dispatch_id) = 0;
  virtual absl::StatusOr<Job> GetJob(std::string_view job_id) = 0;
  // For sending an offer or a go. Aborted: `token` is not the job's newest any more, or it ended.
  virtual absl::StatusOr<Assignment> GetAssignment(std::string_view job_id, uint64_t token) = 0;

  struct ListQuery {
    std::string project;
    std::string room;  // empty: any
    std::string agent_name;
    bool include_ended = false;
    int limit = 100;
    std::string after;  // `next` of the page before
  };
  template <typename T>
  struct Page {
    std::vector<T> items;  // newest first
    std::string next;      // empty: the end
  };
  // Of ended ones the newest 10,000 of a project and pool (1,000 of a room), for an hour. With an
  // `agent_name` a page costs up to 5,000 reads. InvalidArgument: `after` is not a page token.
  virtual absl::StatusOr<Page<Dispatch>> ListDispatches(const ListQuery& query) = 0;

  // Ends a job (AJ_…) or a dispatch with its job (AD_…). A running job is asked to stop and is over
  // within 10 s; any other is CANCELLED at once. No change to terminal ones. While the store
  // recovers, it is noted and done after that. NotFound.
  virtual absl::StatusOr<Dispatch> Terminate(std::string_view id) = 0;

  // Of a (job, token) that is leased; replaces the one before. Aborted: a newer token exists, or
  // the job ended. InvalidArgument: above 256 KiB.
  virtual absl::Status SaveCheckpoint(std::string_view job_id, uint64_t token,
                                      std::string_view blob) = 0;

  // Puts an event of type job_slow_STAGE or job_gave_up_STAGE into the stream of the job's pool.
  // Errors as SaveCheckpoint; InvalidArgument: a stage that is no word of a to z, 32 at most.
  virtual absl::Status NoteStall(std::string_view job_id, uint64_t token, std::string_view stage,
                                 bool given_up) = 0;

  // Begins to hand a RUNNING job over: reserves a slot at `worker_id` (empty: at the least loaded
  // that fits) and tells it. `token` 0: whoever has the job; else only that holder. The job then
  // has `next_worker_id`; nothing changes while it has.
  //   NotFound, Aborted            no such job; `token` is not its newest
  //   FailedPrecondition (NOT_RUNNING)
  //   ResourceExhausted (NO_WORKER)  nobody fits, or `worker_id` does not, or it goes to another
  //   one
  virtual absl::StatusOr<Job> Migrate(std::string_view job_id, uint64_t token,
                                      std::string_view worker_id) = 0;
  // The holder has paused: its checkpoint (empty: the one before stands) goes to the successor.
  // Errors as SaveCheckpoint.
  virtual absl::Status SaveLastCheckpoint(std::string_view job_id, uint64_t token,
                                          std::string_view blob, absl::Time paused_at) = 0;

  // Ended jobs whose room has not been told yet; some of them when there are many. Kept 10 minutes.
  virtual absl::StatusOr<std::vector<Fence>> Fences(std::string_view pool) = 0;
  // The room has it.
  virtual absl::Status ClearFence(std::string_view pool, const Fence& fence) = 0;

  // ---- workers ----

  struct Registered {
    std::vector<ResumeVerdict> verdicts;  // one per reported job
    bool recovering = false;              // reported ends were kept back: say them again as words
  };
  //   AlreadyExists (INSTANCE_MISMATCH)  another process uses this worker id
  //   Aborted (WORKER_REPLACED)          seq is not newer than the stored one, or the session ended
  virtual absl::StatusOr<Registered> Register(const Registration& registration) = 0;

  // What a worker says; one verdict per word, in order. Words of one worker come in order.
  virtual absl::StatusOr<std::vector<WordVerdict>> Apply(std::string_view pool,
                                                         std::string_view worker_id,
                                                         const std::vector<Word>& words) = 0;

  struct Renewed {
    std::vector<std::string> refused;  // replaced or ended
    std::vector<std::string> owing;    // unknown since the store came back: ask for their reports
  };
  // Heartbeats, as a batch.
  virtual absl::StatusOr<Renewed> Renew(std::string_view pool,
                                        const std::vector<Renewal>& renewals) = 0;

  // No more jobs for it. `tell`: send it the wish (the worker did not ask itself), to hand over
  // what still runs after that time; zero: as it is configured. NotFound.
  virtual absl::Status Drain(std::string_view pool, std::string_view worker_id,
                             std::optional<absl::Duration> tell) = 0;

  // True when this ended the session: its jobs are lost to it and matched again.
  // False: another or a newer session lives. PermissionDenied: wrong instance.
  virtual absl::StatusOr<bool> EndSession(std::string_view pool, std::string_view worker_id,
                                          std::string_view instance, uint64_t connect_seq) = 0;

  // Sessions that have not ended. Empty pool: of all pools.
  virtual absl::StatusOr<std::vector<Worker>> ListWorkers(std::string_view pool) = 0;
  // The pool a worker that has not ended is in. NotFound.
  virtual absl::StatusOr<std::string> PoolOfWorker(std::string_view worker_id) = 0;

  // ---- pools ----

  // Which pool workers of this exact name are in; nullopt: none ever registered it.
  virtual absl::StatusOr<std::optional<std::string>> PoolOfName(std::string_view project,
                                                                std::string_view agent_name) = 0;
  virtual absl::StatusOr<std::vector<std::string>> Pools() = 0;
  // Replaces the limits of a pool; they hold for every broker, from this moment on.
  virtual absl::Status SetLimits(std::string_view pool, const PoolLimits& limits) = 0;

  struct TickResult {
    int pending = 0;
    absl::Duration oldest_pending = absl::ZeroDuration();
    int ended_sessions = 0;
    int expired = 0;    // queue deadlines
    bool idle = false;  // no workers, no jobs, no timers
  };
  // Fires what is due: deadlines, time-outs, leases, retention; then matches. Call 4 times a second
  // for each pool that is not idle.
  virtual absl::StatusOr<TickResult> Tick(std::string_view pool) = 0;

  struct PoolStats {
    int workers = 0;
    int slots = 0;
    int used = 0;
    int closed_slots = 0;  // free ones that take no job: draining, quiet or not accepting
    int jobs = 0;          // that workers hold; below `used` while given-up copies still end
    // Of `workers`, `slots` and `used`: those on their way out. Their jobs need no server any more.
    int draining_workers = 0;
    int draining_slots = 0;
    int draining_used = 0;
  };
  virtual absl::StatusOr<PoolStats> Stats(std::string_view pool) = 0;

  struct Replayed {
    int creates = 0;  // dispatches that the store had lost and has again
    int ends = 0;     // recorded ends that it had lost
  };
  // Says again what this store answered in the last 60 s: creates, stop requests, recorded ends.
  virtual absl::StatusOr<Replayed> Replay(std::string_view pool) = 0;
  // The pools that Replay has something to say about: after a start, those of an earlier process
  // that kept its facts on disk.
  virtual std::vector<std::string> Remembered() const = 0;
  // This broker has replayed, and has all reports of its workers in `pool`, after `recovering`.
  virtual absl::Status CheckedIn(std::string_view pool) = 0;

  // Waits at most `wait` for messages from other brokers to workers of these pools on this one, and
  // for events; hands messages to the listener and returns the pools that have new events.
  virtual absl::StatusOr<std::vector<std::string>> WaitInbox(const std::vector<std::string>& pools,
                                                             bool events, absl::Duration wait) = 0;

  // ---- brokers ----

  // Other brokers reach this one at `address`, host:port. Kept a minute: say it again before.
  virtual absl::Status Announce(std::string_view address) = 0;
  // Says that this version of the store's code is in use, and removes versions that no broker has
  // used for `unused`: each upgrade leaves one behind. How many were removed. A broker whose code
  // is removed all the same loads it again with its next call. Call it more often than `unused`.
  virtual absl::StatusOr<int> ForgetOldCode(absl::Duration unused) = 0;
  // The address of the broker that holds a worker's stream, or held it last. Empty when that is
  // this one, or one that has not been heard of for a minute. NotFound: the session has ended.
  virtual absl::StatusOr<std::string> BrokerOf(std::string_view worker_id) = 0;

  // ---- events ----

  // At most `limit` events of a pool after `position` ("" or "0": from the oldest kept), and where
  // to go on.
  struct EventBatch {
    std::vector<Event> events;
    std::string next;  // position of the last one looked at
  };
  virtual absl::StatusOr<EventBatch> ReadEvents(std::string_view pool, std::string_view position,
                                                int limit) = 0;
  // Position of the newest event of a pool; "0-0" when there is none.
  virtual absl::StatusOr<std::string> LastEvent(std::string_view pool) = 0;

  // ---- session records (7 days) ----

  // Merges: fields that are empty in `record` keep what is stored. An erased session stays erased.
  virtual absl::Status SaveSession(const SessionRecord& record) = 0;
  // The same for many, in one round trip for each project.
  virtual absl::Status SaveSessions(const std::vector<SessionRecord>& records) = 0;
  virtual absl::StatusOr<SessionRecord> GetSession(std::string_view project,
                                                   std::string_view session_id) = 0;  // NotFound
  virtual absl::StatusOr<Page<SessionRecord>> ListSessions(std::string_view project, int limit,
                                                           std::string_view after) = 0;
  virtual absl::Status EraseSession(std::string_view project, std::string_view session_id) = 0;
  // What else is kept of a session goes with its record: one entry for each, in order, true where
  // it was erased, or was `ended` longer ago than records are kept and has none any more.
  struct SessionEnd {
    std::string project;
    std::string session_id;
    absl::Time ended;
  };
  virtual absl::StatusOr<std::vector<bool>> SessionsGone(
      const std::vector<SessionEnd>& sessions) = 0;
};

}  // namespace parley::job
