#pragma once
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace parley {

// A fixed number of threads and one bounded queue, for work that may block (a store, a file, an
// engine). Thread-safe.
class Executor {
 public:
  Executor(size_t threads, size_t capacity);
  ~Executor();  // as Stop()
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // False, and `work` is dropped, when the queue is full or the executor stopped: answer
  // RESOURCE_EXHAUSTED.
  [[nodiscard]] bool Post(std::function<void()> work);
  // For the next step of work that was already admitted: never refused for a full queue. False
  // after Stop().
  bool PostAdmitted(std::function<void()> work);
  // Runs what is queued, then joins. Idempotent. Not from one of its own threads.
  void Stop();
  size_t queued() const;

 private:
  void Run();

  const size_t capacity_;
  mutable Mutex mutex_;
  CondVar wake_;
  std::deque<std::function<void()>> queue_ ABSL_GUARDED_BY(mutex_);
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

// Runs closures one after another, in order, on an executor's threads: state touched only on a
// strand needs no lock. Thread-safe. May be destroyed while closures wait; they still run, so let
// them hold what they need.
class Strand {
 public:
  explicit Strand(Executor& executor);
  void Post(std::function<void()> work);
  // Work that neither blocks nor waits may be done by the thread that brings it, when nothing else
  // is under way: true, and the caller is the strand until Leave(); false: Post it. Spares a change
  // of threads.
  bool TryEnter();
  void Leave();

 private:
  struct State;
  static void Drain(const std::shared_ptr<State>& state);
  std::shared_ptr<State> state_;
};

}  // namespace parley
