#pragma once
// Which server the connections of a pool lead to: the configured one, or the master that the
// sentinels name. Private to this library.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "redis/redis.h"

namespace parley::redis {

// Thread-safe. One thread asks the sentinels at a time, the others wait for its answer: at most
// 150 ms for each sentinel.
class MasterFinder {
 public:
  explicit MasterFinder(Config config);

  struct Master {
    std::string address;      // host:port, or unix:/path
    uint64_t generation = 0;  // rises when the address changes
  };
  // Asks when it has to: the first time, after Lost(), and once a second, so that a master that was
  // replaced while it lives is left too. Unavailable: no sentinel answers, or none knows the name.
  absl::StatusOr<Master> Find();
  // The server of this generation failed or is no master any more.
  void Lost(uint64_t generation);
  bool follows_sentinels() const { return !config_.sentinels.empty(); }

 private:
  absl::StatusOr<std::string> Ask() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<std::string> AskOne(const std::string& sentinel) const;

  const Config config_;
  Mutex mutex_;
  Master master_ ABSL_GUARDED_BY(mutex_);
  bool lost_ ABSL_GUARDED_BY(mutex_) = true;
  size_t first_ ABSL_GUARDED_BY(mutex_) = 0;  // the sentinel that answered last
  int64_t next_ask_us_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace parley::redis
