#pragma once
// What a job process may do: system call filters, made once in the zygote and put on each job.
#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <linux/filter.h>
#include <sys/types.h>

#include <vector>

#include "supervise/zygote.h"

namespace parley::supervise {

// A compiled filter. Refused calls fail with EPERM (sockets and files: EACCES), they do not kill:
// libraries that try and fall back go on working. It is a list of what no job needs, not of what is
// allowed: what isn't named keeps working on newer kernels and libraries.
//   always     ptrace and other processes' memory and limits; signals to other processes; fork and
//              exec; mount and namespaces; modules, kexec, reboot, swap; clocks; keys; bpf, perf,
//              userfaultfd, io_uring (which would evade it)
//   no network every socket, but pairs of AF_UNIX; and opening files, by any name: what such a job
//              needs was loaded before it was forked
// A program that run_job executes (ZygoteOptions::executes) must be able to load itself: it may
// open files, and exec once where the host can tell (see refusals.h), else at will.
class Sandbox {
 public:
  static absl::StatusOr<Sandbox> Make(Network network, bool executes);

  // Sets no_new_privs and puts the filter on this process, `self`, for good. Returns 0 or an errno.
  // `listener`: not null, and the kernel can: refused calls wait for an answer at the descriptor
  // that is put there (refusals.h); else -1 is, and they fail at once.
  int Apply(pid_t self, int* listener) const;

 private:
  using Program = std::vector<sock_filter>;
  static absl::StatusOr<Program> Compile(Network network, bool executes, bool ask);

  Program refuses_;
  Program asks_;  // empty: this libseccomp cannot
};

}  // namespace parley::supervise
