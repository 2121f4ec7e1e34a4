#pragma once
#include <absl/time/time.h>

#include <cstdint>

#include "base/clock.h"
#include "base/mutex.h"

namespace parley::testing {

// Time that stands still until the test moves it. Thread-safe.
class FakeClock : public Clock {
 public:
  explicit FakeClock(absl::Time start = absl::FromUnixSeconds(1'800'000'000)) : now_(start) {}

  absl::Time Now() const override {
    MutexLock lock(&mutex_);
    return now_;
  }
  int64_t MonotonicMicros() const override {
    MutexLock lock(&mutex_);
    return monotonic_micros_;
  }

  void Advance(absl::Duration step) {
    MutexLock lock(&mutex_);
    now_ += step;
    monotonic_micros_ += absl::ToInt64Microseconds(step);
  }

 private:
  mutable Mutex mutex_;
  absl::Time now_ ABSL_GUARDED_BY(mutex_);
  int64_t monotonic_micros_ ABSL_GUARDED_BY(mutex_) = 1'000'000;
};

}  // namespace parley::testing
