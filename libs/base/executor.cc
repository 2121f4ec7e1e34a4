#include "base/executor.h"

#include <utility>

namespace parley {
namespace {

thread_local const Executor* current_executor = nullptr;  // whose thread this is

}  // namespace

Executor::Executor(size_t threads, size_t capacity) : capacity_(capacity) {
  threads_.reserve(threads);
  for (size_t i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
}

Executor::~Executor() { Stop(); }

bool Executor::Post(std::function<void()> work) {
  {
    MutexLock lock(&mutex_);
    if (stopped_ || queue_.size() >= capacity_) return false;
    queue_.push_back(std::move(work));
  }
  wake_.Signal();
  return true;
}

bool Executor::PostAdmitted(std::function<void()> work) {
  {
    MutexLock lock(&mutex_);
    // One of our own threads may always go on: it drains the queue before it ends.
    if (stopped_ && current_executor != this) return false;
    queue_.push_back(std::move(work));
  }
  wake_.Signal();
  return true;
}

void Executor::Stop() {
  {
    MutexLock lock(&mutex_);
    stopped_ = true;
  }
  wake_.SignalAll();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

size_t Executor::queued() const {
  MutexLock lock(&mutex_);
  return queue_.size();
}

void Executor::Run() {
  current_executor = this;
  while (true) {
    std::function<void()> work;
    {
      MutexLock lock(&mutex_);
      while (queue_.empty() && !stopped_) wake_.Wait(&mutex_);
      if (queue_.empty()) return;
      work = std::move(queue_.front());
      queue_.pop_front();
    }
    work();
  }
}

struct Strand::State {
  explicit State(Executor& e) : executor(e) {}
  Executor& executor;
  Mutex mutex;
  std::deque<std::function<void()>> queue ABSL_GUARDED_BY(mutex);
  bool running ABSL_GUARDED_BY(mutex) = false;
};

Strand::Strand(Executor& executor) : state_(std::make_shared<State>(executor)) {}

void Strand::Post(std::function<void()> work) {
  {
    MutexLock lock(&state_->mutex);
    state_->queue.push_back(std::move(work));
    if (state_->running) return;
    state_->running = true;
  }
  if (!state_->executor.PostAdmitted([state = state_] { Drain(state); })) {
    MutexLock lock(&state_->mutex);
    state_->running = false;
  }
}

bool Strand::TryEnter() {
  MutexLock lock(&state_->mutex);
  if (state_->running) return false;
  state_->running = true;
  return true;
}

void Strand::Leave() {
  {
    MutexLock lock(&state_->mutex);
    if (state_->queue.empty()) {
      state_->running = false;
      return;
    }
  }
  if (!state_->executor.PostAdmitted([state = state_] { Drain(state); })) {
    MutexLock lock(&state_->mutex);
    state_->running = false;
  }
}

void Strand::Drain(const std::shared_ptr<State>& state) {
  // A bounded number per turn, so that one busy strand does not hold a thread for itself.
  for (int i = 0; i < 64; ++i) {
    std::function<void()> work;
    {
      MutexLock lock(&state->mutex);
      if (state->queue.empty()) {
        state->running = false;
        return;
      }
      work = std::move(state->queue.front());
      state->queue.pop_front();
    }
    work();
  }
  state->executor.PostAdmitted([state] { Drain(state); });  // on its thread: never refused
}

}  // namespace parley
