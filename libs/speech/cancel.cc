#include "speech/cancel.h"

#include <chrono>

namespace parley::speech {

void Cancellation::Cancel() {
  MutexLock lock(&mutex_);
  cancelled_ = true;
  wake_.SignalAll();
}

bool Cancellation::cancelled() const {
  MutexLock lock(&mutex_);
  return cancelled_;
}

bool Cancellation::SleepFor(absl::Duration duration) const {
  const auto until = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(duration);
  MutexLock lock(&mutex_);
  while (!cancelled_) {
    const auto left = until - std::chrono::steady_clock::now();
    if (left <= left.zero()) return false;
    wake_.WaitFor(&mutex_, absl::FromChrono(left));
  }
  return true;
}

}  // namespace parley::speech
