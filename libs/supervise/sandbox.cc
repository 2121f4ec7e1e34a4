#include "supervise/sandbox.h"

#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "base/status.h"
#include "supervise/unique_fd.h"

namespace parley::supervise {
namespace {

constexpr const char* kDenied[] = {
    // other processes
    "ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd", "process_madvise",
    // programs
    "execve", "execveat",
    // the file tree and namespaces
    "mount", "umount2", "umount", "pivot_root", "chroot", "setns", "unshare", "open_tree",
    "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr", "open_by_handle_at",
    "name_to_handle_at", "quotactl", "quotactl_fd", "acct", "swapon", "swapoff",
    // the machine
    "reboot", "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module",
    "iopl", "ioperm", "sethostname", "setdomainname", "settimeofday", "clock_settime",
    "clock_adjtime", "adjtimex", "syslog", "vhangup",
    // the kernel's back doors
    "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter",
    "io_uring_register", "keyctl", "add_key", "request_key", "lookup_dcookie", "nfsservctl",
    "personality"};

struct ReleaseFilter {
  void operator()(void* filter) const { seccomp_release(filter); }
};
using Filter = std::unique_ptr<void, ReleaseFilter>;

absl::Status AddRules(scmp_filter_ctx filter, Network network) {
  for (const char* name : kDenied) {
    const int number = seccomp_syscall_resolve_name(name);
    if (number == __NR_SCMP_ERROR) continue;  // older libseccomp, or not on this machine
    const int error = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), number, 0);
    if (error != 0) return Internal("filter rule for {}: {}", name, std::strerror(-error));
  }
  if (network == Network::kHost) return absl::OkStatus();
  int error = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EACCES), SCMP_SYS(socket), 0);
  if (error == 0) {
    error = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EACCES), SCMP_SYS(socketpair), 1,
                             SCMP_A0(SCMP_CMP_NE, AF_UNIX));
  }
  if (error != 0) return Internal("filter rule for sockets: {}", std::strerror(-error));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Sandbox> Sandbox::Make(Network network) {
  Filter filter(seccomp_init(SCMP_ACT_ALLOW));
  if (filter == nullptr) return Internal("cannot make a system call filter");
  PARLEY_RETURN_IF_ERROR(AddRules(filter.get(), network));
  // Decisions in a tree: a handful of comparisons a call instead of one for each name.
  seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_OPTIMIZE, 2);
  UniqueFd file(memfd_create("filter", MFD_CLOEXEC));
  if (!file.valid()) return Internal("memfd_create: {}", std::strerror(errno));
  const int error = seccomp_export_bpf(filter.get(), file.get());
  if (error != 0) return Internal("cannot compile the filter: {}", std::strerror(-error));
  const off_t size = lseek(file.get(), 0, SEEK_END);
  Sandbox sandbox;
  sandbox.program_.resize(static_cast<size_t>(size) / sizeof(sock_filter));
  if (pread(file.get(), sandbox.program_.data(), static_cast<size_t>(size), 0) != size) {
    return Internal("cannot read the filter back: {}", std::strerror(errno));
  }
  return sandbox;
}

int Sandbox::Apply() const {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return errno;
  sock_fprog program{static_cast<unsigned short>(program_.size()),
                     const_cast<sock_filter*>(program_.data())};
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0) return errno;
  return 0;
}

}  // namespace parley::supervise
