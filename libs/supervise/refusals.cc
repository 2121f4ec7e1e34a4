#include "supervise/refusals.h"

#include <linux/seccomp.h>
#include <poll.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "base/status.h"
#include "supervise/wire.h"

namespace parley::supervise {
namespace {

constexpr uint32_t kListener = 1;
constexpr uint32_t kNoListener = 2;

std::string NameOf(const seccomp_data& call) {
  char* const name = seccomp_syscall_resolve_num_arch(call.arch, call.nr);
  std::string result = name == nullptr ? fmt::format("call {}", call.nr) : name;
  std::free(name);
  return result;
}

bool IsOneOf(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

absl::StatusOr<UniqueFd> ReceiveListener(int report_fd) {
  PARLEY_ASSIGN_OR_RETURN(wire::Message message, wire::Receive(report_fd));
  if (message.kind != kListener || message.fds.size() != 1) {
    return FailedPrecondition("the kernel hands out no notice of refused calls");
  }
  return std::move(message.fds[0]);
}

std::optional<Refusal> AnswerRefusal(int listener, bool allow_exec) {
  pollfd watched = {listener, POLLIN, 0};
  if (poll(&watched, 1, 0) != 1 || (watched.revents & POLLIN) == 0) return std::nullopt;
  seccomp_notif call{};
  if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call) != 0) return std::nullopt;
  Refusal refusal;
  refusal.call = NameOf(call.data);
  const bool exec = IsOneOf(refusal.call, {"execve", "execveat"});
  if (!exec || !allow_exec) {
    const bool reach =
        IsOneOf(refusal.call, {"socket", "socketpair", "open", "openat", "openat2", "creat"});
    refusal.error = reach ? EACCES : EPERM;
  }
  seccomp_notif_resp answer{};
  answer.id = call.id;
  answer.error = -refusal.error;
  if (refusal.error == 0) answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
  // Fails when the job has died over its call: it is noted all the same.
  ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
  return refusal;
}

void SendListener(int report_fd, int listener) {
  if (listener < 0) {
    (void)wire::Send(report_fd, kNoListener, {}, {}, /*dont_wait=*/true);
    return;
  }
  (void)wire::Send(report_fd, kListener, {}, {listener}, /*dont_wait=*/true);
  close(listener);
}

}  // namespace parley::supervise
