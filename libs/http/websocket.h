#pragma once
// The server's end of a WebSocket (RFC 6455).
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "base/mutex.h"

namespace parley::http {

struct WebSocketMessage {
  std::string data;
  bool text = false;  // otherwise binary
};

// What the program hears. Calls come on the server's loop thread, one at a time: they must not
// block.
class WebSocketListener {
 public:
  virtual ~WebSocketListener() = default;
  virtual void OnMessage(WebSocketMessage message) = 0;
  // Last call, however it ended.
  virtual void OnClosed() = 0;
};

// What the program says. Thread-safe; harmless once the connection is gone.
class WebSocket {
 public:
  static constexpr size_t kMaxMessageBytes = 2 << 20;  // a longer one from the client closes
  static constexpr size_t kMaxQueuedBytes = 4 << 20;

  // Messages may be sent before the connection is up. False: it is over, or the client reads too
  // slowly.
  bool Send(WebSocketMessage message);
  // Closes once what was sent before is through. `code`: 1000 = in order, 1001 = the server stops,
  // 1008 = refused, 1011 = an error here, 1013 = try again later.
  void Close(int code, std::string_view reason = {});

  // ---- for the server ----
  // `wake` is called, on any thread, when there is something to do. Once.
  void Attach(std::function<void()> wake);
  void Detach();
  bool Take(WebSocketMessage* message);
  // 0: go on. Otherwise everything is sent, and the connection is to be closed so.
  int CloseCode(std::string* reason) const;

 private:
  mutable Mutex mutex_;
  std::function<void()> wake_ ABSL_GUARDED_BY(mutex_);
  std::deque<WebSocketMessage> queue_ ABSL_GUARDED_BY(mutex_);
  size_t queued_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
  int close_code_ ABSL_GUARDED_BY(mutex_) = 0;
  std::string close_reason_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace parley::http
