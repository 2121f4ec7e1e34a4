// The gate itself: what tests of outages stand on.
#include "testing/tcp_gate.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <string>

namespace parley::testing {
namespace {

// Connects through a gate to a listener that this test holds the other end of.
class TcpGateTest : public ::testing::Test {
 protected:
  void SetUp() override {
    listener_ = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in any{};
    any.sin_family = AF_INET;
    any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof any;
    ASSERT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&any), size), 0);
    ASSERT_EQ(listen(listener_, 8), 0);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&any), &size);
    auto gate = TcpGate::Start("127.0.0.1:" + std::to_string(ntohs(any.sin_port)));
    ASSERT_TRUE(gate.ok()) << gate.status();
    gate_ = *std::move(gate);
  }
  void TearDown() override {
    for (const int fd : {client_, server_, listener_})
      if (fd >= 0) close(fd);
  }

  void Connect() {
    client_ = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const std::string address = gate_->address();
    to.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(address.find(':') + 1))));
    ASSERT_EQ(connect(client_, reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
  }
  void ConnectThrough() {
    Connect();
    server_ = accept(listener_, nullptr, nullptr);
    ASSERT_GE(server_, 0);
  }

  static void Send(int fd, const std::string& text) {
    ASSERT_EQ(send(fd, text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }
  // What arrives within the time, "" when nothing does, "EOF" or "RESET" at an end.
  static std::string Receive(int fd, int timeout_ms) {
    pollfd polled{fd, POLLIN, 0};
    if (poll(&polled, 1, timeout_ms) == 0) return "";
    char buffer[4096];
    const ssize_t got = recv(fd, buffer, sizeof buffer, 0);
    if (got == 0) return "EOF";
    if (got < 0) return errno == ECONNRESET ? "RESET" : "ERROR";
    return std::string(buffer, static_cast<size_t>(got));
  }

  std::unique_ptr<TcpGate> gate_;
  int listener_ = -1;
  int client_ = -1;
  int server_ = -1;
};

TEST_F(TcpGateTest, RelaysBothWaysAndCounts) {
  ConnectThrough();
  Send(client_, "up");
  EXPECT_EQ(Receive(server_, 30'000), "up");
  Send(server_, "down");
  EXPECT_EQ(Receive(client_, 30'000), "down");
  EXPECT_EQ(gate_->accepted(), 1);
  EXPECT_EQ(gate_->bytes_to_server(), 2);
  EXPECT_EQ(gate_->bytes_to_client(), 4);
}

TEST_F(TcpGateTest, AnEndOnOneSideIsAnEndOnTheOther) {
  ConnectThrough();
  Send(client_, "last words");
  shutdown(client_, SHUT_WR);
  EXPECT_EQ(Receive(server_, 30'000), "last words");
  EXPECT_EQ(Receive(server_, 30'000), "EOF");
}

TEST_F(TcpGateTest, CutResetsBothSides) {
  ConnectThrough();
  gate_->Cut();
  EXPECT_EQ(Receive(client_, 30'000), "RESET");
  EXPECT_EQ(Receive(server_, 30'000), "RESET");
}

TEST_F(TcpGateTest, StalledBytesWaitAndArriveLater) {
  ConnectThrough();
  gate_->SetFlow(TcpGate::Flow::kStalled);
  Send(client_, "patience");
  EXPECT_EQ(Receive(server_, 100), "");
  gate_->SetFlow(TcpGate::Flow::kOpen);
  EXPECT_EQ(Receive(server_, 30'000), "patience");
}

TEST_F(TcpGateTest, OneWayLetsOneDirectionThrough) {
  ConnectThrough();
  gate_->SetFlow(TcpGate::Flow::kToServer);
  Send(server_, "unheard");
  Send(client_, "heard");
  EXPECT_EQ(Receive(server_, 30'000), "heard");
  EXPECT_EQ(Receive(client_, 100), "");
}

TEST_F(TcpGateTest, DelayedBytesKeepTheirOrder) {
  ConnectThrough();
  gate_->SetDelay(absl::Milliseconds(120));
  const auto start = std::chrono::steady_clock::now();
  Send(client_, "a");
  Send(client_, "b");
  std::string got = Receive(server_, 30'000);
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(119));
  if (got == "a") got += Receive(server_, 30'000);
  EXPECT_EQ(got, "ab");
}

TEST_F(TcpGateTest, RefusedConnectionsEndAtOnce) {
  gate_->SetFlow(TcpGate::Flow::kRefused);
  Connect();
  EXPECT_EQ(Receive(client_, 30'000), "RESET");
  EXPECT_EQ(gate_->accepted(), 0);
}

TEST(TcpGateStartTest, ATargetMustBeNumeric) {
  EXPECT_EQ(TcpGate::Start("somewhere:1").status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace parley::testing
