#include "engines/wyoming/connection.h"

#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "base/clock.h"
#include "base/status.h"

namespace parley::engines::wyoming {
namespace {

constexpr int64_t kCancelCheckMs = 50;

// OK: `events` or an error is there.
absl::Status WaitFor(int socket, short events, int64_t until_us, const Connection::Stop& stop,
                     absl::Duration timeout) {
  while (true) {
    if (stop()) return Cancelled("cancelled");
    const int64_t left_ms = (until_us - Clock::Real().MonotonicMicros()) / 1000;
    if (left_ms <= 0)
      return Unavailable("the server was silent for {}", absl::FormatDuration(timeout));
    pollfd waiting = {socket, events, 0};
    if (poll(&waiting, 1, static_cast<int>(std::min(left_ms, kCancelCheckMs))) > 0)
      return absl::OkStatus();
  }
}

int64_t Until(absl::Duration timeout) {
  return Clock::Real().MonotonicMicros() + absl::ToInt64Microseconds(timeout);
}

}  // namespace

absl::StatusOr<Connection> Connection::Open(const std::string& address, absl::Duration timeout,
                                            const Stop& stop) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon == 0)
    return InvalidArgument("the address \"{}\" of a Wyoming server is not host:port", address);
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int resolved = getaddrinfo(address.substr(0, colon).c_str(),
                                   address.substr(colon + 1).c_str(), &hints, &found);
  if (resolved != 0) return Unavailable("{}: {}", address, gai_strerror(resolved));
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> addresses(found, &freeaddrinfo);
  absl::Status last = Unavailable("{} has no address", address);
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    const int fd = socket(one->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) continue;
    Connection connection(fd);
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (connect(fd, one->ai_addr, one->ai_addrlen) != 0 && errno != EINPROGRESS) {
      last = Unavailable("{}: {}", address, std::strerror(errno));
      continue;
    }
    last = WaitFor(fd, POLLOUT, Until(timeout), stop, timeout);
    if (absl::IsCancelled(last)) return last;
    int error = 0;
    socklen_t size = sizeof(error);
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (last.ok() && error == 0) return connection;
    if (error != 0) last = Unavailable("{}: {}", address, std::strerror(error));
  }
  return last;
}

Connection::Connection(Connection&& other) noexcept
    : socket_(std::exchange(other.socket_, -1)), reader_(std::move(other.reader_)) {}

Connection::~Connection() {
  if (socket_ >= 0) close(socket_);
}

absl::Status Connection::Write(const Event& event, absl::Duration timeout, const Stop& stop) {
  const std::string bytes = Encode(event);
  const int64_t until_us = Until(timeout);
  for (size_t at = 0; at < bytes.size();) {
    PARLEY_RETURN_IF_ERROR(WaitFor(socket_, POLLOUT, until_us, stop, timeout));
    const ssize_t sent = send(socket_, bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR)
      return Unavailable("the server is gone: {}", std::strerror(errno));
    at += static_cast<size_t>(std::max<ssize_t>(sent, 0));
  }
  return absl::OkStatus();
}

absl::StatusOr<Event> Connection::Read(absl::Duration timeout, const Stop& stop) {
  // Of the whole event: a server that drips is silent, too.
  const int64_t until_us = Until(timeout);
  while (true) {
    PARLEY_ASSIGN_OR_RETURN(std::optional<Event> event, reader_.Next());
    if (event.has_value()) return *std::move(event);
    PARLEY_RETURN_IF_ERROR(WaitFor(socket_, POLLIN, until_us, stop, timeout));
    std::array<char, 16'384> bytes;
    const ssize_t got = recv(socket_, bytes.data(), bytes.size(), 0);
    if (got == 0) return Unavailable("the server closed the connection");
    if (got < 0 && errno != EAGAIN && errno != EINTR)
      return Unavailable("the server is gone: {}", std::strerror(errno));
    if (got > 0) reader_.Append({bytes.data(), static_cast<size_t>(got)});
  }
}

}  // namespace parley::engines::wyoming
