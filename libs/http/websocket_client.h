#pragma once
// WebSockets (RFC 6455) that this side opens; all of them on one thread.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "http/websocket.h"

namespace parley::http {

struct Dial {
  std::string url;  // ws or wss; http and https count as these
  std::vector<std::pair<std::string, std::string>> headers;  // at most 16 KiB in all
  // Headers of the server's answer that OnHeader is to be told: lower case, none of those that
  // every HTTP library knows.
  std::vector<std::string> wanted;
  absl::Duration timeout = absl::Seconds(10);  // until the server has accepted
  absl::Duration ping = absl::Seconds(5);
  absl::Duration silence = absl::Seconds(15);  // nothing was heard for so long: it is lost
};

// What the program hears. Calls come on the client's thread, one at a time: they must not block,
// and must not destroy the client.
class DialListener {
 public:
  virtual ~DialListener() = default;
  // Before OnOpen, or before OnClosed of a server that refuses. The value is any bytes, some KiB at
  // most.
  virtual void OnHeader(std::string_view /*name*/, std::string_view /*value*/) {}
  virtual void OnOpen() = 0;
  virtual void OnMessage(WebSocketMessage message) = 0;
  // The server said why it closes; OnClosed follows. `code`: of RFC 6455, 1005 when it gave none.
  virtual void OnCloseFrame(int /*code*/, std::string_view /*reason*/) {}
  // Last call, once, however it ended.
  //   OK                closed, by either side
  //   InvalidArgument   the URL is none
  //   Unauthenticated   401 or 403
  //   NotFound          404
  //   ResourceExhausted 429
  //   Unavailable       not reached, refused otherwise, lost
  //   DeadlineExceeded  not accepted in time
  virtual void OnClosed(const absl::Status& why) = 0;
};

// Thread-safe.
class WebSocketClient {
 public:
  //   Unavailable  libwebsockets cannot start
  static absl::StatusOr<std::unique_ptr<WebSocketClient>> Start();
  // Cuts what is open; every listener is told first. Blocks until the thread is gone.
  ~WebSocketClient();
  WebSocketClient(const WebSocketClient&) = delete;
  WebSocketClient& operator=(const WebSocketClient&) = delete;

  // Does not block. Messages may be sent at once; they go out when the connection is open. Names
  // are looked up on the client's thread. A message of more than WebSocket::kMaxMessageBytes ends
  // the connection.
  std::shared_ptr<WebSocket> Open(Dial dial, std::shared_ptr<DialListener> listener);

 private:
  struct Impl;
  explicit WebSocketClient(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

// The parts of a ws, wss, http or https URL.
struct WebSocketUrl {
  bool tls = false;
  std::string host;  // without brackets
  int port = 0;
  std::string path;  // with its query; "/" at least
};
//   InvalidArgument  another scheme, no host, a port out of range
absl::StatusOr<WebSocketUrl> ParseWebSocketUrl(std::string_view url);

}  // namespace parley::http
