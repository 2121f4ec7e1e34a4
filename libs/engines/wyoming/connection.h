#pragma once
// One TCP connection to a Wyoming server. Belongs to one thread at a time.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <string>

#include "engines/wyoming/events.h"
#include "speech/cancel.h"

namespace parley::engines::wyoming {

class Connection {
 public:
  // `address`: host:port. Blocks for name resolution and the connect, at most `timeout` for the
  // latter.
  //   InvalidArgument  the address
  //   Unavailable, Cancelled
  static absl::StatusOr<Connection> Open(const std::string& address, absl::Duration timeout,
                                         const speech::Cancellation& cancel);
  ~Connection();
  Connection(Connection&& other) noexcept;
  Connection& operator=(Connection&&) = delete;

  // Each at most `timeout` (of silence, for Read).
  //   Unavailable  the server is gone, silent, or does not speak Wyoming
  //   Cancelled    within 50 ms
  absl::Status Write(const Event& event, absl::Duration timeout,
                     const speech::Cancellation& cancel);
  absl::StatusOr<Event> Read(absl::Duration timeout, const speech::Cancellation& cancel);

 private:
  explicit Connection(int socket) : socket_(socket) {}
  int socket_;
  EventReader reader_;
};

}  // namespace parley::engines::wyoming
