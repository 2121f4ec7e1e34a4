#pragma once
// What a job process may do: system call filters, made once in the zygote and put on each job.
#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <linux/filter.h>

#include <vector>

#include "supervise/zygote.h"

namespace parley::supervise {

// A compiled filter. Refused calls fail with EPERM (sockets: EACCES), they do not kill: libraries
// that try and fall back go on working. It is a list of what no job needs, not of what is allowed:
// what isn't named keeps working on newer kernels and libraries.
//   always     ptrace and other processes' memory; exec; mount and namespaces; modules, kexec,
//              reboot, swap; clocks; keys; bpf, perf, userfaultfd, io_uring (which would evade it)
//   no network every socket() and socketpair outside AF_UNIX
class Sandbox {
 public:
  static absl::StatusOr<Sandbox> Make(Network network);

  // Sets no_new_privs and puts the filter on this process, for good. Async-signal-safe.
  // Returns 0 or an errno.
  int Apply() const;

 private:
  std::vector<sock_filter> program_;
};

}  // namespace parley::supervise
