// The WebSockets of a server.
#include "http/server_impl.h"

namespace parley::http {

int Server::Impl::OnUpgrade(Connection& connection) {
  ReadRequest(connection);
  const auto accept = sockets.find(connection.request.path);
  if (accept == sockets.end() || draining) return -1;
  auto socket = std::make_shared<WebSocket>();
  auto listener = accept->second(connection.request, socket);
  connection.request = Request();
  if (listener == nullptr) return -1;
  connection.socket = std::move(socket);
  connection.listener = std::move(listener);
  return 0;
}

int Server::Impl::OnSocketEvent(Connection& connection, lws_callback_reasons reason,
                                std::string_view piece) {
  if (connection.socket == nullptr) return -1;
  if (reason == LWS_CALLBACK_RECEIVE) return OnSocketPiece(connection, piece);
  if (reason == LWS_CALLBACK_SERVER_WRITEABLE) return WriteSocket(connection);
  connection.deadline_us = kNever;
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
  WebSocketMessage& message = connection.arriving;
  if (message.data.size() + piece.size() > WebSocket::kMaxMessageBytes) return -1;
  message.data += piece;
  message.text = lws_frame_is_binary(connection.wsi) == 0;
  if (lws_is_final_fragment(connection.wsi) == 0 ||
      lws_remaining_packet_payload(connection.wsi) > 0) {
    return 0;
  }
  connection.listener->OnMessage(std::exchange(message, {}));
  return 0;
}

int Server::Impl::WriteSocket(Connection& connection) {
  WebSocketMessage message;
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
  if (code == 0) return 0;
  lws_close_reason(connection.wsi, static_cast<lws_close_status>(code),
                   reinterpret_cast<unsigned char*>(reason.data()), reason.size());
  return -1;
}

void Server::HandleWebSocket(std::string_view path, AcceptWebSocket accept) {
  impl_->sockets.emplace(path, std::move(accept));
}

}  // namespace parley::http
