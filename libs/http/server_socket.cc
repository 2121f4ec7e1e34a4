// The WebSockets of a server.
#include "http/encode.h"
#include "http/server_impl.h"

namespace parley::http {
// WebSockets, where there are any; no other protocol.
int Server::Impl::ConfirmUpgrade(Connection& connection, std::string_view protocol) {
  if (sockets.empty() || protocol != "websocket") return -1;
  ReadRequest(connection);
  const auto route = sockets.find(connection.request.path);
  if (route == sockets.end() || !route->second.options.refuse) return 0;
  const std::optional<Response> refusal = route->second.options.refuse(connection.request);
  if (!refusal) return 0;
  std::string out = Encode(*refusal, LWS_PRE, true, false);
  lws_write(connection.wsi, reinterpret_cast<unsigned char*>(out.data()) + LWS_PRE,
            out.size() - LWS_PRE, LWS_WRITE_HTTP);
  return -1;
}

int Server::Impl::OnUpgrade(Connection& connection) {
  ReadRequest(connection);
  const auto route = sockets.find(connection.request.path);
  if (route == sockets.end() || draining) return -1;
  auto socket = std::make_shared<WebSocket>();
  auto listener = route->second.accept(connection.request, socket);
  connection.request = Request();
  if (listener == nullptr) return -1;
  connection.socket_options = &route->second.options;
  connection.socket = std::move(socket);
  connection.listener = std::move(listener);
  return 0;
}

int Server::Impl::OnSocketEvent(Connection& connection, lws_callback_reasons reason,
                                std::string_view piece) {
  if (connection.socket == nullptr) return -1;
  if (reason == LWS_CALLBACK_SERVER_WRITEABLE) return WriteSocket(connection);
  connection.heard_us = loop->NowMicros();
  if (reason == LWS_CALLBACK_RECEIVE_PONG) return 0;
  if (reason == LWS_CALLBACK_RECEIVE) return OnSocketPiece(connection, piece);
  connection.deadline_us = kNever;
  if (connection.socket_options->ping > absl::ZeroDuration()) {
    connection.ping_us = After(connection.socket_options->ping);
  }
  connection.socket->Attach([this, wsi = connection.wsi, gone = std::weak_ptr(connection.socket)] {
    loop->Post([this, wsi, gone] {
      const auto it = connections.find(wsi);
      if (it == connections.end() || it->second->socket != gone.lock()) return;
      lws_callback_on_writable(wsi);
    });
  });
  return 0;
}

int Server::Impl::OnSocketPiece(Connection& connection, std::string_view piece) {
  if (connection.closing) return 0;
  WebSocketMessage& message = connection.arriving;
  if (message.data.size() + piece.size() > WebSocket::kMaxMessageBytes) {
    connection.closing = true;
    Hush(connection);
    lws_close_reason(connection.wsi, LWS_CLOSE_STATUS_MESSAGE_TOO_LARGE, nullptr, 0);
    return -1;
  }
  message.data += piece;
  message.text = lws_frame_is_binary(connection.wsi) == 0;
  if (lws_is_final_fragment(connection.wsi) == 0 ||
      lws_remaining_packet_payload(connection.wsi) > 0) {
    return 0;
  }
  connection.listener->OnMessage(std::exchange(message, {}));
  return 0;
}

// We are closing it: its listener need not wait for the client's answer, which may take seconds.
void Server::Impl::Hush(Connection& connection) {
  if (const auto listener = std::exchange(connection.listener, nullptr)) listener->OnClosed();
}

// Is this client gone without a word? Asks it, when that is due.
bool Server::Impl::IsSilent(Connection& connection, int64_t now_us) {
  if (connection.ping_us == kNever) return false;
  const WebSocketOptions& options = *connection.socket_options;
  if (now_us >= connection.ping_us) {
    connection.ping_us = now_us + absl::ToInt64Microseconds(options.ping);
    connection.ping = true;
    lws_callback_on_writable(connection.wsi);
  }
  return now_us - connection.heard_us > absl::ToInt64Microseconds(options.silence);
}

int Server::Impl::WriteSocket(Connection& connection) {
  WebSocketMessage message;
  if (std::exchange(connection.ping, false)) {
    // Not an empty one: the library does not tell us of empty answers.
    std::string framed(LWS_PRE, '\0');
    framed += 'p';
    if (lws_write(connection.wsi, reinterpret_cast<unsigned char*>(framed.data()) + LWS_PRE, 1,
                  LWS_WRITE_PING) < 0) {
      return -1;
    }
  }
  while (connection.socket->Take(&message)) {
    std::string framed(LWS_PRE, '\0');
    framed += message.data;
    if (lws_write(connection.wsi, reinterpret_cast<unsigned char*>(framed.data()) + LWS_PRE,
                  message.data.size(), message.text ? LWS_WRITE_TEXT : LWS_WRITE_BINARY) < 0) {
      return -1;
    }
    if (lws_send_pipe_choked(connection.wsi)) {
      lws_callback_on_writable(connection.wsi);
      return 0;
    }
  }
  std::string reason;
  const int code = connection.socket->CloseCode(&reason);
  if (code == 0 || std::exchange(connection.closing, true)) return 0;
  Hush(connection);
  lws_close_reason(connection.wsi, static_cast<lws_close_status>(code),
                   reinterpret_cast<unsigned char*>(reason.data()), reason.size());
  // To fail here would close without a frame: the library takes that for a dead socket.
  loop->Post([this, wsi = connection.wsi, gone = std::weak_ptr(connection.socket)] {
    const auto it = connections.find(wsi);
    if (it == connections.end() || it->second->socket != gone.lock()) return;
    lws_set_timeout(wsi, PENDING_TIMEOUT_CLOSE_SEND, LWS_TO_KILL_SYNC);
  });
  return 0;
}

void Server::HandleWebSocket(std::string_view path, AcceptWebSocket accept,
                             WebSocketOptions options) {
  impl_->sockets.emplace(path, SocketRoute{std::move(accept), std::move(options)});
}

}  // namespace parley::http
