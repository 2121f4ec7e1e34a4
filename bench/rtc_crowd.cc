#include "rtc_crowd.h"

#include <absl/strings/escaping.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/rand.h>
#include <parley/livekit/v1/rtc.pb.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <sstream>

#include "base/check.h"
#include "base/clock.h"
#include "base/ids.h"
#include "base/status.h"
#include "webrtc/data_transport.h"
#include "webrtc/rtp.h"
#include "webrtc/sdp.h"
#include "webrtc/srtp.h"
#include "webrtc/stun.h"

namespace parley::bench {
namespace {

namespace lk = ::parley::livekit::v1;
using webrtc::Bytes;

constexpr int64_t kFrameUs = 20'000;
constexpr int64_t kTickUs = 10'000;
constexpr int64_t kCheckUs = 50'000;       // until the path is known
constexpr int64_t kConsentUs = 2'000'000;  // afterwards
constexpr int64_t kPingUs = 5'000'000;
constexpr int64_t kBehindUs = 10'000;
constexpr size_t kPayloadBytes = 80;  // 32 kbit/s
constexpr uint32_t kMagic = 0x70617231;
constexpr int kOpusType = 111;
constexpr uint8_t kLevelId = 1;
constexpr uint8_t kLevel = 20;  // -dBov: somebody who talks

int64_t NowMicros() { return Clock::Real().MonotonicMicros(); }

// "candidate:1 1 udp 2130706431 127.0.0.1 7882 typ host …" anywhere in `text`: the first of UDP and
// IPv4. Port 0: none.
sockaddr_in FirstCandidate(std::string_view text) {
  sockaddr_in found{};
  for (size_t at = text.find("candidate:"); at != std::string_view::npos;
       at = text.find("candidate:", at + 1)) {
    std::istringstream fields{std::string(text.substr(at, 200))};
    std::string foundation, component, protocol, priority, ip;
    int port = 0;
    fields >> foundation >> component >> protocol >> priority >> ip >> port;
    std::ranges::transform(protocol, protocol.begin(), [](char c) { return std::tolower(c); });
    if (protocol != "udp" || inet_pton(AF_INET, ip.c_str(), &found.sin_addr) != 1) continue;
    found.sin_family = AF_INET;
    found.sin_port = htons(static_cast<uint16_t>(port));
    return found;
  }
  return found;
}

}  // namespace

class RtcCrowd::Person {
 public:
  Person(RtcCrowd& crowd, uint32_t number)
      : crowd_(crowd),
        ssrc_(1'000'000 + number),
        ufrag_(RandomBase62(8)),
        pwd_(RandomBase62(24)),
        begin_us_(NowMicros()),
        // Nobody talks in step with anybody else.
        next_packet_us_(begin_us_ + static_cast<int64_t>(number) * 7'919 % kFrameUs) {}
  ~Person() {
    data_.reset();
    dtls_.reset();
    for (const int fd : {signalling_, media_}) {
      if (fd >= 0) close(fd);
    }
  }

  absl::Status Connect(const std::string& address, const std::string& token);
  void OnSignalling();
  void OnMedia();
  void Tick(int64_t now_us);
  void Talk(int64_t now_us);

  const Arrival& arrival() const { return arrival_; }
  bool lost() const { return lost_; }
  int64_t next_packet_us() const { return next_packet_us_; }
  bool connected() const { return srtp_ != nullptr; }

 private:
  double Since() const { return static_cast<double>(NowMicros() - begin_us_) / 1000; }
  std::string Offer();
  void SendOffer();
  void SendFrame(int opcode, std::string_view data);
  void Send(const lk::SignalRequest& request);
  void TakeFrames();
  void TakeMessage(const std::string& data);
  void TakeAnswer(const lk::SessionDescription& answer);
  void TakeCandidate(const sockaddr_in& to);
  void TakeDatagram(std::span<uint8_t> datagram);
  void TakeStun(Bytes datagram);
  void Check();
  void Secured();
  void SendDatagram(Bytes datagram) {
    if (media_ >= 0) (void)!send(media_, datagram.data(), datagram.size(), MSG_DONTWAIT);
  }

  RtcCrowd& crowd_;
  const uint32_t ssrc_;
  const std::string ufrag_;
  const std::string pwd_;
  const int64_t begin_us_;
  Arrival arrival_;
  bool lost_ = false;

  int signalling_ = -1;
  bool upgraded_ = false;
  std::string in_;       // of the WebSocket
  std::string message_;  // pieces of one
  int listening_ = 1;    // sections
  uint32_t offer_id_ = 1;
  bool offered_ = true;  // an answer is to come
  bool offer_again_ = false;
  int64_t next_ping_us_ = 0;

  int media_ = -1;
  std::string remote_ufrag_;
  std::string remote_pwd_;
  bool checked_ = false;
  bool dtls_client_ = false;
  int64_t next_check_us_ = 0;
  std::unique_ptr<webrtc::DtlsTransport> dtls_;
  std::unique_ptr<webrtc::Srtp> srtp_;
  std::unique_ptr<webrtc::DataTransport> data_;
  uint16_t sequence_ = 0;
  int64_t next_packet_us_;
};

absl::Status RtcCrowd::Person::Connect(const std::string& address, const std::string& token) {
  lk::JoinRequest join;
  join.mutable_client_info()->set_protocol(16);
  join.mutable_connection_settings()->set_auto_subscribe(true);
  lk::AddTrackRequest& track = *join.add_add_track_requests();
  track.set_cid("mic");
  track.set_name("mic");
  track.set_source(lk::MICROPHONE);
  join.mutable_publisher_offer()->set_type("offer");
  join.mutable_publisher_offer()->set_sdp(Offer());
  join.mutable_publisher_offer()->set_id(offer_id_);
  lk::WrappedJoinRequest wrapped;
  wrapped.set_join_request(join.SerializeAsString());

  const size_t colon = address.find(':');
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(colon + 1))));
  inet_pton(AF_INET, address.substr(0, colon).c_str(), &to.sin_addr);
  signalling_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(signalling_, reinterpret_cast<sockaddr*>(&to), sizeof to) != 0) {
    return Unavailable("nobody listens at {}", address);
  }
  const std::string head = fmt::format(
      "GET /rtc/v1?access_token={}&join_request={} HTTP/1.1\r\nhost: {}\r\nupgrade: websocket\r\n"
      "connection: upgrade\r\nsec-websocket-version: 13\r\n"
      "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
      token, absl::WebSafeBase64Escape(wrapped.SerializeAsString()), address);
  if (send(signalling_, head.data(), head.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(head.size())) {
    return Unavailable("{} closed the connection", address);
  }
  crowd_.Watch(signalling_, this, false);
  return absl::OkStatus();
}

std::string RtcCrowd::Person::Offer() {
  const std::string transport = fmt::format(
      "c=IN IP4 0.0.0.0\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=fingerprint:sha-256 {}\r\n"
      "a=setup:actpass\r\n",
      ufrag_, pwd_, crowd_.context_->fingerprint());
  const auto audio = [&](int mid, std::string_view direction) {
    return fmt::format(
        "m=audio 9 UDP/TLS/RTP/SAVPF {0}\r\n{1}a=mid:{2}\r\na={3}\r\na=rtcp-mux\r\n"
        "a=rtpmap:{0} opus/48000/2\r\na=rtcp-fb:{0} nack\r\na=fmtp:{0} "
        "minptime=10;useinbandfec=1\r\n"
        "a=extmap:{4} urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n",
        kOpusType, transport, mid, direction, kLevelId);
  };
  std::string sections =
      audio(0, "sendonly") +
      fmt::format("a=msid:stream mic\r\na=ssrc:{0} cname:c\r\na=ssrc:{0} msid:stream mic\r\n",
                  ssrc_) +
      audio(1, "recvonly") +
      fmt::format(
          "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n{}a=mid:2\r\na=sctp-port:5000\r\n"
          "a=max-message-size:65536\r\n",
          transport);
  std::string bundle = "0 1 2";
  for (int i = 1; i < listening_; ++i) {
    sections += audio(i + 2, "recvonly");
    bundle += fmt::format(" {}", i + 2);
  }
  return fmt::format(
             "v=0\r\no=- {} {} IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n"
             "a=msid-semantic: WMS *\r\n",
             ssrc_, offer_id_, bundle) +
         sections;
}

void RtcCrowd::Person::SendOffer() {
  if (offered_) {
    offer_again_ = true;
    return;
  }
  offered_ = true;
  lk::SignalRequest request;
  request.mutable_offer()->set_type("offer");
  request.mutable_offer()->set_id(++offer_id_);
  request.mutable_offer()->set_sdp(Offer());
  Send(request);
}

void RtcCrowd::Person::Send(const lk::SignalRequest& request) {
  SendFrame(2, request.SerializeAsString());
}

void RtcCrowd::Person::SendFrame(int opcode, std::string_view data) {
  std::string frame(1, static_cast<char>(0x80 | opcode));
  if (data.size() < 126) {
    frame += static_cast<char>(0x80 | data.size());
  } else {
    frame += static_cast<char>(0x80 | 126);
    frame += static_cast<char>(data.size() >> 8);
    frame += static_cast<char>(data.size() & 255);
  }
  frame += std::string(4, '\0');  // the mask
  frame += data;
  if (send(signalling_, frame.data(), frame.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(frame.size())) {
    lost_ = true;
  }
}

void RtcCrowd::Person::OnSignalling() {
  std::array<char, 16'384> buffer;
  const ssize_t size = recv(signalling_, buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (size < 0 && errno == EAGAIN) return;
  if (size <= 0) {
    lost_ = true;
    epoll_ctl(crowd_.epoll_, EPOLL_CTL_DEL, signalling_, nullptr);
    return;
  }
  in_.append(buffer.data(), static_cast<size_t>(size));
  if (!upgraded_) {
    const size_t end = in_.find("\r\n\r\n");
    if (end == std::string::npos) return;
    if (in_.compare(9, 3, "101") != 0) {
      fmt::print(stderr, "refused: {}\n", in_.substr(0, 200));
      lost_ = true;
      return;
    }
    upgraded_ = true;
    in_.erase(0, end + 4);
  }
  TakeFrames();
}

void RtcCrowd::Person::TakeFrames() {
  while (in_.size() >= 2) {
    const auto byte = [this](size_t at) { return static_cast<uint8_t>(in_[at]); };
    size_t length = byte(1) & 0x7f;
    size_t head = 2;
    const size_t more = length == 126 ? 2 : length == 127 ? 8 : 0;
    if (in_.size() < head + more) return;
    if (more > 0) length = 0;
    for (size_t i = 0; i < more; ++i) length = length << 8 | byte(head + i);
    head += more;
    if (in_.size() < head + length) return;
    const int opcode = byte(0) & 15;
    const bool final = (byte(0) & 0x80) != 0;
    const std::string data = in_.substr(head, length);
    in_.erase(0, head + length);
    if (opcode == 9) SendFrame(10, data);
    if (opcode == 8) lost_ = true;
    if (opcode >= 8) continue;
    message_ += data;
    if (final) TakeMessage(std::exchange(message_, {}));
  }
}

void RtcCrowd::Person::TakeMessage(const std::string& data) {
  lk::SignalResponse response;
  if (!response.ParseFromString(data)) return;
  switch (response.message_case()) {
    case lk::SignalResponse::kJoin:
      arrival_.joined_ms = Since();
      return;
    case lk::SignalResponse::kAnswer:
      return TakeAnswer(response.answer());
    case lk::SignalResponse::kTrickle:
      return TakeCandidate(FirstCandidate(response.trickle().candidate_init()));
    case lk::SignalResponse::kMediaSectionsRequirement:
      listening_ += static_cast<int>(response.media_sections_requirement().num_audios());
      return SendOffer();
    case lk::SignalResponse::kLeave:
      lost_ = true;
      return;
    default:
      return;
  }
}

void RtcCrowd::Person::TakeAnswer(const lk::SessionDescription& answer) {
  const auto sdp = webrtc::ParseSdp(answer.sdp());
  if (!sdp.ok() || sdp->sections.empty()) {
    lost_ = true;
    return;
  }
  const webrtc::SdpSection& first = sdp->sections.front();
  remote_ufrag_ = first.ice_ufrag;
  remote_pwd_ = first.ice_pwd;
  if (dtls_ == nullptr) {
    // Who answers "active" begins the handshake; ICE-lite servers leave that to us.
    dtls_client_ = first.setup != "active";
    using Role = webrtc::DtlsTransport::Role;
    dtls_ = std::make_unique<webrtc::DtlsTransport>(
        crowd_.context_, dtls_client_ ? Role::kClient : Role::kServer, first.fingerprint,
        [this](Bytes datagram) { SendDatagram(datagram); },
        [this](Bytes plain) {
          if (data_ != nullptr) data_->Take(plain);
        });
  }
  TakeCandidate(FirstCandidate(answer.sdp()));
  offered_ = false;
  if (std::exchange(offer_again_, false)) SendOffer();
}

void RtcCrowd::Person::TakeCandidate(const sockaddr_in& to) {
  if (to.sin_port == 0 || media_ >= 0) return;
  media_ = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  PARLEY_CHECK(connect(media_, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0);
  crowd_.Watch(media_, this, true);
  Check();
}

void RtcCrowd::Person::Check() {
  next_check_us_ = NowMicros() + (checked_ ? kConsentUs : kCheckUs);
  webrtc::TransactionId id;
  RAND_bytes(id.data(), static_cast<int>(id.size()));
  std::array<uint8_t, webrtc::kMaxStunBytes> check;
  SendDatagram({check.data(), webrtc::WriteBindingRequest(id, remote_ufrag_ + ":" + ufrag_,
                                                          remote_pwd_, true, check)});
}

void RtcCrowd::Person::OnMedia() {
  std::array<uint8_t, 2048> buffer;
  while (true) {
    const ssize_t size = recv(media_, buffer.data(), buffer.size(), 0);
    if (size <= 0) return;
    TakeDatagram(std::span(buffer).first(static_cast<size_t>(size)));
  }
}

void RtcCrowd::Person::TakeStun(Bytes datagram) {
  const auto message = webrtc::ParseStun(datagram);
  if (!message) return;
  if (message->kind == webrtc::StunMessage::Kind::kBindingRequest) {  // of a server with full ICE
    if (!webrtc::CheckIntegrity(*message, pwd_)) return;
    sockaddr_storage server{};
    socklen_t size = sizeof server;
    getpeername(media_, reinterpret_cast<sockaddr*>(&server), &size);
    std::array<uint8_t, webrtc::kMaxStunBytes> answer;
    return SendDatagram(
        {answer.data(), webrtc::WriteBindingSuccess(message->transaction,
                                                    webrtc::Endpoint::Of(server), pwd_, answer)});
  }
  if (!webrtc::CheckIntegrity(*message, remote_pwd_)) return;
  if (!std::exchange(checked_, true) && dtls_client_) dtls_->Start();
}

void RtcCrowd::Person::TakeDatagram(std::span<uint8_t> datagram) {
  if (webrtc::LooksLikeStun(datagram)) return TakeStun(datagram);
  if (dtls_ == nullptr) return;
  if (datagram[0] < 64) {
    if (!dtls_->Take(datagram).ok()) lost_ = true;
    if (dtls_->connected() && srtp_ == nullptr) Secured();
    return;
  }
  if (srtp_ == nullptr || webrtc::IsRtcp(datagram)) return;
  const size_t size = srtp_->UnprotectRtp(datagram);
  const auto packet = webrtc::ParseRtp(datagram.first(size), {});
  if (!packet || packet->payload.size() < 13 || webrtc::Get32(packet->payload.data() + 1) != kMagic)
    return;
  int64_t sent_us = 0;
  std::memcpy(&sent_us, packet->payload.data() + 5, sizeof sent_us);
  crowd_.heard_.latency_ms.push_back(static_cast<double>(NowMicros() - sent_us) / 1000);
  ++crowd_.heard_.received;
  if (arrival_.heard_ms < 0) arrival_.heard_ms = Since();
}

void RtcCrowd::Person::Secured() {
  auto srtp = webrtc::Srtp::Create(dtls_->keys());
  PARLEY_CHECK(srtp.ok());
  srtp_ = *std::move(srtp);
  arrival_.connected_ms = Since();
  next_packet_us_ = std::max(next_packet_us_, NowMicros());
  data_ = std::make_unique<webrtc::DataTransport>(
      crowd_.loop_, dtls_client_,
      webrtc::DataTransport::Handlers{[this](Bytes packet) { dtls_->Write(packet); },
                                      [](const webrtc::DataChannel&) {},
                                      [](const webrtc::DataChannel&, Bytes) {}});
  PARLEY_CHECK(data_->Start(5000).ok() && data_->Open("_reliable", true, std::nullopt).ok() &&
               data_->Open("_lossy", false, 0).ok());
}

void RtcCrowd::Person::Tick(int64_t now_us) {
  if (lost_) return;
  if (media_ >= 0 && now_us >= next_check_us_) Check();
  if (dtls_ != nullptr) dtls_->Tick();
  if (data_ != nullptr) data_->Tick();
  if (upgraded_ && now_us >= next_ping_us_) {
    next_ping_us_ = now_us + kPingUs;
    lk::SignalRequest ping;
    ping.mutable_ping_req()->set_timestamp(absl::ToUnixMillis(absl::Now()));
    Send(ping);
  }
}

void RtcCrowd::Person::Talk(int64_t now_us) {
  if (now_us > next_packet_us_ + kBehindUs) ++crowd_.heard_.behind;
  next_packet_us_ += kFrameUs;
  std::array<uint8_t, 256> packet{};
  const size_t header = webrtc::WriteRtpHeader({.payload_type = kOpusType,
                                                .marker = sequence_ == 0,
                                                .sequence = sequence_,
                                                .timestamp = sequence_ * 960u,
                                                .ssrc = ssrc_,
                                                .audio_level_id = kLevelId,
                                                .audio_level = kLevel},
                                               packet);
  ++sequence_;
  packet[header] = 0x78;  // Opus: one frame of 20 ms
  webrtc::Put32(packet.data() + header + 1, kMagic);
  const int64_t sent_us = NowMicros();
  std::memcpy(packet.data() + header + 5, &sent_us, sizeof sent_us);
  const size_t size = srtp_->ProtectRtp(packet, header + kPayloadBytes);
  SendDatagram({packet.data(), size});
  ++crowd_.heard_.sent;
}

RtcCrowd::RtcCrowd()
    : context_([] {
        auto context = webrtc::DtlsContext::Create();
        PARLEY_CHECK(context.ok());
        return *std::move(context);
      }()),
      epoll_(epoll_create1(EPOLL_CLOEXEC)) {}

RtcCrowd::~RtcCrowd() {
  people_.clear();
  close(epoll_);
}

void RtcCrowd::Watch(int fd, Person* person, bool media) {
  epoll_event event{};
  event.events = EPOLLIN;
  // A person's address is even: the last bit says which of its two sockets it is.
  event.data.u64 = reinterpret_cast<uint64_t>(person) | (media ? 1 : 0);
  epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
}

absl::Status RtcCrowd::Add(const std::string& address, const std::string& token) {
  people_.push_back(std::make_unique<Person>(*this, static_cast<uint32_t>(people_.size())));
  return people_.back()->Connect(address, token);
}

void RtcCrowd::Step() {
  int64_t until_us = next_tick_us_;
  for (const auto& person : people_) {
    if (person->connected()) until_us = std::min(until_us, person->next_packet_us());
  }
  std::array<epoll_event, 64> events;
  const int64_t wait_us = std::clamp<int64_t>(until_us - NowMicros(), 0, kTickUs);
  const timespec wait{0, static_cast<long>(wait_us * 1000)};  // NOLINT(google-runtime-int)
  const int count = epoll_pwait2(epoll_, events.data(), events.size(), &wait, nullptr);
  for (int i = 0; i < count; ++i) {
    const uint64_t data = events[static_cast<size_t>(i)].data.u64;
    auto* person = reinterpret_cast<Person*>(data & ~uint64_t{1});
    (data & 1) != 0 ? person->OnMedia() : person->OnSignalling();
  }
  const int64_t now_us = NowMicros();
  for (const auto& person : people_) {
    if (person->connected() && !person->lost() && now_us >= person->next_packet_us()) {
      person->Talk(now_us);
    }
  }
  if (now_us < next_tick_us_) return;
  next_tick_us_ = now_us + kTickUs;
  loop_.Turn();
  for (const auto& person : people_) person->Tick(now_us);
}

absl::Status RtcCrowd::WaitHearing(absl::Duration timeout) {
  const int64_t until_us = NowMicros() + absl::ToInt64Microseconds(timeout);
  const auto hears = [](const auto& person) { return person->arrival().heard_ms >= 0; };
  while (!std::ranges::all_of(people_, hears)) {
    if (NowMicros() > until_us || std::ranges::any_of(people_, &Person::lost)) {
      return DeadlineExceeded(
          "of {} people {} are in, {} have a connection, {} hear somebody, {} were put out",
          people_.size(),
          std::ranges::count_if(people_, [](const auto& p) { return p->arrival().joined_ms >= 0; }),
          std::ranges::count_if(people_, [](const auto& p) { return p->connected(); }),
          std::ranges::count_if(people_, hears),
          std::ranges::count_if(people_, [](const auto& p) { return p->lost(); }));
    }
    Step();
  }
  return absl::OkStatus();
}

Heard RtcCrowd::Talk(absl::Duration time) {
  heard_ = {};
  heard_.latency_ms.reserve(people_.size() * 60 *
                            static_cast<size_t>(absl::ToInt64Seconds(time) + 1));
  const int64_t until_us = NowMicros() + absl::ToInt64Microseconds(time);
  while (NowMicros() < until_us) Step();
  heard_.lost = static_cast<int>(
      std::ranges::count_if(people_, [](const auto& person) { return person->lost(); }));
  return std::exchange(heard_, {});
}

std::vector<Arrival> RtcCrowd::arrivals() const {
  std::vector<Arrival> all;
  for (const auto& person : people_) all.push_back(person->arrival());
  return all;
}

}  // namespace parley::bench
