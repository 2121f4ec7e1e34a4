#include "room_server/ticker.h"

#include <utility>

#include "base/clock.h"

namespace parley::room_server {

Ticker::Ticker(absl::Duration interval)
    : interval_us_(absl::ToInt64Microseconds(interval)), thread_([this] { Run(); }) {}

Ticker::~Ticker() { Stop(); }

void Ticker::Add(std::weak_ptr<Ticked> ticked) {
  MutexLock lock(&mutex_);
  ticked_.push_back(std::move(ticked));
}

void Ticker::Arm() {
  MutexLock lock(&mutex_);
  if (std::exchange(armed_, true)) return;
  wake_.Signal();
}

void Ticker::Stop() {
  {
    MutexLock lock(&mutex_);
    stopped_ = true;
    wake_.Signal();
  }
  if (thread_.joinable()) thread_.join();
}

void Ticker::Run() {
  int64_t next_us = Clock::Real().MonotonicMicros();
  std::vector<std::shared_ptr<Ticked>> due;
  while (true) {
    {
      MutexLock lock(&mutex_);
      while (!armed_ && !stopped_) wake_.Wait(&mutex_);
      int64_t now_us = Clock::Real().MonotonicMicros();
      // After a pause the grid starts anew; otherwise it stays where it was.
      next_us = now_us - next_us > 10 * interval_us_ ? now_us + interval_us_ : next_us;
      while (next_us <= now_us) next_us += interval_us_;
      while (!stopped_ && now_us < next_us) {
        wake_.WaitFor(&mutex_, absl::Microseconds(next_us - now_us));
        now_us = Clock::Real().MonotonicMicros();
      }
      if (stopped_) return;
      armed_ = false;
      for (const auto& weak : ticked_) {
        if (auto ticked = weak.lock()) due.push_back(std::move(ticked));
      }
      std::erase_if(ticked_, [](const auto& weak) { return weak.expired(); });
    }
    for (const auto& ticked : due) ticked->OnTick();
    due.clear();
  }
}

}  // namespace parley::room_server
