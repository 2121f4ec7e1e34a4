#include "agent/server/job_socket.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <limits>

#include "base/status.h"

namespace parley::agent {
namespace {

constexpr size_t kOutboxBytes = 8 << 20;
constexpr size_t kAudioBacklogBytes = 48 << 10;  // half a second of PCM16, far more of Opus
constexpr size_t kReadBytes = 64 << 10;
constexpr int kReadsPerWake = 4;  // then the other jobs' turn

}  // namespace

JobSocket::JobSocket(event::Loop& loop, supervise::UniqueFd fd, Callbacks callbacks)
    : loop_(loop),
      fd_(std::move(fd)),
      callbacks_(std::move(callbacks)),
      watcher_(std::make_unique<event::FdWatcher>(loop, fd_.get())) {
  Watch();
}

JobSocket::~JobSocket() {
  *alive_ = false;
  watcher_.reset();  // before the descriptor it watches
}

void JobSocket::Watch() {
  watching_writes_ = backlog() > 0;
  watcher_->Start(/*readable=*/true, watching_writes_,
                  [this](bool readable, bool writable) { OnReady(readable, writable); });
}

void JobSocket::OnReady(bool readable, bool writable) {
  const std::shared_ptr<bool> alive = alive_;
  if (writable) Flush();
  if (readable && *alive && !closed_) Read(kReadsPerWake);
}

void JobSocket::Drain() {
  if (!closed_) Read(std::numeric_limits<int>::max());
}

void JobSocket::Read(int reads) {
  const std::shared_ptr<bool> alive = alive_;
  char buffer[kReadBytes];
  for (int i = 0; i < reads; ++i) {
    const ssize_t got = recv(fd_.get(), buffer, sizeof(buffer), MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) return Close("");
    reader_.Append({buffer, static_cast<size_t>(got)});
    for (;;) {
      auto frame = reader_.Next();
      if (!frame.ok()) return Close(std::string(Message(frame.status())));
      if (!frame->has_value()) break;
      if (!ParseAgain(**frame, in_)) {
        return Close("a message that is not parley.job.v1.FromJob");
      }
      callbacks_.on_message(in_);
      if (!*alive || closed_) return;
    }
    // All there was, most likely; what was not, or its end, wakes us again.
    if (reads == kReadsPerWake && got < static_cast<ssize_t>(sizeof(buffer))) return;
  }
}

bool JobSocket::Append(parley::job::v1::ToJob& message) {
  if (closed_ || backlog() > kOutboxBytes) return false;
  message.set_seq(++seq_);
  message.set_time_us(loop_.NowMicros());
  message.SerializeToString(&scratch_);
  if (scratch_.size() > kMaxFrame) {
    --seq_;
    return false;
  }
  if (out_start_ == out_.size()) {
    out_.clear();
    out_start_ = 0;
  }
  AppendFrame(scratch_, out_);
  return true;
}

bool JobSocket::Send(parley::job::v1::ToJob& message) {
  if (!Append(message)) return false;
  if (!watching_writes_) Flush();
  return !closed_;
}

bool JobSocket::SendFresh(parley::job::v1::ToJob& message, bool wait, bool any_case) {
  if ((backlog() > kAudioBacklogBytes && !any_case) || !Append(message)) return false;
  if (!wait && !watching_writes_) Flush();
  return !closed_;
}

void JobSocket::SendWaiting() {
  if (!closed_ && !watching_writes_) Flush();
}

void JobSocket::Flush() {
  while (backlog() > 0) {
    const ssize_t sent =
        send(fd_.get(), out_.data() + out_start_, backlog(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) {
      if (!watching_writes_) Watch();
      return;
    }
    if (sent < 0) break;  // gone; what it said before can still be read
    out_start_ += static_cast<size_t>(sent);
  }
  out_.clear();
  out_start_ = 0;
  if (out_.capacity() > kAudioBacklogBytes) out_.shrink_to_fit();
  if (watching_writes_) Watch();
}

void JobSocket::Close(const std::string& error) {
  if (closed_) return;
  closed_ = true;
  watcher_->Stop();
  const auto on_closed = callbacks_.on_closed;
  on_closed(error);
}

}  // namespace parley::agent
