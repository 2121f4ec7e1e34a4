#include "job_redis/batcher.h"

#include <algorithm>

namespace parley::job {

void Batcher::Do(std::vector<Item>& items) {
  if (items.empty()) return;
  MutexLock lock(&mutex_);
  for (Item& item : items) waiting_.push_back(&item);
  while (!items.back().done) {  // the last one goes last
    if (sending_) {
      changed_.Wait(&mutex_);
    } else {
      SendNext();
    }
  }
}

void Batcher::SendNext() {
  std::vector<Item*> batch;
  size_t weight = 0;
  while (!waiting_.empty() && (batch.empty() || weight + waiting_.front()->weight <= limit_)) {
    batch.push_back(waiting_.front());
    weight += batch.back()->weight;
    waiting_.pop_front();
  }
  sending_ = true;
  mutex_.Unlock();
  absl::StatusOr<redis::Reply> reply = send_(batch);
  const bool away = absl::IsUnavailable(reply.status());
  if (reply.ok() || away || batch.size() == 1) {
    Finish(batch, reply);
  } else {
    for (Item* item : batch) Finish({item}, send_({item}));
  }
  mutex_.Lock();
  sending_ = false;
  if (away) {
    for (Item* item : waiting_) item->status = reply.status();
    batch.insert(batch.end(), waiting_.begin(), waiting_.end());
    waiting_.clear();
  }
  for (Item* item : batch) item->done = true;
  changed_.SignalAll();
}

void Batcher::Finish(const std::vector<Item*>& items, absl::StatusOr<redis::Reply> reply) {
  const absl::Status status = reply.status();
  std::shared_ptr<const redis::Reply> shared;
  if (reply.ok()) shared = std::make_shared<const redis::Reply>(*std::move(reply));
  size_t first = 0;
  for (Item* item : items) {
    item->status = status;
    item->reply = shared;
    item->first = first;
    first += item->weight;
  }
}

}  // namespace parley::job
