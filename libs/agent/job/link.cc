#include "agent/job/link.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/status.h"

namespace parley::agent {
namespace {

constexpr size_t kMaxUnsent = 8 << 20;
constexpr size_t kMaxAudioBacklog = 64 << 10;
constexpr size_t kReadBytes = 64 << 10;

}  // namespace

JobLink::JobLink(event::Loop& loop, int fd, Callbacks callbacks)
    : loop_(loop), fd_(fd), callbacks_(std::move(callbacks)), watcher_(loop, fd) {
  PARLEY_CHECK(fcntl(fd_, F_SETFL, fcntl(fd_, F_GETFL) | O_NONBLOCK) == 0);
  Watch();
}

JobLink::~JobLink() {
  watcher_.Stop();
  close(fd_);
}

bool JobLink::Append(parley::job::v1::FromJob& message) {
  if (closed_) return false;
  message.set_seq(++seq_);
  message.SerializeToString(&scratch_);
  if (scratch_.size() > kMaxFrame) {
    // Whoever makes messages bounds what goes in; this is a fault of ours, not of the peer.
    Close(fmt::format("a message of {} bytes to send", scratch_.size()));
    return false;
  }
  AppendFrame(scratch_, out_);
  return true;
}

void JobLink::Send(parley::job::v1::FromJob& message) {
  if (!Append(message)) return;
  if (!reading_) Write();
  if (out_.size() - out_start_ > kMaxUnsent) Close("the agent server does not read any more");
}

void JobLink::SendFresh(parley::job::v1::FromJob& message, bool more) {
  if (out_.size() - out_start_ <= kMaxAudioBacklog) Append(message);
  if (!more && !reading_) Write();
}

void JobLink::Flush(absl::Duration timeout) {
  const int64_t end_us = loop_.NowMicros() + absl::ToInt64Microseconds(timeout);
  while (!closed_ && out_start_ < out_.size()) {
    const int64_t left_us = end_us - loop_.NowMicros();
    if (left_us <= 0) return;
    pollfd wait{.fd = fd_, .events = POLLOUT, .revents = 0};
    poll(&wait, 1, static_cast<int>(left_us / 1000) + 1);
    Write();
  }
}

void JobLink::OnReady(bool readable, bool writable) {
  if (writable) Write();
  if (readable) Read();
}

void JobLink::Read() {
  std::array<char, kReadBytes> buffer;
  const ssize_t got = recv(fd_, buffer.data(), buffer.size(), 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got < 0) return Close(std::strerror(errno));
  if (got == 0) return Close("");
  reader_.Append({buffer.data(), static_cast<size_t>(got)});
  reading_ = true;
  TakeFrames();
  reading_ = false;
  if (out_start_ < out_.size()) Write();
}

void JobLink::TakeFrames() {
  while (!closed_) {
    const auto frame = reader_.Next();
    if (!frame.ok()) return Close(std::string(Message(frame.status())));
    if (!frame->has_value()) return;
    const std::string_view bytes = **frame;
    if (!ParseAgain(bytes, in_)) {
      return Close("a message that is not parley.job.v1.ToJob");
    }
    if (in_.seq() != ++last_seq_) {
      return Close(fmt::format("message {} where {} was due", in_.seq(), last_seq_));
    }
    callbacks_.on_message(in_);
  }
}

void JobLink::Write() {
  while (!closed_ && out_start_ < out_.size()) {
    const ssize_t sent =
        send(fd_, out_.data() + out_start_, out_.size() - out_start_, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) break;
    if (sent < 0) return Close(std::strerror(errno));
    out_start_ += static_cast<size_t>(sent);
  }
  if (out_start_ == out_.size()) {
    out_.clear();
    out_start_ = 0;
  } else if (out_start_ > kMaxAudioBacklog) {
    out_.erase(0, out_start_);
    out_start_ = 0;
  }
  if (watching_writes_ != !out_.empty()) {
    watching_writes_ = !out_.empty();
    Watch();
  }
}

void JobLink::Watch() {
  watcher_.Start(true, watching_writes_,
                 [this](bool readable, bool writable) { OnReady(readable, writable); });
}

void JobLink::Close(const std::string& error) {
  if (closed_) return;
  closed_ = true;
  watcher_.Stop();
  // Not from inside a Send: its caller is in the middle of something.
  loop_.Post([closed = callbacks_.on_closed, error] { closed(error); });
}

}  // namespace parley::agent
