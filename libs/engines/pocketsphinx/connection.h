#pragma once
#include <absl/status/status.h>
#include <absl/time/time.h>

#include <memory>
#include <string>
#include <string_view>

#include "base/mutex.h"
#include "engines/pocketsphinx/frames.h"
#include "event/loop.h"
#include "speech/stt.h"

namespace parley::engines {

// The gateway's end of one decoder's socket. Reads on the loop's thread, writes from any. Held by
// shared_ptr: the loop keeps it until it is closed.
class DecoderConnection : public std::enable_shared_from_this<DecoderConnection> {
 public:
  // How much audio may wait for a decoder that lags: 30 s.
  static constexpr size_t kMaxQueuedBytes = size_t{30} * 16000 * sizeof(int16_t);

  // Owns `fd`.
  DecoderConnection(event::Loop& loop, int fd, speech::SttSink sink);
  ~DecoderConnection();

  void Start();
  // Blocks until the decoder said that it is ready, or failed.
  absl::Status WaitReady(absl::Duration timeout);
  // Thread-safe, does not block. ResourceExhausted: the decoder lags by more than kMaxQueuedBytes.
  absl::Status Send(FrameType type, std::string_view payload);
  // The sink is not called after this has returned. Not from inside the sink. Idempotent.
  void Close();
  int pid() const;  // of the decoder; 0 until ready

 private:
  void Watch();
  void OnEvent(bool readable, bool writable);
  absl::Status Read();
  absl::Status Handle(const Frame& frame);
  void Flush() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Fail(const absl::Status& status);
  void Release();
  void Tell(speech::SttEvent event);

  event::Loop& loop_;
  std::unique_ptr<event::FdWatcher> watcher_;  // the loop's thread only, as reader_
  FrameReader reader_;
  Mutex sink_mutex_;
  speech::SttSink sink_ ABSL_GUARDED_BY(sink_mutex_);
  mutable Mutex mutex_;
  CondVar changed_;
  int fd_ ABSL_GUARDED_BY(mutex_);
  std::string outbox_ ABSL_GUARDED_BY(mutex_);
  bool ready_ ABSL_GUARDED_BY(mutex_) = false;
  int pid_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace parley::engines
