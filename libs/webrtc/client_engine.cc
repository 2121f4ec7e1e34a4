#include "webrtc/client_engine.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <limits>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "base/status.h"
#include "webrtc/connection.h"
#include "webrtc/ice_agent.h"
#include "webrtc/tallies.h"

namespace parley::webrtc {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(20);
constexpr size_t kMaxDatagram = 1600;
constexpr size_t kMaxUnsent = 8;  // of the handshake, until there is a path
constexpr size_t kMaxEarlyCandidates = 64;
// Whether the other side is there is known by ICE's consent, not by silence.
constexpr int64_t kNoSilence = std::numeric_limits<int64_t>::max();

// What other threads bring to the loop: datagrams from libnice's, audio from anywhere. Fixed slots:
// nothing is allocated.
class Inbox {
 public:
  static constexpr size_t kSlots = 1024;
  struct Item {
    uint64_t peer = 0;
    bool audio = false;
    uint32_t track = 0;  // of audio, as what follows
    uint32_t timestamp = 0;
    uint32_t level = 0;
    size_t size = 0;
    std::array<uint8_t, kMaxDatagram> bytes;
  };
  enum class Outcome { kFirst, kQueued, kFull };
  // kFirst: it had been empty, so wake the reader. What does not fit is lost, as on any network.
  Outcome Push(uint64_t peer, Bytes datagram) { return Push(peer, false, 0, 0, 0, datagram); }
  Outcome Push(uint64_t peer, uint32_t track, uint32_t timestamp, uint32_t level, Bytes payload) {
    return Push(peer, true, track, timestamp, level, payload);
  }
  bool Pop(Item* out) {
    MutexLock lock(&mutex_);
    if (count_ == 0) return false;
    const Item& item = (*slots_)[first_];
    out->peer = item.peer;
    out->audio = item.audio;
    out->track = item.track;
    out->timestamp = item.timestamp;
    out->level = item.level;
    out->size = item.size;
    std::memcpy(out->bytes.data(), item.bytes.data(), item.size);
    first_ = (first_ + 1) % kSlots;
    --count_;
    return true;
  }

 private:
  Outcome Push(uint64_t peer, bool audio, uint32_t track, uint32_t timestamp, uint32_t level,
               Bytes bytes) {
    if (bytes.empty() || bytes.size() > kMaxDatagram) return Outcome::kFull;
    MutexLock lock(&mutex_);
    if (count_ == kSlots) return Outcome::kFull;
    Item& item = (*slots_)[(first_ + count_) % kSlots];
    item.peer = peer;
    item.audio = audio;
    item.track = track;
    item.timestamp = timestamp;
    item.level = level;
    item.size = bytes.size();
    std::memcpy(item.bytes.data(), bytes.data(), bytes.size());
    return count_++ == 0 ? Outcome::kFirst : Outcome::kQueued;
  }

  Mutex mutex_;
  const std::unique_ptr<std::array<Item, kSlots>> slots_ =
      std::make_unique<std::array<Item, kSlots>>();
  size_t first_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t count_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace

class ClientEngineCore {
 public:
  ~ClientEngineCore() {
    ice.reset();  // nobody wakes us any more
    if (wake_fd_ >= 0) close(wake_fd_);
  }
  absl::Status Open();
  void Run();
  void Wake() { eventfd_write(wake_fd_, 1); }
  void Add(uint64_t id, ClientConnection& connection);

  event::Loop loop;
  std::thread thread;
  std::unique_ptr<event::Timer> timer;  // runs while there are connections
  std::unique_ptr<IceThread> ice = std::make_unique<IceThread>();
  std::shared_ptr<DtlsContext> dtls;
  Tallies tallies;
  Inbox inbox;
  std::atomic<bool> stopped{false};
  uint64_t last_id = 0;
  std::map<uint64_t, ClientConnection*> connections;  // on the loop

 private:
  void Drain();
  void Tick();

  int wake_fd_ = -1;
};

// A Connection over an IceAgent. On the loop.
class ClientConnection final : public ConnectionHost {
 public:
  ClientConnection(ClientEngineCore& core, std::shared_ptr<ClientObserver> observer)
      : core_(core),
        observer_(std::move(observer)),
        connection_(*this, observer_, core.loop.NowMicros()) {
    connection_.Reach(Endpoint());
  }

  absl::Status Start(uint64_t id, const ClientEngine::Options& options) {
    // By number: these run until the agent is gone, which may be after us.
    const auto here = [core = &core_, id](auto work) {
      core->loop.Post([core, id, work] {
        const auto found = core->connections.find(id);
        if (found != core->connections.end()) work(*found->second);
      });
    };
    IceAgent::Handlers handlers;
    handlers.on_candidate = [here](std::string line) {
      here([line](ClientConnection& self) { self.observer_->OnCandidate(line); });
    };
    handlers.on_state = [here](IceAgent::State state) {
      here([state](ClientConnection& self) { self.OnState(state); });
    };
    handlers.on_datagram = [core = &core_, id](Bytes datagram) {
      if (core->inbox.Push(id, datagram) == Inbox::Outcome::kFirst) core->Wake();
    };
    PARLEY_ASSIGN_OR_RETURN(
        ice_,
        IceAgent::Create(*core_.ice, {options.controlling, options.loopback}, std::move(handlers)));
    return absl::OkStatus();
  }

  // ConnectionHost
  void SendDatagram(const Endpoint&, Bytes datagram) override {
    if (ice_ == nullptr || ice_->Send(datagram) || connected_ || unsent_.size() >= kMaxUnsent) {
      return;
    }
    unsent_.emplace_back(datagram.begin(), datagram.end());
  }
  event::Loop& loop() override { return core_.loop; }
  const std::shared_ptr<DtlsContext>& dtls() override { return core_.dtls; }
  Tallies& tallies() override { return core_.tallies; }

  void OnState(IceAgent::State state) {
    if (state == IceAgent::State::kFailed) {
      if (remote_known_) observer_->OnPathLost();
      return;
    }
    if (state != IceAgent::State::kConnected) return;
    connected_ = true;
    for (const auto& datagram : std::exchange(unsent_, {})) ice_->Send(datagram);
  }

  absl::Status SetRemote(const Sdp& sdp) {
    const auto live =
        std::ranges::find_if(sdp.sections, [](const auto& section) { return !section.stopped(); });
    if (live == sdp.sections.end() || live->ice_ufrag.empty() || live->ice_pwd.empty()) {
      return InvalidArgument("the description has no ICE credentials");
    }
    if (live->ice_ufrag != remote_ufrag_) {
      remote_ufrag_ = live->ice_ufrag;
      ice_->SetRemote({live->ice_ufrag, live->ice_pwd});
    }
    remote_known_ = true;
    for (const SdpSection& section : sdp.sections) {
      for (const std::string& line : section.candidates) ice_->AddCandidate(line);
    }
    for (const std::string& line : std::exchange(early_, {})) ice_->AddCandidate(line);
    return absl::OkStatus();
  }
  void AddCandidate(std::string_view line) {
    if (remote_known_) return ice_->AddCandidate(line);
    if (early_.size() < kMaxEarlyCandidates) early_.emplace_back(line);
  }
  void RestartIce() {
    remote_known_ = false;
    ice_->Restart();
  }
  IceCredentials credentials() const { return ice_->credentials(); }

  void Tell() {
    if (connection_.over().empty() || connection_.told()) return;
    connection_.Tell();
  }
  Connection& connection() { return connection_; }

 private:
  ClientEngineCore& core_;
  const std::shared_ptr<ClientObserver> observer_;
  std::unique_ptr<IceAgent> ice_;
  bool connected_ = false;
  bool remote_known_ = false;
  std::string remote_ufrag_;
  std::vector<std::string> early_;
  std::vector<std::vector<uint8_t>> unsent_;
  Connection connection_;  // last: it says goodbye through us
};

absl::Status ClientEngineCore::Open() {
  PARLEY_ASSIGN_OR_RETURN(dtls, DtlsContext::Create());
  wake_fd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  return wake_fd_ >= 0 ? absl::OkStatus() : Internal("no event descriptor");
}

void ClientEngineCore::Run() {
  event::FdWatcher watcher(loop, wake_fd_);
  watcher.Start(true, false, [this](bool, bool) {
    eventfd_t times = 0;
    eventfd_read(wake_fd_, &times);
    Drain();
  });
  timer = std::make_unique<event::Timer>(loop);
  loop.Run();
  stopped = true;
  timer.reset();
  for (int round = 0; round < 3; ++round) loop.Turn();  // what was closed goes
}

void ClientEngineCore::Add(uint64_t id, ClientConnection& connection) {
  if (connections.empty()) timer->StartRepeating(kTick, [this] { Tick(); });
  connections[id] = &connection;
}

void ClientEngineCore::Tick() {
  const int64_t now_us = loop.NowMicros();
  std::vector<uint64_t> ids;
  for (const auto& [id, connection] : connections) ids.push_back(id);
  for (const uint64_t id : ids) {  // an observer may close any of them
    const auto found = connections.find(id);
    if (found == connections.end()) continue;
    ClientConnection& connection = *found->second;  // stays until the loop's next round
    connection.connection().Tick(now_us, kNoSilence);
    if (connections.contains(id)) connection.Tell();
  }
  if (connections.empty()) timer->Stop();
}

void ClientEngineCore::Drain() {
  Inbox::Item item;
  while (inbox.Pop(&item)) {
    const auto found = connections.find(item.peer);
    if (found == connections.end()) continue;
    Connection& connection = found->second->connection();
    if (item.audio) {
      connection.SendAudio(item.track, item.timestamp, item.level,
                           Bytes(item.bytes).first(item.size));
    } else if (connection.ready()) {
      connection.Take(std::span(item.bytes).first(item.size));
      if (connections.contains(item.peer)) found->second->Tell();
    }
  }
}

ClientPeer::ClientPeer(std::shared_ptr<ClientEngineCore> core, uint64_t id,
                       std::shared_ptr<ClientConnection> connection)
    : core_(std::move(core)), id_(id), connection_(std::move(connection)) {}

ClientPeer::~ClientPeer() { Close(); }

IceCredentials ClientPeer::credentials() const {
  return connection_ == nullptr ? IceCredentials() : connection_->credentials();
}

absl::Status ClientPeer::SetRemote(const Sdp& sdp) {
  return connection_ == nullptr ? Unavailable("the connection is closed")
                                : connection_->SetRemote(sdp);
}

void ClientPeer::AddCandidate(std::string_view line) {
  if (connection_ != nullptr) connection_->AddCandidate(line);
}

void ClientPeer::RestartIce() {
  if (connection_ != nullptr) connection_->RestartIce();
}

void ClientPeer::Apply(Plan plan) {
  if (connection_ != nullptr) connection_->connection().Apply(std::move(plan));
}

bool ClientPeer::SendAudio(uint32_t track, uint32_t timestamp, uint32_t level,
                           std::string_view payload) {
  const auto outcome = core_->inbox.Push(id_, track, timestamp, level, AsBytes(payload));
  if (outcome == Inbox::Outcome::kFirst) core_->Wake();
  return outcome != Inbox::Outcome::kFull;
}

void ClientPeer::SendData(std::string_view label, std::string_view message) {
  if (connection_ != nullptr) connection_->connection().SendData(label, AsBytes(message));
}

void ClientPeer::Close() {
  if (connection_ == nullptr) return;
  core_->connections.erase(id_);
  if (core_->stopped) return connection_.reset();
  // It may be its own observer who closes it.
  core_->loop.Post([connection = std::exchange(connection_, nullptr)] {});
}

absl::StatusOr<std::unique_ptr<ClientEngine>> ClientEngine::Start() {
  auto core = std::make_shared<ClientEngineCore>();
  PARLEY_RETURN_IF_ERROR(core->Open());
  core->thread = std::thread([core = core.get()] { core->Run(); });
  return std::unique_ptr<ClientEngine>(new ClientEngine(std::move(core)));
}

ClientEngine::ClientEngine(std::shared_ptr<ClientEngineCore> core) : core_(std::move(core)) {}

ClientEngine::~ClientEngine() { Stop(); }

void ClientEngine::Stop() {
  if (!core_->thread.joinable()) return;
  core_->loop.Stop();
  core_->thread.join();
}

event::Loop& ClientEngine::loop() { return core_->loop; }

absl::StatusOr<std::shared_ptr<ClientPeer>> ClientEngine::Open(
    const Options& options, std::shared_ptr<ClientObserver> observer) {
  const uint64_t id = ++core_->last_id;
  auto connection = std::make_shared<ClientConnection>(*core_, std::move(observer));
  core_->Add(id, *connection);
  if (const absl::Status status = connection->Start(id, options); !status.ok()) {
    core_->connections.erase(id);
    return status;
  }
  return std::make_shared<ClientPeer>(core_, id, std::move(connection));
}

const std::string& ClientEngine::fingerprint() const { return core_->dtls->fingerprint(); }

}  // namespace parley::webrtc
