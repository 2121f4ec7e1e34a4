#pragma once
#include <absl/time/time.h>

#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace parley::room_server {

// Something that collects work and hands it on once a tick.
class Ticked {
 public:
  virtual ~Ticked() = default;
  // On the ticker's thread; must not block.
  virtual void OnTick() = 0;
};

// One thread that ticks in absolute time while somebody asked for it, and sleeps otherwise.
// Thread-safe.
class Ticker {
 public:
  explicit Ticker(absl::Duration interval);
  ~Ticker();  // as Stop()
  void Add(std::weak_ptr<Ticked> ticked);
  // Something is waiting: there will be a tick within one interval.
  void Arm();
  void Stop();  // idempotent
  absl::Duration interval() const { return absl::Microseconds(interval_us_); }

 private:
  void Run();

  const int64_t interval_us_;
  Mutex mutex_;
  CondVar wake_;
  std::vector<std::weak_ptr<Ticked>> ticked_ ABSL_GUARDED_BY(mutex_);
  bool armed_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace parley::room_server
