#include "testing/udp_gate.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <map>
#include <queue>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/status.h"

namespace parley::testing {
namespace {

constexpr size_t kMaxDatagram = 2048;
constexpr size_t kMaxQueued = 100'000;  // datagrams on their way
constexpr int64_t kMaxThrottleUs = 300'000;

int64_t NowMicros() { return Clock::Real().MonotonicMicros(); }

sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

struct Datagram {
  int64_t due_us = 0;
  uint64_t number = 0;  // the earlier first among equals
  int fd = -1;          // to send from
  uint16_t port = 0;    // on loopback, to send to
  std::string bytes;

  bool operator<(const Datagram& other) const {  // for a queue whose largest comes first
    return std::pair(due_us, number) > std::pair(other.due_us, other.number);
  }
};

// One way of all traffic.
struct Direction {
  int losing = 0;             // datagrams of the burst that are still to be lost
  int64_t last_due_us = 0;    // jitter keeps the order
  int64_t busy_until_us = 0;  // of the throttled link
};

}  // namespace

struct UdpGate::Impl {
  uint16_t target = 0;
  uint16_t port = 0;
  int fd = -1;
  int wake = -1;
  std::atomic<bool> stopped{false};
  std::atomic<bool> open{true};
  std::atomic<uint64_t> to_server{0}, to_client{0}, lost{0}, duplicated{0}, reordered{0};
  Mutex mutex;
  Impairment impairment ABSL_GUARDED_BY(mutex);

  // The thread's.
  std::mt19937_64 random;
  std::map<uint16_t, int> server_side;  // by the client's port
  std::array<Direction, 2> directions;
  std::priority_queue<Datagram> queue;
  uint64_t last_number = 0;
  std::thread thread;

  ~Impl() {
    for (const auto& [client, socket] : server_side) close(socket);
    if (fd >= 0) close(fd);
    if (wake >= 0) close(wake);
  }
  void Run();
  void Read(int from, uint16_t client);
  void Take(bool up, Datagram datagram);
  bool Lose(Direction& direction, const Impairment& how);
  void Enqueue(Datagram datagram, int64_t due_us);
  void SendDue();
  bool Draw(double share) { return share > 0 && std::bernoulli_distribution(share)(random); }
};

bool UdpGate::Impl::Lose(Direction& direction, const Impairment& how) {
  if (direction.losing > 0) {
    --direction.losing;
    return true;
  }
  const int burst = std::max(how.burst, 1);
  // So many bursts begin that `loss` of all datagrams are in one.
  const double begins = how.loss / (burst - how.loss * (burst - 1));
  if (!Draw(std::min(begins, 1.0))) return false;
  direction.losing = burst - 1;
  return true;
}

void UdpGate::Impl::Take(bool up, Datagram datagram) {
  ++(up ? to_server : to_client);
  Impairment how;
  {
    MutexLock lock(&mutex);
    how = impairment;
  }
  Direction& direction = directions[up ? 0 : 1];
  if (!open || Lose(direction, how) || queue.size() >= kMaxQueued) {
    ++lost;
    return;
  }
  int64_t due_us = NowMicros() + absl::ToInt64Microseconds(how.delay);
  if (how.rate_bps > 0) {
    const int64_t begin_us = std::max(due_us, direction.busy_until_us);
    if (begin_us - due_us > kMaxThrottleUs) {
      ++lost;
      return;
    }
    direction.busy_until_us =
        begin_us + static_cast<int64_t>(datagram.bytes.size()) * 8 * 1'000'000 / how.rate_bps;
    due_us = direction.busy_until_us;
  }
  if (how.jitter > absl::ZeroDuration()) {
    due_us +=
        std::uniform_int_distribution<int64_t>(0, absl::ToInt64Microseconds(how.jitter))(random);
  }
  due_us = direction.last_due_us = std::max(due_us, direction.last_due_us);
  if (Draw(how.duplicate)) {
    ++duplicated;
    Enqueue(datagram, due_us);
  }
  if (Draw(how.reorder)) {
    ++reordered;
    due_us += absl::ToInt64Microseconds(how.reorder_by);
  }
  Enqueue(std::move(datagram), due_us);
}

void UdpGate::Impl::Enqueue(Datagram datagram, int64_t due_us) {
  datagram.due_us = due_us;
  datagram.number = ++last_number;
  queue.push(std::move(datagram));
}

void UdpGate::Impl::Read(int from, uint16_t client) {
  std::array<char, kMaxDatagram> buffer;
  sockaddr_in sender{};
  while (true) {
    socklen_t size = sizeof sender;
    const ssize_t got = recvfrom(from, buffer.data(), buffer.size(), MSG_DONTWAIT,
                                 reinterpret_cast<sockaddr*>(&sender), &size);
    if (got < 0) return;
    Datagram datagram;
    datagram.bytes.assign(buffer.data(), static_cast<size_t>(got));
    if (from != fd) {
      datagram.fd = fd;
      datagram.port = client;
      Take(false, std::move(datagram));
      continue;
    }
    int& socket_to = server_side.try_emplace(ntohs(sender.sin_port), -1).first->second;
    if (socket_to < 0) socket_to = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    datagram.fd = socket_to;
    datagram.port = target;
    Take(true, std::move(datagram));
  }
}

void UdpGate::Impl::SendDue() {
  while (!queue.empty() && queue.top().due_us <= NowMicros()) {
    const Datagram& next = queue.top();
    const sockaddr_in to = Loopback(next.port);
    // What a full socket or a closed port refuses is lost, as on any network.
    (void)!sendto(next.fd, next.bytes.data(), next.bytes.size(), MSG_DONTWAIT,
                  reinterpret_cast<const sockaddr*>(&to), sizeof to);
    queue.pop();
  }
}

void UdpGate::Impl::Run() {
  while (!stopped) {
    std::vector<pollfd> polled = {{wake, POLLIN, 0}, {fd, POLLIN, 0}};
    std::vector<uint16_t> clients = {0, 0};
    for (const auto& [client, socket] : server_side) {
      polled.push_back({socket, POLLIN, 0});
      clients.push_back(client);
    }
    const int64_t wait_us =
        queue.empty() ? -1 : std::max<int64_t>(queue.top().due_us - NowMicros(), 0);
    const timespec wait{wait_us / 1'000'000, wait_us % 1'000'000 * 1000};
    if (ppoll(polled.data(), polled.size(), wait_us < 0 ? nullptr : &wait, nullptr) < 0) continue;
    for (size_t i = 1; i < polled.size(); ++i) {
      if (polled[i].revents != 0) Read(polled[i].fd, clients[i]);
    }
    SendDue();
  }
}

absl::StatusOr<std::unique_ptr<UdpGate>> UdpGate::Start(uint16_t target, uint64_t seed) {
  std::unique_ptr<UdpGate> gate(new UdpGate);
  gate->impl_ = std::make_unique<Impl>();
  Impl& impl = *gate->impl_;
  impl.target = target;
  impl.random.seed(seed);
  impl.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  impl.fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof address;
  if (impl.wake < 0 || impl.fd < 0 ||
      bind(impl.fd, reinterpret_cast<const sockaddr*>(&address), size) != 0 ||
      getsockname(impl.fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return Unavailable("no UDP socket for the gate (errno {})", errno);
  }
  impl.port = ntohs(address.sin_port);
  impl.thread = std::thread([&impl] { impl.Run(); });
  return gate;
}

UdpGate::~UdpGate() {
  if (impl_ == nullptr || !impl_->thread.joinable()) return;
  impl_->stopped = true;
  (void)eventfd_write(impl_->wake, 1);
  impl_->thread.join();
}

uint16_t UdpGate::port() const { return impl_->port; }

void UdpGate::Set(const Impairment& impairment) {
  MutexLock lock(&impl_->mutex);
  impl_->impairment = impairment;
}

void UdpGate::SetOpen(bool open) { impl_->open = open; }

UdpGate::Figures UdpGate::figures() const {
  return {impl_->to_server, impl_->to_client, impl_->lost, impl_->duplicated, impl_->reordered};
}

}  // namespace parley::testing
