#pragma once
// A WebRTC client made of the parts of libs/webrtc: full ICE's controlling side (as much as it
// takes against ICE-lite), DTLS client, SRTP, data channels. One peer connection; it offers, or
// answers what the server offers. One thread; Run() moves it.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "event/loop.h"
#include "webrtc/data_transport.h"
#include "webrtc/dtls.h"
#include "webrtc/rtp.h"
#include "webrtc/sdp.h"
#include "webrtc/srtp.h"
#include "webrtc/stun.h"
#include "webrtc/tcp_port.h"
#include "webrtc/video_receiver.h"

namespace parley {

class RtcClient final : public webrtc::RtcpReader {
 public:
  static constexpr uint32_t kSsrc = 4711;

  RtcClient() : context_(*webrtc::DtlsContext::Create()) {}
  ~RtcClient() override {
    data_.reset();
    dtls_.reset();  // says goodbye
    if (fd_ >= 0) close(fd_);
  }

  // A microphone with this cid, one section to listen on, and data channels.
  std::string Offer(const std::string& cid) const {
    return Head("0 1 2") + Transport("actpass") + Audio("0", "sendonly", 111) +
           fmt::format("a=msid:- {}\r\na=ssrc:{} cname:c\r\n", cid, kSsrc) +
           Audio("1", "recvonly", 111) +
           "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:2\r\na=sctp-port:5000\r\n";
  }
  // Over TCP, or from an IPv6 address, if the server announces that.
  bool tcp = false;
  bool v6 = false;
  // Video of two layers, and data channels.
  std::string VideoOffer(const std::string& cid) const {
    return Head("0 1 2") + Transport("actpass") + Video("0", "sendonly") +
           fmt::format("a=msid:- {}\r\na=rid:q send\r\na=rid:h send\r\na=simulcast:send q;h\r\n",
                       cid) +
           Video("1", "recvonly") +
           "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:2\r\na=sctp-port:5000\r\n";
  }
  // The server's UDP port, as its description says it.
  static uint16_t PortOf(const std::string& text) {
    const size_t at = text.find("127.0.0.1 ", text.find("a=candidate"));
    EXPECT_NE(at, std::string::npos);
    return at == std::string::npos ? 0 : static_cast<uint16_t>(std::stoi(text.substr(at + 10)));
  }
  void TakeAnswer(const std::string& text) { TakeRemote(text); }

  // Takes what the server offers; the answer to it.
  std::string Answer(const std::string& text) {
    TakeRemote(text);
    const auto offer = webrtc::ParseSdp(text);
    EXPECT_TRUE(offer.ok()) << offer.status();
    std::string bundle;
    std::string sections;
    for (const webrtc::SdpSection& section : offer->sections) {
      EXPECT_EQ(section.setup, "actpass");
      bundle += (bundle.empty() ? "" : " ") + section.mid;
      if (section.kind == "application") {
        sections += fmt::format(
            "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:{}\r\na=sctp-port:5000\r\n",
            section.mid);
      } else {
        const bool sends = section.direction == webrtc::Direction::kSendOnly;
        sections += Audio(section.mid, sends ? "recvonly" : "inactive", 111);
      }
    }
    return Head(bundle) + Transport("active") + sections;
  }

  // New credentials in the next description, and another socket: another network.
  void ChangeNetwork() {
    ++generation_;
    close(std::exchange(fd_, -1));
  }

  // Moves everything on until `done`; false when `timeout` passed first.
  bool Run(const std::function<bool()>& done, absl::Duration timeout = absl::Seconds(20)) {
    const int64_t until_us = loop_.NowMicros() + absl::ToInt64Microseconds(timeout);
    while (!done()) {
      if (loop_.NowMicros() > until_us) return false;
      Step();
    }
    return true;
  }
  // Moves everything on while `wait` blocks, on a thread of its own; what that answers.
  template <typename Wait>
  auto Meanwhile(Wait wait) {
    auto result = std::async(std::launch::async, std::move(wait));
    EXPECT_TRUE(
        Run([&] { return result.wait_for(std::chrono::seconds(0)) == std::future_status::ready; },
            absl::Minutes(1)));
    return result.get();
  }
  // One round of that: for several clients in turn.
  void Step() {
    if (fd_ < 0) return;
    const int64_t now_us = loop_.NowMicros();
    if (now_us >= next_check_us_) {
      next_check_us_ = now_us + 50'000;
      std::array<uint8_t, webrtc::kMaxStunBytes> check;
      Send({check.data(), webrtc::WriteBindingRequest({1, 2, 3}, remote_ufrag_ + ":" + ufrag(),
                                                      remote_pwd_, true, check)});
    }
    loop_.Turn();  // what SCTP sends when another's clock ticks is posted there
    dtls_->Tick();
    if (data_ != nullptr) data_->Tick();
    if (asks_again) AskAgain(now_us);
    pollfd waiting{fd_, POLLIN, 0};
    if (poll(&waiting, 1, 2) <= 0) return;
    std::array<uint8_t, 2048> buffer;
    const ssize_t size = recv(fd_, buffer.data(), buffer.size(), 0);
    if (size <= 0) return;
    const auto bytes = std::span(buffer).first(static_cast<size_t>(size));
    if (!tcp) return Take(bytes);
    EXPECT_TRUE(frames_.Take(bytes, [this](std::span<uint8_t> datagram) { Take(datagram); }));
  }

  bool connected() const { return srtp_ != nullptr; }
  // One packet; `lose`: it never leaves, but may be asked for again.
  void SendAudio(uint16_t sequence, std::string_view payload, bool lose = false,
                 uint8_t level = 17) {
    ASSERT_TRUE(connected());
    std::array<uint8_t, 1500> packet{};
    const size_t header = webrtc::WriteRtpHeader({.payload_type = 111,
                                                  .sequence = sequence,
                                                  .timestamp = sequence * 960u,
                                                  .ssrc = kSsrc,
                                                  .audio_level_id = 1,
                                                  .audio_level = level},
                                                 packet);
    std::memcpy(packet.data() + header, payload.data(), payload.size());
    const size_t size = srtp_->ProtectRtp(packet, header + payload.size());
    sent_[sequence].assign(reinterpret_cast<const char*>(packet.data()), size);
    if (!lose) Send({packet.data(), size});
  }
  static uint32_t VideoSsrc(const std::string& rid) {
    return kSsrc + 1 + static_cast<uint8_t>(rid[0]);
  }
  // One packet of a layer of video ("q" or "h"), a whole picture; `key`: that needs no other.
  void SendVideo(const std::string& rid, uint16_t sequence, std::string_view content, bool key) {
    ASSERT_TRUE(connected());
    std::array<uint8_t, 1500> packet{};
    size_t at = webrtc::WriteRtpHeader({.payload_type = 96,
                                        .marker = true,
                                        .sequence = sequence,
                                        .timestamp = sequence * 3'000u,
                                        .ssrc = VideoSsrc(rid)},
                                       packet);
    packet[0] |= 0x10;  // header extensions: mid and rid
    const std::array<uint8_t, 8> extensions = {0xBE, 0xDE, 0,    1,
                                               0x40, '0',  0xA0, static_cast<uint8_t>(rid[0])};
    std::memcpy(packet.data() + at, extensions.data(), extensions.size());
    at += extensions.size();
    packet[at++] = 0x10;  // VP8: begins a picture
    packet[at++] = key ? 0 : 1;
    std::memcpy(packet.data() + at, content.data(), content.size());
    const size_t size = srtp_->ProtectRtp(packet, at + content.size());
    sent_video_[{VideoSsrc(rid), sequence}].assign(reinterpret_cast<const char*>(packet.data()),
                                                   size);
    Send({packet.data(), size});
  }
  void AskForPicture(uint32_t ssrc) {
    webrtc::RtcpWriter writer;
    writer.AddReceiverReport(1, {});
    writer.AddPictureLoss(1, ssrc);
    SendRtcp(writer);
  }
  // As if so many packets of 256 of this stream had been lost.
  void ReportLoss(uint32_t ssrc, uint8_t fraction) {
    webrtc::ReportBlock block;
    block.ssrc = ssrc;
    block.fraction_lost = fraction;
    webrtc::RtcpWriter writer;
    writer.AddReceiverReport(1, std::span(&block, 1));
    SendRtcp(writer);
  }
  void SendData(const std::string& message) {
    ASSERT_TRUE(connected());
    ASSERT_TRUE(data_->Send("_reliable", webrtc::AsBytes(message)).ok());
  }
  void SendRaw(std::string_view datagram) { Send(webrtc::AsBytes(datagram)); }
  // The same packet once more.
  void Replay(uint16_t sequence) { Send(webrtc::AsBytes(sent_.at(sequence))); }
  // As if it came of SCTP.
  void SendPlain(std::string_view bytes) { EXPECT_TRUE(dtls_->Write(webrtc::AsBytes(bytes))); }
  // A check with the right names, from another address; `pwd`: "" = the right one.
  void CheckFromElsewhere(const std::string& pwd) {
    const int other = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sockaddr_in server{};
    socklen_t size = sizeof server;
    getpeername(fd_, reinterpret_cast<sockaddr*>(&server), &size);
    std::array<uint8_t, webrtc::kMaxStunBytes> check;
    const size_t bytes = webrtc::WriteBindingRequest({7}, remote_ufrag_ + ":" + ufrag(),
                                                     pwd.empty() ? remote_pwd_ : pwd,
                                                     pwd.empty() ? false : true, check);
    EXPECT_GT(sendto(other, check.data(), bytes, 0, reinterpret_cast<sockaddr*>(&server), size), 0);
    close(other);
  }

  struct Seen {  // a packet of video
    uint16_t sequence = 0;
    uint32_t timestamp = 0;
    uint32_t ssrc = 0;
    std::string content;
  };
  std::vector<Seen> seen;
  std::vector<std::string> heard;     // audio
  std::vector<std::string> messages;  // of data channels
  std::vector<std::string> channels;  // that the server opened
  std::vector<uint16_t> asked_again;  // for our audio
  int video_asked_again = 0;          // packets of our video, as often as they were asked for
  bool asks_again = false;            // for video that it misses
  int asked_for = 0;                  // by us
  std::string fingerprint;            // in descriptions, instead of the true one
  bool broken = false;                // the server ended the connection
  uint16_t via = 0;                   // a relay's port, instead of the server's
  bool answers_nacks = true;
  bool opens_channels = true;               // false: the server does
  size_t reports = 0;                       // of the server, about its audio
  std::map<uint32_t, int> pictures_wanted;  // of our video, by SSRC

 private:
  std::string ufrag() const { return fmt::format("them{}", generation_); }
  static std::string Head(std::string_view bundle) {
    return fmt::format("v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n",
                       bundle);
  }
  std::string Transport(std::string_view setup) const {
    return fmt::format(
        "a=ice-ufrag:{}\r\na=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 {}\r\n"
        "a=setup:{}\r\n",
        ufrag(), fingerprint.empty() ? context_->fingerprint() : fingerprint, setup);
  }
  static std::string Audio(std::string_view mid, std::string_view direction, int type) {
    return fmt::format(
        "m=audio 9 UDP/TLS/RTP/SAVPF {0}\r\nc=IN IP4 0.0.0.0\r\na=mid:{1}\r\na={2}\r\n"
        "a=rtpmap:{0} opus/48000/2\r\na=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n",
        type, mid, direction);
  }

  static std::string Video(std::string_view mid, std::string_view direction) {
    return fmt::format(
        "m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:{}\r\na={}\r\n"
        "a=rtpmap:96 VP8/90000\r\na=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n"
        "a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n",
        mid, direction);
  }
  void SendRtcp(webrtc::RtcpWriter& writer) {
    const size_t size = srtp_->ProtectRtcp(writer.buffer(), writer.packet().size());
    Send({writer.buffer().data(), size});
  }
  void OnPictureLoss(uint32_t ssrc) override { ++pictures_wanted[ssrc]; }
  void OnSenderReport(const webrtc::SenderReport&) override { ++reports; }
  void OnReportBlock(const webrtc::ReportBlock&) override {}
  void OnNack(uint32_t ssrc, uint16_t sequence) override {
    if (const auto sent = sent_video_.find({ssrc, sequence}); sent != sent_video_.end()) {
      ++video_asked_again;
      return Send(webrtc::AsBytes(sent->second));
    }
    EXPECT_EQ(ssrc, kSsrc);
    asked_again.push_back(sequence);
    if (answers_nacks) Send(webrtc::AsBytes(sent_[sequence]));
  }

  void TakeRemote(const std::string& text) {
    const auto remote = webrtc::ParseSdp(text);
    ASSERT_TRUE(remote.ok()) << remote.status();
    const webrtc::SdpSection& first = remote->sections.at(0);
    remote_ufrag_ = first.ice_ufrag;
    remote_pwd_ = first.ice_pwd;
    if (fd_ >= 0) return;
    const std::string family = tcp ? " tcp " : " udp ";
    size_t at = text.find(family, text.find("a=candidate"));
    while (at != std::string::npos && v6 != (text.find("::1 ", at) < text.find("\r\n", at))) {
      at = text.find(family, at + 1);
    }
    ASSERT_NE(at, std::string::npos) << text;
    std::istringstream fields(text.substr(at + family.size()));
    std::string priority, ip;
    uint16_t port = 0;
    fields >> priority >> ip >> port;
    const auto server = webrtc::Endpoint::Parse(ip, via != 0 ? via : port);
    ASSERT_TRUE(server) << ip;
    sockaddr_storage address{};
    const int domain = v6 ? AF_INET6 : AF_INET;
    const socklen_t size = server->ToSockaddr(domain, &address);
    fd_ = socket(domain, (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0);
    ASSERT_EQ(connect(fd_, reinterpret_cast<sockaddr*>(&address), size), 0);
    if (dtls_ != nullptr) return;  // another network, the same keys
    dtls_ = std::make_unique<webrtc::DtlsTransport>(
        context_, webrtc::DtlsTransport::Role::kClient, first.fingerprint,
        [this](webrtc::Bytes datagram) { Send(datagram); },
        [this](webrtc::Bytes plain) {
          if (data_ != nullptr) data_->Take(plain);
        });
  }

  void Send(webrtc::Bytes datagram) {
    if (fd_ < 0) return;
    if (tcp) {
      std::string framed(2, '\0');
      webrtc::Put16(reinterpret_cast<uint8_t*>(framed.data()),
                    static_cast<uint16_t>(datagram.size()));
      framed += webrtc::Text(datagram);
      (void)!send(fd_, framed.data(), framed.size(), MSG_NOSIGNAL);
      return;
    }
    (void)!send(fd_, datagram.data(), datagram.size(), 0);  // a network may lose it
  }

  void Take(std::span<uint8_t> datagram) {
    if (webrtc::LooksLikeStun(datagram)) {
      const auto message = webrtc::ParseStun(datagram);
      if (!message || !webrtc::CheckIntegrity(*message, remote_pwd_)) return;
      if (!std::exchange(checked_, true)) dtls_->Start();
    } else if (datagram[0] < 64) {
      if (!dtls_->Take(datagram).ok()) broken = true;
      if (dtls_->connected() && srtp_ == nullptr) Secured();
    } else if (srtp_ != nullptr && webrtc::IsRtcp(datagram)) {
      const size_t size = srtp_->UnprotectRtcp(datagram);
      if (size == 0) return;  // it came twice
      EXPECT_TRUE(webrtc::ReadRtcp(datagram.first(size), *this));
    } else if (srtp_ != nullptr) {
      const size_t size = srtp_->UnprotectRtp(datagram);
      if (size == 0) return;  // it came twice
      const auto packet = webrtc::ParseRtp(datagram.first(size), {.audio_level = 1});
      ASSERT_TRUE(packet);
      if (packet->payload_type == 96) {
        auto& receiver = received_[packet->ssrc];
        if (receiver == nullptr) receiver = std::make_unique<webrtc::VideoReceiver>(packet->ssrc);
        if (!receiver->Add(*packet, loop_.NowMicros())) return;  // it came before
        seen.push_back({packet->sequence, packet->timestamp, packet->ssrc,
                        std::string(webrtc::Text(packet->payload.subspan(2)))});
        return;
      }
      heard.emplace_back(webrtc::Text(packet->payload));
    }
  }

  void AskAgain(int64_t now_us) {
    for (const auto& [ssrc, receiver] : received_) {
      std::array<uint16_t, webrtc::kMaxNacked> missing;
      const size_t count = receiver->Missing(now_us, &missing);
      if (count == 0) continue;
      asked_for += static_cast<int>(count);
      webrtc::RtcpWriter writer;
      writer.AddReceiverReport(1, {});
      writer.AddNack(1, ssrc, std::span(missing).first(count));
      SendRtcp(writer);
    }
  }

  void Secured() {
    srtp_ = *webrtc::Srtp::Create(dtls_->keys());
    data_ = std::make_unique<webrtc::DataTransport>(
        loop_, true,
        webrtc::DataTransport::Handlers{
            [this](webrtc::Bytes packet) { dtls_->Write(packet); },
            [this](const webrtc::DataChannel& channel) { channels.push_back(channel.label); },
            [this](const webrtc::DataChannel&, webrtc::Bytes message) {
              messages.emplace_back(webrtc::Text(message));
            }});
    ASSERT_TRUE(data_->Start(5000).ok());
    if (!opens_channels) return;
    ASSERT_TRUE(data_->Open("_reliable", true, std::nullopt).ok());
  }

  const std::shared_ptr<webrtc::DtlsContext> context_;
  event::Loop loop_;
  int fd_ = -1;
  int generation_ = 0;
  bool checked_ = false;
  int64_t next_check_us_ = 0;
  std::string remote_ufrag_;
  std::string remote_pwd_;
  std::unique_ptr<webrtc::DtlsTransport> dtls_;
  std::unique_ptr<webrtc::Srtp> srtp_;
  std::unique_ptr<webrtc::DataTransport> data_;
  std::map<uint16_t, std::string> sent_;
  std::map<std::pair<uint32_t, uint16_t>, std::string> sent_video_;  // by SSRC and number
  std::map<uint32_t, std::unique_ptr<webrtc::VideoReceiver>> received_;
  webrtc::TcpFrames frames_;
};

}  // namespace parley
