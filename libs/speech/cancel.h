#pragma once
#include <absl/time/time.h>

#include "base/mutex.h"

namespace parley::speech {

// Tells blocking engine work that nobody wants its result any more. One side cancels, the other
// asks or sleeps. Thread-safe. Share it: whoever may cancel must not outlive it.
class Cancellation {
 public:
  Cancellation() = default;
  Cancellation(const Cancellation&) = delete;
  Cancellation& operator=(const Cancellation&) = delete;

  void Cancel();  // idempotent; wakes sleepers
  bool cancelled() const;
  // True when cancelled before `duration` passed. How engines wait for time.
  bool SleepFor(absl::Duration duration) const;

 private:
  mutable Mutex mutex_;
  mutable CondVar wake_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace parley::speech
