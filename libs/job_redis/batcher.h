#pragma once
// Callers that come while a call to the store is under way go together in the next one.
#include <absl/status/statusor.h>

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "redis/redis.h"

namespace parley::job {

// One per script and pool. Nobody waits for company: the first caller sends what there is at once;
// who comes meanwhile waits for that call and is in the next, at most `limit` weights of them.
// Thread-safe; Do() blocks for the call under way and its own. When the store is out of reach all
// who wait are told so at once: none of them waits for a time-out of its own. An error of the
// script's is told only to whom it is about: what went together is then sent alone.
class Batcher {
 public:
  struct Item {
    std::vector<std::string> arguments;
    size_t weight = 1;
    const void* tag = nullptr;  // the caller's own
    // Once done:
    absl::Status status;
    std::shared_ptr<const redis::Reply> reply;  // shared with those it went with
    size_t first = 0;                           // weights before it in that call

   private:
    friend class Batcher;
    bool done = false;
  };
  // Called by one thread at a time, without locks.
  using Send = std::function<absl::StatusOr<redis::Reply>(const std::vector<Item*>& items)>;

  Batcher(size_t limit, Send send) : limit_(limit), send_(std::move(send)) {}

  // Returns when all are done; they go in this order.
  void Do(std::vector<Item>& items);

 private:
  void SendNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Finish(const std::vector<Item*>& items, absl::StatusOr<redis::Reply> reply);

  const size_t limit_;
  const Send send_;
  Mutex mutex_;
  CondVar changed_;
  bool sending_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<Item*> waiting_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace parley::job
