// How clients reach the media of a real room server: UDP, TCP where their network lets no UDP
// through, IPv6, what is announced, and the credentials for a relay.
#include <gmock/gmock.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <filesystem>
#include <fstream>

#include "room_server/turn.h"
#include "rtc_fixture.h"
#include "testing/matchers.h"
#include "webrtc/engine.h"

namespace parley {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// Answers how senders look from outside, as if a NAT were between: at 192.0.2.7:5000.
class OutsideServer {
 public:
  OutsideServer() : fd_(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), size), 0);
    getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { Run(); });
  }
  ~OutsideServer() {
    stopped_ = true;
    thread_.join();
    close(fd_);
  }
  std::string address() const { return fmt::format("127.0.0.1:{}", port_); }

 private:
  void Run() {
    while (!stopped_) {
      pollfd waiting{fd_, POLLIN, 0};
      if (poll(&waiting, 1, 50) <= 0) continue;
      std::array<uint8_t, 512> question, answer;
      sockaddr_storage from{};
      socklen_t size = sizeof from;
      const ssize_t got = recvfrom(fd_, question.data(), question.size(), 0,
                                   reinterpret_cast<sockaddr*>(&from), &size);
      const auto message = webrtc::ParseStun(
          webrtc::Bytes(question).first(static_cast<size_t>(std::max<ssize_t>(got, 0))));
      EXPECT_TRUE(message && message->kind == webrtc::StunMessage::Kind::kBindingRequest);
      if (!message) continue;
      const size_t bytes = webrtc::WriteBindingSuccess(
          message->transaction, *webrtc::Endpoint::Parse("192.0.2.7", 5000), "x", answer);
      (void)sendto(fd_, answer.data(), bytes, 0, reinterpret_cast<sockaddr*>(&from), size);
    }
  }
  const int fd_;
  uint16_t port_ = 0;
  std::atomic<bool> stopped_{false};
  std::thread thread_;
};

class RtcReachTest : public RtcTest {
 protected:
  std::string Answer(RtcClient& client) {
    Signalling signalling(server(), OneConnection(Token(Joiner("eve")), JoinRequest(client)));
    return signalling.Next(lk::SignalResponse::kAnswer).answer().sdp();
  }
  // Ann, who joins by `client`, speaks to bob; a packet of hers is lost and asked for again.
  void Speak(RtcClient& client) {
    const auto signalling = Connect(client, "ann");
    Peer bob = Join(Joiner("bob"));
    bob.Event(pb::RoomEvent::kSubscriptionStarted);
    EXPECT_TRUE(LostOnesComeInOrder(client, bob, 5, {3}));
    EXPECT_FALSE(client.asked_again.empty());
    lk::DataPacket packet;
    packet.mutable_user()->set_payload(std::string(40'000, 'x'));
    client.SendData(packet.SerializeAsString());
    EXPECT_EQ(Heard(bob, client, pb::RoomEvent::kData).data().payload().size(), 40'000);
  }
};

TEST_F(RtcReachTest, OverTcp) {
  config_.rtc_tcp_port = 0;
  RtcClient client;
  client.tcp = true;
  Speak(client);
}

TEST_F(RtcReachTest, StrangersOverTcpDisturbNobody) {
  config_.rtc_tcp_port = 0;
  RtcClient client;
  client.tcp = true;
  const auto signalling = Connect(client, "ann");
  Peer bob = Join(Joiner("bob"));
  bob.Event(pb::RoomEvent::kSubscriptionStarted);
  RtcClient other;
  const std::string sdp = Answer(other);
  const size_t at = sdp.find(" 127.0.0.1 ", sdp.find(" tcp "));
  ASSERT_NE(at, std::string::npos);
  sockaddr_in server{};
  server.sin_family = AF_INET;
  server.sin_port = htons(static_cast<uint16_t>(std::stoi(sdp.substr(at + 11))));
  server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const auto stream = [&] {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&server), sizeof server), 0);
    return fd;
  };
  std::vector<int> silent;
  for (int i = 0; i < 100; ++i) silent.push_back(stream());
  for (const std::string& nonsense :
       {std::string("GET / HTTP/1.1\r\n\r\n"), std::string("\xff\xff", 2), std::string("\0\0", 2),
        std::string("\0\4abcd", 6) + std::string(3'000, '\xff')}) {
    const int fd = stream();
    ASSERT_GT(send(fd, nonsense.data(), nonsense.size(), MSG_NOSIGNAL), 0);
    char byte = 0;
    EXPECT_LE(recv(fd, &byte, 1, 0), 0) << "such a stream is closed";
    close(fd);
  }
  for (uint16_t i = 0; i < 5; ++i) {
    client.SendAudio(i, std::to_string(i));
    EXPECT_EQ(bob.Audio().data(), std::to_string(i));
  }
  for (const int fd : silent) close(fd);
}

TEST_F(RtcReachTest, OverIpV6) {
  config_.rtc_address = "::1";
  RtcClient client;
  client.v6 = true;
  Speak(client);
}

TEST_F(RtcReachTest, OneSocketForBothKindsOfAddresses) {
  config_.rtc_address = "::";
  config_.rtc_announce = {"127.0.0.1", "::1"};
  RtcClient four, six;
  six.v6 = true;
  const auto ann = Connect(four, "ann");
  const auto bob = Connect(six, "bob");
  EXPECT_TRUE(four.connected() && six.connected());
}

TEST_F(RtcReachTest, WhatIsAnnouncedAndDiscovered) {
  OutsideServer outside;
  config_.rtc_announce = {"192.0.2.1", "198.51.100.1:9000", "[2001:db8::1]:9001"};
  config_.rtc_stun_server = outside.address();
  RtcClient client;
  const std::string sdp = Answer(client);
  EXPECT_THAT(sdp, HasSubstr(" 192.0.2.1 "));
  EXPECT_THAT(sdp, HasSubstr(" 198.51.100.1 9000 typ host"));
  EXPECT_THAT(sdp, HasSubstr(" 2001:db8::1 9001 typ host"));
  EXPECT_THAT(sdp, HasSubstr(" 192.0.2.7 5000 typ host")) << "as the STUN server says";
  EXPECT_THAT(sdp, Not(HasSubstr(" 127.0.0.1 ")));
}

TEST_F(RtcReachTest, FirstFreePortOfARangeIsTaken) {
  webrtc::EngineOptions options;
  const auto first = webrtc::Engine::Start(options);
  PARLEY_ASSERT_OK(first.status());
  options.udp_port = (*first)->port();
  EXPECT_FALSE(webrtc::Engine::Start(options).ok()) << "it is taken";
  options.udp_port_last = std::min(options.udp_port + 50, 65'535);
  const auto second = webrtc::Engine::Start(options);
  PARLEY_ASSERT_OK(second.status());
  EXPECT_GT((*second)->port(), options.udp_port);
  EXPECT_LE((*second)->port(), options.udp_port_last);
}

TEST_F(RtcReachTest, ClientsAreToldOfRelaysAndGetCredentialsForThem) {
  const std::string file =
      std::filesystem::temp_directory_path() / fmt::format("parley-turn-secret-{}", getpid());
  std::ofstream(file) << "north\n";
  config_.turn_urls = {"turn:turn.example.com:3478?transport=udp"};
  config_.turn_secret_file = file;
  config_.turn_ttl = absl::Hours(1);
  RtcClient client;
  const auto signalling = Connect(client, "ann");
  std::filesystem::remove(file);
  ASSERT_EQ(joined_.ice_servers_size(), 1);
  const lk::ICEServer& relay = joined_.ice_servers(0);
  ASSERT_EQ(relay.urls_size(), 1);
  EXPECT_EQ(relay.urls(0), config_.turn_urls[0]);
  const size_t colon = relay.username().find(':');
  ASSERT_NE(colon, std::string::npos);
  EXPECT_EQ(relay.username().substr(colon), ":ann");
  const int64_t until = std::stoll(relay.username());
  EXPECT_NEAR(static_cast<double>(until),
              static_cast<double>(absl::ToUnixSeconds(absl::Now())) + 3600, 30);
  uint8_t mac[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  HMAC(EVP_sha1(), "north", 5, reinterpret_cast<const uint8_t*>(relay.username().data()),
       relay.username().size(), mac, &size);
  std::string wanted(64, '\0');
  wanted.resize(static_cast<size_t>(
      EVP_EncodeBlock(reinterpret_cast<uint8_t*>(wanted.data()), mac, static_cast<int>(size))));
  EXPECT_EQ(relay.credential(), wanted);
}

TEST_F(RtcReachTest, RelaysNeedASecret) {
  using room_server::TurnServers;
  EXPECT_EQ(TurnServers::Create({"turn:x"}, "", absl::Hours(1)).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(TurnServers::Create({"http://x"}, "", absl::Hours(1)).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(TurnServers::Create({"turn:x"}, "/nowhere", absl::Hours(1)).status().code(),
            absl::StatusCode::kNotFound);
  PARLEY_EXPECT_OK(TurnServers::Create({"stun:x"}, "", absl::Hours(1)).status());
}

}  // namespace
}  // namespace parley
