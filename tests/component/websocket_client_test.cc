// The WebSocket client against our server, and against servers that do what they should not.
#include "http/websocket_client.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "http/server.h"
#include "testing/matchers.h"
#include "testing/tcp_gate.h"

namespace parley::http {
namespace {

using ::parley::testing::Eventually;
using ::parley::testing::HasCode;

class Heard final : public DialListener {
 public:
  void OnOpen() override {
    MutexLock lock(&mutex_);
    open_ = true;
  }
  void OnMessage(WebSocketMessage message) override {
    MutexLock lock(&mutex_);
    messages_.push_back(std::move(message));
  }
  void OnClosed(const absl::Status& why) override {
    MutexLock lock(&mutex_);
    ++ends_;
    why_ = why;
  }
  bool open() const {
    MutexLock lock(&mutex_);
    return open_;
  }
  std::vector<WebSocketMessage> messages() const {
    MutexLock lock(&mutex_);
    return messages_;
  }
  int ends() const {
    MutexLock lock(&mutex_);
    return ends_;
  }
  absl::Status why() const {
    MutexLock lock(&mutex_);
    return why_;
  }
  absl::Status End(absl::Duration limit = absl::Seconds(5)) const {
    EXPECT_TRUE(Eventually([&] { return ends() > 0; }, limit));
    return why();
  }

 private:
  mutable Mutex mutex_;
  bool open_ ABSL_GUARDED_BY(mutex_) = false;
  int ends_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<WebSocketMessage> messages_ ABSL_GUARDED_BY(mutex_);
  absl::Status why_ ABSL_GUARDED_BY(mutex_);
};

// Says everything twice; "bye" ends it.
class Echo final : public WebSocketListener {
 public:
  explicit Echo(std::shared_ptr<WebSocket> socket) : socket_(std::move(socket)) {}
  void OnMessage(WebSocketMessage message) override {
    if (message.data == "bye") return socket_->Close(1000, "as you wish");
    socket_->Send({message.data + message.data, message.text});
  }
  void OnClosed() override {}

 private:
  const std::shared_ptr<WebSocket> socket_;
};

class WebSocketClientTest : public ::testing::Test {
 protected:
  void SetUp() override {
    WebSocketOptions guarded;
    guarded.refuse = [](const Request& request) -> std::optional<Response> {
      if (request.Header("authorization") == "Bearer good") return std::nullopt;
      return Response{401, "text/plain", "who are you?", {}};
    };
    const auto accept = [](const Request&, const std::shared_ptr<WebSocket>& socket) {
      return std::make_shared<Echo>(socket);
    };
    server_.HandleWebSocket("/echo", accept);
    server_.HandleWebSocket("/guarded", accept, guarded);
    PARLEY_ASSERT_OK(server_.Start());
    PARLEY_ASSERT_OK_AND_ASSIGN(client_, WebSocketClient::Start());
  }
  void TearDown() override {
    client_.reset();
    server_.Stop(absl::Seconds(1));
  }
  std::string Url(const std::string& path) const {
    return fmt::format("ws://127.0.0.1:{}{}", server_.port(), path);
  }
  std::shared_ptr<WebSocket> Open(const std::string& url, const std::shared_ptr<Heard>& heard) {
    Dial dial;
    dial.url = url;
    return client_->Open(std::move(dial), heard);
  }

  Executor executor_{2, 100};
  Server server_{{}, executor_, log::Logger()};
  std::unique_ptr<WebSocketClient> client_;
};

TEST_F(WebSocketClientTest, SpeaksAndIsHeardAlsoInLongMessages) {
  auto heard = std::make_shared<Heard>();
  const auto socket = Open(Url("/echo"), heard);
  ASSERT_TRUE(socket->Send({"early", true}));  // before it is open
  ASSERT_TRUE(socket->Send({std::string(300'000, 'x'), false}));
  ASSERT_TRUE(Eventually([&] { return heard->messages().size() == 2; }));
  EXPECT_TRUE(heard->open());
  EXPECT_EQ(heard->messages()[0].data, "earlyearly");
  EXPECT_TRUE(heard->messages()[0].text);
  EXPECT_EQ(heard->messages()[1].data, std::string(600'000, 'x'));
  EXPECT_FALSE(heard->messages()[1].text);
  socket->Close(1000);
  PARLEY_EXPECT_OK(heard->End());
  EXPECT_EQ(heard->ends(), 1);
  EXPECT_FALSE(socket->Send({"late", true}));
}

TEST_F(WebSocketClientTest, TheServerMayEndIt) {
  auto heard = std::make_shared<Heard>();
  const auto socket = Open(Url("/echo"), heard);
  socket->Send({"bye", true});
  PARLEY_EXPECT_OK(heard->End());
}

TEST_F(WebSocketClientTest, ManyAtOnceDoNotMixTheirWords) {
  std::vector<std::shared_ptr<Heard>> all;
  std::vector<std::shared_ptr<WebSocket>> sockets;
  for (int i = 0; i < 50; ++i) {
    all.push_back(std::make_shared<Heard>());
    sockets.push_back(Open(Url("/echo"), all.back()));
    sockets.back()->Send({fmt::format("{},", i), true});
  }
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(Eventually([&] { return all[static_cast<size_t>(i)]->messages().size() == 1; }));
    EXPECT_EQ(all[static_cast<size_t>(i)]->messages()[0].data, fmt::format("{0},{0},", i));
  }
}

TEST_F(WebSocketClientTest, ATokenIsSentAndARefusalIsToldApart) {
  auto heard = std::make_shared<Heard>();
  Dial dial;
  dial.url = Url("/guarded");
  dial.headers = {{"authorization", "Bearer good"}};
  const auto socket = client_->Open(dial, heard);
  ASSERT_TRUE(Eventually([&] { return heard->open(); }));

  auto refused = std::make_shared<Heard>();
  dial.headers = {{"authorization", "Bearer bad"}};
  const auto other = client_->Open(dial, refused);
  EXPECT_THAT(refused->End(), HasCode(absl::StatusCode::kUnauthenticated));
  EXPECT_FALSE(refused->open());

  auto nowhere = std::make_shared<Heard>();
  const auto third = Open(Url("/nothing"), nowhere);
  EXPECT_FALSE(nowhere->End().ok());
  for (const char* url : {"ftp://127.0.0.1/", "ws://", "ws://127.0.0.1:99999/", "127.0.0.1"}) {
    auto bad = std::make_shared<Heard>();
    const auto none = Open(url, bad);
    EXPECT_THAT(bad->End(), HasCode(absl::StatusCode::kInvalidArgument)) << url;
  }
}

TEST_F(WebSocketClientTest, WhoDoesNotAnswerOrFallsSilentIsLost) {
  auto nobody = std::make_shared<Heard>();
  const auto refused = Open("ws://127.0.0.1:1/", nobody);
  EXPECT_THAT(nobody->End(), HasCode(absl::StatusCode::kUnavailable));

  PARLEY_ASSERT_OK_AND_ASSIGN(const auto gate,
                              testing::TcpGate::Start(fmt::format("127.0.0.1:{}", server_.port())));
  Dial dial;
  dial.url = "ws://" + gate->address() + "/echo";
  dial.timeout = absl::Milliseconds(400);
  dial.ping = absl::Milliseconds(200);
  dial.silence = absl::Milliseconds(800);
  auto silent = std::make_shared<Heard>();
  const auto socket = client_->Open(dial, silent);
  ASSERT_TRUE(Eventually([&] { return silent->open(); }));
  absl::SleepFor(absl::Seconds(1));  // the pings are answered: more than `silence` passes
  EXPECT_EQ(silent->ends(), 0);
  gate->SetFlow(testing::TcpGate::Flow::kStalled);
  EXPECT_THAT(silent->End(), HasCode(absl::StatusCode::kUnavailable));
  auto late = std::make_shared<Heard>();
  const auto other = client_->Open(dial, late);
  EXPECT_THAT(late->End(), HasCode(absl::StatusCode::kDeadlineExceeded));
  gate->SetFlow(testing::TcpGate::Flow::kOpen);

  auto cut = std::make_shared<Heard>();
  const auto third = client_->Open(dial, cut);
  ASSERT_TRUE(Eventually([&] { return cut->open(); }));
  gate->Cut();
  EXPECT_THAT(cut->End(), HasCode(absl::StatusCode::kUnavailable));
}

TEST_F(WebSocketClientTest, WhoeverIsOpenAtTheEndIsTold) {
  auto heard = std::make_shared<Heard>();
  const auto socket = Open(Url("/echo"), heard);
  ASSERT_TRUE(Eventually([&] { return heard->open(); }));
  client_.reset();
  EXPECT_EQ(heard->ends(), 1);
}

TEST(WebSocketUrlTest, PartsOfUrls) {
  const auto plain = ParseWebSocketUrl("ws://host");
  PARLEY_ASSERT_OK(plain);
  EXPECT_EQ(plain->port, 80);
  EXPECT_EQ(plain->path, "/");
  const auto secure = ParseWebSocketUrl("wss://host/base/rtc?a=b");
  PARLEY_ASSERT_OK(secure);
  EXPECT_TRUE(secure->tls);
  EXPECT_EQ(secure->port, 443);
  EXPECT_EQ(secure->path, "/base/rtc?a=b");
  const auto v6 = ParseWebSocketUrl("http://[::1]:7880?x");
  PARLEY_ASSERT_OK(v6);
  EXPECT_EQ(v6->host, "::1");
  EXPECT_EQ(v6->port, 7880);
  EXPECT_EQ(v6->path, "/?x");
  for (const char* bad :
       {"", "host", "ws:/host", "ws://[::1", "ws://[::1]x", "ws://a@b", "ws://:1"}) {
    EXPECT_FALSE(ParseWebSocketUrl(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace parley::http
