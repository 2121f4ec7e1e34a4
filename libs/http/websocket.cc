#include "http/websocket.h"

namespace parley::http {
namespace {

constexpr size_t kMaxReason = 120;  // a control frame holds 125 bytes

}  // namespace

bool WebSocket::Send(WebSocketMessage message) {
  MutexLock lock(&mutex_);
  if (over_ || close_code_ != 0 || queued_bytes_ + message.data.size() > kMaxQueuedBytes) {
    return false;
  }
  queued_bytes_ += message.data.size();
  queue_.push_back(std::move(message));
  if (queue_.size() == 1 && wake_) wake_();
  return true;
}

void WebSocket::Close(int code, std::string_view reason) {
  MutexLock lock(&mutex_);
  if (over_ || close_code_ != 0) return;
  close_code_ = code;
  close_reason_ = reason.substr(0, kMaxReason);
  if (wake_) wake_();
}

void WebSocket::Attach(std::function<void()> wake) {
  MutexLock lock(&mutex_);
  wake_ = std::move(wake);
  if (!queue_.empty() || close_code_ != 0) wake_();
}

void WebSocket::Detach() {
  MutexLock lock(&mutex_);
  over_ = true;
  wake_ = nullptr;
  queue_.clear();
}

bool WebSocket::Take(WebSocketMessage* message) {
  MutexLock lock(&mutex_);
  if (queue_.empty()) return false;
  *message = std::move(queue_.front());
  queue_.pop_front();
  queued_bytes_ -= message->data.size();
  return true;
}

int WebSocket::CloseCode(std::string* reason) const {
  MutexLock lock(&mutex_);
  if (!queue_.empty()) return 0;
  *reason = close_reason_;
  return close_code_;
}

}  // namespace parley::http
