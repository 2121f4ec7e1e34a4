#include "webrtc/tcp_port.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>
#include <vector>

#include "base/status.h"

namespace parley::webrtc {
namespace {

constexpr size_t kLengthBytes = 2;
constexpr size_t kReadBytes = 16 << 10;
constexpr int kBacklog = 128;

}  // namespace

bool TcpFrames::Take(Bytes bytes, const std::function<void(std::span<uint8_t>)>& sink) {
  kept_.append(Text(bytes));
  size_t at = 0;
  while (kept_.size() - at >= kLengthBytes) {
    auto* begin = reinterpret_cast<uint8_t*>(kept_.data()) + at;
    const size_t length = Get16(begin);
    if (length == 0 || length > kMaxFrame) return false;
    if (kept_.size() - at < kLengthBytes + length) break;
    sink({begin + kLengthBytes, length});
    at += kLengthBytes + length;
  }
  kept_.erase(0, at);
  return true;
}

absl::StatusOr<std::unique_ptr<TcpPort>> TcpPort::Listen(const Endpoint& address) {
  std::unique_ptr<TcpPort> port(new TcpPort);
  const int family = address.is_v4() ? AF_INET : AF_INET6;
  port->fd_ = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (port->fd_ < 0) return Unavailable("no TCP socket (errno {})", errno);
  const int on = 1;
  const int off = 0;
  if (family == AF_INET6) setsockopt(port->fd_, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  setsockopt(port->fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_storage storage{};
  socklen_t size = address.ToSockaddr(family, &storage);
  if (bind(port->fd_, reinterpret_cast<sockaddr*>(&storage), size) != 0 ||
      listen(port->fd_, kBacklog) != 0) {
    return Unavailable("TCP port {} on {} is taken", address.port, address.Ip());
  }
  size = sizeof storage;
  getsockname(port->fd_, reinterpret_cast<sockaddr*>(&storage), &size);
  port->port_ = Endpoint::Of(storage).port;
  return port;
}

TcpPort::~TcpPort() { Stop(); }

void TcpPort::Start(event::Loop& loop, Sink sink) {
  loop_ = &loop;
  sink_ = std::move(sink);
  watcher_ = std::make_unique<event::FdWatcher>(loop, fd_);
  watcher_->Start(true, false, [this](bool, bool) { Accept(); });
}

void TcpPort::Stop() {
  watcher_.reset();
  for (const auto& [from, stream] : streams_) {
    stream->watcher.reset();
    close(stream->fd);
  }
  streams_.clear();
  if (fd_ >= 0) close(std::exchange(fd_, -1));
}

void TcpPort::Accept() {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  const int fd =
      accept4(fd_, reinterpret_cast<sockaddr*>(&storage), &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return;
  if (streams_.size() >= kMaxStreams) Tick(loop_->NowMicros());  // do strangers hold them?
  if (streams_.size() >= kMaxStreams) {
    close(fd);
    return;
  }
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  Endpoint from = Endpoint::Of(storage);
  from.tcp = true;
  Close(from);  // an old one of the same address can only be dead
  auto& stream = streams_[from] = std::make_unique<Stream>();
  stream->fd = fd;
  stream->since_us = stream->heard_us = loop_->NowMicros();
  stream->watcher = std::make_unique<event::FdWatcher>(*loop_, fd);
  Watch(from, *stream);
}

void TcpPort::Watch(const Endpoint& from, Stream& stream) {
  stream.watcher->Start(true, !stream.unsent.empty(), [this, from](bool readable, bool writable) {
    OnReady(from, readable, writable);
  });
}

void TcpPort::OnReady(const Endpoint& from, bool readable, bool writable) {
  Stream& stream = *streams_.at(from);
  if (writable && !stream.unsent.empty()) {
    Flush(stream);
    if (stream.unsent.empty()) {  // the callback that runs is replaced: it must have returned
      loop_->Post([this, from] {
        const auto found = streams_.find(from);
        if (found != streams_.end()) Watch(from, *found->second);
      });
    }
  }
  if (readable) Read(from, stream);
  if (stream.broken) loop_->Post([this, from] { Close(from); });
}

void TcpPort::Read(const Endpoint& from, Stream& stream) {
  std::array<uint8_t, kReadBytes> buffer;
  const ssize_t size = recv(stream.fd, buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
  stream.heard_us = loop_->NowMicros();
  stream.broken |=
      size <= 0 || !stream.frames.Take({buffer.data(), static_cast<size_t>(size)},
                                       [&](std::span<uint8_t> datagram) { sink_(from, datagram); });
}

void TcpPort::Flush(Stream& stream) {
  const ssize_t sent =
      send(stream.fd, stream.unsent.data(), stream.unsent.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent > 0) stream.unsent.erase(0, static_cast<size_t>(sent));
  stream.broken |= sent < 0 && errno != EAGAIN && errno != EINTR;
}

void TcpPort::Send(const Endpoint& to, Bytes datagram) {
  const auto found = streams_.find(to);
  if (found == streams_.end() || found->second->broken) return;
  Stream& stream = *found->second;
  stream.answered = true;
  const bool waiting = !stream.unsent.empty();
  if (stream.unsent.size() + kLengthBytes + datagram.size() > kMaxUnsent) return;
  uint8_t length[kLengthBytes];
  Put16(length, static_cast<uint16_t>(datagram.size()));
  stream.unsent.append(Text(length)).append(Text(datagram));
  if (waiting) return;
  Flush(stream);
  if (stream.unsent.empty() && !stream.broken) return;
  loop_->Post([this, to] {
    const auto late = streams_.find(to);
    if (late == streams_.end()) return;
    late->second->broken ? Close(to) : Watch(to, *late->second);
  });
}

void TcpPort::Tick(int64_t now_us) {
  std::vector<Endpoint> over;
  for (const auto& [from, stream] : streams_) {
    if (now_us - stream->heard_us > kSilentUs ||
        (!stream->answered && now_us - stream->since_us > kAnsweredUs)) {
      over.push_back(from);
    }
  }
  for (const Endpoint& from : over) Close(from);
}

void TcpPort::Close(const Endpoint& from) {
  const auto found = streams_.find(from);
  if (found == streams_.end()) return;
  found->second->watcher.reset();
  close(found->second->fd);
  streams_.erase(found);
}

}  // namespace parley::webrtc
