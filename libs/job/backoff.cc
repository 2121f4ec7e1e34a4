#include "job/backoff.h"

#include <algorithm>
#include <cstdint>

namespace parley::job {

absl::Duration BackoffAfter(int attempt) {
  if (attempt <= 1) return absl::ZeroDuration();
  return absl::Seconds(std::min(30, 1 << std::min(attempt - 2, 5)));
}

double QueueScore(int priority, int64_t seq) {
  return static_cast<double>(9 - priority) * static_cast<double>(int64_t{1} << 45) +
         static_cast<double>(seq);
}

}  // namespace parley::job
