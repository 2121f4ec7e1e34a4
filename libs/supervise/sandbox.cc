#include "supervise/sandbox.h"

#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <initializer_list>
#include <memory>

#include "base/status.h"
#include "supervise/unique_fd.h"

namespace parley::supervise {
namespace {

// Stands for the job's own process id in a compiled filter.
constexpr uint32_t kSelf = 0x5e1f0001;

constexpr const char* kDenied[] = {
    // other processes
    "ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd", "process_madvise",
    "process_mrelease", "migrate_pages", "move_pages",
    // new processes; what a process becomes
    "fork", "vfork",
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

// Calls whose first argument is a process: only the job itself.
constexpr const char* kOnlySelf[] = {"kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"};
// … only 0, which is the job itself: what libraries use.
constexpr const char* kOnlyZero[] = {"prlimit64", "sched_setaffinity", "setpgid"};
constexpr const char* kOthers[] = {"tkill", "pidfd_send_signal", "pidfd_open"};
constexpr const char* kOpen[] = {"open", "openat", "openat2", "creat"};
constexpr const char* kExec[] = {"execve", "execveat"};

struct ReleaseFilter {
  void operator()(void* filter) const { seccomp_release(filter); }
};
using Filter = std::unique_ptr<void, ReleaseFilter>;

// Adds rules to one filter, remembering the first error.
class Rules {
 public:
  Rules(scmp_filter_ctx filter, bool ask) : filter_(filter), ask_(ask) {}

  void Refuse(const char* name, int error, std::initializer_list<scmp_arg_cmp> when = {}) {
    Add(name, ask_ ? SCMP_ACT_NOTIFY : SCMP_ACT_ERRNO(error), when);
  }
  void Add(const char* name, uint32_t action, std::initializer_list<scmp_arg_cmp> when = {}) {
    const int number = seccomp_syscall_resolve_name(name);
    if (number == __NR_SCMP_ERROR || !status_.ok()) return;  // not on this machine
    const int failed = seccomp_rule_add_array(filter_, action, number,
                                              static_cast<unsigned>(when.size()), when.begin());
    if (failed != 0) status_ = Internal("filter rule for {}: {}", name, std::strerror(-failed));
  }
  const absl::Status& status() const { return status_; }

 private:
  const scmp_filter_ctx filter_;
  const bool ask_;
  absl::Status status_;
};

absl::Status AddRules(scmp_filter_ctx filter, Network network, bool executes, bool ask) {
  Rules rules(filter, ask);
  for (const char* name : kDenied) rules.Refuse(name, EPERM);
  for (const char* name : kOthers) rules.Refuse(name, EPERM);
  for (const char* name : kOnlySelf) rules.Refuse(name, EPERM, {SCMP_A0(SCMP_CMP_NE, kSelf)});
  for (const char* name : kOnlyZero) rules.Refuse(name, EPERM, {SCMP_A0(SCMP_CMP_NE, 0)});
  for (const char* name : kExec) {
    if (ask || !executes) rules.Refuse(name, EPERM);
  }
  // Threads are fine. What clone3 is asked for stands in memory, where no filter looks: libraries
  // fall back to clone.
  rules.Refuse("clone", EPERM, {SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, 0)});
  rules.Add("clone3", SCMP_ACT_ERRNO(ENOSYS));
  if (network == Network::kNone) {
    rules.Refuse("socket", EACCES);
    rules.Refuse("socketpair", EACCES, {SCMP_A0(SCMP_CMP_NE, AF_UNIX)});
    for (const char* name : kOpen) {
      if (!executes) rules.Refuse(name, EACCES);
    }
  }
  return rules.status();
}

}  // namespace

absl::StatusOr<Sandbox::Program> Sandbox::Compile(Network network, bool executes, bool ask) {
  Filter filter(seccomp_init(SCMP_ACT_ALLOW));
  if (filter == nullptr) return Internal("cannot make a system call filter");
  PARLEY_RETURN_IF_ERROR(AddRules(filter.get(), network, executes, ask));
  // Decisions in a tree: a handful of comparisons a call instead of one for each name.
  seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_OPTIMIZE, 2);
  UniqueFd file(memfd_create("filter", MFD_CLOEXEC));
  if (!file.valid()) return Internal("memfd_create: {}", std::strerror(errno));
  const int error = seccomp_export_bpf(filter.get(), file.get());
  if (error != 0) return Internal("cannot compile the filter: {}", std::strerror(-error));
  const off_t size = lseek(file.get(), 0, SEEK_END);
  Program program(static_cast<size_t>(size) / sizeof(sock_filter));
  if (pread(file.get(), program.data(), static_cast<size_t>(size), 0) != size) {
    return Internal("cannot read the filter back: {}", std::strerror(errno));
  }
  return program;
}

absl::StatusOr<Sandbox> Sandbox::Make(Network network, bool executes) {
  Sandbox sandbox;
  PARLEY_ASSIGN_OR_RETURN(sandbox.refuses_, Compile(network, executes, /*ask=*/false));
  if (auto asks = Compile(network, executes, /*ask=*/true); asks.ok()) sandbox.asks_ = *asks;
  return sandbox;
}

int Sandbox::Apply(pid_t self, int* listener) const {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return errno;
  const auto put = [self](Program program, unsigned flags) {
    for (sock_filter& step : program) {
      if (step.k == kSelf) step.k = static_cast<uint32_t>(self);
    }
    const sock_fprog raw{static_cast<unsigned short>(program.size()), program.data()};
    return static_cast<int>(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw));
  };
  if (listener != nullptr) {
    *listener = asks_.empty() ? -1 : put(asks_, SECCOMP_FILTER_FLAG_NEW_LISTENER);
    if (*listener >= 0) return 0;
    *listener = -1;
  }
  return put(refuses_, 0) == 0 ? 0 : errno;
}

}  // namespace parley::supervise
