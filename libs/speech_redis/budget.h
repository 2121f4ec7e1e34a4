#pragma once
// What a provider allows for one key, shared by all replicas of a gateway: streams at once,
// requests and tokens a minute, fairly among projects.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "log/log.h"
#include "redis/redis.h"
#include "speech/cancel.h"

namespace parley::speech_redis {

struct BudgetLimits {  // 0 = any number
  int streams = 0;     // at once: recognisers that listen, sentences and answers being made
  int requests_per_minute = 0;
  int tokens_per_minute = 0;

  bool any() const { return streams > 0 || requests_per_minute > 0 || tokens_per_minute > 0; }
};

struct BudgetStats {
  int held = 0;
  int waiting = 0;
  int replicas = 0;  // that live, this one included
  uint64_t granted = 0;
  uint64_t refused = 0;
  bool reachable = false;  // Redis
};

struct BudgetOptions {
  std::string provider;  // names the budget: replicas that say the same share it
  BudgetLimits limits;
  // What a replica that died held is free after this.
  absl::Duration lease = absl::Milliseconds(1500);
  absl::Duration heartbeat = absl::Milliseconds(400);  // less than half of the lease
  // Of Acquire, at most; but Redis is always asked once (at most kLongestExchange).
  absl::Duration wait = absl::Milliseconds(500);
  size_t max_waiting = 4096;
  // Hears where things stand, at least with each heartbeat, on the budget's own thread: must not
  // block, nor call the budget. None: nobody does.
  std::function<void(const BudgetStats&)> told;
};

// Redis decides (exchange.lua); each replica tells it in one call what it holds and how many wait,
// as often as something changes, at least with each heartbeat. While Redis is away nobody knows
// more than what it held: for 5 s that much may go on being used, then the replica's even share. A
// replica that never reached Redis begins nothing. One that alone has lost Redis cannot be told
// from a dead one: then the others may begin what it still holds.
// Thread-safe. Must outlive its permits.
class Budget {
 public:
  // A place among what the provider allows; its destructor gives it back.
  class Permit {
   public:
    Permit(Budget& budget, std::string project, int64_t second, int64_t tokens);
    ~Permit();
    Permit(const Permit&) = delete;
    Permit& operator=(const Permit&) = delete;
    // The tokens that it took in the end, in place of what Acquire guessed. Once at most.
    void Settle(int64_t tokens);

   private:
    Budget& budget_;
    const std::string project_;
    const int64_t second_;  // of Redis' clock, when it was granted
    int64_t tokens_;
  };
  using Stats = BudgetStats;
  // A project's share when several want more than there is; at least 1.
  using WeightOf = std::function<int(std::string_view project)>;

  // `replica`: drawn at each start. `pool` outlives it.
  Budget(redis::Pool& pool, std::string replica, BudgetOptions options, WeightOf weight_of,
         log::Logger log);
  ~Budget();

  // Blocks until there is a place, at most `wait`; 1 ms when nobody else asks. With a `wait` of 0
  // whoever finds no place at once gets none. `tokens`: a guess.
  //   ResourceExhausted  no place (reason BUDGET_FULL, metadata provider, retry_after_ms)
  //   Cancelled          `cancel` fired
  absl::StatusOr<std::unique_ptr<Permit>> Acquire(const std::string& project, int64_t tokens,
                                                  const speech::Cancellation& cancel);
  Stats stats() const;
  const BudgetOptions& options() const { return options_; }

 private:
  struct Waiter {
    int64_t tokens = 0;
    uint64_t number = 0;
    bool granted = false;
    bool answered = false;  // Redis, or who stands in for it, had the choice
    int64_t second = 0;
    int64_t charged = 0;
    CondVar wake;
  };
  struct Project {
    int held = 0;
    std::deque<Waiter*> waiting;
  };
  struct Asked {  // of one exchange
    std::vector<std::string> arguments;
    std::vector<std::string> projects;
    std::vector<int64_t> costs;
    std::vector<std::pair<int64_t, int64_t>> corrections;
    uint64_t last_waiter = 0;  // asked for, as all before
  };
  // An exchange with a Redis that does not answer ends by its own deadline; this bounds what a
  // caller with no time to wait sees of it.
  static constexpr absl::Duration kLongestExchange = absl::Milliseconds(250);

  void Run();
  Asked Snapshot() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Apply(const Asked& asked, const redis::Reply& reply) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Redis is away.
  void GrantAlone() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Those who were asked for and got nothing know it now.
  void TellAnswered(uint64_t last_waiter) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Grant(Project& project, int64_t second, int64_t cost) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool RateAllows(int64_t tokens, int64_t now_us) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Release(const std::string& project);
  Stats Standing() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  int Held() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  int Waiting() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Full();

  redis::Pool& pool_;
  const std::string replica_;
  const BudgetOptions options_;
  const WeightOf weight_of_;
  const log::Logger log_;
  const std::string key_;

  mutable Mutex mutex_;
  CondVar changed_;
  bool dirty_ ABSL_GUARDED_BY(mutex_) = true;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<std::string, Project> projects_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::pair<int64_t, int64_t>> corrections_
      ABSL_GUARDED_BY(mutex_);  // second, tokens to add
  std::deque<std::pair<int64_t, int64_t>> lately_
      ABSL_GUARDED_BY(mutex_);  // of this replica: when (µs), tokens
  uint64_t last_waiter_ ABSL_GUARDED_BY(mutex_) = 0;
  int owned_ ABSL_GUARDED_BY(mutex_) = 0;           // as Redis last knew it
  int64_t reached_us_ ABSL_GUARDED_BY(mutex_) = 0;  // 0: never
  Stats stats_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace parley::speech_redis
