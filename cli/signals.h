#pragma once
#include <atomic>

namespace parley::cli {

// True once SIGINT or SIGTERM came; a second one ends the process at once. Both must be blocked in
// all threads (service::BlockSignals). Call once.
const std::atomic<bool>& WatchSignals();

}  // namespace parley::cli
