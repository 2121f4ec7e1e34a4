#include "testing/tcp_gate.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <deque>
#include <list>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/status.h"

namespace parley::testing {
namespace {

constexpr size_t kPiece = 64 << 10;
constexpr size_t kMostQueued = 4 << 20;  // per direction: then the sender feels it

struct Piece {
  int64_t due_us = 0;
  std::string bytes;
};

// One direction of one connection.
struct Pipe {
  int from = -1;
  int to = -1;
  std::deque<Piece> queue;
  size_t queued = 0;
  bool ended = false;  // `from` has said all
  bool shut = false;   // `to` knows
};

struct Connection {
  int client = -1;
  int server = -1;
  Pipe up;    // client → server
  Pipe down;  // server → client
  bool broken = false;
};

int64_t NowMicros() { return Clock::Real().MonotonicMicros(); }

void Reset(Connection& connection) {
  const linger now{.l_onoff = 1, .l_linger = 0};
  for (int* fd : {&connection.client, &connection.server}) {
    if (*fd < 0) continue;
    setsockopt(*fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(*fd);
    *fd = -1;
  }
  connection.broken = true;
}

struct Target {
  sockaddr_storage address{};
  socklen_t size = 0;
};

absl::StatusOr<Target> ParseTarget(const std::string& target) {
  Target parsed;
  if (target.starts_with("unix:")) {
    auto& address = reinterpret_cast<sockaddr_un&>(parsed.address);
    if (target.size() - 5 >= sizeof address.sun_path) {
      return InvalidArgument("\"{}\" is too long for a socket's path", target);
    }
    address.sun_family = AF_UNIX;
    target.copy(address.sun_path, target.size() - 5, 5);
    parsed.size = sizeof address;
    return parsed;
  }
  const size_t colon = target.rfind(':');
  auto& address = reinterpret_cast<sockaddr_in&>(parsed.address);
  address.sin_family = AF_INET;
  uint16_t port = 0;
  if (colon == std::string::npos ||
      inet_pton(AF_INET, target.substr(0, colon).c_str(), &address.sin_addr) != 1 ||
      std::from_chars(target.data() + colon + 1, target.data() + target.size(), port).ec !=
          std::errc())
    return InvalidArgument("\"{}\" is not a numeric address and port", target);
  address.sin_port = htons(port);
  parsed.size = sizeof address;
  return parsed;
}

}  // namespace

struct TcpGate::Impl {
  Target target;
  int listener = -1;
  int wake = -1;
  int port = 0;
  std::list<Connection> connections;  // the thread's alone
  std::atomic<bool> stop{false};
  std::atomic<bool> cut{false};
  std::atomic<Flow> flow{Flow::kOpen};
  std::atomic<int64_t> delay_us{0};
  std::atomic<int> open{0};
  std::atomic<int64_t> accepted{0};
  std::atomic<int64_t> to_server{0};
  std::atomic<int64_t> to_client{0};
  std::thread thread;

  void Wake() const {
    const uint64_t one = 1;
    (void)!write(wake, &one, sizeof one);
  }
  void Run();
  void Accept();
  void Read(Connection& connection, Pipe& pipe);
  // Microseconds until the next piece is due; -1 when nothing waits.
  int64_t Write(Connection& connection, Pipe& pipe, bool may_flow);
};

void TcpGate::Impl::Accept() {
  const int client = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (client < 0) return;
  const int server = socket(target.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const auto* address = reinterpret_cast<const sockaddr*>(&target.address);
  if (flow == Flow::kRefused || connect(server, address, target.size) != 0) {
    Connection refused{.client = client, .server = server, .up = {}, .down = {}};
    Reset(refused);
    return;
  }
  fcntl(server, F_SETFL, O_NONBLOCK);
  ++accepted;
  connections.push_back({.client = client,
                         .server = server,
                         .up = {.from = client, .to = server, .queue = {}},
                         .down = {.from = server, .to = client, .queue = {}}});
}

void TcpGate::Impl::Read(Connection& connection, Pipe& pipe) {
  char buffer[kPiece];
  const ssize_t got = recv(pipe.from, buffer, sizeof buffer, 0);
  if (got > 0) {
    pipe.queue.push_back({NowMicros() + delay_us, std::string(buffer, static_cast<size_t>(got))});
    pipe.queued += static_cast<size_t>(got);
  } else if (got == 0) {
    pipe.ended = true;
  } else if (errno != EAGAIN && errno != EINTR) {
    Reset(connection);
  }
}

int64_t TcpGate::Impl::Write(Connection& connection, Pipe& pipe, bool may_flow) {
  if (connection.broken || !may_flow) return -1;
  while (!pipe.queue.empty()) {
    Piece& piece = pipe.queue.front();
    const int64_t wait = piece.due_us - NowMicros();
    if (wait > 0) return wait;
    // Counted first: who has received a byte must find it counted.
    std::atomic<int64_t>& counter = &pipe == &connection.up ? to_server : to_client;
    const auto size = static_cast<int64_t>(piece.bytes.size());
    counter += size;
    const ssize_t sent = send(pipe.to, piece.bytes.data(), piece.bytes.size(), MSG_NOSIGNAL);
    counter -= size - std::max<ssize_t>(sent, 0);
    if (sent < 0) {
      if (errno == EAGAIN) return 1000;
      Reset(connection);
      return -1;
    }
    pipe.queued -= static_cast<size_t>(sent);
    piece.bytes.erase(0, static_cast<size_t>(sent));
    if (piece.bytes.empty()) pipe.queue.pop_front();
  }
  if (pipe.ended && !pipe.shut) {
    shutdown(pipe.to, SHUT_WR);
    pipe.shut = true;
  }
  return -1;
}

void TcpGate::Impl::Run() {
  while (!stop) {
    if (cut.exchange(false)) {
      for (Connection& connection : connections) Reset(connection);
    }
    const Flow now = flow;
    const bool up = now == Flow::kOpen || now == Flow::kToServer || now == Flow::kRefused;
    const bool down = now == Flow::kOpen || now == Flow::kToClient || now == Flow::kRefused;
    int64_t timeout_us = -1;
    std::vector<pollfd> polled = {{listener, POLLIN, 0}, {wake, POLLIN, 0}};
    std::vector<std::pair<Connection*, Pipe*>> readers;
    for (auto it = connections.begin(); it != connections.end();) {
      for (const int64_t wait : {Write(*it, it->up, up), Write(*it, it->down, down)})
        if (wait >= 0) timeout_us = timeout_us < 0 ? wait : std::min(timeout_us, wait);
      if (!it->broken && it->up.shut && it->down.shut) Reset(*it);
      if (it->broken) {
        it = connections.erase(it);
        continue;
      }
      for (Pipe* pipe : {&it->up, &it->down}) {
        if (pipe->ended || pipe->queued > kMostQueued) continue;
        polled.push_back({pipe->from, POLLIN, 0});
        readers.emplace_back(&*it, pipe);
      }
      ++it;
    }
    open = static_cast<int>(connections.size());
    const int timeout_ms = timeout_us < 0 ? -1 : static_cast<int>((timeout_us + 999) / 1000);
    if (poll(polled.data(), polled.size(), timeout_ms) < 0) continue;
    uint64_t drained = 0;
    if (polled[1].revents != 0) (void)!read(wake, &drained, sizeof drained);
    for (size_t i = 0; i < readers.size(); ++i) {
      const auto& [connection, pipe] = readers[i];
      if (polled[i + 2].revents != 0 && !connection->broken) Read(*connection, *pipe);
    }
    if (polled[0].revents != 0) Accept();
  }
  for (Connection& connection : connections) Reset(connection);
  connections.clear();
}

absl::StatusOr<std::unique_ptr<TcpGate>> TcpGate::Start(const std::string& target) {
  std::unique_ptr<TcpGate> gate(new TcpGate);
  gate->impl_ = std::make_unique<Impl>();
  Impl& impl = *gate->impl_;
  PARLEY_ASSIGN_OR_RETURN(impl.target, ParseTarget(target));
  impl.listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  impl.wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  sockaddr_in any{};
  any.sin_family = AF_INET;
  any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof any;
  auto* address = reinterpret_cast<sockaddr*>(&any);
  if (bind(impl.listener, address, size) != 0 || listen(impl.listener, 64) != 0 ||
      getsockname(impl.listener, address, &size) != 0)
    return Unavailable("the gate has no port: {}", strerror(errno));
  impl.port = ntohs(any.sin_port);
  impl.thread = std::thread([&impl] { impl.Run(); });
  return gate;
}

TcpGate::~TcpGate() {
  if (!impl_) return;
  if (impl_->thread.joinable()) {
    impl_->stop = true;
    impl_->Wake();
    impl_->thread.join();
  }
  if (impl_->listener >= 0) close(impl_->listener);
  if (impl_->wake >= 0) close(impl_->wake);
}

std::string TcpGate::address() const { return fmt::format("127.0.0.1:{}", impl_->port); }

void TcpGate::SetFlow(Flow flow) {
  impl_->flow = flow;
  impl_->Wake();
}

void TcpGate::SetDelay(absl::Duration delay) {
  impl_->delay_us = absl::ToInt64Microseconds(delay);
  impl_->Wake();
}

void TcpGate::Cut() {
  impl_->cut = true;
  impl_->Wake();
}

int TcpGate::open_connections() const { return impl_->open; }
int64_t TcpGate::accepted() const { return impl_->accepted; }
int64_t TcpGate::bytes_to_server() const { return impl_->to_server; }
int64_t TcpGate::bytes_to_client() const { return impl_->to_client; }

}  // namespace parley::testing
