#pragma once
// What this broker knows of the pools: their numbers, their epochs, and the Redis that holds them.
#include <absl/status/statusor.h>

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/mutex.h"
#include "redis/redis.h"

namespace parley::job {

inline constexpr int kMaxPools = 10'000;

// Thread-safe. Calls block for a round trip when they learn something, else not at all.
class PoolTable {
 public:
  // `recovering` is called when a pool's store was restarted or replaced.
  PoolTable(redis::Pool& redis, std::function<void(const std::string& pool)> recovering);

  // The number of a pool; makes one. ResourceExhausted: too many pools.
  absl::StatusOr<std::string> TagOf(const std::string& pool);
  // NotFound: no pool has this number.
  absl::StatusOr<std::string> NameOf(const std::string& tag);
  // Unavailable: a newer version writes these records in a form that this one does not know.
  absl::StatusOr<std::vector<std::string>> All();
  // What an earlier process knew: the store is told it again if it has lost it.
  void Learn(const std::string& pool, const std::string& tag);

  // What a script of `pool` must run under: its epoch, on the server process that gave it out. A
  // server that was restarted or replaced is a new epoch, before any script touches its data.
  struct Ground {
    std::string epoch;
    std::string server;  // run_id
  };
  // Unavailable: as in All().
  absl::StatusOr<Ground> GroundOf(const std::string& pool, uint64_t highest_token);
  // A script answered STALE_EPOCH, or another server answers now: ask again.
  void Forget(const std::string& pool, const Ground& ground);

 private:
  struct State {
    Ground ground;      // epoch empty: ask
    std::string known;  // newest epoch that was ever answered
  };
  absl::Status RestoreNumbers();

  redis::Pool& redis_;
  const std::function<void(const std::string&)> recovering_;
  Mutex mutex_;
  std::map<std::string, std::string> tags_ ABSL_GUARDED_BY(mutex_);   // name → tag
  std::map<std::string, std::string> names_ ABSL_GUARDED_BY(mutex_);  // tag → name
  std::map<std::string, State> states_ ABSL_GUARDED_BY(mutex_);
  bool learned_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace parley::job
