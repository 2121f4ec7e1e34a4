#pragma once
#include <absl/status/status.h>
#include <absl/time/time.h>
#include <sys/types.h>

#include <memory>
#include <string>

#include "base/mutex.h"
#include "engines/pocketsphinx/control.h"
#include "engines/pocketsphinx/recogniser.h"
#include "event/loop.h"

namespace parley::engines {

// A running parley-stt-decoder: started when first needed, and again after it died. Its decoders
// die with it, and it ends when this process does. Thread-safe.
class DecoderProgram {
 public:
  // `loop` runs until after Stop().
  DecoderProgram(event::Loop& loop, std::string binary, ModelPaths models);
  ~DecoderProgram();

  // Starts it if need be and waits until its models are loaded.
  //   Unavailable       it cannot be started, or its models do not load: the text says why
  //   DeadlineExceeded  not loaded after `timeout`
  absl::Status EnsureLoaded(absl::Duration timeout);
  bool loaded() const;
  pid_t pid() const;  // 0 when it is not running

  // Forks a decoder that serves `fd` (borrowed: it gets a copy).
  //   Unavailable  the program has died since
  absl::Status Open(const ControlMessage& message, int fd);
  // Ends that decoder, whatever it is doing.
  void Kill(uint64_t stream);
  // On the loop's thread. No calls after it.
  void Stop();

 private:
  enum class State { kIdle, kLoading, kLoaded };
  absl::Status Start() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Spawn(int child_end) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Send(const ControlMessage& message, int attached)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Watch(uint64_t generation);
  void OnReadable(uint64_t generation);
  void End(absl::Status why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  event::Loop& loop_;
  const std::string binary_;
  const ModelPaths models_;
  std::unique_ptr<event::FdWatcher> watcher_;  // the loop's thread only
  mutable Mutex mutex_;
  CondVar changed_;
  State state_ ABSL_GUARDED_BY(mutex_) = State::kIdle;
  uint64_t generation_ ABSL_GUARDED_BY(mutex_) = 0;  // of the process
  int control_ ABSL_GUARDED_BY(mutex_) = -1;
  pid_t pid_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status why_ended_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace parley::engines
