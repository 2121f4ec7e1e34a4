#pragma once
#include <functional>

#include "base/mutex.h"
#include "event/loop.h"

namespace parley::agent {

// How threads of the program reach the loop, which may be gone before they are. Thread-safe.
// Bounded: a program that asks faster than the loop can do loses what it asks.
class Mailbox {
 public:
  explicit Mailbox(event::Loop* loop) : loop_(loop) {}

  // False, and `work` is dropped: the job is over, or too much waits.
  bool Post(std::function<void()> work) {
    MutexLock lock(&mutex_);
    if (loop_ == nullptr || waiting_ >= kMaxWaiting) return false;
    ++waiting_;
    loop_->Post([this, work = std::move(work)] {
      {
        MutexLock done(&mutex_);
        --waiting_;
      }
      work();
    });
    return true;
  }
  void Close() {
    MutexLock lock(&mutex_);
    loop_ = nullptr;
  }

 private:
  static constexpr int kMaxWaiting = 4096;
  Mutex mutex_;
  event::Loop* loop_ ABSL_GUARDED_BY(mutex_);
  int waiting_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace parley::agent
