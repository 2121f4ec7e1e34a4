#include "supervise/wire.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstring>

#include "base/status.h"

namespace parley::supervise::wire {
namespace {
constexpr size_t kMaxFds = 3;
}

absl::Status Send(int fd, uint32_t kind, std::string_view body, const std::vector<int>& fds,
                  bool dont_wait) {
  iovec parts[2] = {{&kind, sizeof(kind)}, {const_cast<char*>(body.data()), body.size()}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = body.empty() ? 1 : 2;
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))] = {};
  if (!fds.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
    cmsghdr* head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    std::memcpy(CMSG_DATA(head), fds.data(), fds.size() * sizeof(int));
  }
  for (;;) {
    if (sendmsg(fd, &message, MSG_NOSIGNAL | (dont_wait ? MSG_DONTWAIT : 0)) >= 0) {
      return absl::OkStatus();
    }
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == ENOBUFS) return Unavailable("the socket is full");
    return Aborted("the other side is gone: {}", std::strerror(errno));
  }
}

absl::StatusOr<Message> Receive(int fd) {
  char buffer[kMaxMessage];
  uint32_t kind = 0;
  iovec parts[2] = {{&kind, sizeof(kind)}, {buffer, sizeof(buffer)}};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))];
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  ssize_t got = 0;
  do {
    got = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got < 0 && errno == EAGAIN) return Unavailable("nothing there");
  if (got < static_cast<ssize_t>(sizeof(kind))) return Aborted("the other side is gone");
  Message result;
  for (cmsghdr* head = CMSG_FIRSTHDR(&message); head != nullptr;
       head = CMSG_NXTHDR(&message, head)) {
    if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int passed = -1;
      std::memcpy(&passed, CMSG_DATA(head) + i * sizeof(int), sizeof(int));
      result.fds.emplace_back(passed);
    }
  }
  result.kind = kind;
  result.body.assign(buffer, static_cast<size_t>(got) - sizeof(kind));
  return result;
}

}  // namespace parley::supervise::wire
