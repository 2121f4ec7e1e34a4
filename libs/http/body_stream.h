#pragma once
// Answers whose body comes bit by bit, such as server-sent events.
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/mutex.h"

namespace parley::http {

// Put into Response::stream by a handler, which then returns; whoever holds it goes on writing
// until the end or until the client is gone. The connection closes with the body. Thread-safe;
// nothing here blocks.
class BodyStream {
 public:
  // What may wait for a client that reads slowly; one that is further behind is closed.
  static constexpr size_t kMaxWaiting = 1 << 20;

  // Endless ones, such as a watcher's, are ended by a server that stops; for the end of others it
  // waits as for any answer under way.
  explicit BodyStream(bool endless = true) : endless_(endless) {}

  // False: the client is gone, was too slow, or the body has ended. Write no more.
  bool Write(std::string_view text);
  // What was written still goes out, then the connection closes. Idempotent.
  void End();
  // `gone` runs once, when nothing can be written any more; at once if that is so already. On any
  // thread; must not block.
  void OnGone(std::function<void()> gone);

 private:
  friend class Server;
  // `wake` runs whenever there is something to send or the body has ended. `wake` is dropped by
  // Detach.
  void Attach(std::function<void()> wake);
  void Detach();
  // What there is to send now; `*last`: nothing follows.
  std::string Take(bool* last);
  void Wake();

  const bool endless_;
  Mutex mutex_;
  std::string waiting_ ABSL_GUARDED_BY(mutex_);
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
  bool gone_ ABSL_GUARDED_BY(mutex_) = false;
  std::function<void()> wake_ ABSL_GUARDED_BY(mutex_);
  std::function<void()> on_gone_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace parley::http
