#include <absl/strings/escaping.h>
#include <arpa/inet.h>
#include <fmt/format.h>
#include <parley/livekit/v1/rtc.pb.h>
#include <parley/room/v1/signalling.grpc.pb.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "line.h"
#include "rpc/bidi.h"
#include "rpc/channel.h"
#include "webrtc/dtls.h"
#include "webrtc/rtp.h"
#include "webrtc/sdp.h"
#include "webrtc/srtp.h"
#include "webrtc/stun.h"

namespace parley::bench {
namespace {

namespace pb = ::parley::room::v1;
namespace lk = ::parley::livekit::v1;

constexpr char kCid[] = "microphone";
constexpr int kOpus = 111;
constexpr uint32_t kSsrc = 4711;
constexpr uint8_t kLevelExtension = 1;
constexpr int64_t kTickUs = 50'000;
// As browsers do: often until the connection stands, then to show that they are still there.
constexpr int64_t kCheckOftenUs = 50'000;
constexpr int64_t kCheckUs = 2'500'000;
constexpr size_t kMaxDatagram = 1500;
constexpr size_t kBatch = 8;

int64_t NowMicros() { return Clock::Real().MonotonicMicros(); }

std::string AudioSection(std::string_view mid, std::string_view direction) {
  return fmt::format(
      "m=audio 9 UDP/TLS/RTP/SAVPF {0}\r\nc=IN IP4 0.0.0.0\r\na=mid:{1}\r\na={2}\r\n"
      "a=rtpmap:{0} opus/48000/2\r\na=extmap:{3} urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n",
      kOpus, mid, direction, kLevelExtension);
}

// The server's UDP port on loopback, as its description says it; 0: it does not.
uint16_t PortOf(const std::string& text) {
  constexpr std::string_view kHost = "127.0.0.1 ";
  const size_t at = text.find(kHost, text.find("a=candidate"));
  return at == std::string::npos
             ? uint16_t{0}
             : static_cast<uint16_t>(std::atoi(text.c_str() + at + kHost.size()));
}

}  // namespace

class PeerLine;

struct Exchange::Impl {
  const std::shared_ptr<webrtc::DtlsContext> context = *webrtc::DtlsContext::Create();
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  const int wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  std::atomic<bool> stopped{false};
  Mutex mutex;
  std::vector<std::shared_ptr<PeerLine>> lines ABSL_GUARDED_BY(mutex);
  std::thread thread;

  void Run();
};

class PeerLine final : public Line, public std::enable_shared_from_this<PeerLine> {
 public:
  PeerLine(std::shared_ptr<webrtc::DtlsContext> context, int epoll, LineEvents events)
      : context_(std::move(context)), epoll_(epoll), events_(std::move(events)) {}
  ~PeerLine() override {
    dtls_.reset();  // says goodbye
    if (fd_ >= 0) close(fd_);
  }

  void Join(const std::string& media_url, const std::string& token) {
    stub_ = pb::SignallingService::NewStub(rpc::MakeChannel(media_url));
    Stream::Options options;
    options.on_message = [self = shared_from_this()](const pb::ConnectResponse& message) {
      lk::SignalResponse response;
      if (response.ParseFromString(message.frame().data())) self->OnSignal(response);
    };
    options.on_done = [self = shared_from_this()](const absl::Status&) { self->events_.over(); };
    stream_ = Stream::Open(
        [&](auto* context, auto* reactor) { stub_->async()->Connect(context, reactor); },
        std::move(options));
    lk::JoinRequest join;
    join.mutable_connection_settings()->set_auto_subscribe(true);
    lk::AddTrackRequest& track = *join.add_add_track_requests();
    track.set_cid(kCid);
    track.set_source(lk::MICROPHONE);
    join.mutable_publisher_offer()->set_sdp(Offer());
    join.mutable_publisher_offer()->set_id(++offers_);
    lk::WrappedJoinRequest wrapped;
    wrapped.set_join_request(join.SerializeAsString());
    pb::ConnectRequest request;
    request.mutable_open()->set_token(token);
    request.mutable_open()->set_join_request(
        absl::WebSafeBase64Escape(wrapped.SerializeAsString()));
    stream_->Send(std::move(request));
  }

  bool Send(uint32_t timestamp, uint8_t level, std::string_view packet) override {
    std::array<uint8_t, kMaxDatagram> datagram;
    MutexLock lock(&mutex_);
    if (srtp_ == nullptr) return true;  // nobody is promised anything yet
    const size_t header = webrtc::WriteRtpHeader({.payload_type = kOpus,
                                                  .sequence = ++sequence_,
                                                  .timestamp = timestamp,
                                                  .ssrc = kSsrc,
                                                  .audio_level_id = kLevelExtension,
                                                  .audio_level = level},
                                                 datagram);
    if (header + packet.size() + webrtc::Srtp::kMaxTrailerBytes > datagram.size()) return false;
    std::memcpy(datagram.data() + header, packet.data(), packet.size());
    const size_t size = srtp_->ProtectRtp(datagram, header + packet.size());
    return size > 0 && send(fd_, datagram.data(), size, MSG_DONTWAIT) >= 0;
  }
  void HangUp() override {
    lk::SignalRequest leave;
    leave.mutable_leave()->set_action(lk::LeaveRequest::DISCONNECT);
    Say(leave);
    stream_->HalfClose();
  }
  void Cut() override { stream_->Cancel(); }

  // ---- the exchange's thread ----

  void OnReadable() {
    std::array<std::array<uint8_t, kMaxDatagram>, kBatch> buffers;
    std::array<iovec, kBatch> pieces;
    std::array<mmsghdr, kBatch> messages{};
    for (size_t i = 0; i < kBatch; ++i) {
      pieces[i] = {buffers[i].data(), kMaxDatagram};
      messages[i].msg_hdr.msg_iov = &pieces[i];
      messages[i].msg_hdr.msg_iovlen = 1;
    }
    const int count = recvmmsg(fd_, messages.data(), kBatch, MSG_DONTWAIT, nullptr);
    for (int i = 0; i < count; ++i) {
      const auto index = static_cast<size_t>(i);
      Take(std::span(buffers[index]).first(messages[index].msg_len));
    }
  }

  void Tick(int64_t now_us) {
    MutexLock lock(&mutex_);
    if (dtls_ == nullptr) return;
    if (srtp_ == nullptr) dtls_->Tick();
    if (now_us < next_check_us_) return;
    next_check_us_ = now_us + (srtp_ == nullptr ? kCheckOftenUs : kCheckUs);
    std::array<uint8_t, webrtc::kMaxStunBytes> check;
    SendRaw({check.data(), webrtc::WriteBindingRequest({1, 2, 3}, remote_ufrag_ + ":" + kUfrag,
                                                       remote_pwd_, true, check)});
  }

 private:
  using Stream = rpc::ClientBidi<pb::ConnectRequest, pb::ConnectResponse>;
  static constexpr char kUfrag[] = "them";

  std::string Offer() const {
    return fmt::format(
        "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n"
        "a=ice-ufrag:{}\r\na=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 {}\r\n"
        "a=setup:actpass\r\n{}a=msid:- {}\r\na=ssrc:{} cname:c\r\n{}",
        kUfrag, context_->fingerprint(), AudioSection("0", "sendonly"), kCid, kSsrc,
        AudioSection("1", "recvonly"));
  }

  void Say(const lk::SignalRequest& message) {
    pb::ConnectRequest request;
    request.mutable_frame()->set_data(message.SerializeAsString());
    stream_->Send(std::move(request));
  }

  void OnSignal(const lk::SignalResponse& message) {
    switch (message.message_case()) {
      case lk::SignalResponse::kTrackPublished:
        return events_.published();
      case lk::SignalResponse::kTrackSubscribed:
        return events_.heard();
      case lk::SignalResponse::kMediaSectionsRequirement: {
        // A section of ours is free: the next answer puts the agent's voice there.
        lk::SignalRequest offer;
        offer.mutable_offer()->set_sdp(Offer());
        offer.mutable_offer()->set_id(++offers_);
        return Say(offer);
      }
      case lk::SignalResponse::kAnswer: {
        TakeAnswer(message.answer().sdp());
        if (message.answer().mid_to_track_id().contains("1")) events_.hears();
        return;
      }
      default:
        return;
    }
  }

  void TakeAnswer(const std::string& text) {
    MutexLock lock(&mutex_);
    if (fd_ >= 0) return;
    const auto remote = webrtc::ParseSdp(text);
    PARLEY_CHECK(remote.ok() && !remote->sections.empty());
    const webrtc::SdpSection& first = remote->sections.front();
    remote_ufrag_ = first.ice_ufrag;
    remote_pwd_ = first.ice_pwd;
    sockaddr_in server{};
    server.sin_family = AF_INET;
    server.sin_port = htons(PortOf(text));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fd_ = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    PARLEY_CHECK(fd_ >= 0 &&
                 connect(fd_, reinterpret_cast<sockaddr*>(&server), sizeof server) == 0);
    dtls_ = std::make_unique<webrtc::DtlsTransport>(
        context_, webrtc::DtlsTransport::Role::kClient, first.fingerprint,
        [this](webrtc::Bytes datagram) { SendRaw(datagram); }, [](webrtc::Bytes) {});
    epoll_event event{.events = EPOLLIN, .data = {.ptr = this}};
    PARLEY_CHECK(epoll_ctl(epoll_, EPOLL_CTL_ADD, fd_, &event) == 0);
  }

  void SendRaw(webrtc::Bytes datagram) {
    (void)!send(fd_, datagram.data(), datagram.size(), MSG_DONTWAIT);  // a network may lose it
  }

  void Take(std::span<uint8_t> datagram) {
    if (datagram.empty()) return;
    uint32_t timestamp = 0;
    {
      MutexLock lock(&mutex_);
      if (webrtc::LooksLikeStun(datagram)) {
        if (!std::exchange(checked_, true)) dtls_->Start();
        return;
      }
      if (datagram[0] < 64) {
        (void)dtls_->Take(datagram);
        if (dtls_->connected() && srtp_ == nullptr) srtp_ = *webrtc::Srtp::Create(dtls_->keys());
        return;
      }
      if (srtp_ == nullptr || webrtc::IsRtcp(datagram)) return;
      const size_t size = srtp_->UnprotectRtp(datagram);
      const auto packet = webrtc::ParseRtp(datagram.first(size), {});
      if (!packet) return;
      timestamp = packet->timestamp;
    }
    events_.audio(timestamp);
  }

  const std::shared_ptr<webrtc::DtlsContext> context_;
  const int epoll_;
  const LineEvents events_;
  std::unique_ptr<pb::SignallingService::Stub> stub_;
  std::shared_ptr<Stream> stream_;
  uint32_t offers_ = 0;  // gRPC's reactions only, after the first
  Mutex mutex_;
  int fd_ = -1;  // set once
  std::string remote_ufrag_ ABSL_GUARDED_BY(mutex_);
  std::string remote_pwd_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<webrtc::DtlsTransport> dtls_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<webrtc::Srtp> srtp_ ABSL_GUARDED_BY(mutex_);
  bool checked_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t next_check_us_ ABSL_GUARDED_BY(mutex_) = 0;
  uint16_t sequence_ ABSL_GUARDED_BY(mutex_) = 0;
};

void Exchange::Impl::Run() {
  std::array<epoll_event, 64> events;
  int64_t next_tick_us = 0;
  while (!stopped) {
    const int count = epoll_wait(epoll, events.data(), events.size(), kTickUs / 1000);
    for (int i = 0; i < count; ++i) {
      auto* line = static_cast<PeerLine*>(events[static_cast<size_t>(i)].data.ptr);
      if (line != nullptr) line->OnReadable();
    }
    const int64_t now_us = NowMicros();
    if (now_us < next_tick_us) continue;
    next_tick_us = now_us + kTickUs;
    MutexLock lock(&mutex);
    for (const auto& line : lines) line->Tick(now_us);
  }
}

Exchange::Exchange() : impl_(std::make_unique<Impl>()) {
  epoll_event event{.events = EPOLLIN, .data = {.ptr = nullptr}};
  PARLEY_CHECK(epoll_ctl(impl_->epoll, EPOLL_CTL_ADD, impl_->wake, &event) == 0);
  impl_->thread = std::thread([impl = impl_.get()] { impl->Run(); });
}

Exchange::~Exchange() {
  impl_->stopped = true;
  const uint64_t one = 1;
  (void)!write(impl_->wake, &one, sizeof one);
  impl_->thread.join();
  close(impl_->wake);
  close(impl_->epoll);
}

std::shared_ptr<Line> PeerConnection(Exchange& exchange, const std::string& media_url,
                                     const std::string& token, LineEvents events) {
  Exchange::Impl& impl = exchange.impl();
  auto line = std::make_shared<PeerLine>(impl.context, impl.epoll, std::move(events));
  {
    MutexLock lock(&impl.mutex);
    impl.lines.push_back(line);
  }
  line->Join(media_url, token);
  return line;
}

}  // namespace parley::bench
