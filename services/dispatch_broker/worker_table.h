#pragma once
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/mutex.h"
#include "job/records.h"

namespace parley::dispatch_broker {

class WorkerSession;

// The streams of agent servers on this broker, by worker. Thread-safe; never blocks.
class WorkerTable {
 public:
  // Returns the session it replaces, if any.
  std::shared_ptr<WorkerSession> Put(const std::string& worker_id,
                                     std::shared_ptr<WorkerSession> session);
  // Only if the table still holds this session.
  void Remove(const std::string& worker_id, const WorkerSession* session);
  std::shared_ptr<WorkerSession> Find(std::string_view worker_id) const;
  std::vector<std::shared_ptr<WorkerSession>> All() const;
  std::vector<std::shared_ptr<WorkerSession>> OfPool(std::string_view pool) const;
  // Hands a message of the store to its worker's stream; drops it when that is not here any more
  // (the next register sends it again).
  void Deliver(const job::Message& message) const;

 private:
  mutable Mutex mutex_;
  std::map<std::string, std::shared_ptr<WorkerSession>, std::less<>> sessions_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace parley::dispatch_broker
