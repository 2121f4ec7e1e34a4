#include "mailbox.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "base/check.h"
#include "base/status.h"

namespace parley::bench {

Mailbox::Mailbox(const std::string& path)
    : path_(path), fd_(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  PARLEY_CHECK(path.size() < sizeof address.sun_path);
  std::strcpy(address.sun_path, path.c_str());
  PARLEY_CHECK(bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
}

Mailbox::~Mailbox() { close(fd_); }

absl::StatusOr<Mailbox::Entry> Mailbox::Next(absl::Duration timeout) {
  pollfd wait{fd_, POLLIN, 0};
  if (poll(&wait, 1, static_cast<int>(absl::ToInt64Milliseconds(timeout))) != 1) {
    return DeadlineExceeded("no entrypoint reported within {}", absl::FormatDuration(timeout));
  }
  char text[256];
  const ssize_t size = recv(fd_, text, sizeof text - 1, 0);
  PARLEY_CHECK(size > 0);
  text[size] = 0;
  char* const space = std::strchr(text, ' ');
  PARLEY_CHECK(space != nullptr);
  return Entry{std::string(text, space), std::strtoll(space + 1, nullptr, 10)};
}

}  // namespace parley::bench
