#pragma once
// The state of a server. Internal to `http`: for server.cc and server_socket.cc.
#include <libwebsockets.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "event/loop.h"
#include "http/certificate.h"
#include "http/routes.h"
#include "http/server.h"
#include "http/under_way.h"

namespace parley::http {

inline constexpr int64_t kNever = INT64_MAX;
inline constexpr int64_t kSlowestBytesPerSecond = 16 << 10;

// One client connection; only the loop thread touches it.
struct Connection {
  struct lws* wsi = nullptr;
  std::string peer;
  Request request;
  int64_t body_bytes = 0;  // announced
  int64_t deadline_us = 0;
  uint64_t serial = 0;  // of the request; answers to older ones are dropped
  bool busy = false;    // a request is under way
  bool close_after = false;
  bool refused = false;  // answered before its body was read
  std::string out;  // head and body, from `sent` on still to be written; LWS_PRE bytes in front
  size_t sent = 0;
  bool answered = false;
  std::shared_ptr<BodyStream> stream;  // where the rest of the body comes from
  bool last = true;                    // of the stream: `out` is its end
  // Of a WebSocket:
  std::shared_ptr<WebSocket> socket;
  std::shared_ptr<WebSocketListener> listener;
  WebSocketMessage arriving;
  const WebSocketOptions* socket_options = nullptr;
  int64_t heard_us = 0;
  int64_t ping_us = kNever;  // when the next one is due
  bool ping = false;         // it is due now
  bool closing = false;      // what was to be sent is, and it is about to be closed
};

// One path's WebSockets.
struct SocketRoute {
  Server::AcceptWebSocket accept;
  WebSocketOptions options;
};

struct Server::Impl {
  Impl(ServerOptions o, Executor& e, log::Logger l)
      : options(std::move(o)),
        executor(e),
        log(std::move(l)),
        gate(std::make_shared<Gate>()),
        certificate(options.certificate, options.key) {}

  // ---- any thread ----
  const ServerOptions options;
  Executor& executor;
  const log::Logger log;
  Routes routes;
  Handler unknown;
  std::map<std::string, SocketRoute, std::less<>> sockets;  // by path
  const std::shared_ptr<Gate> gate;
  std::vector<int> bound_ports;
  bool started = false;
  bool stopped = false;
  std::unique_ptr<event::Loop> loop;
  std::thread thread;
  Requests under_way;

  // ---- the loop's thread ----
  Certificate certificate;
  int64_t look_us = 0;  // when it is looked at again
  struct lws_context* context = nullptr;
  struct lws_vhost* vhost = nullptr;
  std::vector<int> listeners;
  std::vector<std::unique_ptr<event::FdWatcher>> watchers;
  std::unique_ptr<event::Timer> sweeper;  // runs only with connections, or a certificate
  bool sweeping = false;
  std::unordered_map<struct lws*, std::unique_ptr<Connection>> connections;
  std::string arriving_peer;
  bool draining = false;  // no new requests: connections close with their answer

  absl::Status CreateContext();
  void Run();
  void Accept(int listener);
  void CloseListeners();
  void Drain();
  void Sweep();
  void KeepSweeping();
  void RenewCertificate();
  Connection& Of(struct lws* wsi);
  int OnEvent(struct lws* wsi, lws_callback_reasons reason, void* in, size_t length);
  void ReadRequest(Connection& connection);
  int OnRequest(Connection& connection);
  int ConfirmUpgrade(Connection& connection, std::string_view protocol);
  int OnUpgrade(Connection& connection);
  bool IsSilent(Connection& connection, int64_t now_us);
  int OnSocketEvent(Connection& connection, lws_callback_reasons reason, std::string_view piece);
  int OnSocketPiece(Connection& connection, std::string_view piece);
  void Hush(Connection& connection);
  int WriteSocket(Connection& connection);
  int OnBody(Connection& connection, std::string_view piece);
  int Dispatch(Connection& connection);
  void RunHandler(Connection& connection, const Handler& handler, bool inline_run);
  void Answer(Connection& connection, const Response& response);
  int Refuse(Connection& connection, const Response& response);
  int Write(Connection& connection);
  void Done(Connection& connection);
  void AttachStream(Connection& connection, std::shared_ptr<BodyStream> stream);
  bool NextPiece(Connection& connection);
  static void DetachStream(Connection& connection);
  int64_t After(absl::Duration wait, int64_t bytes = 0) const {
    return loop->NowMicros() + absl::ToInt64Microseconds(wait) +
           bytes * 1'000'000 / kSlowestBytesPerSecond;
  }

  static int Callback(struct lws* wsi, lws_callback_reasons reason, void*, void* in,
                      size_t length) {
    auto* self = static_cast<Impl*>(lws_context_user(lws_get_context(wsi)));
    return self == nullptr ? 0 : self->OnEvent(wsi, reason, in, length);
  }
};

}  // namespace parley::http
