#pragma once
// What this broker acknowledged lately: creates, stop requests, recorded ends. A Redis that lost
// its last writes hears them again (script `replay`).
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "job_redis/journal.h"

namespace parley::job {

// Thread-safe; never blocks on anything but its lock. Bounded: what is older than 60 s goes (30
// times what a Redis with `appendfsync everysec` can lose), and the oldest when there are more than
// 200,000 facts or 128 MiB of them.
class Ring {
 public:
  explicit Ring(const Clock& clock = Clock::Real()) : clock_(clock) {}

  // Facts of an earlier process, oldest first, before any other.
  void Load(std::vector<JournalFact> facts);

  // `fact` in the form of the script's arguments.
  void Add(std::string_view pool, std::vector<std::string> fact);
  // Oldest first, so that jobs come back in their order.
  std::vector<std::vector<std::string>> Of(std::string_view pool);
  size_t size() const;
  std::vector<std::string> Pools() const;  // that it has facts of

 private:
  struct Entry {
    int64_t at_us = 0;
    size_t bytes = 0;
    std::string pool;
    std::vector<std::string> fact;
  };
  void Put(Entry entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Trim(int64_t now_us) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Clock& clock_;
  mutable Mutex mutex_;
  std::deque<Entry> entries_ ABSL_GUARDED_BY(mutex_);
  size_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace parley::job
