#pragma once
#include <deque>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/executor.h"
#include "base/mutex.h"
#include "job/store.h"
#include "log/log.h"

namespace parley::dispatch_broker {

// Writes session records that nobody waits for, as many at once as have gathered while the store
// took those before; of one session the newer facts go over the older ones. Thread-safe; never
// blocks. `executor` must be stopped before it is destroyed, the others outlive it.
class SessionWriter {
 public:
  SessionWriter(Executor& executor, job::JobStore& store, const log::Logger& log)
      : executor_(executor), store_(store), log_(log) {}

  // Dropped, with a line in the log, when 100,000 wait.
  void Add(std::vector<job::SessionRecord> records);

 private:
  void Write();

  Executor& executor_;
  job::JobStore& store_;
  const log::Logger& log_;
  Mutex mutex_;
  std::unordered_map<std::string, job::SessionRecord> waiting_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::string> order_ ABSL_GUARDED_BY(mutex_);  // ids of those that wait
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace parley::dispatch_broker
