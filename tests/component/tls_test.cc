// TLS of gRPC with certificates that are renewed while it runs, and clients that are sent off now
// and then so that they find new replicas.
#include "rpc/tls.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <future>
#include <map>
#include <thread>
#include <vector>

#include "rpc/channel.h"
#include "rpc/server.h"
#include "testing/certificates.h"
#include "testing/matchers.h"

namespace parley::rpc {
namespace {

using testing::Certificates;
using testing::Eventually;
using testing::HasCode;

constexpr char kName[] = "parley.internal";

// Asks a server for its health on a channel; what its certificate was, if it had one.
struct Answer {
  absl::Status status;
  std::string certificate;
};
Answer Ask(const std::shared_ptr<grpc::Channel>& channel) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  SetTimeout(context, absl::Seconds(20));
  const grpc::Slice nothing;
  grpc::ByteBuffer in(&nothing, 1), out;
  std::promise<grpc::Status> done;
  stub.UnaryCall(&context, "/grpc.health.v1.Health/Check", {}, &in, &out,
                 [&done](grpc::Status status) { done.set_value(std::move(status)); });
  const grpc::Status status = done.get_future().get();
  Answer answer{
      absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message()), ""};
  for (const grpc::string_ref& pem :
       context.auth_context()->FindPropertyValues(GRPC_X509_PEM_CERT_PROPERTY_NAME)) {
    answer.certificate.assign(pem.data(), pem.size());
  }
  return answer;
}
Answer Ask(int port) { return Ask(MakeChannel("127.0.0.1:" + std::to_string(port))); }

// A call that stays open: health is watched.
class Watch {
 public:
  explicit Watch(const std::shared_ptr<grpc::Channel>& channel) : stub_(channel) {
    const grpc::Slice nothing;
    reactor_.request = grpc::ByteBuffer(&nothing, 1);
    stub_.PrepareBidiStreamingCall(&context_, "/grpc.health.v1.Health/Watch", {}, &reactor_);
    reactor_.StartWriteLast(&reactor_.request, {});
    reactor_.StartRead(&reactor_.response);
    reactor_.StartCall();
  }
  ~Watch() {
    context_.TryCancel();
    reactor_.over.get_future().wait();
  }
  int answers() const { return reactor_.answers; }
  bool ended() const { return reactor_.ended; }

 private:
  struct Reactor : grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
    void OnReadDone(bool ok) override {
      if (!ok) return;
      ++answers;
      StartRead(&response);
    }
    void OnDone(const grpc::Status&) override {
      ended = true;
      over.set_value();
    }
    grpc::ByteBuffer request, response;
    std::atomic<int> answers{0};
    std::atomic<bool> ended{false};
    std::promise<void> over;
  };
  grpc::GenericStub stub_;
  grpc::ClientContext context_;
  Reactor reactor_;
};

class TlsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    files_.MakeAuthority("ca");
    files_.Make("one", "ca", kName);
    files_.Mount("one", {"ca"});
    tls_ = {files_["mounted/tls.crt"], files_["mounted/tls.key"], files_["mounted/ca.crt"], kName,
            true};
  }
  void TearDown() override { UseTls({}); }
  int Serve(Server& server) {
    ServerOptions options;
    options.tls = tls_;
    PARLEY_EXPECT_OK(server.Start(options, {}));
    return server.port();
  }
  Certificates files_;
  TlsFiles tls_;
};

TEST_F(TlsTest, OnlyWhoShowsACertificateOfTheAuthorityIsLetIn) {
  Server server;
  const int port = Serve(server);
  UseTls(tls_);
  const Answer answer = Ask(port);
  PARLEY_EXPECT_OK(answer.status);
  EXPECT_EQ(answer.certificate, files_.Text("one.crt").substr(0, answer.certificate.size()));
  // Without one; with one of somebody else; in plain.
  TlsFiles other = tls_;
  other.certificate = other.key = "";
  UseTls(other);
  EXPECT_THAT(Ask(port).status, HasCode(absl::StatusCode::kUnavailable));
  files_.MakeAuthority("stranger");
  files_.Make("foreign", "stranger", kName);
  other = tls_;
  other.certificate = files_["foreign.crt"];
  other.key = files_["foreign.key"];
  UseTls(other);
  EXPECT_THAT(Ask(port).status, HasCode(absl::StatusCode::kUnavailable));
  UseTls({});
  EXPECT_THAT(Ask(port).status, HasCode(absl::StatusCode::kUnavailable));
}

TEST_F(TlsTest, AServerOfAnotherNameOrAuthorityIsNotBelieved) {
  Server server;
  const int port = Serve(server);
  TlsFiles other = tls_;
  other.server_name = "registry.internal";
  UseTls(other);
  EXPECT_THAT(Ask(port).status, HasCode(absl::StatusCode::kUnavailable));
  files_.MakeAuthority("stranger");
  other = tls_;
  other.authorities = files_["stranger.crt"];
  UseTls(other);
  EXPECT_THAT(Ask(port).status, HasCode(absl::StatusCode::kUnavailable));
}

// Everything is renewed, the authority too: first both are trusted, then the certificate changes.
// No call fails or ends for it.
TEST_F(TlsTest, CertificatesAreRenewedUnderOpenCalls) {
  Server server;
  const int port = Serve(server);
  UseTls(tls_);
  Watch open(MakeChannel("127.0.0.1:" + std::to_string(port)));
  ASSERT_TRUE(Eventually([&] { return open.answers() > 0; }));
  files_.MakeAuthority("next");
  files_.Make("two", "next", kName);
  files_.Mount("one", {"ca", "next"});
  absl::SleepFor(absl::Seconds(6));  // as whoever renews waits until all have read it: 5 s
  files_.Mount("two", {"ca", "next"});
  const std::string two = files_.Text("two.crt");
  EXPECT_TRUE(Eventually(
      [&] {
        UseTls(tls_);  // a new channel: another connection
        const Answer answer = Ask(port);
        EXPECT_TRUE(answer.status.ok()) << answer.status;
        return !answer.certificate.empty() && two.starts_with(answer.certificate);
      },
      absl::Seconds(30)));
  EXPECT_FALSE(open.ended());
}

TEST_F(TlsTest, WhatCannotWorkIsSaidAtTheStart) {
  PARLEY_EXPECT_OK(Check(tls_));
  PARLEY_EXPECT_OK(Check({}));
  const auto bad = [&](auto change) {
    TlsFiles files = tls_;
    change(files);
    return Check(files);
  };
  const auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(bad([](TlsFiles& f) { f.key = ""; }), HasCode(kInvalid));
  EXPECT_THAT(bad([](TlsFiles& f) { f.authorities = ""; }), HasCode(kInvalid));
  EXPECT_THAT(bad([](TlsFiles& f) { f.certificate = "/nowhere.crt"; }), HasCode(kInvalid));
  EXPECT_THAT(bad([&](TlsFiles& f) { f.authorities = files_["log"]; }), HasCode(kInvalid));
}

// A name server for one name, whose addresses change.
class NameServer {
 public:
  NameServer() : fd_(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), size), 0);
    getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { Run(); });
  }
  ~NameServer() {
    stop_ = true;
    thread_.join();
    close(fd_);
  }
  int port() const { return port_; }
  // 127.0.0.1 to 127.0.0.`count`.
  void Answer(int count) { count_ = count; }

 private:
  void Run() {
    pollfd waiting{fd_, POLLIN, 0};
    while (!stop_) {
      if (poll(&waiting, 1, 50) <= 0) continue;
      std::string question(512, '\0');
      sockaddr_in from{};
      socklen_t size = sizeof(from);
      const ssize_t got = recvfrom(fd_, question.data(), question.size(), 0,
                                   reinterpret_cast<sockaddr*>(&from), &size);
      if (got < 17) continue;
      size_t end = 12;  // of the name
      while (end < static_cast<size_t>(got) && question[end] != 0) {
        end += 1 + static_cast<size_t>(question[end]);
      }
      const bool v4 = question[end + 2] == 1;  // type A
      const int count = v4 ? count_.load() : 0;
      std::string answer = question.substr(0, end + 5);
      answer[2] = '\x84';  // an answer, with authority
      answer[3] = '\x00';
      answer[7] = static_cast<char>(count);
      answer[9] = answer[11] = '\0';
      for (int i = 1; i <= count; ++i) {
        answer += std::string("\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04\x7f\x00\x00", 15);
        answer += static_cast<char>(i);
      }
      sendto(fd_, answer.data(), answer.size(), 0, reinterpret_cast<sockaddr*>(&from), size);
    }
  }
  const int fd_;
  int port_ = 0;
  std::atomic<int> count_{1};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// One replica, then two: calls of a client that was there before reach the second as well, and a
// call that is open stays where it is.
TEST(ConnectionAgeTest, AddedReplicasGetTrafficAndOpenCallsStay) {
  NameServer names;
  ServerOptions options;
  options.max_connection_age = absl::Seconds(1);
  Server first, second;
  PARLEY_ASSERT_OK(first.Start(options, {}));
  const auto channel = MakeChannel("dns://127.0.0.1:" + std::to_string(names.port()) +
                                   "/replicas.test:" + std::to_string(first.port()));
  Watch open(channel);
  ASSERT_TRUE(Eventually([&] { return open.answers() > 0; }));
  options.address = "127.0.0.2";
  options.port = first.port();
  PARLEY_ASSERT_OK(second.Start(options, {}));
  names.Answer(2);
  std::map<std::string, int> seen;
  ASSERT_TRUE(Eventually(
      [&] {
        grpc::GenericStub stub(channel);
        grpc::ClientContext context;
        SetTimeout(context, absl::Seconds(20));
        const grpc::Slice nothing;
        grpc::ByteBuffer in(&nothing, 1), out;
        std::promise<grpc::Status> done;
        stub.UnaryCall(&context, "/grpc.health.v1.Health/Check", {}, &in, &out,
                       [&done](grpc::Status status) { done.set_value(std::move(status)); });
        const grpc::Status status = done.get_future().get();
        EXPECT_TRUE(status.ok()) << status.error_message();
        ++seen[context.peer()];
        absl::SleepFor(absl::Milliseconds(20));  // a client's pace
        return seen.count("ipv4:127.0.0.2:" + std::to_string(first.port())) > 0;
      },
      absl::Seconds(30)));
  EXPECT_GT(seen["ipv4:127.0.0.1:" + std::to_string(first.port())], 0);
  EXPECT_FALSE(open.ended());
}

}  // namespace
}  // namespace parley::rpc
