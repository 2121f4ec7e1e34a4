#pragma once
// Listening sockets. Internal to `http`.
#include <absl/status/status.h>
#include <sys/socket.h>

#include <string>

namespace parley::http {

// A non-blocking listening socket, or -1 and `status`: Unavailable when the port is taken,
// InvalidArgument when `address` is not an IP address. `bound` is the port, also when `port` is 0.
int Listen(const std::string& address, int port, int* bound, absl::Status* status);
// The address in `storage` as text; "" for other families.
std::string PeerOf(const sockaddr_storage& storage);

}  // namespace parley::http
