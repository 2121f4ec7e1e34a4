#pragma once
#include <absl/status/status.h>

#include <cstdint>
#include <list>
#include <map>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/mutex.h"

namespace parley::api_server {

// So many calls a minute for each key; a key that was quiet for a minute may make them all at once.
// Remembers `max_keys`; when more come, the one that was quiet the longest begins anew.
// Thread-safe; never blocks.
class RateLimit {
 public:
  // 0 = any number. `clock` must outlive it.
  RateLimit(int per_minute, const Clock& clock, size_t max_keys = 10'000);

  // ResourceExhausted (reason RATE_LIMITED, metadata retry_after_ms): that was one too many.
  absl::Status Take(std::string_view key);

 private:
  struct Bucket {
    std::string key;
    double left = 0;  // calls
    int64_t at_us = 0;
  };
  const int per_minute_;
  const Clock& clock_;
  const size_t max_keys_;
  Mutex mutex_;
  std::list<Bucket> buckets_ ABSL_GUARDED_BY(mutex_);  // latest first
  std::map<std::string, std::list<Bucket>::iterator, std::less<>> by_key_ ABSL_GUARDED_BY(mutex_);
};

// What stands for a client: its IPv4 address, or the half of an IPv6 address that it cannot choose.
std::string ClientKey(std::string_view address);

}  // namespace parley::api_server
