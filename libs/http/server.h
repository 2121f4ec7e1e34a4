#pragma once
// HTTP/1.1 server (libwebsockets underneath, on a loop thread of its own). Handlers run on an
// executor and may block.
#include <absl/status/status.h>
#include <absl/time/time.h>

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/executor.h"
#include "http/body_stream.h"
#include "http/websocket.h"
#include "log/log.h"

namespace parley::http {

// Headers beyond those of HTTP that handlers see; others are dropped while parsing.
inline constexpr std::array<std::string_view, 11> kExtensionHeaders = {
    "idempotency-key", "last-event-id",    "traceparent",       "x-api-key",
    "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-livekit-request-id",
    "x-request-id",    "x-sandbox-id",     "x-twirp-timeout-ms"};

struct Request {
  std::string method;  // GET, POST, …
  std::string path;    // percent-decoded, without the query
  std::map<std::string, std::string> query;
  // Names in lower case: the headers that HTTP defines, and those of kExtensionHeaders.
  std::map<std::string, std::string> headers;
  std::map<std::string, std::string> params;  // of the pattern: {id}
  std::string body;
  std::string peer;  // address of the client

  std::string_view Header(std::string_view lower_case_name) const;  // "" when absent
};

struct Response {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;
  // Instead of `body`: it comes bit by bit, and the connection closes at its end.
  std::shared_ptr<BodyStream> stream = nullptr;
};

using Handler = std::function<Response(const Request&)>;

// How a path's WebSockets are served. Its functions run on the server's loop thread.
struct WebSocketOptions {
  // What to answer instead of upgrading, e.g. 401; nothing: go on. Must not block.
  std::function<std::optional<Response>(const Request&)> refuse = nullptr;
  // A ping so often (zero: never); a client from which nothing came for `silence` is gone.
  absl::Duration ping = absl::ZeroDuration();
  absl::Duration silence = absl::Seconds(30);
};

struct ServerOptions {
  std::string address = "127.0.0.1";
  std::vector<int> ports = {0};       // all serve the same routes; 0 = any free one
  int64_t max_body_bytes = 10 << 20;  // over it: 413
  absl::Duration idle_timeout = absl::Seconds(60);
  // Headers must be complete after this time, bodies after as much plus a second per 16 KiB: slow
  // senders are closed.
  absl::Duration header_timeout = absl::Seconds(10);
  int max_connections = 10'000;
  // PEM files: TLS (1.2 or later) on all ports, with this certificate chain; both empty: plain.
  // They are looked at every 2 s: once both are replaced, new connections get the new certificate.
  std::string certificate;
  std::string key;
};

// Add routes, then Start(). Thread-safe after Start().
class Server {
 public:
  Server(ServerOptions options, Executor& executor, log::Logger log);
  ~Server();  // as Stop(zero)
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // `pattern`: "/api/agents/{id}" (a parameter is one path segment) or "/assets/{path*}" (the
  // rest). First match wins.
  void Handle(std::string_view method, std::string_view pattern, Handler handler);
  // As Handle, on the server's own loop thread: answers even when the executor is full (health
  // checks). Must not block.
  void HandleInline(std::string_view method, std::string_view pattern, Handler handler);
  // Serves WebSockets on this path. `accept` runs on the server's own loop thread and must not
  // block: it answers who listens to the connection, or null to refuse it (the client sees the
  // connection closed without an answer; `options.refuse`, or a plain route, says why).
  using AcceptWebSocket = std::function<std::shared_ptr<WebSocketListener>(
      const Request&, const std::shared_ptr<WebSocket>&)>;
  void HandleWebSocket(std::string_view path, AcceptWebSocket accept,
                       WebSocketOptions options = {});
  // Answers what no route matches; default 404. A path that exists with other methods answers 405
  // with Allow. OPTIONS answers 204 with Allow unless a route says otherwise.
  void HandleUnknown(Handler handler);
  // (method, pattern) of every route: openapi.json is checked against it.
  std::vector<std::pair<std::string, std::string>> routes() const;

  // Unavailable: "port 8080 on 127.0.0.1 is taken; …". InvalidArgument: the certificate. Full
  // executor: requests are answered 503 with Retry-After.
  absl::Status Start();
  int port(size_t index = 0) const;  // bound port
  // Closes listeners, waits for requests under way until `grace`, then closes the rest; returns
  // when no handler runs any more. Idempotent. Not from a handler.
  void Stop(absl::Duration grace);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace parley::http
