#pragma once
// What the kernel says about processes.
#include <sys/types.h>

#include <cstdint>
#include <vector>

namespace parley::bench {

struct Memory {
  int64_t pss_kib = 0;
  int64_t private_kib = 0;        // clean and dirty
  int64_t page_tables_kib = 0;    // VmPTE
  int64_t kernel_stacks_kib = 0;  // of all threads
};

// Sums over `pids`; those that have ended count nothing.
Memory MemoryOf(const std::vector<pid_t>& pids);
double CpuSeconds(const std::vector<pid_t>& pids);  // user and system, threads included
// `root` and everything below it.
std::vector<pid_t> Tree(pid_t root);

}  // namespace parley::bench
