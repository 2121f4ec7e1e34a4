#pragma once
// What a server's Stop() waits for. Internal to `http`.
#include <absl/time/time.h>

#include "base/clock.h"
#include "base/mutex.h"

namespace parley::http {

// Handlers and the loop outlive each other in any order: they meet here.
struct Gate {
  Mutex mutex;
  CondVar idle;
  bool open ABSL_GUARDED_BY(mutex) = true;
  int running ABSL_GUARDED_BY(mutex) = 0;

  bool Enter() {
    MutexLock lock(&mutex);
    if (open) ++running;
    return open;
  }
  void Leave() {
    MutexLock lock(&mutex);
    if (--running == 0) idle.SignalAll();
  }
  void CloseAndWait() {
    MutexLock lock(&mutex);
    open = false;
    while (running > 0) idle.Wait(&mutex);
  }
};

// Requests under way: Stop() waits for them to be answered.
class Requests {
 public:
  void Began() {
    MutexLock lock(&mutex_);
    ++count_;
  }
  void Ended() {
    MutexLock lock(&mutex_);
    if (--count_ == 0) none_.SignalAll();
  }
  void WaitForNone(absl::Duration timeout) {
    const int64_t until_us = Clock::Real().MonotonicMicros() + absl::ToInt64Microseconds(timeout);
    MutexLock lock(&mutex_);
    while (count_ > 0) {
      const int64_t left_us = until_us - Clock::Real().MonotonicMicros();
      if (left_us <= 0) return;
      none_.WaitFor(&mutex_, absl::Microseconds(left_us));
    }
  }

 private:
  Mutex mutex_;
  CondVar none_;
  int count_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace parley::http
