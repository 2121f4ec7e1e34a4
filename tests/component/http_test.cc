// The HTTP server and client against each other and against a raw socket that misbehaves.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "http/client.h"
#include "http/server.h"
#include "testing/matchers.h"

namespace parley::http {
namespace {

using ::parley::testing::Eventually;
using ::parley::testing::HasCode;
using ::testing::HasSubstr;

MATCHER_P2(Fails, code, text, "") {
  *result_listener << arg.ToString();
  return arg.code() == code && Message(arg).find(text) != std::string_view::npos;
}

// A client that sends exactly what it is told to.
class RawClient {
 public:
  explicit RawClient(int port) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  ~RawClient() { close(fd_); }

  void Send(std::string_view bytes) {
    EXPECT_EQ(send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  // As much of it as the peer takes.
  void SendSome(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t size = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (size <= 0) return;
      bytes.remove_prefix(static_cast<size_t>(size));
    }
  }
  // What arrives until `end` stands in it, the peer closes, or 5 s passed.
  std::string ReadUntil(std::string_view end) {
    std::string got;
    pollfd waiting{fd_, POLLIN, 0};
    char buffer[4096];
    while ((end.empty() || got.find(end) == std::string::npos) && poll(&waiting, 1, 5000) > 0) {
      const ssize_t size = recv(fd_, buffer, sizeof buffer, 0);
      if (size <= 0) {
        closed_ = true;
        break;
      }
      got.append(buffer, static_cast<size_t>(size));
    }
    return got;
  }
  bool closed() const { return closed_; }

 private:
  const int fd_;
  bool closed_ = false;
};

class HttpTest : public ::testing::Test {
 protected:
  void Start(ServerOptions options = {}) {
    server_ = std::make_unique<Server>(options, executor_, log::Logger());
    server_->Handle("GET", "/hello/{name}", [](const Request& request) {
      return Response{200, "text/plain", "hello " + request.params.at("name"), {}};
    });
    server_->Handle("POST", "/echo", [](const Request& request) {
      return Response{201, "text/plain", request.body, {{"x-seen", request.peer}}};
    });
    server_->Handle("DELETE", "/things/{id}", [](const Request&) {
      return Response{204, "", "", {}};
    });
    server_->Handle("GET", "/query", [](const Request& request) {
      std::string text;
      for (const auto& [key, value] : request.query) text += key + "=" + value + ";";
      return Response{200, "text/plain", text, {}};
    });
    server_->Handle("GET", "/headers", [](const Request& request) {
      return Response{200,
                      "text/plain",
                      std::string(request.Header("authorization")) + "|" +
                          std::string(request.Header("x-sandbox-id")),
                      {}};
    });
    server_->Handle("GET", "/assets/{path*}", [](const Request& request) {
      return Response{200, "text/plain", request.params.at("path"), {}};
    });
    server_->Handle("GET", "/big", [](const Request&) {
      return Response{200, "text/plain", std::string(3 << 20, 'x'), {}};
    });
    server_->Handle("GET", "/throws",
                    [](const Request&) -> Response { throw std::runtime_error("oh"); });
    server_->Handle("GET", "/wait", [this](const Request&) {
      ++started_;
      while (hold_) std::this_thread::yield();
      return Response{200, "text/plain", "done", {}};
    });
    server_->HandleInline("GET", "/healthz", [](const Request&) {
      return Response{200, "text/plain", "ok", {}};
    });
    PARLEY_ASSERT_OK(server_->Start());
  }
  void TearDown() override {
    hold_ = false;
    if (server_) server_->Stop(absl::Seconds(1));
  }

  std::string Url(std::string_view path) {
    return fmt::format("http://127.0.0.1:{}{}", server_->port(), path);
  }
  absl::StatusOr<Reply> Do(std::string method, std::string_view path, std::string body = {}) {
    Call call;
    call.method = std::move(method);
    call.url = Url(path);
    call.body = std::move(body);
    call.reach = Reach::kLoopbackToo;
    return client_.Fetch(call);
  }
  std::string Raw(std::string_view bytes, std::string_view end = {}) {
    RawClient client(server_->port());
    client.Send(bytes);
    return client.ReadUntil(end);
  }

  Executor executor_{2, 4};
  std::atomic<bool> hold_{true};
  std::atomic<int> started_{0};
  std::unique_ptr<Server> server_;
  Client client_;
};

TEST_F(HttpTest, RoutesParametersAndBodies) {
  Start();
  PARLEY_ASSERT_OK_AND_ASSIGN(Reply hello, Do("GET", "/hello/J%C3%BCrgen%20x"));
  EXPECT_EQ(hello.status, 200);
  EXPECT_EQ(hello.body, "hello Jürgen x");
  EXPECT_EQ(hello.headers["content-type"], "text/plain");
  PARLEY_ASSERT_OK_AND_ASSIGN(Reply echo, Do("POST", "/echo", "some body"));
  EXPECT_EQ(echo.status, 201);
  EXPECT_EQ(echo.body, "some body");
  EXPECT_EQ(echo.headers["x-seen"], "127.0.0.1");
  PARLEY_ASSERT_OK_AND_ASSIGN(Reply rest, Do("GET", "/assets/a/b/c.js"));
  EXPECT_EQ(rest.body, "a/b/c.js");
  PARLEY_ASSERT_OK_AND_ASSIGN(Reply deleted, Do("DELETE", "/things/7"));
  EXPECT_EQ(deleted.status, 204);
  EXPECT_EQ(deleted.headers.count("content-length"), 0u);
}

TEST_F(HttpTest, QueryAndHeaders) {
  Start();
  PARLEY_ASSERT_OK_AND_ASSIGN(Reply query,
                              Do("GET", "/query?label=team%3Dhotel%26x&page_size=5&flag"));
  EXPECT_EQ(query.body, "flag=;label=team=hotel&x;page_size=5;");
  Call call;
  call.url = Url("/headers");
  call.reach = Reach::kLoopbackToo;
  call.headers = {{"Authorization", "Bearer " + std::string(8000, 't')}, {"X-Sandbox-ID", "box"}};
  PARLEY_ASSERT_OK_AND_ASSIGN(Reply headers, client_.Fetch(call));
  EXPECT_EQ(headers.body, "Bearer " + std::string(8000, 't') + "|box");
}

TEST_F(HttpTest, UnknownPathsAndMethods) {
  Start();
  PARLEY_ASSERT_OK_AND_ASSIGN(Reply missing, Do("GET", "/nothing"));
  EXPECT_EQ(missing.status, 404);
  EXPECT_THAT(missing.body, HasSubstr(R"("code":"not_found")"));
  PARLEY_ASSERT_OK_AND_ASSIGN(Reply wrong, Do("POST", "/hello/x", "{}"));
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.headers["allow"], "GET, HEAD, OPTIONS");
  PARLEY_ASSERT_OK_AND_ASSIGN(Reply options, Do("OPTIONS", "/hello/x"));
  EXPECT_EQ(options.status, 204);
  EXPECT_EQ(options.headers["allow"], "GET, HEAD, OPTIONS");
  PARLEY_ASSERT_OK_AND_ASSIGN(Reply thrown, Do("GET", "/throws"));
  EXPECT_EQ(thrown.status, 500);
}

TEST_F(HttpTest, HeadHasTheLengthButNoBody) {
  Start();
  const std::string answer = Raw("HEAD /hello/x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
  EXPECT_THAT(answer, HasSubstr("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(answer, HasSubstr("content-length: 7\r\n"));
  EXPECT_TRUE(answer.ends_with("\r\n\r\n")) << answer;
}

TEST_F(HttpTest, OneConnectionServesManyRequests) {
  Start();
  RawClient client(server_->port());
  for (int i = 0; i < 20; ++i) {
    client.Send("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nabcd");
    EXPECT_THAT(client.ReadUntil("abcd"), HasSubstr("201 Created")) << i;
    client.Send("GET /hello/x HTTP/1.1\r\nhost: a\r\n\r\n");
    EXPECT_THAT(client.ReadUntil("hello x"), HasSubstr("200 OK")) << i;
  }
  EXPECT_FALSE(client.closed());
}

TEST_F(HttpTest, PipelinedRequestsAreAnsweredInOrder) {
  Start();
  const std::string answers =
      Raw("GET /hello/a HTTP/1.1\r\nhost: a\r\n\r\nGET /hello/b HTTP/1.1\r\nhost: a\r\n\r\n"
          "GET /hello/c HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
          "hello c");
  EXPECT_LT(answers.find("hello a"), answers.find("hello b"));
  EXPECT_THAT(answers, HasSubstr("hello c"));
}

TEST_F(HttpTest, EmptyPosts) {
  Start();
  EXPECT_THAT(Raw("POST /echo HTTP/1.1\r\nhost: a\r\n\r\n", "\r\n\r\n"), HasSubstr("201 Created"));
  EXPECT_THAT(Raw("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n", "\r\n\r\n"),
              HasSubstr("201 Created"));
  EXPECT_THAT(
      Raw("DELETE /things/1 HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}", "\r\n\r\n"),
      HasSubstr("204 No Content"));
}

TEST_F(HttpTest, OldClientsGetTheirConnectionClosed) {
  Start();
  const std::string answer = Raw("GET /hello/x HTTP/1.0\r\n\r\n");
  EXPECT_THAT(answer, HasSubstr("connection: close"));
  EXPECT_TRUE(answer.ends_with("hello x"));
}

TEST_F(HttpTest, LargeBodiesBothWays) {
  Start();
  PARLEY_ASSERT_OK_AND_ASSIGN(Reply big, Do("GET", "/big"));
  EXPECT_EQ(big.body.size(), size_t{3} << 20);
  const std::string body(2 << 20, 'y');
  PARLEY_ASSERT_OK_AND_ASSIGN(Reply echo, Do("POST", "/echo", body));
  EXPECT_EQ(echo.body, body);
}

TEST_F(HttpTest, ExpectContinueIsAnswered) {
  Start();
  RawClient client(server_->port());
  client.Send(
      "POST /echo HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n");
  EXPECT_THAT(client.ReadUntil("\r\n\r\n"), HasSubstr("100 Continue"));
  client.Send("ok");
  EXPECT_THAT(client.ReadUntil("ok"), HasSubstr("201 Created"));
}

TEST_F(HttpTest, OversizedAndChunkedBodiesAreRefused) {
  ServerOptions options;
  options.max_body_bytes = 1000;
  Start(options);
  PARLEY_ASSERT_OK_AND_ASSIGN(Reply too_large, Do("POST", "/echo", std::string(200'000, 'x')));
  EXPECT_EQ(too_large.status, 413);
  EXPECT_THAT(too_large.body, HasSubstr("1000 bytes"));
  EXPECT_THAT(Raw("POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
                  "2\r\nab\r\n0\r\n\r\n",
                  "\r\n\r\n"),
              HasSubstr("411 Length Required"));
  EXPECT_THAT(Raw("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: -5\r\n\r\n", "\r\n\r\n"),
              HasSubstr("400 Bad Request"));
  PARLEY_ASSERT_OK_AND_ASSIGN(Reply fine, Do("POST", "/echo", std::string(1000, 'x')));
  EXPECT_EQ(fine.status, 201);
}

// Says back what it hears; "close" closes.
class Parrot final : public WebSocketListener {
 public:
  Parrot(std::shared_ptr<WebSocket> socket, std::atomic<int>& open)
      : socket_(std::move(socket)), open_(open) {
    ++open_;
  }
  void OnMessage(WebSocketMessage message) override {
    if (message.data == "close") return socket_->Close(1000, "bye");
    EXPECT_TRUE(socket_->Send(std::move(message)));
  }
  void OnClosed() override { --open_; }

 private:
  const std::shared_ptr<WebSocket> socket_;
  std::atomic<int>& open_;
};

// As a client frames it: masked, here with zeros.
std::string Framed(std::string_view text, bool is_text = true) {
  std::string frame(1, static_cast<char>(is_text ? 0x81 : 0x82));
  if (text.size() < 126) {
    frame += static_cast<char>(0x80 | text.size());
  } else {
    frame += static_cast<char>(0x80 | 127);
    for (int shift = 56; shift >= 0; shift -= 8) frame += static_cast<char>(text.size() >> shift);
  }
  return frame + std::string(4, '\0') + std::string(text);
}

class WebSocketTest : public HttpTest {
 protected:
  void SetUp() override {
    Start();
    server_->Stop(absl::ZeroDuration());
    server_ = std::make_unique<Server>(ServerOptions(), executor_, log::Logger());
    server_->HandleWebSocket(
        "/socket",
        [this](const Request& request, const auto& socket) -> std::shared_ptr<WebSocketListener> {
          if (request.query.count("token") == 0) return nullptr;
          return std::make_shared<Parrot>(socket, open_);
        });
    PARLEY_ASSERT_OK(server_->Start());
  }
  static std::string Upgrade(std::string_view target) {
    return fmt::format(
        "GET {} HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
        "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        target);
  }
  std::atomic<int> open_{0};
};

TEST_F(WebSocketTest, MessagesGoBothWaysUntilTheServerCloses) {
  RawClient client(server_->port());
  client.Send(Upgrade("/socket?token=x"));
  const std::string answer = client.ReadUntil("\r\n\r\n");
  EXPECT_THAT(answer, HasSubstr("101"));
  EXPECT_THAT(answer, HasSubstr("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));  // as in RFC 6455
  client.Send(Framed("hello"));
  EXPECT_EQ(client.ReadUntil("hello"), "\x81\x05hello");
  const std::string large(300'000, 'l');
  client.Send(Framed(large + "!", false));
  const std::string back = client.ReadUntil("!");
  EXPECT_EQ(back.substr(0, 2), "\x82\x7f");
  EXPECT_EQ(back.substr(10), large + "!");
  client.Send(Framed("close"));
  EXPECT_EQ(client.ReadUntil("bye"), std::string("\x88\x05\x03\xe8", 4) + "bye");
  EXPECT_TRUE(Eventually([&] { return open_ == 0; }));
  client.Send(std::string("\x88\x80\0\0\0\0", 6));  // its answer
  client.ReadUntil("");
  EXPECT_TRUE(client.closed());
}

TEST_F(WebSocketTest, RefusedAndOversizedAreClosed) {
  for (const char* target : {"/socket", "/elsewhere?token=x"}) {
    RawClient client(server_->port());
    client.Send(Upgrade(target));
    EXPECT_THAT(client.ReadUntil(""), ::testing::Not(HasSubstr("101"))) << target;
    EXPECT_TRUE(client.closed()) << target;
  }
  RawClient client(server_->port());
  client.Send(Upgrade("/socket?token=x"));
  client.ReadUntil("\r\n\r\n");
  EXPECT_EQ(open_, 1);
  std::thread sender([&] {  // the server stops reading in the middle of it
    const std::string frame = Framed(std::string(WebSocket::kMaxMessageBytes + 1, 'x'));
    client.SendSome(frame);
  });
  EXPECT_TRUE(Eventually([&] { return open_ == 0; }));
  sender.join();
}

TEST_F(WebSocketTest, StoppingTheServerClosesThem) {
  RawClient client(server_->port());
  client.Send(Upgrade("/socket?token=x"));
  client.ReadUntil("\r\n\r\n");
  server_->Stop(absl::Seconds(1));
  EXPECT_EQ(open_, 0);
  client.ReadUntil("");
  EXPECT_TRUE(client.closed());
}

TEST_F(HttpTest, SlowSendersAreClosed) {
  ServerOptions options;
  options.header_timeout = absl::Milliseconds(300);
  Start(options);
  RawClient header(server_->port());
  header.Send("GET /hello/x HT");
  RawClient body(server_->port());
  body.Send("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nab");
  header.ReadUntil("");
  body.ReadUntil("");
  EXPECT_TRUE(header.closed());
  EXPECT_TRUE(body.closed());
}

TEST_F(HttpTest, IdleConnectionsAreClosed) {
  ServerOptions options;
  options.idle_timeout = absl::Milliseconds(300);
  Start(options);
  RawClient client(server_->port());
  client.Send("GET /hello/x HTTP/1.1\r\nhost: a\r\n\r\n");
  EXPECT_THAT(client.ReadUntil("hello x"), HasSubstr("200 OK"));
  client.ReadUntil("");
  EXPECT_TRUE(client.closed());
}

TEST_F(HttpTest, GarbageDoesNoHarm) {
  Start();
  Raw("\x16\x03\x01\x02", "x");
  for (const std::string_view bytes :
       {"\r\n\r\n\r\n", "GET\r\n\r\n", "GET /%00%zz HTTP/1.1\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET /../../etc/passwd HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"}) {
    RawClient client(server_->port());
    client.Send(bytes);
  }
  {
    RawClient client(server_->port());
    client.Send("GET /hello/" + std::string(100'000, 'a') + " HTTP/1.1\r\n\r\n");
  }
  PARLEY_ASSERT_OK_AND_ASSIGN(Reply fine, Do("GET", "/hello/x"));
  EXPECT_EQ(fine.status, 200);
}

TEST_F(HttpTest, FullExecutorAnswers503ButHealthStaysUp) {
  Start();
  std::vector<std::unique_ptr<RawClient>> waiting;
  for (int i = 0; i < 6; ++i) {
    waiting.push_back(std::make_unique<RawClient>(server_->port()));
    waiting.back()->Send("GET /wait HTTP/1.1\r\nhost: a\r\n\r\n");
    // The first two must have left the queue, or the last two find it full.
    if (i == 1) {
      ASSERT_TRUE(Eventually([&] { return started_ == 2; }));
    }
  }
  // Two run, four wait in the queue; from then on requests are turned away.
  ASSERT_TRUE(Eventually([&] { return executor_.queued() == 4; }));
  PARLEY_ASSERT_OK_AND_ASSIGN(Reply busy, Do("GET", "/hello/x"));
  EXPECT_EQ(busy.headers["retry-after"], "1");
  PARLEY_ASSERT_OK_AND_ASSIGN(Reply health, Do("GET", "/healthz"));
  EXPECT_EQ(health.status, 200);
  hold_ = false;
  for (auto& client : waiting) EXPECT_THAT(client->ReadUntil("done"), HasSubstr("200 OK"));
}

TEST_F(HttpTest, StopWaitsForRequestsUnderWay) {
  Start();
  RawClient client(server_->port());
  client.Send("GET /wait HTTP/1.1\r\nhost: a\r\n\r\n");
  EXPECT_TRUE(Eventually([&] { return started_ > 0; }));
  std::thread release([this] {
    while (Do("GET", "/hello/x").ok()) std::this_thread::yield();  // until the listener is closed
    hold_ = false;
  });
  server_->Stop(absl::Seconds(5));
  release.join();
  EXPECT_THAT(client.ReadUntil("done"), HasSubstr("200 OK"));
}

TEST_F(HttpTest, StopClosesConnectionsThatAreKept) {
  Start();
  RawClient kept(server_->port());
  kept.Send("GET /hello/x HTTP/1.1\r\nhost: a\r\n\r\n");
  EXPECT_THAT(kept.ReadUntil("hello x"), HasSubstr("keep-alive"));
  RawClient busy(server_->port());
  busy.Send("GET /wait HTTP/1.1\r\nhost: a\r\n\r\n");
  EXPECT_TRUE(Eventually([&] { return started_ > 0; }));
  std::thread stop([this] { server_->Stop(absl::Seconds(5)); });
  kept.ReadUntil("");
  EXPECT_TRUE(kept.closed());
  hold_ = false;
  EXPECT_THAT(busy.ReadUntil("done"), HasSubstr("connection: close"));
  stop.join();
}

TEST_F(HttpTest, ClientsThatLeaveEarlyAreForgotten) {
  Start();
  for (int i = 0; i < 3; ++i) {
    RawClient client(server_->port());
    client.Send("GET /wait HTTP/1.1\r\nhost: a\r\n\r\n");
  }
  hold_ = false;
  PARLEY_ASSERT_OK_AND_ASSIGN(Reply fine, Do("GET", "/hello/x"));
  EXPECT_EQ(fine.status, 200);
}

TEST_F(HttpTest, TakenPortsAreNamed) {
  Start();
  ServerOptions options;
  options.ports = {0, server_->port()};
  Server second(options, executor_, log::Logger());
  EXPECT_THAT(second.Start(), Fails(absl::StatusCode::kUnavailable,
                                    fmt::format("port {} on 127.0.0.1 is taken", server_->port())));
}

TEST_F(HttpTest, SeveralPortsServeTheSame) {
  ServerOptions options;
  options.ports = {0, 0};
  Start(options);
  EXPECT_NE(server_->port(0), server_->port(1));
  Call call;
  call.url = fmt::format("http://127.0.0.1:{}/hello/x", server_->port(1));
  call.reach = Reach::kLoopbackToo;
  PARLEY_ASSERT_OK_AND_ASSIGN(Reply reply, client_.Fetch(call));
  EXPECT_EQ(reply.body, "hello x");
}

TEST_F(HttpTest, ManyConnectionsAtOnce) {
  Start();
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < 300; ++i) {
    clients.push_back(std::make_unique<RawClient>(server_->port()));
    clients.back()->Send("GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n");
  }
  for (auto& client : clients) EXPECT_THAT(client->ReadUntil("ok"), HasSubstr("200 OK"));
}

TEST_F(HttpTest, ConnectionLimitHolds) {
  ServerOptions options;
  options.max_connections = 2;
  Start(options);
  RawClient a(server_->port());
  RawClient b(server_->port());
  a.Send("GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n");
  b.Send("GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n");
  EXPECT_THAT(a.ReadUntil("ok"), HasSubstr("200 OK"));
  EXPECT_THAT(b.ReadUntil("ok"), HasSubstr("200 OK"));
  RawClient c(server_->port());
  c.ReadUntil("");
  EXPECT_TRUE(c.closed());
}

// ---- the client ----

TEST_F(HttpTest, AddressesInsideAreRefused) {
  Start();
  Call call;
  call.url = Url("/hello/x");
  EXPECT_THAT(client_.Fetch(call), HasCode(absl::StatusCode::kPermissionDenied));
  for (const char* url :
       {"http://10.0.0.1/", "http://169.254.169.254/latest/meta-data", "http://[::ffff:10.0.0.1]/",
        "http://0.0.0.0:1/", "http://[::]/", "http://2130706433/", "http://127.1:80/"}) {
    call.url = url;
    const auto reply = client_.Fetch(call);
    EXPECT_THAT(reply, HasCode(absl::StatusCode::kPermissionDenied)) << url;
    EXPECT_EQ(ReasonOf(reply.status()).reason, "ADDRESS_REFUSED");
  }
  call.reach = Reach::kLoopbackToo;
  call.url = "http://192.168.0.1/";
  EXPECT_THAT(client_.Fetch(call), HasCode(absl::StatusCode::kPermissionDenied));
}

TEST_F(HttpTest, AWarmConnectionIsNotLentToAStricterCall) {
  Start();
  PARLEY_ASSERT_OK(Do("GET", "/hello/x"));
  Call strict;
  strict.url = Url("/hello/x");
  EXPECT_THAT(client_.Fetch(strict), HasCode(absl::StatusCode::kPermissionDenied));
}

TEST_F(HttpTest, RedirectsAreCheckedAgain) {
  server_ = std::make_unique<Server>(ServerOptions{}, executor_, log::Logger());
  server_->Handle("GET", "/inside", [](const Request&) {
    return Response{302, "", "", {{"location", "http://10.255.255.1/secret"}}};
  });
  server_->Handle("GET", "/file", [](const Request&) {
    return Response{302, "", "", {{"location", "file:///etc/passwd"}}};
  });
  server_->Handle("GET", "/loop", [](const Request&) {
    return Response{302, "", "", {{"location", "/loop"}}};
  });
  PARLEY_ASSERT_OK(server_->Start());
  Call call;
  call.reach = Reach::kLoopbackToo;
  call.max_redirects = 3;
  call.url = Url("/inside");
  EXPECT_THAT(client_.Fetch(call), HasCode(absl::StatusCode::kPermissionDenied));
  call.url = Url("/file");
  EXPECT_THAT(client_.Fetch(call), HasCode(absl::StatusCode::kInvalidArgument));
  call.url = Url("/loop");
  EXPECT_THAT(client_.Fetch(call).status(), Fails(absl::StatusCode::kUnavailable, "redirects"));
  call.max_redirects = 0;
  PARLEY_ASSERT_OK_AND_ASSIGN(Reply reply, client_.Fetch(call));
  EXPECT_EQ(reply.status, 302);
}

TEST_F(HttpTest, DeadlineCancelAndSize) {
  Start();
  Call call;
  call.reach = Reach::kLoopbackToo;
  call.url = Url("/wait");
  call.timeout = absl::Milliseconds(100);
  EXPECT_THAT(client_.Fetch(call), HasCode(absl::StatusCode::kDeadlineExceeded));
  call.timeout = absl::Seconds(30);
  EXPECT_THAT(client_.Fetch(call, [this] { return started_ > 0; }),
              HasCode(absl::StatusCode::kCancelled));
  hold_ = false;
  call.url = Url("/big");
  call.max_response_bytes = 1000;
  EXPECT_THAT(client_.Fetch(call), HasCode(absl::StatusCode::kResourceExhausted));
}

TEST_F(HttpTest, StreamsPieces) {
  Start();
  Call call;
  call.reach = Reach::kLoopbackToo;
  call.url = Url("/big");
  size_t total = 0;
  int pieces = 0;
  PARLEY_ASSERT_OK_AND_ASSIGN(Reply reply, client_.Stream(call, [&](std::string_view piece) {
    total += piece.size();
    ++pieces;
    return true;
  }));
  EXPECT_EQ(total, size_t{3} << 20);
  EXPECT_GT(pieces, 1);
  EXPECT_TRUE(reply.body.empty());
  EXPECT_THAT(client_.Stream(call, [](std::string_view) { return false; }),
              HasCode(absl::StatusCode::kCancelled));
}

TEST_F(HttpTest, BodiesComeBitByBit) {
  auto body = std::make_shared<BodyStream>();
  server_ = std::make_unique<Server>(ServerOptions(), executor_, log::Logger());
  server_->Handle("GET", "/stream", [body](const Request&) {
    Response response;
    response.content_type = "text/event-stream";
    response.stream = body;
    return response;
  });
  PARLEY_ASSERT_OK(server_->Start());
  EXPECT_TRUE(body->Write("before;"));  // nobody reads yet
  std::atomic<int> gone{0};
  body->OnGone([&gone] { ++gone; });
  RawClient client(server_->port());
  client.Send("GET /stream HTTP/1.1\r\nhost: x\r\n\r\n");
  const std::string head = client.ReadUntil("before;");
  EXPECT_THAT(head, HasSubstr("content-type: text/event-stream"));
  EXPECT_THAT(head, ::testing::Not(HasSubstr("content-length")));
  EXPECT_TRUE(body->Write("first;"));
  client.ReadUntil("first;");
  const std::string large(300'000, 'x');
  EXPECT_TRUE(body->Write(large + ";"));
  EXPECT_EQ(client.ReadUntil(";").size(), large.size() + 1);
  EXPECT_EQ(gone, 0);
  body->Write("last;");
  body->End();
  EXPECT_EQ(client.ReadUntil(""), "last;");
  EXPECT_TRUE(client.closed());
  EXPECT_TRUE(Eventually([&] { return gone == 1; }));
  EXPECT_FALSE(body->Write("late"));
}

TEST_F(HttpTest, StreamsEndWithTheirClientOrServer) {
  std::atomic<int> gone{0};
  std::vector<std::shared_ptr<BodyStream>> bodies;
  server_ = std::make_unique<Server>(ServerOptions(), executor_, log::Logger());
  server_->Handle("GET", "/stream", [&](const Request&) {
    Response response;
    response.stream = std::make_shared<BodyStream>();
    response.stream->OnGone([&gone] { ++gone; });
    response.stream->Write("here;");
    bodies.push_back(response.stream);
    return response;
  });
  PARLEY_ASSERT_OK(server_->Start());
  const std::string request = "GET /stream HTTP/1.1\r\nhost: x\r\n\r\n";
  {
    RawClient leaves(server_->port());
    leaves.Send(request);
    leaves.ReadUntil("here;");
  }
  EXPECT_TRUE(Eventually([&] { return gone == 1; }));
  RawClient slow(server_->port());
  slow.Send(request);
  slow.ReadUntil("here;");
  const std::string piece(100'000, 'x');  // never read: first the sockets fill, then the queue
  int written = 0;
  while (written < 1000 && bodies.back()->Write(piece)) ++written;
  EXPECT_LT(written, 1000);
  RawClient stays(server_->port());
  stays.Send(request);
  stays.ReadUntil("here;");
  server_->Stop(absl::Seconds(1));
  EXPECT_EQ(gone, 3);
  EXPECT_FALSE(bodies.back()->Write("late"));
}

TEST_F(HttpTest, StopWaitsForTheEndOfAStreamedAnswer) {
  const auto body = std::make_shared<BodyStream>(/*endless=*/false);
  server_ = std::make_unique<Server>(ServerOptions(), executor_, log::Logger());
  server_->Handle("GET", "/answer", [body](const Request&) {
    Response response;
    response.stream = body;
    return response;
  });
  PARLEY_ASSERT_OK(server_->Start());
  body->Write("first;");
  RawClient client(server_->port());
  client.Send("GET /answer HTTP/1.1\r\nhost: x\r\n\r\n");
  client.ReadUntil("first;");
  std::thread rest([this, body] {
    while (Do("GET", "/nothing").ok()) std::this_thread::yield();  // until the listener is closed
    body->Write("last;");
    body->End();
  });
  server_->Stop(absl::Seconds(5));
  rest.join();
  EXPECT_EQ(client.ReadUntil(""), "last;");
}

TEST_F(HttpTest, BadCallsAreRefused) {
  Start();
  Call call;
  call.reach = Reach::kAny;
  for (const char* url : {"", "ftp://a/", "file:///etc/passwd", "http://", "/x", "gopher://x"}) {
    call.url = url;
    EXPECT_THAT(client_.Fetch(call), HasCode(absl::StatusCode::kInvalidArgument)) << url;
  }
  call.url = Url("/hello/x");
  call.headers = {{"x", "a\r\nb: c"}};
  EXPECT_THAT(client_.Fetch(call), HasCode(absl::StatusCode::kInvalidArgument));
  call.headers.clear();
  call.url = fmt::format("http://127.0.0.1:{}/", server_->port());
  server_->Stop(absl::ZeroDuration());
  EXPECT_THAT(client_.Fetch(call), HasCode(absl::StatusCode::kUnavailable));
}

TEST(UrlEncodeTest, KeepsOnlyPlainLetters) {
  EXPECT_EQ(UrlEncode("a b/c?d=é&.."), "a%20b%2Fc%3Fd%3D%C3%A9%26..");
  EXPECT_EQ(UrlEncode(".."), "%252E%252E");
}

}  // namespace
}  // namespace parley::http
