#pragma once
#include <absl/time/time.h>

namespace parley::job {

// How long a job waits before it is queued again after its `attempt`-th attempt (from 1) was lost:
// 0, 1, 2, 4 … 30 s.
absl::Duration BackoffAfter(int attempt);

// Place in the queue: smaller goes first. Higher priority (0 to 9) first, then age: `seq` rises
// with each job of a pool and stays below 2^45, so that the sum is exact in a double.
double QueueScore(int priority, int64_t seq);

}  // namespace parley::job
