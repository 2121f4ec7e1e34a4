#include "http/websocket_client.h"

#include <libwebsockets.h>

#include <charconv>
#include <map>
#include <thread>

#include "base/status.h"
#include "event/loop.h"

namespace parley::http {
namespace {

constexpr absl::Duration kSweep = absl::Milliseconds(250);
constexpr int kMaxClosingTurns = 10'000;
constexpr int kNoCloseCode = 1005;
constexpr unsigned kMaxHeaderBytes = 24 << 10;  // a token may have several KiB

absl::Status WhyRefused(int status) {
  if (status == 401 || status == 403) return Unauthenticated("the server answered {}", status);
  if (status == 404) return NotFound("the server answered 404");
  if (status == 429) return ResourceExhausted("the server answered 429");
  return status == 0 ? Unavailable("the server was not reached")
                     : Unavailable("the server answered {}", status);
}

}  // namespace

absl::StatusOr<WebSocketUrl> ParseWebSocketUrl(std::string_view url) {
  WebSocketUrl parsed;
  const size_t scheme_end = url.find("://");
  const std::string_view scheme = url.substr(0, scheme_end);
  parsed.tls = scheme == "wss" || scheme == "https";
  if (scheme_end == std::string_view::npos || (!parsed.tls && scheme != "ws" && scheme != "http")) {
    return InvalidArgument("a URL begins with ws:// or wss://");
  }
  std::string_view rest = url.substr(scheme_end + 3);
  const size_t path = rest.find_first_of("/?");
  std::string_view authority = rest.substr(0, path);
  if (path != std::string_view::npos) parsed.path = rest.substr(path);
  if (!parsed.path.starts_with('/')) parsed.path.insert(0, "/");
  std::string_view port;
  if (authority.starts_with('[')) {
    const size_t end = authority.find(']');
    if (end == std::string_view::npos) return InvalidArgument("the URL's host is malformed");
    parsed.host = authority.substr(1, end - 1);
    authority.remove_prefix(end + 1);
    if (!authority.empty() && authority[0] != ':') {
      return InvalidArgument("the URL's host is malformed");
    }
    port = authority.empty() ? authority : authority.substr(1);
  } else {
    const size_t colon = authority.find(':');
    parsed.host = authority.substr(0, colon);
    if (colon != std::string_view::npos) port = authority.substr(colon + 1);
  }
  if (parsed.host.empty() || parsed.host.find('@') != std::string::npos) {
    return InvalidArgument("the URL names no host");
  }
  parsed.port = parsed.tls ? 443 : 80;
  if (port.empty()) return parsed;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), parsed.port);
  if (error != std::errc() || end != port.data() + port.size() || parsed.port < 1 ||
      parsed.port > 65'535) {
    return InvalidArgument("the URL's port is none");
  }
  return parsed;
}

struct WebSocketClient::Impl {
  struct Connection {
    uintptr_t id = 0;
    struct lws* wsi = nullptr;
    Dial dial;
    WebSocketUrl url;
    std::shared_ptr<WebSocket> socket;
    std::shared_ptr<DialListener> listener;
    WebSocketMessage arriving;
    bool open = false;
    bool closing = false;
    bool ping = false;  // it is due
    int64_t deadline_us = 0;
    int64_t ping_us = 0;
    int64_t heard_us = 0;
    absl::Status why;
  };

  event::Loop loop;
  std::thread thread;
  struct lws_context* context = nullptr;
  std::unique_ptr<event::Timer> sweeper;
  // By the number that the library hands back: a connection may be gone before its last event.
  std::map<uintptr_t, std::unique_ptr<Connection>> connections;
  uintptr_t last = 0;

  absl::Status CreateContext();
  void Run();
  void Connect(Dial dial, std::shared_ptr<WebSocket> socket,
               std::shared_ptr<DialListener> listener);
  int OnEvent(struct lws* wsi, lws_callback_reasons reason, uintptr_t id, void* in, size_t length);
  int AddHeaders(struct lws* wsi, Connection& connection, void* in, size_t length);
  static void TellHeaders(struct lws* wsi, Connection& connection);
  int OnPiece(Connection& connection, std::string_view piece);
  int Write(Connection& connection);
  void End(uintptr_t id, const absl::Status& why);
  void Kill(Connection& connection, absl::Status why);
  void Sweep();

  static int Callback(struct lws* wsi, lws_callback_reasons reason, void* user, void* in,
                      size_t length) {
    auto* self = static_cast<Impl*>(lws_context_user(lws_get_context(wsi)));
    if (self == nullptr) return 0;
    return self->OnEvent(wsi, reason, reinterpret_cast<uintptr_t>(user), in, length);
  }
};

absl::Status WebSocketClient::Impl::CreateContext() {
  static const lws_protocols kProtocols[] = {{"client", &Impl::Callback, 0, 0, 0, nullptr, 0},
                                             {nullptr, nullptr, 0, 0, 0, nullptr, 0}};
  lws_set_log_level(0, nullptr);
  void* native = loop.native();
  lws_context_creation_info info{};
  info.port = CONTEXT_PORT_NO_LISTEN;
  info.protocols = kProtocols;
  info.options = LWS_SERVER_OPTION_LIBUV | LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT;
  info.foreign_loops = &native;
  info.gid = -1;
  info.uid = -1;
  info.user = this;
  info.max_http_header_data2 = kMaxHeaderBytes;
  info.pt_serv_buf_size = kMaxHeaderBytes;
  context = lws_create_context(&info);
  return context != nullptr ? absl::OkStatus()
                            : Unavailable(
                                  "libwebsockets cannot start on libuv; is the package "
                                  "libwebsockets-evlib-uv installed?");
}

void WebSocketClient::Impl::Run() {
  sweeper = std::make_unique<event::Timer>(loop);
  loop.Run();
  sweeper.reset();
  while (!connections.empty()) End(connections.begin()->first, Unavailable("the client stops"));
  lws_context_destroy(context);  // in two calls, as the server's
  int open_handles = loop.Turn();
  for (int turn = 0; open_handles > 0 && turn < kMaxClosingTurns; ++turn) {
    open_handles = loop.Turn();
  }
  if (open_handles == 0) lws_context_destroy(context);
}

void WebSocketClient::Impl::Connect(Dial dial, std::shared_ptr<WebSocket> socket,
                                    std::shared_ptr<DialListener> listener) {
  if (connections.empty()) sweeper->StartRepeating(kSweep, [this] { Sweep(); });
  const uintptr_t id = ++last;
  auto& slot = connections[id] = std::make_unique<Connection>();
  Connection& connection = *slot;
  connection.id = id;
  connection.socket = std::move(socket);
  connection.listener = std::move(listener);
  connection.dial = std::move(dial);
  connection.why = Unavailable("the connection was lost");
  auto url = ParseWebSocketUrl(connection.dial.url);
  if (!url.ok()) return End(id, url.status());
  connection.url = *std::move(url);
  connection.deadline_us = loop.NowMicros() + absl::ToInt64Microseconds(connection.dial.timeout);
  const bool usual = connection.url.port == (connection.url.tls ? 443 : 80);
  const bool v6 = connection.url.host.find(':') != std::string::npos;
  std::string host = v6 ? "[" + connection.url.host + "]" : connection.url.host;
  if (!usual) host += fmt::format(":{}", connection.url.port);
  lws_client_connect_info info{};
  info.context = context;
  info.address = connection.url.host.c_str();
  info.port = connection.url.port;
  info.path = connection.url.path.c_str();
  info.host = host.c_str();
  info.ssl_connection = connection.url.tls ? LCCSCF_USE_SSL : 0;
  info.alpn = "http/1.1";
  info.ietf_version_or_minus_one = -1;
  info.local_protocol_name = "client";
  info.userdata = reinterpret_cast<void*>(id);
  struct lws* wsi = lws_client_connect_via_info(&info);
  const auto still = connections.find(id);
  if (still == connections.end()) return;  // refused on the spot
  if (wsi == nullptr) return End(id, Unavailable("the server was not reached"));
  still->second->wsi = wsi;
}

// The listener hears the end before the connection is forgotten; what the library says of it later
// is about nothing.
void WebSocketClient::Impl::End(uintptr_t id, const absl::Status& why) {
  const auto found = connections.find(id);
  if (found == connections.end()) return;
  const std::unique_ptr<Connection> connection = std::move(found->second);
  connections.erase(found);
  connection->socket->Detach();
  connection->listener->OnClosed(why);
}

void WebSocketClient::Impl::Kill(Connection& connection, absl::Status why) {
  connection.why = std::move(why);
  connection.deadline_us = INT64_MAX;
  lws_set_timeout(connection.wsi, PENDING_TIMEOUT_CLOSE_SEND, LWS_TO_KILL_SYNC);
}

int WebSocketClient::Impl::OnEvent(struct lws* wsi, lws_callback_reasons reason, uintptr_t id,
                                   void* in, size_t length) {
  const auto found = connections.find(id);
  if (found == connections.end()) return 0;
  Connection& connection = *found->second;
  switch (reason) {
    case LWS_CALLBACK_CLIENT_APPEND_HANDSHAKE_HEADER:
      return AddHeaders(wsi, connection, in, length);
    case LWS_CALLBACK_CLIENT_CONNECTION_ERROR: {
      const int status = static_cast<int>(lws_http_client_http_response(wsi));
      if (status != 0) TellHeaders(wsi, connection);
      const bool late = connection.why.code() == absl::StatusCode::kDeadlineExceeded;
      End(id, late ? connection.why : WhyRefused(status == 101 ? 0 : status));
      return 0;
    }
    case LWS_CALLBACK_CLIENT_ESTABLISHED: {
      connection.wsi = wsi;
      connection.open = true;
      connection.deadline_us = INT64_MAX;
      connection.heard_us = loop.NowMicros();
      connection.ping_us = connection.heard_us + absl::ToInt64Microseconds(connection.dial.ping);
      TellHeaders(wsi, connection);
      const auto listener = connection.listener;
      listener->OnOpen();
      connection.socket->Attach([this, id] {
        loop.Post([this, id] {
          const auto it = connections.find(id);
          if (it != connections.end()) lws_callback_on_writable(it->second->wsi);
        });
      });
      return 0;
    }
    case LWS_CALLBACK_CLIENT_RECEIVE_PONG:
      connection.heard_us = loop.NowMicros();
      return 0;
    case LWS_CALLBACK_CLIENT_RECEIVE:
      return OnPiece(connection, {static_cast<const char*>(in), length});
    case LWS_CALLBACK_CLIENT_WRITEABLE:
      return Write(connection);
    case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE: {
      connection.why = absl::OkStatus();
      const std::string_view frame(static_cast<const char*>(in), length);
      const auto byte = [frame](size_t i) { return static_cast<unsigned char>(frame[i]); };
      const auto listener = connection.listener;
      if (length < 2) {
        listener->OnCloseFrame(kNoCloseCode, {});
      } else {
        listener->OnCloseFrame(byte(0) << 8 | byte(1), frame.substr(2));
      }
      return 0;
    }
    case LWS_CALLBACK_CLIENT_CLOSED:
    case LWS_CALLBACK_WSI_DESTROY:
      End(id, connection.why);
      return 0;
    default:
      return 0;
  }
}

int WebSocketClient::Impl::AddHeaders(struct lws* wsi, Connection& connection, void* in,
                                      size_t length) {
  auto** at = static_cast<unsigned char**>(in);
  unsigned char* end = *at + length;
  for (const auto& [name, value] : connection.dial.headers) {
    const std::string with_colon = name + ":";
    if (lws_add_http_header_by_name(wsi, reinterpret_cast<const unsigned char*>(with_colon.c_str()),
                                    reinterpret_cast<const unsigned char*>(value.data()),
                                    static_cast<int>(value.size()), at, end) != 0) {
      connection.why = InvalidArgument("the request's headers are too long");
      return -1;
    }
  }
  return 0;
}

void WebSocketClient::Impl::TellHeaders(struct lws* wsi, Connection& connection) {
  const auto listener = connection.listener;
  for (const std::string& name : connection.dial.wanted) {
    const std::string with_colon = name + ":";
    const int size = static_cast<int>(with_colon.size());
    const int length = lws_hdr_custom_length(wsi, with_colon.c_str(), size);
    if (length <= 0) continue;
    std::string value(static_cast<size_t>(length) + 1, '\0');
    lws_hdr_custom_copy(wsi, value.data(), length + 1, with_colon.c_str(), size);
    value.resize(static_cast<size_t>(length));
    listener->OnHeader(name, value);
  }
}

int WebSocketClient::Impl::OnPiece(Connection& connection, std::string_view piece) {
  connection.heard_us = loop.NowMicros();
  if (connection.closing) return 0;
  WebSocketMessage& message = connection.arriving;
  if (message.data.size() + piece.size() > WebSocket::kMaxMessageBytes) {
    connection.why = Unavailable("the server sent a message that is too long");
    lws_close_reason(connection.wsi, LWS_CLOSE_STATUS_MESSAGE_TOO_LARGE, nullptr, 0);
    return -1;
  }
  message.data += piece;
  message.text = lws_frame_is_binary(connection.wsi) == 0;
  if (lws_is_final_fragment(connection.wsi) == 0 ||
      lws_remaining_packet_payload(connection.wsi) > 0) {
    return 0;
  }
  const auto listener = connection.listener;
  listener->OnMessage(std::exchange(message, {}));
  return 0;
}

int WebSocketClient::Impl::Write(Connection& connection) {
  if (!connection.open) return 0;
  const auto send = [&](std::string_view data, lws_write_protocol how) {
    std::string framed(LWS_PRE, '\0');
    framed += data;
    return lws_write(connection.wsi, reinterpret_cast<unsigned char*>(framed.data()) + LWS_PRE,
                     data.size(), how) >= 0;
  };
  // Not an empty one: the library does not tell us of empty answers.
  if (std::exchange(connection.ping, false) && !send("p", LWS_WRITE_PING)) return -1;
  WebSocketMessage message;
  while (connection.socket->Take(&message)) {
    if (!send(message.data, message.text ? LWS_WRITE_TEXT : LWS_WRITE_BINARY)) return -1;
    if (lws_send_pipe_choked(connection.wsi)) {
      lws_callback_on_writable(connection.wsi);
      return 0;
    }
  }
  std::string reason;
  const int code = connection.socket->CloseCode(&reason);
  if (code == 0 || std::exchange(connection.closing, true)) return 0;
  connection.why = absl::OkStatus();
  lws_close_reason(connection.wsi, static_cast<lws_close_status>(code),
                   reinterpret_cast<unsigned char*>(reason.data()), reason.size());
  // To fail here would close without a frame: the library takes that for a dead socket.
  loop.Post([this, id = connection.id] {
    const auto it = connections.find(id);
    if (it != connections.end()) Kill(*it->second, absl::OkStatus());
  });
  return 0;
}

void WebSocketClient::Impl::Sweep() {
  if (connections.empty()) return sweeper->Stop();
  const int64_t now_us = loop.NowMicros();
  std::vector<uintptr_t> late;
  for (const auto& [id, connection] : connections) {
    const int64_t silence_us = absl::ToInt64Microseconds(connection->dial.silence);
    if (now_us >= connection->deadline_us ||
        (connection->open && now_us - connection->heard_us > silence_us)) {
      late.push_back(id);
    } else if (connection->open && now_us >= connection->ping_us) {
      connection->ping_us = now_us + absl::ToInt64Microseconds(connection->dial.ping);
      connection->ping = true;
      lws_callback_on_writable(connection->wsi);
    }
  }
  for (const uintptr_t id : late) {
    const auto found = connections.find(id);
    if (found == connections.end()) continue;
    Kill(*found->second, found->second->open
                             ? Unavailable("nothing was heard of the server any more")
                             : DeadlineExceeded("the server did not accept in time"));
  }
}

absl::StatusOr<std::unique_ptr<WebSocketClient>> WebSocketClient::Start() {
  auto impl = std::make_unique<Impl>();
  PARLEY_RETURN_IF_ERROR(impl->CreateContext());
  Impl* self = impl.get();
  self->thread = std::thread([self] { self->Run(); });
  return std::unique_ptr<WebSocketClient>(new WebSocketClient(std::move(impl)));
}

WebSocketClient::WebSocketClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

WebSocketClient::~WebSocketClient() {
  impl_->loop.Stop();
  impl_->thread.join();
}

std::shared_ptr<WebSocket> WebSocketClient::Open(Dial dial,
                                                 std::shared_ptr<DialListener> listener) {
  auto socket = std::make_shared<WebSocket>();
  impl_->loop.Post([impl = impl_.get(), dial = std::move(dial), socket,
                    listener = std::move(listener)] { impl->Connect(dial, socket, listener); });
  return socket;
}

}  // namespace parley::http
