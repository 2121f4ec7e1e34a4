#pragma once
// The one event loop (libuv underneath; nobody else includes it). Not fork-safe: make loops after a
// fork.
#include <absl/time/time.h>

#include <cstdint>
#include <functional>
#include <memory>

namespace parley::event {

class Loop {
 public:
  Loop();
  ~Loop();  // after Run() has returned; timers and watchers must be gone
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  // Runs until Stop(). The thread that calls it is the loop's thread.
  void Run();
  // Thread-safe; Run() returns after the current callback.
  void Stop();
  // Runs `work` on the loop's thread, in order. Thread-safe. Unbounded: callers bound what they
  // post.
  void Post(std::function<void()> work);
  // One round of what is due, without waiting; on the loop's thread, outside Run(). How many
  // handles there are besides the loop's own, those still closing included. For taking a library
  // apart that ran on native().
  int Turn();
  // CLOCK_MONOTONIC in microseconds, as of now.
  int64_t NowMicros() const;
  // The uv_loop_t, for libraries that run on a foreign loop.
  void* native();

 private:
  friend class Timer;
  friend class FdWatcher;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Calls back on the loop's thread. Use and destroy on the loop's thread only (or before Run / after
// Run).
class Timer {
 public:
  explicit Timer(Loop& loop);
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  void StartOnce(absl::Duration delay, std::function<void()> callback);  // restarts
  // Keeps to absolute time: a late call does not delay the ones after it.
  void StartRepeating(absl::Duration interval, std::function<void()> callback);
  void Stop();

 private:
  struct Impl;
  Impl* impl_;
};

// Watches a descriptor it does not own. Same thread rules as Timer.
class FdWatcher {
 public:
  FdWatcher(Loop& loop, int fd);
  ~FdWatcher();
  FdWatcher(const FdWatcher&) = delete;
  FdWatcher& operator=(const FdWatcher&) = delete;

  // Level-triggered. Replaces what was watched before. `callback(readable, writable)`; an error or
  // hang-up shows as both.
  void Start(bool readable, bool writable,
             std::function<void(bool readable, bool writable)> callback);
  void Stop();

 private:
  struct Impl;
  Impl* impl_;
};

}  // namespace parley::event
