#include "webrtc/engine.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <openssl/rand.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <thread>
#include <unordered_map>
#include <utility>

#include "base/check.h"
#include "base/status.h"
#include "event/loop.h"
#include "webrtc/connection.h"
#include "webrtc/packet_queue.h"
#include "webrtc/tallies.h"
#include "webrtc/tcp_port.h"

namespace parley::webrtc {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(20);
constexpr size_t kBatch = 32;  // datagrams of one system call
constexpr size_t kMaxDatagram = 2048;
constexpr int kMaxBatches = 8;  // then others have their turn
// From so many datagrams in kCountUs on (4,500 a second) they are read every two milliseconds,
// instead of waking up for one or two of them.
constexpr int kManyDatagrams = 450;
constexpr int64_t kCountUs = 100'000;
constexpr absl::Duration kReadEvery = absl::Milliseconds(2);
constexpr int kSocketBuffer = 2 << 20;
constexpr size_t kMaxUsername = 512;
constexpr int64_t kTcpTickUs = 1'000'000;

// The addresses of this machine that a wildcard socket answers on.
std::vector<Endpoint> LocalAddresses(bool v6, uint16_t port) {
  std::vector<Endpoint> found;
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return found;
  for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr || (entry->ifa_flags & IFF_UP) == 0) continue;
    if ((entry->ifa_flags & IFF_LOOPBACK) != 0) continue;
    const bool is_v6 = entry->ifa_addr->sa_family == AF_INET6;
    if (!is_v6 && entry->ifa_addr->sa_family != AF_INET) continue;
    sockaddr_storage storage{};
    std::memcpy(&storage, entry->ifa_addr, is_v6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in));
    Endpoint endpoint = Endpoint::Of(storage);
    const bool link_local = is_v6 && endpoint.ip[0] == 0xfe && (endpoint.ip[1] & 0xc0) == 0x80;
    if (link_local || (is_v6 && !v6)) continue;
    endpoint.port = port;
    found.push_back(endpoint);
  }
  freeifaddrs(list);
  return found;
}

// Datagrams on their way out, for one system call. One thread.
class Parcel {
 public:
  bool full() const { return count_ == kMost; }
  // Copies. False: larger than any that goes out here.
  bool Add(const sockaddr_storage& to, socklen_t size, Bytes datagram) {
    if (datagram.size() > kMaxDatagram) return false;
    One& one = (*ones_)[count_];
    one.to = to;
    std::memcpy(one.bytes.data(), datagram.data(), datagram.size());
    pieces_[count_] = {one.bytes.data(), datagram.size()};
    messages_[count_] = {};
    messages_[count_].msg_hdr = {.msg_name = &one.to,
                                 .msg_namelen = size,
                                 .msg_iov = &pieces_[count_],
                                 .msg_iovlen = 1,
                                 .msg_control = nullptr,
                                 .msg_controllen = 0,
                                 .msg_flags = 0};
    ++count_;
    return true;
  }
  // What a full buffer does not take is lost, as in any network.
  void Send(int fd) {
    size_t at = 0;
    while (at < count_) {
      const int sent = sendmmsg(fd, &messages_[at], static_cast<unsigned>(count_ - at),
                                MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent < 0 && errno == EAGAIN) break;
      at += static_cast<size_t>(std::max(sent, 1));  // one that nobody takes holds up no other
    }
    count_ = 0;
  }

 private:
  static constexpr size_t kMost = 64;
  struct One {
    sockaddr_storage to;
    std::array<uint8_t, kMaxDatagram> bytes;
  };
  size_t count_ = 0;
  std::array<mmsghdr, kMost> messages_{};
  std::array<iovec, kMost> pieces_{};
  std::unique_ptr<std::array<One, kMost>> ones_ = std::make_unique<std::array<One, kMost>>();
};

}  // namespace

// Shared with the peers, so that they stay harmless when the engine is gone.
class EngineCore final : public ConnectionHost {
 public:
  explicit EngineCore(const EngineOptions& options)
      : options_(options), silence_us_(absl::ToInt64Microseconds(options.silence_timeout)) {}
  ~EngineCore() override {
    if (fd_ >= 0) close(fd_);
    if (wake_fd_ >= 0) close(wake_fd_);
  }

  absl::Status Open();
  void Run();
  void StopSoon() {
    stopped_ = true;
    loop_.Stop();
  }
  void JoinThread() { thread_.join(); }
  void StartThread() {
    thread_ = std::thread([this] { Run(); });
  }

  // ---- any thread ----
  uint64_t NextId() { return ++last_id_; }
  void Add(uint64_t id, std::shared_ptr<PeerObserver> observer);
  void Post(uint64_t id, std::function<void(Connection&)> work);
  void Close(uint64_t id);
  bool Push(const PacketQueue::Head& head, std::string_view payload);
  const std::vector<Endpoint>& candidates() const { return candidates_; }
  const std::string& fingerprint() const { return dtls_->fingerprint(); }
  int port() const { return port_; }
  int tcp_port() const { return tcp_ == nullptr ? -1 : tcp_->port(); }
  Tallies& tallies() override { return tallies_; }

  // ---- the loop's thread ----
  void SendDatagram(const Endpoint& to, Bytes datagram) override;
  event::Loop& loop() override { return loop_; }
  const std::shared_ptr<DtlsContext>& dtls() override { return dtls_; }

 private:
  using Buffers = std::array<std::array<uint8_t, kMaxDatagram>, kBatch>;
  // Until it goes out of scope, what is sent is gathered; then it leaves together.
  class Together {
   public:
    explicit Together(EngineCore& core)
        : core_(core), outer_(std::exchange(core.gathering_, true)) {}
    ~Together() {
      core_.gathering_ = outer_;
      if (!outer_) core_.parcel_.Send(core_.fd_);
    }
    Together(const Together&) = delete;
    Together& operator=(const Together&) = delete;

   private:
    EngineCore& core_;
    const bool outer_;
  };

  absl::Status Bind(Endpoint address);
  absl::Status OpenTcp(Endpoint address);
  absl::Status Announce();
  // How the UDP port looks to the STUN server. Blocks.
  absl::StatusOr<Endpoint> Discover() const;
  void OnReadable();
  void ReadBatches();
  void ReadOften(bool often);
  void OnDatagram(const Endpoint& from, std::span<uint8_t> datagram);
  void OnStun(const Endpoint& from, Bytes datagram);
  void Know(Connection& connection, const Endpoint& endpoint);
  void Learn(Connection& connection);
  void SendQueued();
  void Tick();
  void Reap(uint64_t id);

  const EngineOptions options_;
  const int64_t silence_us_;
  Tallies tallies_;
  PacketQueue packets_;
  std::atomic<uint64_t> last_id_{0};
  std::atomic<bool> stopped_{false};
  event::Loop loop_;
  std::thread thread_;
  std::atomic<std::thread::id> runs_on_;
  std::shared_ptr<DtlsContext> dtls_;
  int fd_ = -1;
  int wake_fd_ = -1;      // packets are queued; Loop::Post would allocate
  bool reading_ = false;  // on the loop's thread: what is queued meanwhile is sent right after
  int family_ = AF_INET;
  int port_ = 0;
  std::vector<Endpoint> candidates_;
  std::unique_ptr<TcpPort> tcp_;  // may be null
  int64_t next_tcp_tick_us_ = 0;
  std::unique_ptr<Buffers> buffers_ = std::make_unique<Buffers>();
  Parcel parcel_;
  bool gathering_ = false;
  int datagrams_ = 0;  // that came since they were last counted
  int64_t next_count_us_ = 0;
  bool often_ = false;  // they are read by read_timer_, not by watcher_
  std::unique_ptr<event::FdWatcher> watcher_;
  std::unique_ptr<event::Timer> read_timer_;
  std::unique_ptr<event::Timer> timer_;
  std::unordered_map<uint64_t, std::unique_ptr<Connection>> connections_;
  std::unordered_map<std::string, Connection*> by_ufrag_;
  std::unordered_map<Endpoint, Connection*, EndpointHash> by_endpoint_;
};

absl::Status EngineCore::Open() {
  const auto address = Endpoint::Parse(options_.address, static_cast<uint16_t>(options_.udp_port));
  if (!address) return InvalidArgument("\"{}\" is not an IP address", options_.address);
  PARLEY_ASSIGN_OR_RETURN(dtls_, DtlsContext::Create());
  wake_fd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (wake_fd_ < 0) return Unavailable("no eventfd (errno {})", errno);
  Endpoint wanted = *address;
  const int last = std::max(options_.udp_port_last, options_.udp_port);
  absl::Status bound = Bind(wanted);
  while (absl::IsUnavailable(bound) && wanted.port < last) {
    ++wanted.port;
    bound = Bind(wanted);
  }
  PARLEY_RETURN_IF_ERROR(bound);
  if (options_.tcp_port >= 0) PARLEY_RETURN_IF_ERROR(OpenTcp(*address));
  return Announce();
}

absl::Status EngineCore::OpenTcp(Endpoint address) {
  address.port = static_cast<uint16_t>(options_.tcp_port);
  PARLEY_ASSIGN_OR_RETURN(tcp_, TcpPort::Listen(address));
  return absl::OkStatus();
}

absl::Status EngineCore::Announce() {
  const auto port = static_cast<uint16_t>(port_);
  for (const std::string& name : options_.announce) {
    const auto candidate = Endpoint::ParseName(name, port);
    if (!candidate) return InvalidArgument("\"{}\" is not an IP address", name);
    candidates_.push_back(*candidate);
  }
  if (!options_.stun_server.empty()) {
    PARLEY_ASSIGN_OR_RETURN(const Endpoint outside, Discover());
    candidates_.push_back(outside);
  }
  if (options_.announce.empty()) {
    const bool any = options_.address == "0.0.0.0" || options_.address == "::";
    std::vector<Endpoint> own;
    if (any) own = LocalAddresses(family_ == AF_INET6, port);
    if (own.empty()) own.push_back(*Endpoint::Parse(any ? "127.0.0.1" : options_.address, port));
    // What is near is tried first.
    candidates_.insert(candidates_.begin(), own.begin(), own.end());
  }
  const size_t udp = candidates_.size();
  for (size_t i = 0; tcp_ != nullptr && i < udp; ++i) {
    Endpoint over_tcp = candidates_[i];
    over_tcp.tcp = true;
    over_tcp.port = tcp_->port();
    candidates_.push_back(over_tcp);
  }
  return absl::OkStatus();
}

absl::StatusOr<Endpoint> EngineCore::Discover() const {
  const auto server = Endpoint::ParseName(options_.stun_server, 3478);
  if (!server) return InvalidArgument("\"{}\" is not an IP address", options_.stun_server);
  TransactionId id;
  PARLEY_CHECK(RAND_bytes(id.data(), static_cast<int>(id.size())) == 1);
  std::array<uint8_t, kMaxStunBytes> question;
  const size_t size = WriteAddressQuestion(id, question);
  sockaddr_storage to{};
  const socklen_t length = server->ToSockaddr(family_, &to);
  for (int attempt = 0; attempt < 3; ++attempt) {
    (void)sendto(fd_, question.data(), size, 0, reinterpret_cast<sockaddr*>(&to), length);
    pollfd waiting{fd_, POLLIN, 0};
    if (poll(&waiting, 1, 500) <= 0) continue;
    std::array<uint8_t, kMaxDatagram> answer;
    const ssize_t got = recv(fd_, answer.data(), answer.size(), MSG_DONTWAIT);
    if (got <= 0) continue;
    const auto message = ParseStun(Bytes(answer).first(static_cast<size_t>(got)));
    if (message && message->transaction == id && message->mapped) return *message->mapped;
  }
  return Unavailable("the STUN server {} does not answer", options_.stun_server);
}

absl::Status EngineCore::Bind(Endpoint address) {
  family_ = address.is_v4() ? AF_INET : AF_INET6;
  if (fd_ >= 0) close(fd_);
  fd_ = socket(family_, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd_ < 0) return Unavailable("no UDP socket (errno {})", errno);
  const int off = 0;
  if (family_ == AF_INET6) setsockopt(fd_, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &kSocketBuffer, sizeof kSocketBuffer);
  setsockopt(fd_, SOL_SOCKET, SO_SNDBUF, &kSocketBuffer, sizeof kSocketBuffer);
  sockaddr_storage storage{};
  socklen_t size = address.ToSockaddr(family_, &storage);
  if (bind(fd_, reinterpret_cast<sockaddr*>(&storage), size) != 0) {
    return Unavailable("UDP port {} on {} is taken", address.port, address.Ip());
  }
  size = sizeof storage;
  getsockname(fd_, reinterpret_cast<sockaddr*>(&storage), &size);
  port_ = Endpoint::Of(storage).port;
  return absl::OkStatus();
}

void EngineCore::Run() {
  runs_on_ = std::this_thread::get_id();
  watcher_ = std::make_unique<event::FdWatcher>(loop_, fd_);
  watcher_->Start(true, false, [this](bool, bool) { OnReadable(); });
  read_timer_ = std::make_unique<event::Timer>(loop_);
  event::FdWatcher queue_watcher(loop_, wake_fd_);
  queue_watcher.Start(true, false, [this](bool, bool) {
    eventfd_t times = 0;
    eventfd_read(wake_fd_, &times);
    const Together together(*this);
    SendQueued();
  });
  timer_ = std::make_unique<event::Timer>(loop_);
  if (tcp_ != nullptr) {
    tcp_->Start(loop_, [this](const Endpoint& from, std::span<uint8_t> datagram) {
      OnDatagram(from, datagram);
    });
  }
  loop_.Run();
  timer_.reset();
  read_timer_.reset();
  by_ufrag_.clear();
  by_endpoint_.clear();
  connections_.clear();
  // Peers may keep us for a while; the ports are free from now on.
  if (tcp_ != nullptr) tcp_->Stop();
  watcher_.reset();
  close(std::exchange(fd_, -1));
}

void EngineCore::Add(uint64_t id, std::shared_ptr<PeerObserver> observer) {
  if (stopped_) return;  // what is posted now would never run, and keep its peer
  loop_.Post([this, id, observer = std::move(observer)] {
    if (connections_.empty()) timer_->StartRepeating(kTick, [this] { Tick(); });
    connections_[id] = std::make_unique<Connection>(*this, observer, loop_.NowMicros());
    tallies_.connections = connections_.size();
  });
}

void EngineCore::Post(uint64_t id, std::function<void(Connection&)> work) {
  if (stopped_) return;
  loop_.Post([this, id, work = std::move(work)] {
    const auto found = connections_.find(id);
    if (found == connections_.end()) return;
    const Together together(*this);
    work(*found->second);
    Learn(*found->second);
    Reap(id);
  });
}

void EngineCore::Close(uint64_t id) {
  if (stopped_) return;
  loop_.Post([this, id] {
    const auto found = connections_.find(id);
    if (found == connections_.end()) return;
    std::erase_if(by_ufrag_, [&](const auto& e) { return e.second == found->second.get(); });
    for (const Endpoint& endpoint : found->second->endpoints()) {
      const auto known = by_endpoint_.find(endpoint);
      if (known != by_endpoint_.end() && known->second == found->second.get()) {
        by_endpoint_.erase(known);
      }
    }
    connections_.erase(found);
    tallies_.connections = connections_.size();
    if (!connections_.empty()) return;
    timer_->Stop();
    ReadOften(false);
  });
}

bool EngineCore::Push(const PacketQueue::Head& head, std::string_view payload) {
  switch (packets_.Push(head, payload)) {
    case PacketQueue::Outcome::kFull:
      ++tallies_.dropped;
      return false;
    case PacketQueue::Outcome::kFirst:
      // Most packets come in on this very thread, a room's call away.
      if (!(std::this_thread::get_id() == runs_on_.load() && reading_)) eventfd_write(wake_fd_, 1);
      return true;
    case PacketQueue::Outcome::kQueued:
      break;
  }
  return true;
}

void EngineCore::SendQueued() {
  PacketQueue::Item item;
  while (packets_.Pop(&item)) {
    const PacketQueue::Head& head = item.head;
    const auto found = connections_.find(head.peer);
    if (found == connections_.end()) continue;
    if (head.video) {
      found->second->SendVideo(head.track, {.timestamp = head.timestamp,
                                            .sequence = head.sequence,
                                            .layer = head.layer,
                                            .marker = head.marker,
                                            .key = head.key,
                                            .payload = item.data()});
    } else {
      found->second->SendAudio(head.track, head.timestamp, head.level, AsBytes(item.data()));
    }
  }
}

// New credentials of a connection, by which its binding requests find it.
void EngineCore::Learn(Connection& connection) {
  for (const std::string& ufrag : connection.ufrags()) by_ufrag_.try_emplace(ufrag, &connection);
}

void EngineCore::OnReadable() {
  const Together together(*this);
  reading_ = true;
  ReadBatches();
  reading_ = false;
  SendQueued();
}

void EngineCore::ReadOften(bool often) {
  if (std::exchange(often_, often) == often) return;
  if (often) {
    watcher_->Stop();
    read_timer_->StartRepeating(kReadEvery, [this] { OnReadable(); });
  } else {
    read_timer_->Stop();
    watcher_->Start(true, false, [this](bool, bool) { OnReadable(); });
  }
}

void EngineCore::ReadBatches() {
  std::array<mmsghdr, kBatch> messages;
  std::array<iovec, kBatch> pieces;
  std::array<sockaddr_storage, kBatch> from;
  for (int batch = 0; batch < kMaxBatches; ++batch) {
    for (size_t i = 0; i < kBatch; ++i) {
      pieces[i] = {(*buffers_)[i].data(), kMaxDatagram};
      messages[i] = {};
      messages[i].msg_hdr.msg_name = &from[i];
      messages[i].msg_hdr.msg_namelen = sizeof from[i];
      messages[i].msg_hdr.msg_iov = &pieces[i];
      messages[i].msg_hdr.msg_iovlen = 1;
    }
    const int count = recvmmsg(fd_, messages.data(), kBatch, MSG_DONTWAIT, nullptr);
    datagrams_ += std::max(count, 0);
    for (int i = 0; i < count; ++i) {
      const auto index = static_cast<size_t>(i);
      if ((messages[index].msg_hdr.msg_flags & MSG_TRUNC) != 0) continue;
      OnDatagram(Endpoint::Of(from[index]),
                 std::span((*buffers_)[index]).first(messages[index].msg_len));
    }
    if (count < static_cast<int>(kBatch)) return;
  }
}

void EngineCore::OnDatagram(const Endpoint& from, std::span<uint8_t> datagram) {
  if (datagram.empty()) return;
  if (LooksLikeStun(datagram)) return OnStun(from, datagram);
  const auto found = by_endpoint_.find(from);
  if (found == by_endpoint_.end()) {
    ++tallies_.refused;
    return;
  }
  found->second->Take(datagram);
}

void EngineCore::OnStun(const Endpoint& from, Bytes datagram) {
  const auto message = ParseStun(datagram);
  if (!message || message->kind != StunMessage::Kind::kBindingRequest ||
      message->username.size() > kMaxUsername) {
    ++tallies_.refused;
    return;
  }
  const std::string_view ufrag = message->username.substr(0, message->username.find(':'));
  const auto found = by_ufrag_.find(std::string(ufrag));
  if (found == by_ufrag_.end() || !found->second->TakeBindingRequest(*message, ufrag, from)) {
    ++tallies_.refused;
    return;
  }
  Know(*found->second, from);
}

void EngineCore::Know(Connection& connection, const Endpoint& endpoint) {
  by_endpoint_[endpoint] = &connection;
  while (connection.endpoints().size() > Connection::kMaxEndpoints) {
    const auto oldest = by_endpoint_.find(connection.endpoints().front());
    if (oldest != by_endpoint_.end() && oldest->second == &connection) by_endpoint_.erase(oldest);
    connection.ForgetOldestEndpoint();
  }
}

void EngineCore::SendDatagram(const Endpoint& to, Bytes datagram) {
  if (to.tcp) return tcp_->Send(to, datagram);
  sockaddr_storage storage{};
  const socklen_t size = to.ToSockaddr(family_, &storage);
  if (gathering_ && parcel_.Add(storage, size, datagram)) {
    if (parcel_.full()) parcel_.Send(fd_);
    return;
  }
  // A full socket buffer loses the datagram, as any network may.
  (void)sendto(fd_, datagram.data(), datagram.size(), MSG_DONTWAIT | MSG_NOSIGNAL,
               reinterpret_cast<sockaddr*>(&storage), size);
}

void EngineCore::Tick() {
  const int64_t now_us = loop_.NowMicros();
  const Together together(*this);
  if (now_us >= next_count_us_) {
    next_count_us_ = now_us + kCountUs;
    ReadOften(std::exchange(datagrams_, 0) >= kManyDatagrams);
  }
  if (tcp_ != nullptr && now_us >= next_tcp_tick_us_) {
    next_tcp_tick_us_ = now_us + kTcpTickUs;
    tcp_->Tick(now_us);
  }
  for (const auto& [id, connection] : connections_) {
    connection->Tick(now_us, silence_us_);
    Reap(id);
  }
}

// Tells the observer when a connection is over; it goes when the queue comes to it.
void EngineCore::Reap(uint64_t id) {
  Connection& connection = *connections_.at(id);
  if (connection.over().empty() || connection.told()) return;
  connection.Tell();
  Close(id);
}

Peer::~Peer() { Close(); }

void Peer::Apply(Plan plan) {
  core_->Post(id_, [plan = std::move(plan)](Connection& connection) { connection.Apply(plan); });
}

bool Peer::SendAudio(uint32_t track, uint32_t timestamp, uint32_t level, std::string_view payload) {
  return core_->Push({.peer = id_, .track = track, .timestamp = timestamp, .level = level},
                     payload);
}

bool Peer::SendVideo(uint32_t track, const VideoPacket& packet) {
  return core_->Push({.peer = id_,
                      .track = track,
                      .timestamp = packet.timestamp,
                      .video = true,
                      .sequence = packet.sequence,
                      .layer = packet.layer,
                      .marker = packet.marker,
                      .key = packet.key},
                     packet.payload);
}

void Peer::AskForPicture(uint32_t tag, uint8_t layer) {
  core_->Post(id_, [tag, layer](Connection& connection) { connection.AskForPicture(tag, layer); });
}

void Peer::SetVideoWish(uint32_t track, int highest_layer) {
  core_->Post(id_, [track, highest_layer](Connection& connection) {
    connection.SetVideoWish(track, highest_layer);
  });
}

bool Peer::SendData(std::string_view label, std::string message) {
  if (queued_->fetch_add(message.size()) > kMaxQueuedData) {
    queued_->fetch_sub(message.size());
    return false;
  }
  core_->Post(id_, [queued = queued_, label = std::string(label),
                    message = std::move(message)](Connection& connection) {
    queued->fetch_sub(message.size());
    connection.SendData(label, AsBytes(message));
  });
  return true;
}

void Peer::Close() { core_->Close(id_); }

absl::StatusOr<std::unique_ptr<Engine>> Engine::Start(const EngineOptions& options) {
  auto core = std::make_shared<EngineCore>(options);
  PARLEY_RETURN_IF_ERROR(core->Open());
  core->StartThread();
  return std::unique_ptr<Engine>(new Engine(std::move(core)));
}

Engine::Engine(std::shared_ptr<EngineCore> core) : core_(std::move(core)) {}

Engine::~Engine() {
  core_->StopSoon();
  core_->JoinThread();
}

std::shared_ptr<Peer> Engine::Open(std::shared_ptr<PeerObserver> observer) {
  const uint64_t id = core_->NextId();
  core_->Add(id, std::move(observer));
  return std::make_shared<Peer>(core_, id);
}

Negotiation Engine::NewNegotiation() const { return {core_->fingerprint(), core_->candidates()}; }

Offering Engine::NewOffering(std::vector<ChannelPlan> channels) const {
  return {core_->fingerprint(), core_->candidates(), std::move(channels)};
}

int Engine::port() const { return core_->port(); }

int Engine::tcp_port() const { return core_->tcp_port(); }

std::vector<std::string> Engine::candidates() const {
  std::vector<std::string> names;
  for (const Endpoint& candidate : core_->candidates()) {
    names.push_back((candidate.tcp ? "tcp " : "") + candidate.Name());
  }
  return names;
}

EngineFigures Engine::figures() const {
  const Tallies& tallies = core_->tallies();
  return {tallies.connections, tallies.packets_in, tallies.packets_out, tallies.packets_skipped,
          tallies.resent,      tallies.refused,    tallies.dropped};
}

}  // namespace parley::webrtc
