#pragma once
// job::JobStore in Redis: one script per decision (scripts/*.lua), reads as plain commands.
#include <absl/status/statusor.h>

#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "job/store.h"
#include "job_redis/batcher.h"
#include "job_redis/journal.h"
#include "job_redis/keys.h"
#include "job_redis/pools.h"
#include "job_redis/records.h"
#include "job_redis/ring.h"
#include "redis/redis.h"

namespace parley::job {

// What an acknowledgement stands on besides Redis' answer.
struct Durability {
  Journal* journal = nullptr;  // facts are on this disk, too; must outlive the store
  bool replica = false;        // creates and stop requests have reached a replica of Redis
};

class RedisJobStore : public JobStore {
 public:
  // `broker_id` names this process's inboxes: letters and digits, new with each process. `redis`
  // must outlive the store.
  RedisJobStore(redis::Pool& redis, std::string broker_id, Listener listener,
                Durability durability = {});
  ~RedisJobStore() override;

  // Ids of a pool, to be chosen before Create.
  absl::StatusOr<std::string> NewDispatchId(const std::string& pool) override;
  absl::StatusOr<std::string> NewJobId(const std::string& pool) override;

  absl::StatusOr<Created> Create(const NewDispatch& dispatch) override;
  std::vector<absl::StatusOr<Created>> CreateMany(
      const std::vector<NewDispatch>& dispatches) override;
  absl::StatusOr<std::vector<bool>> SetPresence(const std::vector<RoomPresence>& rooms) override;
  absl::StatusOr<Dispatch> GetDispatch(std::string_view dispatch_id) override;
  absl::StatusOr<Job> GetJob(std::string_view job_id) override;
  absl::StatusOr<Assignment> GetAssignment(std::string_view job_id, uint64_t token) override;
  absl::StatusOr<Page<Dispatch>> ListDispatches(const ListQuery& query) override;
  absl::StatusOr<Dispatch> Terminate(std::string_view id) override;
  absl::Status SaveCheckpoint(std::string_view job_id, uint64_t token,
                              std::string_view blob) override;
  absl::Status NoteStall(std::string_view job_id, uint64_t token, std::string_view stage,
                         bool given_up) override;
  absl::StatusOr<Job> Migrate(std::string_view job_id, uint64_t token,
                              std::string_view worker_id) override;
  absl::Status SaveLastCheckpoint(std::string_view job_id, uint64_t token, std::string_view blob,
                                  absl::Time paused_at) override;

  absl::StatusOr<std::vector<Fence>> Fences(std::string_view pool) override;
  absl::Status ClearFence(std::string_view pool, const Fence& fence) override;

  absl::StatusOr<Registered> Register(const Registration& registration) override;
  absl::StatusOr<std::vector<WordVerdict>> Apply(std::string_view pool, std::string_view worker_id,
                                                 const std::vector<Word>& words) override;
  absl::StatusOr<Renewed> Renew(std::string_view pool,
                                const std::vector<Renewal>& renewals) override;
  absl::Status Drain(std::string_view pool, std::string_view worker_id,
                     std::optional<absl::Duration> tell) override;
  absl::StatusOr<bool> EndSession(std::string_view pool, std::string_view worker_id,
                                  std::string_view instance, uint64_t connect_seq) override;
  absl::StatusOr<std::vector<Worker>> ListWorkers(std::string_view pool) override;
  absl::StatusOr<std::string> PoolOfWorker(std::string_view worker_id) override;

  absl::StatusOr<std::optional<std::string>> PoolOfName(std::string_view project,
                                                        std::string_view agent_name) override;
  absl::StatusOr<std::vector<std::string>> Pools() override;
  absl::Status SetLimits(std::string_view pool, const PoolLimits& limits) override;
  absl::StatusOr<TickResult> Tick(std::string_view pool) override;
  absl::StatusOr<PoolStats> Stats(std::string_view pool) override;
  absl::StatusOr<Replayed> Replay(std::string_view pool) override;
  std::vector<std::string> Remembered() const override;
  absl::Status CheckedIn(std::string_view pool) override;
  absl::StatusOr<std::vector<std::string>> WaitInbox(const std::vector<std::string>& pools,
                                                     bool events, absl::Duration wait) override;

  absl::Status Announce(std::string_view address) override;
  absl::StatusOr<int> ForgetOldCode(absl::Duration unused) override;
  absl::StatusOr<std::string> BrokerOf(std::string_view worker_id) override;

  absl::StatusOr<EventBatch> ReadEvents(std::string_view pool, std::string_view position,
                                        int limit) override;
  absl::StatusOr<std::string> LastEvent(std::string_view pool) override;

  absl::Status SaveSession(const SessionRecord& record) override;
  absl::Status SaveSessions(const std::vector<SessionRecord>& records) override;
  absl::StatusOr<SessionRecord> GetSession(std::string_view project,
                                           std::string_view session_id) override;
  absl::StatusOr<Page<SessionRecord>> ListSessions(std::string_view project, int limit,
                                                   std::string_view after) override;
  absl::Status EraseSession(std::string_view project, std::string_view session_id) override;
  absl::StatusOr<std::vector<bool>> SessionsGone(const std::vector<SessionEnd>& sessions) override;

 private:
  // A job that was made here and is about to be given to a worker of this broker.
  struct Fresh {
    std::string dispatch_id;
    std::unique_ptr<const Assignment> assignment;  // null: to be read
    bool changed = false;                          // it was stopped or revoked since
  };
  using OnReply = std::function<void(const redis::Reply&)>;

  // `acknowledged`: Unavailable (NOT_REPLICATED) when a replica was asked for and none has it.
  // Runs a script under the pool's epoch, once more when that was stale; delivers the messages in
  // element `messages` of its answer, after `before`, and goes on matching when element `more` is 1
  // (-1: none).
  absl::StatusOr<redis::Reply> Run(const redis::Function& script, const std::string& pool,
                                   const std::vector<std::string>& arguments, int more,
                                   int messages, const OnReply& before = nullptr,
                                   bool acknowledged = false);
  void Deliver(const std::string& pool, const redis::Reply& messages);
  void MatchOn(const std::string& pool);
  absl::Status FromRedis(const absl::Status& status) const;
  static absl::Status Recovering();
  absl::StatusOr<redis::Reply> Command(const std::vector<std::string>& arguments);
  absl::StatusOr<std::vector<redis::Reply>> Pipeline(
      const std::vector<std::vector<std::string>>& commands);
  // The pool that an id's tag names. NotFound when the id is none.
  absl::StatusOr<std::string> PoolOf(std::string_view id, std::string_view prefix);
  // What create.lua said of one dispatch: 8 parts from `at`.
  absl::StatusOr<Created> ToCreated(const NewDispatch& dispatch,
                                    const std::vector<redis::Reply>& parts, size_t at);
  absl::StatusOr<bool> TellPresence(const std::string& pool, const RoomPresence& presence);
  absl::Status NotePresence(const RoomPresence& room);
  absl::Status CatchUpPresence(const NewDispatch& dispatch);
  // Unavailable (STORE_RECOVERING): what was not found may come back.
  absl::Status CheckSettled(const std::string& pool);
  absl::StatusOr<Dispatch> ReadDispatch(const std::string& pool, std::string_view id);
  absl::StatusOr<std::vector<Dispatch>> ReadDispatches(const std::string& pool,
                                                       const std::vector<std::string>& ids);
  absl::StatusOr<std::vector<std::pair<int64_t, std::string>>> ListIds(const std::string& key,
                                                                       int64_t before_ms,
                                                                       int offset, int limit);
  absl::Status Keep(const std::string& pool, std::vector<std::string> fact);  // for a replay
  absl::Status Commit();
  absl::Status KeepCreate(const Dispatch& stored, std::vector<std::string> arguments);
  absl::Status KeepEnd(std::string_view pool, const Word& word, const WordVerdict& verdict);
  // `paused_ms` empty: not the last one.
  absl::Status SaveBlob(std::string_view job_id, uint64_t token, std::string_view blob,
                        const std::string& paused_ms);
  void Saw(uint64_t token);
  absl::StatusOr<redis::Reply> SendCreates(const std::string& pool,
                                           const std::vector<Batcher::Item*>& together);
  absl::StatusOr<redis::Reply> SendWords(const std::string& pool,
                                         const std::vector<Batcher::Item*>& together);
  // `send` is for the first call under this function and pool.
  Batcher& BatcherOf(const redis::Function& function, const std::string& pool, size_t limit,
                     Batcher::Send send);
  void MatchOnAfter(const std::string& pool, const std::vector<Batcher::Item>& items);
  void RememberJob(const NewDispatch& dispatch);
  void NoteFresh(const NewDispatch& dispatch, const redis::Reply* parts);
  void ForgetFresh(const std::string& job_id);
  // Null when it has to be read; its dispatch may be known even so. Gives it once.
  std::optional<Assignment> TakeFresh(std::string_view job_id, uint64_t token,
                                      std::string* dispatch_id);

  redis::Pool& redis_;
  const std::string broker_id_;
  const Listener listener_;
  const Durability durability_;
  PoolTable pools_;
  std::atomic<uint64_t> highest_token_{0};
  Ring ring_;
  Mutex batchers_mutex_;
  // By script and pool; none is ever removed.
  std::map<std::pair<std::string_view, std::string>, std::unique_ptr<Batcher>> batchers_
      ABSL_GUARDED_BY(batchers_mutex_);
  Mutex fresh_mutex_;
  std::map<std::string, Fresh, std::less<>> fresh_ ABSL_GUARDED_BY(fresh_mutex_);  // bounded
  std::deque<std::string> fresh_order_ ABSL_GUARDED_BY(fresh_mutex_);              // oldest first
  Mutex positions_mutex_;
  std::map<std::string, std::string> positions_ ABSL_GUARDED_BY(positions_mutex_);  // stream → id
};

}  // namespace parley::job
