#include "engines/pocketsphinx/connection.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/clock.h"
#include "base/status.h"

namespace parley::engines {

DecoderConnection::DecoderConnection(event::Loop& loop, int fd, speech::SttSink sink)
    : loop_(loop), sink_(std::move(sink)), fd_(fd) {}

DecoderConnection::~DecoderConnection() {
  MutexLock lock(&mutex_);
  if (fd_ >= 0) close(fd_);
}

void DecoderConnection::Start() {
  loop_.Post([self = shared_from_this()] { self->Watch(); });
}

absl::Status DecoderConnection::WaitReady(absl::Duration timeout) {
  const int64_t until = Clock::Real().MonotonicMicros() + absl::ToInt64Microseconds(timeout);
  MutexLock lock(&mutex_);
  while (!ready_ && failure_.ok()) {
    const int64_t left = until - Clock::Real().MonotonicMicros();
    if (left <= 0)
      return DeadlineExceeded("the recogniser was not ready after {} s",
                              absl::ToInt64Seconds(timeout));
    changed_.WaitFor(&mutex_, absl::Microseconds(left));
  }
  return failure_;
}

absl::Status DecoderConnection::Send(FrameType type, std::string_view payload) {
  MutexLock lock(&mutex_);
  PARLEY_RETURN_IF_ERROR(failure_);
  if (fd_ < 0) return Unavailable("the stream is closed");
  if (outbox_.size() + payload.size() > kMaxQueuedBytes) {
    return ResourceExhausted(
        "the recogniser lags behind by more than 30 s of audio; this host has too little CPU for "
        "its "
        "streams");
  }
  const bool idle = outbox_.empty();
  outbox_ += EncodeFrame(type, payload);
  if (idle) Flush();
  if (idle && !outbox_.empty()) {
    loop_.Post([self = shared_from_this()] { self->Watch(); });
  }
  return absl::OkStatus();
}

void DecoderConnection::Close() {
  {
    MutexLock lock(&sink_mutex_);
    sink_ = nullptr;
  }
  loop_.Post([self = shared_from_this()] { self->Release(); });
}

int DecoderConnection::pid() const {
  MutexLock lock(&mutex_);
  return pid_;
}

void DecoderConnection::Watch() {
  MutexLock lock(&mutex_);
  if (fd_ < 0) return;
  if (watcher_ == nullptr) watcher_ = std::make_unique<event::FdWatcher>(loop_, fd_);
  watcher_->Start(true, !outbox_.empty(),
                  [this, self = weak_from_this()](bool readable, bool writable) {
                    if (const auto alive = self.lock()) OnEvent(readable, writable);
                  });
}

void DecoderConnection::OnEvent(bool readable, bool writable) {
  if (readable) {
    if (const absl::Status status = Read(); !status.ok()) {
      Fail(status);
      return Release();
    }
  }
  if (!writable) return;
  {
    MutexLock lock(&mutex_);
    Flush();
    if (!outbox_.empty()) return;
  }
  Watch();
}

absl::Status DecoderConnection::Read() {
  char bytes[16 << 10];
  int fd = -1;
  {
    MutexLock lock(&mutex_);
    fd = fd_;  // closed on this thread only
  }
  const ssize_t got = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return absl::OkStatus();
  if (got <= 0) {
    return WithReason(
        Unavailable("the decoder process of this stream ended unexpectedly; open another stream"),
        "DECODER_LOST");
  }
  reader_.Append({bytes, static_cast<size_t>(got)});
  while (true) {
    PARLEY_ASSIGN_OR_RETURN(std::optional<Frame> frame, reader_.Next());
    if (!frame.has_value()) return absl::OkStatus();
    PARLEY_RETURN_IF_ERROR(Handle(*frame));
  }
}

absl::Status DecoderConnection::Handle(const Frame& frame) {
  switch (frame.type) {
    case FrameType::kReady: {
      PARLEY_ASSIGN_OR_RETURN(const uint64_t pid, DecodeUint(frame.payload));
      MutexLock lock(&mutex_);
      ready_ = true;
      pid_ = static_cast<int>(pid);
      changed_.SignalAll();
      return absl::OkStatus();
    }
    case FrameType::kPartial: {
      PARLEY_ASSIGN_OR_RETURN(speech::SttTranscript transcript, DecodeTranscript(frame.payload));
      Tell(speech::SttPartial{std::move(transcript)});
      return absl::OkStatus();
    }
    case FrameType::kFinal: {
      PARLEY_ASSIGN_OR_RETURN(speech::SttTranscript transcript, DecodeTranscript(frame.payload));
      Tell(speech::SttFinal{std::move(transcript)});
      return absl::OkStatus();
    }
    case FrameType::kError:
      return DecodeStatus(frame.payload);
    default:
      return Unavailable("the decoder process sent something unknown");
  }
}

void DecoderConnection::Flush() {
  while (!outbox_.empty() && fd_ >= 0) {
    const ssize_t sent = send(fd_, outbox_.data(), outbox_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return;  // full, or dead: reading will tell
    outbox_.erase(0, static_cast<size_t>(sent));
  }
}

void DecoderConnection::Fail(const absl::Status& status) {
  bool was_ready = false;
  {
    MutexLock lock(&mutex_);
    if (!failure_.ok()) return;
    failure_ = status;
    was_ready = ready_;
    changed_.SignalAll();
  }
  // Before ready the opener gets it as the result.
  if (was_ready) Tell(speech::SttFailed{status});
}

void DecoderConnection::Release() {
  watcher_.reset();
  MutexLock lock(&mutex_);
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
  outbox_.clear();
}

void DecoderConnection::Tell(speech::SttEvent event) {
  MutexLock lock(&sink_mutex_);
  if (sink_) sink_(std::move(event));
}

}  // namespace parley::engines
