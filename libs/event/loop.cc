#include "event/loop.h"

#include <uv.h>

#include <ctime>
#include <deque>
#include <utility>

#include "base/check.h"
#include "base/mutex.h"

namespace parley::event {
namespace {

int64_t MonotonicMicros() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000 + now.tv_nsec / 1'000;
}

}  // namespace

struct Loop::Impl {
  uv_loop_t loop{};
  uv_async_t wake{};
  Mutex mutex;
  std::deque<std::function<void()>> posted ABSL_GUARDED_BY(mutex);
  bool stop ABSL_GUARDED_BY(mutex) = false;

  void RunPosted() {
    std::deque<std::function<void()>> work;
    bool stopping = false;
    {
      MutexLock lock(&mutex);
      work.swap(posted);
      stopping = stop;
      stop = false;
    }
    for (auto& one : work) one();
    if (stopping) uv_stop(&loop);
  }
};

Loop::Loop() : impl_(std::make_unique<Impl>()) {
  PARLEY_CHECK(uv_loop_init(&impl_->loop) == 0);
  PARLEY_CHECK(uv_async_init(&impl_->loop, &impl_->wake, [](uv_async_t* handle) {
                 static_cast<Impl*>(handle->data)->RunPosted();
               }) == 0);
  impl_->wake.data = impl_.get();
}

Loop::~Loop() {
  uv_close(reinterpret_cast<uv_handle_t*>(&impl_->wake), nullptr);
  uv_run(&impl_->loop, UV_RUN_DEFAULT);
  uv_loop_close(&impl_->loop);
}

void Loop::Run() {
  impl_->RunPosted();
  uv_run(&impl_->loop, UV_RUN_DEFAULT);
}

void Loop::Stop() {
  {
    MutexLock lock(&impl_->mutex);
    impl_->stop = true;
  }
  uv_async_send(&impl_->wake);
}

void Loop::Post(std::function<void()> work) {
  {
    MutexLock lock(&impl_->mutex);
    impl_->posted.push_back(std::move(work));
  }
  uv_async_send(&impl_->wake);
}

int Loop::Turn() {
  uv_run(&impl_->loop, UV_RUN_NOWAIT);
  int handles = -1;  // the loop's own
  uv_walk(
      &impl_->loop, [](uv_handle_t*, void* count) { ++*static_cast<int*>(count); }, &handles);
  return handles;
}

int64_t Loop::NowMicros() const { return MonotonicMicros(); }
void* Loop::native() { return &impl_->loop; }

struct Timer::Impl {
  uv_timer_t timer{};
  std::function<void()> callback;
  int64_t interval_us = 0;
  int64_t next_us = 0;

  void Arm() {
    const int64_t wait_us = next_us - MonotonicMicros();
    uv_update_time(timer.loop);
    uv_timer_start(
        &timer, [](uv_timer_t* handle) { static_cast<Impl*>(handle->data)->Fire(); },
        wait_us <= 0 ? 0 : static_cast<uint64_t>((wait_us + 999) / 1000), 0);
  }
  void Fire() {
    if (interval_us > 0) {
      next_us += interval_us;
      Arm();
    }
    const auto call = callback;  // the callback may restart or stop this timer
    call();
  }
};

Timer::Timer(Loop& loop) : impl_(new Impl) {
  uv_timer_init(&loop.impl_->loop, &impl_->timer);
  impl_->timer.data = impl_;
}

Timer::~Timer() {
  uv_close(reinterpret_cast<uv_handle_t*>(&impl_->timer),
           [](uv_handle_t* handle) { delete static_cast<Impl*>(handle->data); });
}

void Timer::StartOnce(absl::Duration delay, std::function<void()> callback) {
  impl_->callback = std::move(callback);
  impl_->interval_us = 0;
  impl_->next_us = MonotonicMicros() + absl::ToInt64Microseconds(delay);
  impl_->Arm();
}

void Timer::StartRepeating(absl::Duration interval, std::function<void()> callback) {
  impl_->callback = std::move(callback);
  impl_->interval_us = absl::ToInt64Microseconds(interval);
  impl_->next_us = MonotonicMicros() + impl_->interval_us;
  impl_->Arm();
}

void Timer::Stop() { uv_timer_stop(&impl_->timer); }

struct FdWatcher::Impl {
  uv_poll_t poll{};
  std::function<void(bool, bool)> callback;
};

FdWatcher::FdWatcher(Loop& loop, int fd) : impl_(new Impl) {
  PARLEY_CHECK(uv_poll_init(&loop.impl_->loop, &impl_->poll, fd) == 0);
  impl_->poll.data = impl_;
}

FdWatcher::~FdWatcher() {
  uv_poll_stop(&impl_->poll);
  uv_close(reinterpret_cast<uv_handle_t*>(&impl_->poll),
           [](uv_handle_t* handle) { delete static_cast<Impl*>(handle->data); });
}

void FdWatcher::Start(bool readable, bool writable, std::function<void(bool, bool)> callback) {
  impl_->callback = std::move(callback);
  const int events = (readable ? UV_READABLE | UV_DISCONNECT : 0) | (writable ? UV_WRITABLE : 0);
  uv_poll_start(&impl_->poll, events, [](uv_poll_t* handle, int status, int got) {
    const auto call =
        static_cast<Impl*>(handle->data)->callback;  // it may replace or destroy this watcher
    const bool broken = status < 0 || (got & UV_DISCONNECT) != 0;
    call(broken || (got & UV_READABLE) != 0, broken || (got & UV_WRITABLE) != 0);
  });
}

void FdWatcher::Stop() { uv_poll_stop(&impl_->poll); }

}  // namespace parley::event
