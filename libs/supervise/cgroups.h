#pragma once
// A control group (v2) for each job, where the host lets this program make them. The kernel then
// counts all memory of the job, its page tables, sockets and shared memory included, and takes
// everything that belongs to it down with it. Used by the zygote alone, which has one thread.
#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "supervise/unique_fd.h"

namespace parley::supervise {

struct CgroupOptions {
  // The group below which jobs get theirs: a folder of a cgroup2 file system. Empty: the group this
  // process is in, if it was delegated: it belongs to our user, or bears systemd's mark, or is all
  // that a container sees.
  std::string parent;
  // Of processes that are in that group when it is our own, those that may be moved out of the way,
  // beside this one: a group with processes of its own can limit none below it.
  std::vector<pid_t> residents;
  bool needs_memory = true;  // false: groups without a limit of memory will do (tests)
};

class JobCgroups {
 public:
  // Forks once, to see that a process can be put into a group.
  //   FailedPrecondition  it cannot be done here; the message says why, and nothing is left behind
  //                       but processes moved one group down
  static absl::StatusOr<std::unique_ptr<JobCgroups>> Take(const CgroupOptions& options);
  ~JobCgroups();  // removes what is empty
  JobCgroups(const JobCgroups&) = delete;
  JobCgroups& operator=(const JobCgroups&) = delete;

  // A group for the job that is about to be forked. The job goes in by writing "0" to the
  // descriptor, before it does anything else. `memory_bytes` 0: no limit.
  absl::StatusOr<UniqueFd> Make(int64_t memory_bytes);
  // The fork of the job of the last Make(); 0: it failed.
  void Born(pid_t pid);
  // It was reaped. Ends what it left in its group and removes it. True: the kernel has killed it,
  // or something of it, for its memory.
  bool Gone(pid_t pid);

 private:
  explicit JobCgroups(std::string parent) : parent_(std::move(parent)) {}
  void Remove(const std::string& folder);

  const std::string parent_;
  bool memory_ = false;  // groups have limits of memory
  bool pids_ = false;    // … of threads
  uint64_t made_ = 0;
  std::string unborn_;
  std::map<pid_t, std::string> folders_;
  std::vector<std::string> left_;  // not empty yet when they were to be removed
};

}  // namespace parley::supervise
