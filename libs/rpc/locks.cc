#include "rpc/locks.h"

#include <absl/synchronization/mutex.h>

namespace parley::rpc {

void TurnOffDeadlockDetector() {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
}

}  // namespace parley::rpc
