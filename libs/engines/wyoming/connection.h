#pragma once
// One TCP connection to a Wyoming server. Belongs to one thread at a time.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <functional>
#include <string>

#include "engines/wyoming/events.h"

namespace parley::engines::wyoming {

class Connection {
 public:
  // Asked every 50 ms of waiting, on the caller's thread; true: give up.
  using Stop = std::function<bool()>;

  // `address`: host:port. Blocks for name resolution and the connect, at most `timeout` for the
  // latter.
  //   InvalidArgument  the address
  //   Unavailable, Cancelled
  static absl::StatusOr<Connection> Open(const std::string& address, absl::Duration timeout,
                                         const Stop& stop);
  ~Connection();
  Connection(Connection&& other) noexcept;
  Connection& operator=(Connection&&) = delete;

  // Each at most `timeout` (of silence, for Read).
  //   Unavailable  the server is gone, silent, or does not speak Wyoming
  //   Cancelled    `stop` said so
  absl::Status Write(const Event& event, absl::Duration timeout, const Stop& stop);
  absl::StatusOr<Event> Read(absl::Duration timeout, const Stop& stop);

 private:
  explicit Connection(int socket) : socket_(socket) {}
  int socket_;
  EventReader reader_;
};

}  // namespace parley::engines::wyoming
