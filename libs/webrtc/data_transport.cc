#include "webrtc/data_transport.h"

#include <arpa/inet.h>
#include <usrsctp.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <thread>
#include <utility>

#include "base/mutex.h"
#include "base/status.h"

namespace parley::webrtc {
namespace {

constexpr uint32_t kPpidControl = 50;
constexpr uint32_t kPpidText = 51;
constexpr uint32_t kPpidBinary = 53;
constexpr uint32_t kPpidTextEmpty = 56;
constexpr uint32_t kPpidBinaryEmpty = 57;

constexpr uint8_t kMessageAck = 2;
constexpr uint8_t kMessageOpen = 3;
constexpr size_t kOpenBytes = 12;
constexpr uint8_t kUnordered = 0x80;
constexpr uint8_t kLimitedRetransmits = 1;

constexpr uint32_t kPathMtu = 1150;
// usrsctp's own are made for bulk: a lost first packet would cost 3 s, any later one a second.
constexpr uint32_t kFirstRetryMs = 500;
constexpr uint32_t kMinRetryMs = 250;
constexpr uint32_t kMaxRetryMs = 5'000;
constexpr int kSocketBuffer = 256 << 10;

}  // namespace

std::optional<DataChannel> ParseChannelOpen(Bytes message) {
  if (message.size() < kOpenBytes || message[0] != kMessageOpen) return std::nullopt;
  const size_t label = Get16(message.data() + 8);
  const size_t protocol = Get16(message.data() + 10);
  if (label > kMaxLabelBytes || kOpenBytes + label + protocol > message.size()) return std::nullopt;
  DataChannel channel;
  const uint8_t type = message[1];
  channel.ordered = (type & kUnordered) == 0;
  if ((type & ~kUnordered) == kLimitedRetransmits) {
    channel.max_retransmits = Get32(message.data() + 4);
  } else if ((type & ~kUnordered) != 0) {
    channel.max_retransmits = 0;  // limited in time: we send such messages once
  }
  channel.label = Text(message.subspan(kOpenBytes, label));
  return channel;
}

std::string WriteChannelOpen(const DataChannel& channel) {
  std::string message(kOpenBytes, '\0');
  auto* at = reinterpret_cast<uint8_t*>(message.data());
  at[0] = kMessageOpen;
  at[1] = static_cast<uint8_t>((channel.ordered ? 0 : kUnordered) |
                               (channel.max_retransmits ? kLimitedRetransmits : 0));
  Put32(at + 4, channel.max_retransmits.value_or(0));
  Put16(at + 8, static_cast<uint16_t>(channel.label.size()));
  return message + channel.label;
}

struct DataTransport::Impl {
  Impl(event::Loop& l, bool even, Handlers h)
      : loop(l), owner(std::this_thread::get_id()), next_id(even ? 0 : 1), handlers(std::move(h)) {}

  struct Waiting {
    uint16_t id = 0;
    uint32_t ppid = 0;
    std::string bytes;
  };

  event::Loop& loop;
  const std::thread::id owner;
  uint16_t next_id;
  Handlers handlers;
  uintptr_t address = 0;
  struct socket* socket = nullptr;
  std::map<uint16_t, DataChannel> channels;
  std::deque<Waiting> waiting;
  size_t waiting_bytes = 0;
  std::string partial;
  std::atomic<bool> failed{false};

  void OnMessage(uint16_t id, uint32_t ppid, Bytes bytes, bool complete);
  void OnControl(uint16_t id, Bytes bytes);
  absl::Status SendOn(uint16_t id, uint32_t ppid, Bytes bytes);
  // False: the association does not take it now.
  bool TrySend(uint16_t id, uint32_t ppid, Bytes bytes);
  void Flush();
};

namespace {

// Who is behind the addresses that usrsctp knows, and its one clock.
class Stack {
 public:
  static Stack& Get() {
    static Stack* const kStack = new Stack;
    return *kStack;
  }
  uintptr_t Add(std::weak_ptr<DataTransport::Impl> transport) {
    MutexLock lock(&mutex_);
    const uintptr_t address = ++last_address_;
    transports_[address] = std::move(transport);
    usrsctp_register_address(reinterpret_cast<void*>(address));
    return address;
  }
  void Remove(uintptr_t address) {
    usrsctp_deregister_address(reinterpret_cast<void*>(address));
    MutexLock lock(&mutex_);
    transports_.erase(address);
  }
  std::shared_ptr<DataTransport::Impl> Find(const void* address) {
    MutexLock lock(&mutex_);
    const auto found = transports_.find(reinterpret_cast<uintptr_t>(address));
    return found == transports_.end() ? nullptr : found->second.lock();
  }
  void Tick(int64_t now_us) {
    int64_t before_us = ticked_us_.load();
    const int64_t elapsed_ms = (now_us - before_us) / 1000;
    if (before_us != 0 && elapsed_ms < 10) return;
    if (!ticked_us_.compare_exchange_strong(before_us, now_us)) return;
    if (before_us != 0) usrsctp_handle_timers(static_cast<uint32_t>(elapsed_ms));
  }

 private:
  Stack();

  Mutex mutex_;
  uintptr_t last_address_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<uintptr_t, std::weak_ptr<DataTransport::Impl>> transports_ ABSL_GUARDED_BY(mutex_);
  std::atomic<int64_t> ticked_us_{0};
};

int Output(void* address, void* data, size_t size, uint8_t, uint8_t) {
  const auto transport = Stack::Get().Find(address);
  if (transport == nullptr) return 0;
  const auto* bytes = static_cast<const uint8_t*>(data);
  if (std::this_thread::get_id() == transport->owner) {
    transport->handlers.send({bytes, size});
    return 0;
  }
  transport->loop.Post([weak = std::weak_ptr(transport),
                        copy = std::string(reinterpret_cast<const char*>(bytes), size)] {
    if (const auto self = weak.lock()) self->handlers.send(AsBytes(copy));
  });
  return 0;
}

int Input(struct socket*, union sctp_sockstore, void* data, size_t size, struct sctp_rcvinfo info,
          int flags, void* address) {
  const auto transport = Stack::Get().Find(address);
  if (transport != nullptr && data == nullptr) transport->failed = true;
  if (transport != nullptr && data != nullptr && (flags & MSG_NOTIFICATION) == 0 &&
      std::this_thread::get_id() == transport->owner) {
    transport->OnMessage(info.rcv_sid, ntohl(info.rcv_ppid),
                         {static_cast<const uint8_t*>(data), size}, (flags & MSG_EOR) != 0);
  }
  free(data);  // NOLINT(cppcoreguidelines-no-malloc): the library gives it to us
  return 1;
}

Stack::Stack() {
  usrsctp_init_nothreads(0, Output, nullptr);
  usrsctp_sysctl_set_sctp_ecn_enable(0);
  usrsctp_sysctl_set_sctp_asconf_enable(0);
  usrsctp_sysctl_set_sctp_auth_enable(0);
  usrsctp_sysctl_set_sctp_blackhole(2);
  usrsctp_sysctl_set_sctp_rto_initial_default(kFirstRetryMs);
  usrsctp_sysctl_set_sctp_rto_min_default(kMinRetryMs);
  usrsctp_sysctl_set_sctp_rto_max_default(kMaxRetryMs);
  usrsctp_sysctl_set_sctp_init_rto_max_default(kMaxRetryMs);
  usrsctp_sysctl_set_sctp_nr_outgoing_streams_default(kMaxChannels);
  usrsctp_sysctl_set_sctp_sendspace(kSocketBuffer);
  usrsctp_sysctl_set_sctp_recvspace(kSocketBuffer);
}

sockaddr_conn AddressOf(uintptr_t address, uint16_t port) {
  sockaddr_conn out{};
  out.sconn_family = AF_CONN;
  out.sconn_port = htons(port);
  out.sconn_addr = reinterpret_cast<void*>(address);
  return out;
}

template <typename Option>
bool Set(struct socket* socket, int level, int name, const Option& option) {
  return usrsctp_setsockopt(socket, level, name, &option, sizeof option) == 0;
}

}  // namespace

DataTransport::DataTransport(event::Loop& loop, bool even_ids, Handlers handlers)
    : impl_(std::make_shared<Impl>(loop, even_ids, std::move(handlers))) {}

DataTransport::~DataTransport() {
  if (impl_->socket != nullptr) usrsctp_close(impl_->socket);
  if (impl_->address != 0) Stack::Get().Remove(impl_->address);
}

absl::Status DataTransport::Start(uint16_t port) {
  impl_->address = Stack::Get().Add(impl_);
  struct socket* socket = usrsctp_socket(AF_CONN, SOCK_STREAM, IPPROTO_SCTP, Input, nullptr, 0,
                                         reinterpret_cast<void*>(impl_->address));
  if (socket == nullptr) return Internal("usrsctp gives no socket");
  impl_->socket = socket;
  usrsctp_set_non_blocking(socket, 1);
  const linger no_linger{1, 0};
  const int on = 1;
  sctp_assoc_value reset{};
  reset.assoc_id = SCTP_ALL_ASSOC;
  reset.assoc_value = SCTP_ENABLE_RESET_STREAM_REQ;
  sctp_initmsg init{};
  init.sinit_num_ostreams = init.sinit_max_instreams = kMaxChannels;
  sockaddr_conn here = AddressOf(impl_->address, port);
  sctp_paddrparams path{};
  std::memcpy(&path.spp_address, &here, sizeof here);
  path.spp_flags = SPP_PMTUD_DISABLE;
  path.spp_pathmtu = kPathMtu;
  if (!Set(socket, SOL_SOCKET, SO_LINGER, no_linger) ||
      !Set(socket, IPPROTO_SCTP, SCTP_NODELAY, on) ||
      !Set(socket, IPPROTO_SCTP, SCTP_ENABLE_STREAM_RESET, reset) ||
      !Set(socket, IPPROTO_SCTP, SCTP_INITMSG, init) ||
      usrsctp_bind(socket, reinterpret_cast<sockaddr*>(&here), sizeof here) != 0) {
    return Internal("usrsctp refuses to be set up (errno {})", errno);
  }
  // Both sides connect; the association is made once.
  if (usrsctp_connect(socket, reinterpret_cast<sockaddr*>(&here), sizeof here) != 0 &&
      errno != EINPROGRESS) {
    return Internal("usrsctp refuses to connect (errno {})", errno);
  }
  if (!Set(socket, IPPROTO_SCTP, SCTP_PEER_ADDR_PARAMS, path)) {
    return Internal("usrsctp refuses the path's MTU (errno {})", errno);
  }
  return absl::OkStatus();
}

void DataTransport::Take(Bytes packet) {
  const auto keep = impl_;
  usrsctp_conninput(reinterpret_cast<void*>(keep->address), packet.data(), packet.size(), 0);
  keep->Flush();
}

absl::Status DataTransport::Open(std::string_view label, bool ordered,
                                 std::optional<uint32_t> max_retransmits) {
  if (impl_->channels.size() >= kMaxChannels || impl_->next_id >= kMaxChannels) {
    return ResourceExhausted("a connection has {} data channels", kMaxChannels);
  }
  DataChannel channel{impl_->next_id, std::string(label), ordered, max_retransmits};
  impl_->next_id += 2;
  const std::string open = WriteChannelOpen(channel);
  impl_->channels[channel.id] = channel;
  return impl_->SendOn(channel.id, kPpidControl, AsBytes(open));
}

absl::Status DataTransport::Send(std::string_view label, Bytes message) {
  for (auto entry = impl_->channels.rbegin(); entry != impl_->channels.rend(); ++entry) {
    if (entry->second.label != label) continue;
    return impl_->SendOn(entry->first, message.empty() ? kPpidBinaryEmpty : kPpidBinary, message);
  }
  return NotFound("no data channel \"{}\" is open", label);
}

void DataTransport::Tick() {
  Stack::Get().Tick(impl_->loop.NowMicros());
  impl_->Flush();
}

bool DataTransport::failed() const { return impl_->failed.load(); }

void DataTransport::Impl::OnMessage(uint16_t id, uint32_t ppid, Bytes bytes, bool complete) {
  if (partial.size() + bytes.size() > kMaxDataMessage) {
    failed = true;
    return;
  }
  if (!complete) {
    partial += Text(bytes);
    return;
  }
  std::string whole;
  if (!partial.empty()) {
    whole = std::exchange(partial, {}) + std::string(Text(bytes));
    bytes = AsBytes(whole);
  }
  if (ppid == kPpidControl) return OnControl(id, bytes);
  const auto channel = channels.find(id);
  if (channel == channels.end()) return;
  if (ppid == kPpidTextEmpty || ppid == kPpidBinaryEmpty) bytes = {};
  if (ppid != kPpidText && ppid != kPpidBinary && !bytes.empty()) return;
  handlers.on_message(channel->second, bytes);
}

void DataTransport::Impl::OnControl(uint16_t id, Bytes bytes) {
  if (bytes.size() == 1 && bytes[0] == kMessageAck) return;
  auto channel = ParseChannelOpen(bytes);
  if (!channel || id >= kMaxChannels) {
    failed = true;
    return;
  }
  channel->id = id;
  channels[id] = *channel;
  const uint8_t ack = kMessageAck;
  if (!SendOn(id, kPpidControl, {&ack, 1}).ok()) failed = true;
  handlers.on_open(*channel);
}

absl::Status DataTransport::Impl::SendOn(uint16_t id, uint32_t ppid, Bytes bytes) {
  static constexpr uint8_t kNothing = 0;
  if (bytes.empty()) bytes = {&kNothing, 1};  // SCTP has no empty messages
  if (waiting.empty() && TrySend(id, ppid, bytes)) return absl::OkStatus();
  if (const auto channel = channels.find(id);
      ppid != kPpidControl && channel != channels.end() && channel->second.max_retransmits) {
    return absl::OkStatus();  // lossy: what cannot go now is of no use later
  }
  if (waiting_bytes + bytes.size() > kMaxDataQueued) {
    return ResourceExhausted("{} bytes of data wait for this peer", waiting_bytes);
  }
  waiting_bytes += bytes.size();
  waiting.push_back({id, ppid, std::string(Text(bytes))});
  return absl::OkStatus();
}

bool DataTransport::Impl::TrySend(uint16_t id, uint32_t ppid, Bytes bytes) {
  if (socket == nullptr) return false;
  sctp_sendv_spa how{};
  how.sendv_flags = SCTP_SEND_SNDINFO_VALID;
  how.sendv_sndinfo.snd_sid = id;
  how.sendv_sndinfo.snd_ppid = htonl(ppid);
  how.sendv_sndinfo.snd_flags = SCTP_EOR;
  const auto channel = channels.find(id);
  if (channel != channels.end() && ppid != kPpidControl) {
    if (!channel->second.ordered) how.sendv_sndinfo.snd_flags |= SCTP_UNORDERED;
    if (channel->second.max_retransmits) {
      how.sendv_flags |= SCTP_SEND_PRINFO_VALID;
      how.sendv_prinfo.pr_policy = SCTP_PR_SCTP_RTX;
      how.sendv_prinfo.pr_value = *channel->second.max_retransmits;
    }
  }
  const ssize_t sent = usrsctp_sendv(socket, bytes.data(), bytes.size(), nullptr, 0, &how,
                                     sizeof how, SCTP_SENDV_SPA, 0);
  if (sent >= 0) return true;
  if (errno != EAGAIN && errno != EWOULDBLOCK && errno != ENOTCONN && errno != EINPROGRESS) {
    failed = true;
  }
  return false;
}

void DataTransport::Impl::Flush() {
  while (!waiting.empty() && !failed &&
         TrySend(waiting.front().id, waiting.front().ppid, AsBytes(waiting.front().bytes))) {
    waiting_bytes -= waiting.front().bytes.size();
    waiting.pop_front();
  }
}

}  // namespace parley::webrtc
