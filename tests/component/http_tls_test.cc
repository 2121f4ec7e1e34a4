// The HTTP server over TLS, with certificates that are replaced while it serves.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <memory>
#include <string>
#include <thread>

#include "http/authority.h"
#include "http/client.h"
#include "http/server.h"
#include "testing/certificates.h"
#include "testing/matchers.h"
#include "testing/process.h"

namespace parley::http {
namespace {

using testing::Certificates;
using testing::Eventually;
using testing::HasCode;
using ::testing::HasSubstr;

class HttpTlsTest : public ::testing::Test {
 protected:
  HttpTlsTest() {
    files_.MakeAuthority("old");
    files_.MakeAuthority("new");
    files_.Make("one", "old", "localhost");
    files_.Make("two", "new", "localhost");
    files_.Mount("one", {"old"});
  }
  ServerOptions Options() {
    ServerOptions options;
    options.certificate = files_["mounted/tls.crt"];
    options.key = files_["mounted/tls.key"];
    options.header_timeout = absl::Seconds(1);
    return options;
  }
  void StartServer() {
    server_ = std::make_unique<Server>(Options(), executor_, log::Logger());
    server_->Handle("POST", "/echo", [](const Request& request) {
      return Response{200, "application/octet-stream", request.body, {}};
    });
    server_->Handle("GET", "/long", [this](const Request&) {
      Response response{200, "text/plain", "", {}};
      response.stream = stream_;
      return response;
    });
    server_->HandleWebSocket("/ws", [](const Request&, const std::shared_ptr<WebSocket>& socket) {
      struct Deaf : WebSocketListener {
        void OnMessage(WebSocketMessage) override {}
        void OnClosed() override {}
      };
      socket->Send({"over TLS", true});
      return std::make_shared<Deaf>();
    });
    PARLEY_ASSERT_OK(server_->Start());
    origin_ = "https://localhost:" + std::to_string(server_->port());
  }
  Call CallTo(const std::string& method, const std::string& path, std::string body = {}) const {
    Call call;
    call.method = method;
    call.url = origin_ + path;
    call.body = std::move(body);
    call.reach = Reach::kLoopbackToo;
    return call;
  }
  // With a connection of its own.
  absl::Status AskAnew() const {
    Client client;
    const auto reply = client.Fetch(CallTo("POST", "/echo", "x"));
    if (!reply.ok()) return reply.status();
    EXPECT_EQ(reply->body, "x");
    return absl::OkStatus();
  }

  Certificates files_;
  Executor executor_{4, 64};
  std::shared_ptr<BodyStream> stream_ = std::make_shared<BodyStream>();
  std::unique_ptr<Server> server_;
  std::string origin_;
};

TEST_F(HttpTlsTest, CarriesBodiesOfAnySizeFromManyClients) {
  StartServer();
  SetAuthority(origin_, files_["old.crt"]);
  Client client;
  for (const size_t size : {size_t{1}, size_t{16'384}, size_t{100'000}, size_t{3'000'000}}) {
    std::string body(size, '\0');
    for (size_t i = 0; i < size; ++i) body[i] = static_cast<char>(i * 31 + i / 251);
    const auto reply = client.Fetch(CallTo("POST", "/echo", body));
    ASSERT_TRUE(reply.ok()) << size << ": " << reply.status();
    EXPECT_TRUE(reply->body == body) << size;
  }
  std::vector<std::thread> callers;
  std::atomic<int> good{0};
  for (int i = 0; i < 8; ++i) {
    callers.emplace_back([&] {
      for (int n = 0; n < 10; ++n) {
        const auto reply = client.Fetch(CallTo("POST", "/echo", std::string(70'000, 'y')));
        good += reply.ok() && reply->body.size() == 70'000;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(good, 80);
}

TEST_F(HttpTlsTest, CarriesWebSockets) {
  StartServer();
  const std::string request = files_["request"], log = files_["answer"];
  std::ofstream(request) << "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
                            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
  const auto client = testing::Process::Start(
      {"sh", "-c",
       fmt::format("exec stdbuf -o0 openssl s_client -quiet -verify_return_error -CAfile {} "
                   "-connect localhost:{} <{}",
                   files_["old.crt"], server_->port(), request)},
      log);
  ASSERT_TRUE(client.ok()) << client.status();
  std::string got;
  EXPECT_TRUE(Eventually([&] {
    got = (*client)->Log();
    return got.find("over TLS") != std::string::npos;
  }));
  EXPECT_THAT(got, HasSubstr("101 Switching"));
  EXPECT_THAT(got, HasSubstr("over TLS"));
}

TEST_F(HttpTlsTest, WhoSpeaksPlainHttpOrNothingIsClosed) {
  StartServer();
  for (const std::string& said :
       {std::string("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), std::string()}) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(server_->port()));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    const timeval patience{10, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    ASSERT_EQ(send(fd, said.data(), said.size(), MSG_NOSIGNAL), static_cast<ssize_t>(said.size()));
    std::string got;
    char buffer[1024];
    ssize_t size = 0;
    while ((size = recv(fd, buffer, sizeof buffer, 0)) > 0) {
      got.append(buffer, static_cast<size_t>(size));
    }
    EXPECT_TRUE(size == 0 || errno == ECONNRESET) << "still open after 10 s";
    EXPECT_EQ(got.find("HTTP/1.1 2"), std::string::npos);
    close(fd);
  }
}

TEST_F(HttpTlsTest, ANewCertificateIsShownToNewConnectionsAndOpenOnesGoOn) {
  StartServer();
  SetAuthority(origin_, files_["old.crt"]);
  PARLEY_ASSERT_OK(AskAnew());
  std::string heard;
  std::atomic<bool> hears{false};
  absl::StatusOr<Reply> ended = absl::UnknownError("not yet");
  std::thread listener([&] {
    Client client;
    ended = client.Stream(CallTo("GET", "/long"), [&](std::string_view piece) {
      heard += piece;
      hears = true;
      return true;
    });
  });
  stream_->Write("before, ");
  ASSERT_TRUE(Eventually([&] { return hears.load(); }));

  SetAuthority(origin_, files_["new.crt"]);
  EXPECT_THAT(AskAnew(), HasCode(absl::StatusCode::kUnavailable));  // it shows the old one still
  files_.Mount("two", {"new"});
  EXPECT_TRUE(Eventually([&] { return AskAnew().ok(); }));
  SetAuthority(origin_, files_["old.crt"]);
  EXPECT_THAT(AskAnew(), HasCode(absl::StatusCode::kUnavailable));

  stream_->Write("after");
  stream_->End();
  listener.join();
  PARLEY_EXPECT_OK(ended);
  EXPECT_EQ(heard, "before, after");
}

TEST_F(HttpTlsTest, AKeyOfAnotherCertificateIsNotTaken) {
  StartServer();
  SetAuthority(origin_, files_["old.crt"]);
  // Renewed one file at a time, and halfway for a while.
  files_.Make("three", "old", "localhost");
  std::filesystem::copy_file(files_["three.crt"], files_["mounted/tls.crt"],
                             std::filesystem::copy_options::overwrite_existing);
  const absl::Time until = absl::Now() + absl::Seconds(3);
  while (absl::Now() < until) {
    PARLEY_ASSERT_OK(AskAnew());
    absl::SleepFor(absl::Milliseconds(50));  // a client's pace
  }
  std::filesystem::copy_file(files_["three.key"], files_["mounted/tls.key"],
                             std::filesystem::copy_options::overwrite_existing);
  PARLEY_EXPECT_OK(AskAnew());
}

TEST_F(HttpTlsTest, WhatDoesNotFitStopsTheStart) {
  const auto start = [&](const std::string& certificate, const std::string& key) {
    ServerOptions options = Options();
    options.certificate = certificate;
    options.key = key;
    Server server(options, executor_, log::Logger());
    return server.Start();
  };
  EXPECT_THAT(start(files_["one.crt"], files_["two.key"]),
              HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(start(files_["one.crt"], ""), HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(start("", files_["one.key"]), HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(start("/nowhere.crt", files_["one.key"]),
              HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(start(files_["one.key"], files_["one.key"]),
              HasCode(absl::StatusCode::kInvalidArgument));
  PARLEY_EXPECT_OK(start(files_["one.crt"], files_["one.key"]));
}

}  // namespace
}  // namespace parley::http
