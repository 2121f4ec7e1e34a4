#include "http/server.h"

#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <exception>
#include <thread>
#include <unordered_map>
#include <utility>

#include "base/status.h"
#include "base/strings.h"
#include "http/encode.h"
#include "http/listen.h"
#include "http/server_impl.h"

namespace parley::http {
namespace {

constexpr unsigned kMaxHeaderBytes = 32 << 10;
constexpr size_t kWriteBytes = 64 << 10;
constexpr absl::Duration kSweepInterval = absl::Milliseconds(250);
constexpr absl::Duration kLookAtCertificate = absl::Seconds(2);
// How long a refused request's body is still read, so that its sender gets to see the answer.
constexpr absl::Duration kDiscardTime = absl::Seconds(2);
constexpr int kMaxClosingTurns = 10'000;

Response Plain(int status, std::string_view code, std::string_view message) {
  Response response;
  response.status = status;
  response.body = fmt::format(R"({{"code":"{}","msg":"{}","meta":{{}}}})", code, message);
  return response;
}

struct Method {
  lws_token_indexes token;
  std::string_view name;
};
constexpr std::array<Method, 7> kMethods = {{{WSI_TOKEN_GET_URI, "GET"},
                                             {WSI_TOKEN_POST_URI, "POST"},
                                             {WSI_TOKEN_PUT_URI, "PUT"},
                                             {WSI_TOKEN_PATCH_URI, "PATCH"},
                                             {WSI_TOKEN_DELETE_URI, "DELETE"},
                                             {WSI_TOKEN_HEAD_URI, "HEAD"},
                                             {WSI_TOKEN_OPTIONS_URI, "OPTIONS"}}};

std::string HeaderOf(struct lws* wsi, lws_token_indexes token) {
  const int length = lws_hdr_total_length(wsi, token);
  if (length <= 0) return {};
  std::string value(static_cast<size_t>(length) + 1, '\0');
  const int copied = lws_hdr_copy(wsi, value.data(), length + 1, token);
  value.resize(copied > 0 ? static_cast<size_t>(copied) : 0);
  return value;
}

void ReadHeaders(struct lws* wsi, Request* request) {
  for (int token = 0; token < WSI_TOKEN_COUNT; ++token) {
    const unsigned char* name = lws_token_to_string(static_cast<lws_token_indexes>(token));
    if (name == nullptr) continue;
    std::string text(reinterpret_cast<const char*>(name));
    if (text.size() < 2 || text.back() != ':' || text.front() == ':') continue;
    text.pop_back();
    std::string value = HeaderOf(wsi, static_cast<lws_token_indexes>(token));
    if (!value.empty()) request->headers[text] = std::move(value);
  }
  for (const std::string_view name : kExtensionHeaders) {
    const std::string with_colon = std::string(name) + ":";
    const int size = static_cast<int>(with_colon.size());
    const int length = lws_hdr_custom_length(wsi, with_colon.c_str(), size);
    if (length <= 0) continue;
    std::string value(static_cast<size_t>(length) + 1, '\0');
    lws_hdr_custom_copy(wsi, value.data(), length + 1, with_colon.c_str(), size);
    value.resize(static_cast<size_t>(length));
    request->headers[std::string(name)] = std::move(value);
  }
}

void ReadQuery(struct lws* wsi, Request* request) {
  std::string piece(kMaxHeaderBytes, '\0');
  for (int i = 0;; ++i) {
    const int length = lws_hdr_copy_fragment(wsi, piece.data(), static_cast<int>(piece.size()),
                                             WSI_TOKEN_HTTP_URI_ARGS, i);
    if (length < 0) return;
    const std::string_view text(piece.data(), static_cast<size_t>(length));
    if (text.empty()) continue;
    const size_t equals = text.find('=');
    const std::string_view value =
        equals == std::string_view::npos ? std::string_view() : text.substr(equals + 1);
    request->query.emplace(std::string(text.substr(0, equals)), std::string(value));
  }
}

bool HasLeft(int fd) {
  char byte = 0;
  const ssize_t got = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR);
}

}  // namespace

std::string_view Request::Header(std::string_view lower_case_name) const {
  const auto it = headers.find(std::string(lower_case_name));
  return it == headers.end() ? std::string_view() : std::string_view(it->second);
}

absl::Status Server::Impl::CreateContext() {
  static const lws_protocols kProtocols[] = {{"http", &Impl::Callback, 0, 0, 0, nullptr, 0},
                                             {nullptr, nullptr, 0, 0, 0, nullptr, 0}};
  lws_set_log_level(0, nullptr);
  void* native = loop->native();
  lws_context_creation_info info{};
  info.port = CONTEXT_PORT_NO_LISTEN;
  info.protocols = kProtocols;
  info.options = LWS_SERVER_OPTION_LIBUV;
  info.foreign_loops = &native;
  info.gid = -1;
  info.uid = -1;
  info.user = this;
  info.max_http_header_data2 = kMaxHeaderBytes;
  info.fd_limit_per_thread = static_cast<unsigned>(options.max_connections) + 16;
  // The sweeper closes slow connections; the library's own, coarser timers only back it up.
  const auto seconds = [](absl::Duration time) {
    return static_cast<int>(absl::ToInt64Seconds(time)) + 5;
  };
  info.keepalive_timeout = seconds(options.idle_timeout);
  info.timeout_secs = static_cast<unsigned>(std::max(seconds(options.idle_timeout), 3600));
  info.timeout_secs_ah_idle =
      static_cast<unsigned>(seconds(std::max(options.header_timeout, options.idle_timeout)));
  if (!options.certificate.empty()) {
    info.port = CONTEXT_PORT_NO_LISTEN_SERVER;
    info.options |= LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT;
    info.ssl_cert_filepath = options.certificate.c_str();
    info.ssl_private_key_filepath = options.key.c_str();
    info.ssl_options_set = SSL_OP_NO_TLSv1 | SSL_OP_NO_TLSv1_1;
    info.alpn = "http/1.1";  // the callbacks speak no HTTP/2
  }
  context = lws_create_context(&info);
  if (context == nullptr) {
    return Unavailable(
        "libwebsockets cannot start on libuv; is the package libwebsockets-evlib-uv installed?");
  }
  vhost = lws_get_vhost_by_name(context, "default");
  return vhost != nullptr ? absl::OkStatus() : Internal("libwebsockets has no default vhost");
}

void Server::Impl::Run() {
  for (const int listener : listeners) {
    watchers.push_back(std::make_unique<event::FdWatcher>(*loop, listener));
    watchers.back()->Start(true, false, [this, listener](bool, bool) { Accept(listener); });
  }
  sweeper = std::make_unique<event::Timer>(*loop);
  if (!options.certificate.empty()) KeepSweeping();
  loop->Run();
  CloseListeners();
  sweeper.reset();
  // On a foreign loop the library takes its context apart in two calls: the first closes its
  // handles, for which the loop must run once more, the second frees what is left.
  lws_context_destroy(context);
  int open_handles = loop->Turn();
  for (int turn = 0; open_handles > 0 && turn < kMaxClosingTurns; ++turn) {
    open_handles = loop->Turn();
  }
  // The second call unloads the code that pending callbacks would run: better a leak than that.
  if (open_handles > 0)
    return log.Error("the HTTP server did not close", {{"handles", open_handles}});
  lws_context_destroy(context);
}

// Mounted secrets change both files at once; where a copy changes one after the other, nothing is
// taken before they fit.
void Server::Impl::RenewCertificate() {
  if (options.certificate.empty() || loop->NowMicros() < look_us) return;
  look_us = After(kLookAtCertificate);
  if (!certificate.Changed()) return;
  if (const absl::Status status = certificate.Check(); !status.ok()) {
    log.Warn("the new certificate cannot be used; the one before is shown on",
             {{"error", Message(status)}});
    return;
  }
  const bool renewed = lws_tls_cert_updated(context, options.certificate.c_str(),
                                            options.key.c_str(), nullptr, 0, nullptr, 0) == 0;
  log.Info(renewed ? "certificate renewed" : "certificate not renewed", {});
}

void Server::Impl::CloseListeners() {
  watchers.clear();
  for (const int listener : listeners) close(listener);
  listeners.clear();
}

void Server::Impl::Drain() {
  CloseListeners();
  draining = true;
  for (const auto& [wsi, connection] : connections) {
    if (connection->socket != nullptr) {
      connection->socket->Close(1001, "the server is stopping");
    } else if (!connection->busy) {
      connection->deadline_us = 0;
    }
    if (connection->stream != nullptr && connection->stream->endless_) connection->stream->End();
  }
  Sweep();
}

void Server::Impl::Accept(int listener) {
  for (int i = 0; i < 64; ++i) {
    sockaddr_storage storage{};
    socklen_t size = sizeof storage;
    const int fd = accept4(listener, reinterpret_cast<sockaddr*>(&storage), &size,
                           SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    if (connections.size() >= static_cast<size_t>(options.max_connections)) {
      close(fd);
      log.Warn("connection refused: too many are open", {{"limit", options.max_connections}});
      continue;
    }
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    arriving_peer = PeerOf(storage);
    if (struct lws* wsi = lws_adopt_socket_vhost(vhost, fd)) Of(wsi);
  }
}

Connection& Server::Impl::Of(struct lws* wsi) {
  auto& slot = connections[wsi];
  if (slot == nullptr) {
    slot = std::make_unique<Connection>();
    slot->wsi = wsi;
    slot->peer = arriving_peer;
    slot->deadline_us = After(options.header_timeout);
    KeepSweeping();
  }
  return *slot;
}

void Server::Impl::KeepSweeping() {
  if (sweeper == nullptr || std::exchange(sweeping, true)) return;
  sweeper->StartRepeating(kSweepInterval, [this] { Sweep(); });
}

void Server::Impl::Sweep() {
  RenewCertificate();
  const int64_t now_us = loop->NowMicros();
  std::vector<struct lws*> late;
  for (const auto& [wsi, connection] : connections) {
    // The library does not read while an answer is under way: it would miss that the client left.
    const bool left = (connection->stream != nullptr && HasLeft(lws_get_socket_fd(wsi))) ||
                      IsSilent(*connection, now_us);
    if (now_us < connection->deadline_us && !left) continue;
    connection->deadline_us = kNever;
    late.push_back(wsi);
  }
  for (struct lws* wsi : late) {
    lws_set_timeout(wsi, PENDING_TIMEOUT_HTTP_CONTENT, LWS_TO_KILL_SYNC);
  }
  if (sweeper == nullptr || !connections.empty() || !options.certificate.empty()) return;
  sweeping = false;
  sweeper->Stop();
}

int Server::Impl::OnEvent(struct lws* wsi, lws_callback_reasons reason, void* in, size_t length) {
  switch (reason) {
    case LWS_CALLBACK_HTTP_CONFIRM_UPGRADE:
      return ConfirmUpgrade(Of(wsi), static_cast<const char*>(in));
    case LWS_CALLBACK_FILTER_PROTOCOL_CONNECTION:
      return OnUpgrade(Of(wsi));
    case LWS_CALLBACK_ESTABLISHED:
    case LWS_CALLBACK_RECEIVE:
    case LWS_CALLBACK_RECEIVE_PONG:
    case LWS_CALLBACK_SERVER_WRITEABLE:
      return OnSocketEvent(Of(wsi), reason, {static_cast<const char*>(in), length});
    case LWS_CALLBACK_HTTP:
      return OnRequest(Of(wsi));
    case LWS_CALLBACK_HTTP_BODY:
      return OnBody(Of(wsi), {static_cast<const char*>(in), length});
    case LWS_CALLBACK_HTTP_BODY_COMPLETION: {
      Connection& connection = Of(wsi);
      if (connection.refused) return -1;
      return Dispatch(connection);
    }
    case LWS_CALLBACK_HTTP_WRITEABLE:
      return Write(Of(wsi));
    case LWS_CALLBACK_WSI_DESTROY:
      if (const auto it = connections.find(wsi); it != connections.end()) {
        if (it->second->busy) under_way.Ended();
        DetachStream(*it->second);
        if (it->second->socket != nullptr) it->second->socket->Detach();
        if (const auto listener = it->second->listener) listener->OnClosed();
        connections.erase(it);
      }
      return 0;
    default:
      return 0;
  }
}

void Server::Impl::ReadRequest(Connection& connection) {
  Request& request = connection.request = Request();
  request.peer = connection.peer;
  for (const Method& method : kMethods) {
    if (lws_hdr_total_length(connection.wsi, method.token) <= 0) continue;
    request.method = method.name;
    request.path = HeaderOf(connection.wsi, method.token);
  }
  ReadHeaders(connection.wsi, &request);
  ReadQuery(connection.wsi, &request);
}

int Server::Impl::OnRequest(Connection& connection) {
  struct lws* wsi = connection.wsi;
  connection.answered = connection.refused = connection.close_after = false;
  connection.body_bytes = 0;
  ++connection.serial;
  if (!connection.busy) under_way.Began();
  connection.busy = true;
  ReadRequest(connection);
  const Request& request = connection.request;
  connection.close_after = ToLower(request.Header("connection")) == "close" ||
                           HeaderOf(wsi, WSI_TOKEN_HTTP).starts_with("HTTP/1.0");
  if (request.method.empty()) {
    return Refuse(connection, Plain(501, "unimplemented", "this HTTP method is not served"));
  }
  if (!request.Header("transfer-encoding").empty()) {
    return Refuse(connection, Plain(411, "malformed", "send the body with a content-length"));
  }
  const std::string_view length = request.Header("content-length");
  if (length.empty()) {
    // A POST without any body: the library would wait for one.
    connection.close_after |=
        request.method == "POST" || request.method == "PUT" || request.method == "PATCH";
    return Dispatch(connection);
  }
  const auto [end, error] =
      std::from_chars(length.data(), length.data() + length.size(), connection.body_bytes);
  if (error != std::errc() || end != length.data() + length.size() || connection.body_bytes < 0) {
    return Refuse(connection, Plain(400, "malformed", "content-length is not a number"));
  }
  if (connection.body_bytes > options.max_body_bytes) {
    return Refuse(connection, Plain(413, "invalid_argument",
                                    fmt::format("the body is over the limit of {} bytes",
                                                options.max_body_bytes)));
  }
  if (connection.body_bytes == 0) {
    connection.close_after |= request.method == "PUT" || request.method == "PATCH";
    // For POST the library says itself that the empty body is complete.
    return request.method == "POST" ? 0 : Dispatch(connection);
  }
  connection.deadline_us = After(options.header_timeout, connection.body_bytes);
  if (ToLower(request.Header("expect")) == "100-continue") {
    std::string go(LWS_PRE, '\0');
    go += "HTTP/1.1 100 Continue\r\n\r\n";
    if (lws_write(wsi, reinterpret_cast<unsigned char*>(go.data()) + LWS_PRE, go.size() - LWS_PRE,
                  LWS_WRITE_HTTP_HEADERS) < 0) {
      return -1;
    }
  }
  return 0;
}

int Server::Impl::OnBody(Connection& connection, std::string_view piece) {
  if (connection.refused) return 0;
  if (connection.request.body.size() + piece.size() > static_cast<size_t>(options.max_body_bytes)) {
    return -1;
  }
  connection.request.body += piece;
  return 0;
}

int Server::Impl::Dispatch(Connection& connection) {
  lws_set_timeout(connection.wsi, NO_PENDING_TIMEOUT, 0);
  connection.deadline_us = kNever;
  Request& request = connection.request;
  Routes::Match match = routes.Find(request.method, request.path);
  if (match.handler != nullptr) {
    for (auto& [name, value] : match.params) request.params[name] = std::move(value);
    RunHandler(connection, *match.handler, match.inline_run);
    return 0;
  }
  if (match.allow.empty()) {
    if (unknown) {
      RunHandler(connection, unknown, false);
    } else {
      Answer(connection, Plain(404, "not_found", "there is nothing at this path"));
    }
    return 0;
  }
  Response response = request.method == "OPTIONS"
                          ? Response{204, "", "", {}}
                          : Plain(405, "bad_route", "this path is not served with this method");
  response.headers.emplace_back("allow", match.allow);
  Answer(connection, response);
  return 0;
}

void Server::Impl::RunHandler(Connection& connection, const Handler& handler, bool inline_run) {
  if (inline_run) return Answer(connection, handler(connection.request));
  const std::string method = connection.request.method;  // needed for the answer, too (HEAD)
  auto work = [this, keep = gate, wsi = connection.wsi, serial = connection.serial, &handler,
               request = std::move(connection.request)] {
    if (!keep->Enter()) return;  // the server is gone, and `this` with it
    Response response;
    try {
      response = handler(request);
    } catch (const std::exception& error) {
      log.Error("handler threw", {{"path", request.path}, {"error", std::string(error.what())}});
      response = Plain(500, "internal", "internal error");
    }
    loop->Post([this, wsi, serial, response = std::move(response)] {
      const auto it = connections.find(wsi);
      if (it != connections.end() && it->second->serial == serial) {
        Answer(*it->second, response);
      } else if (response.stream != nullptr) {
        response.stream->Detach();
      }
    });
    keep->Leave();
  };
  const bool posted = executor.Post(std::move(work));
  connection.request.method = method;
  if (posted) return;
  Response response = Plain(503, "unavailable", "the server is busy; try again shortly");
  response.headers.emplace_back("retry-after", "1");
  Answer(connection, response);
}

void Server::Impl::Answer(Connection& connection, const Response& response) {
  connection.close_after |= draining || response.stream != nullptr;
  connection.out =
      Encode(response, LWS_PRE, connection.close_after, connection.request.method == "HEAD");
  connection.sent = LWS_PRE;
  connection.answered = true;
  connection.deadline_us = After(options.idle_timeout, static_cast<int64_t>(connection.out.size()));
  const bool wanted = response.stream != nullptr && !(draining && response.stream->endless_);
  if (wanted && connection.request.method != "HEAD") {
    AttachStream(connection, response.stream);
  } else if (response.stream != nullptr) {
    response.stream->Detach();
  }
  lws_callback_on_writable(connection.wsi);
}

void Server::Impl::AttachStream(Connection& connection, std::shared_ptr<BodyStream> stream) {
  connection.stream = std::move(stream);
  connection.last = false;
  connection.deadline_us = kNever;  // it may be silent for as long as it likes
  connection.stream->Attach([this, wsi = connection.wsi, serial = connection.serial] {
    loop->Post([this, wsi, serial] {
      const auto it = connections.find(wsi);
      if (it == connections.end() || it->second->serial != serial) return;
      lws_callback_on_writable(wsi);
    });
  });
}

void Server::Impl::DetachStream(Connection& connection) {
  if (const auto stream = std::exchange(connection.stream, nullptr)) stream->Detach();
}

// Everything was sent: is there more? A client that does not read is cut off at a deadline.
bool Server::Impl::NextPiece(Connection& connection) {
  if (connection.stream == nullptr || connection.last) return false;
  const std::string piece = connection.stream->Take(&connection.last);
  connection.out.resize(LWS_PRE);
  connection.out += piece;
  connection.sent = LWS_PRE;
  connection.deadline_us =
      piece.empty() ? kNever : After(options.idle_timeout, static_cast<int64_t>(piece.size()));
  return !piece.empty();
}

// Answers before the body has been read; what still comes of it is dropped for a moment.
int Server::Impl::Refuse(Connection& connection, const Response& response) {
  connection.close_after = connection.refused = true;
  Answer(connection, response);
  connection.deadline_us = After(kDiscardTime);
  if (Write(connection) != 0) return -1;
  return 0;
}

int Server::Impl::Write(Connection& connection) {
  if (!connection.answered) return 0;
  while (connection.sent < connection.out.size() || NextPiece(connection)) {
    if (lws_send_pipe_choked(connection.wsi)) {
      lws_callback_on_writable(connection.wsi);
      return 0;
    }
    const size_t size = std::min(kWriteBytes, connection.out.size() - connection.sent);
    // The library writes its framing into the LWS_PRE bytes before the data: these were sent.
    auto* data = reinterpret_cast<unsigned char*>(connection.out.data()) + connection.sent;
    if (lws_write(connection.wsi, data, size, LWS_WRITE_HTTP) < 0) return -1;
    connection.sent += size;
  }
  if (connection.stream != nullptr && !connection.last) return 0;  // more will come
  DetachStream(connection);
  if (connection.refused) return 0;  // closed once its body is through, or by the sweeper
  Done(connection);
  if (connection.close_after) return -1;
  return lws_http_transaction_completed(connection.wsi) != 0 ? -1 : 0;
}

void Server::Impl::Done(Connection& connection) {
  connection.answered = false;
  connection.busy = false;
  under_way.Ended();
  connection.out = std::string();
  connection.request = Request();
  connection.deadline_us = After(options.idle_timeout);
}

Server::Server(ServerOptions options, Executor& executor, log::Logger log)
    : impl_(std::make_unique<Impl>(std::move(options), executor, std::move(log))) {}

Server::~Server() { Stop(absl::ZeroDuration()); }

void Server::Handle(std::string_view method, std::string_view pattern, Handler handler) {
  impl_->routes.Add(method, pattern, std::move(handler), false);
}

void Server::HandleInline(std::string_view method, std::string_view pattern, Handler handler) {
  impl_->routes.Add(method, pattern, std::move(handler), true);
}

void Server::HandleUnknown(Handler handler) { impl_->unknown = std::move(handler); }

std::vector<std::pair<std::string, std::string>> Server::routes() const {
  return impl_->routes.List();
}

absl::Status Server::Start() {
  absl::Status status = impl_->certificate.Check();
  if (!status.ok()) return status;
  for (const int port : impl_->options.ports) {
    int bound = 0;
    const int fd = Listen(impl_->options.address, port, &bound, &status);
    if (fd < 0) {
      impl_->CloseListeners();
      return status;
    }
    impl_->listeners.push_back(fd);
    impl_->bound_ports.push_back(bound);
  }
  impl_->loop = std::make_unique<event::Loop>();
  if (status = impl_->CreateContext(); !status.ok()) {
    impl_->CloseListeners();
    return status;
  }
  impl_->started = true;
  impl_->thread = std::thread([this] { impl_->Run(); });
  return absl::OkStatus();
}

int Server::port(size_t index) const { return impl_->bound_ports.at(index); }

void Server::Stop(absl::Duration grace) {
  if (!impl_->started || impl_->stopped) return;
  impl_->stopped = true;
  impl_->loop->Post([this] { impl_->Drain(); });
  impl_->under_way.WaitForNone(grace);
  impl_->gate->CloseAndWait();
  impl_->loop->Stop();
  impl_->thread.join();
}

}  // namespace parley::http
