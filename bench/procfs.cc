#include "procfs.h"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <system_error>

namespace parley::bench {
namespace {

constexpr int64_t kKernelStackKib = 16;  // x86-64 and arm64

// "Name:   123 kB" lines of a proc file.
int64_t Kib(const std::string& path, const std::vector<std::string>& names) {
  std::ifstream file(path);
  int64_t sum = 0;
  for (std::string line; std::getline(file, line);) {
    for (const std::string& name : names) {
      if (line.compare(0, name.size() + 1, name + ":") == 0)
        sum += std::stoll(line.substr(name.size() + 1));
    }
  }
  return sum;
}

}  // namespace

Memory MemoryOf(const std::vector<pid_t>& pids) {
  Memory memory;
  for (const pid_t pid : pids) {
    const std::string rollup = fmt::format("/proc/{}/smaps_rollup", pid);
    memory.pss_kib += Kib(rollup, {"Pss"});
    memory.private_kib += Kib(rollup, {"Private_Clean", "Private_Dirty"});
    const std::string status = fmt::format("/proc/{}/status", pid);
    memory.page_tables_kib += Kib(status, {"VmPTE"});
    memory.kernel_stacks_kib += Kib(status, {"Threads"}) * kKernelStackKib;
  }
  return memory;
}

double CpuSeconds(const std::vector<pid_t>& pids) {
  double ticks = 0;
  for (const pid_t pid : pids) {
    std::ifstream file(fmt::format("/proc/{}/stat", pid));
    const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    const size_t name_end = text.rfind(')');  // the name may hold anything
    if (name_end == std::string::npos) continue;
    std::istringstream fields(text.substr(name_end + 2));
    std::string skipped;
    for (int i = 0; i < 11; ++i) fields >> skipped;
    double user = 0;
    double system = 0;
    fields >> user >> system;
    ticks += user + system;
  }
  return ticks / static_cast<double>(sysconf(_SC_CLK_TCK));
}

std::vector<pid_t> Tree(pid_t root) {
  std::vector<pid_t> all = {root};
  for (size_t i = 0; i < all.size(); ++i) {
    // A child is its thread's that started it.
    std::error_code gone;
    std::filesystem::directory_iterator threads(fmt::format("/proc/{}/task", all[i]), gone);
    for (; threads != std::filesystem::directory_iterator(); threads.increment(gone)) {
      std::ifstream children(threads->path() / "children");
      for (pid_t child = 0; children >> child;) all.push_back(child);
      if (gone) break;
    }
  }
  return all;
}

}  // namespace parley::bench
