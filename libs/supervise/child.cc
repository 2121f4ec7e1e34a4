#include "supervise/child.h"

#include <execinfo.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>

#include "supervise/refusals.h"

namespace parley::supervise {
namespace {

[[noreturn]] void Die(const char* what, int error, int code) {
  std::fprintf(stderr, "job process: %s: %s\n", what, std::strerror(error));
  std::fflush(nullptr);
  _exit(code);
}

void Limit(__rlimit_resource resource, int64_t value, const char* what) {
  if (value <= 0) return;
  rlimit limit{};
  getrlimit(resource, &limit);
  const auto wanted = static_cast<rlim_t>(value);
  if (limit.rlim_max != RLIM_INFINITY && wanted > limit.rlim_max) return;  // stricter already
  // SIGXCPU can be caught; two seconds later comes SIGKILL.
  limit = {wanted, resource == RLIMIT_CPU ? wanted + 2 : wanted};
  if (setrlimit(resource, &limit) != 0) Die(what, errno, kExitSetup);
}

void OutOfMemory() {
  constexpr char kText[] = "job process: out of memory\n";
  if (write(STDERR_FILENO, kText, sizeof(kText) - 1) < 0) {
  }
  _exit(kExitOutOfMemory);
}

// Returns where the report channel is now.
int TakeDescriptors(const JobChannels& channels) {
  // High numbers first, so that no dup2 below hits one that is still needed.
  const int socket_fd = fcntl(channels.socket, F_DUPFD, 16);
  const int output_fd = fcntl(channels.output, F_DUPFD, 16);
  const int report_fd = fcntl(channels.report, F_DUPFD, 16);
  const int null_fd = open("/dev/null", O_RDONLY);
  if (socket_fd < 0 || output_fd < 0 || report_fd < 0 || null_fd < 0) _exit(kExitSetup);
  dup2(null_fd, STDIN_FILENO);
  dup2(output_fd, STDOUT_FILENO);
  dup2(output_fd, STDERR_FILENO);
  dup2(socket_fd, kJobSocket);
  constexpr int kReport = kJobSocket + 1;
  dup2(report_fd, kReport);
  close_range(kReport + 1, ~0U, 0);
  return kReport;
}

// Async-signal-safe: digits by hand, one write for each address.
void WriteStack(int) {
  const int saved = errno;
  void* stack[48];
  const int depth = backtrace(stack, 48);
  char line[64 + 48 * 20];
  char* at = line;
  const auto text = [&at](const char* s) {
    while (*s != '\0') *at++ = *s++;
  };
  const auto number = [&at](uint64_t value, unsigned base) {
    char digits[24];
    int count = 0;
    do {
      digits[count++] = "0123456789abcdef"[value % base];
      value /= base;
    } while (value != 0);
    while (count > 0) *at++ = digits[--count];
  };
  text("stack of thread ");
  number(static_cast<uint64_t>(syscall(SYS_gettid)), 10);
  text(":");
  for (int i = 2; i < depth; ++i) {  // after this function and the kernel's return
    text(" 0x");
    number(reinterpret_cast<uint64_t>(stack[i]), 16);
  }
  text("\n");
  if (write(STDERR_FILENO, line, static_cast<size_t>(at - line)) < 0) {
  }
  errno = saved;
}

void ResetSignals() {
  for (int signal_number : {SIGCHLD, SIGHUP, SIGUSR1, SIGUSR2, SIGQUIT}) {
    std::signal(signal_number, SIG_DFL);
  }
  // Service managers send these to the whole group; a job ends when its server tells it to.
  std::signal(SIGTERM, SIG_IGN);
  std::signal(SIGINT, SIG_IGN);
  std::signal(SIGPIPE, SIG_IGN);
  struct sigaction stacks {};
  stacks.sa_handler = WriteStack;
  stacks.sa_flags = SA_RESTART;
  sigaction(kStackSignal, &stacks, nullptr);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

// A job without a network is not trusted: root in it is root over nothing. Without capabilities it
// cannot look into processes that have them either, such as its server.
void DropCapabilities() {
  __user_cap_header_struct head{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {};
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  if (syscall(SYS_capset, &head, none) != 0) Die("capabilities", errno, kExitSetup);
}

// With a network a job keeps what its program has, but for what opens other processes to it.
void DropCapabilitiesOverOthers() {
  __user_cap_header_struct head{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct now[_LINUX_CAPABILITY_U32S_3] = {};
  if (syscall(SYS_capget, &head, now) != 0) Die("capabilities", errno, kExitSetup);
  for (int capability : {CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_KILL,
                         CAP_PERFMON, CAP_BPF}) {
    const uint32_t mask = ~CAP_TO_MASK(capability);
    __user_cap_data_struct& word = now[CAP_TO_INDEX(capability)];
    word.effective &= mask;
    word.permitted &= mask;
    word.inheritable &= mask;
  }
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  if (syscall(SYS_capset, &head, now) != 0) Die("capabilities", errno, kExitSetup);
}

void PreferAsOomVictim() {
  const int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  if (write(fd, "500", 3) < 0) {
  }
  close(fd);
}

}  // namespace

int64_t DataBytes() {
  std::FILE* file = std::fopen("/proc/self/status", "re");
  if (file == nullptr) return 0;
  char line[256];
  int64_t kib = 0;
  while (std::fgets(line, sizeof(line), file) != nullptr) {
    if (std::strncmp(line, "VmData:", 7) == 0) kib = std::atoll(line + 7);
  }
  std::fclose(file);
  return kib * 1024;
}

void BecomeJob(pid_t zygote, const JobChannels& channels, const JobLimits& limits,
               const Sandbox& sandbox, const std::function<int(int)>& run_job) {
  if (channels.group >= 0 && write(channels.group, "0", 1) != 1) {
    Die("control group", errno, kExitSetup);
  }
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != zygote) _exit(kExitSetup);  // it died before the line above
  prctl(PR_SET_CHILD_SUBREAPER, 0);
  prctl(PR_SET_NAME, "parley-job");
  ResetSignals();
  const int report_fd = TakeDescriptors(channels);
  std::setvbuf(stdout, nullptr, _IOLBF, 4096);
  PreferAsOomVictim();
  Limit(RLIMIT_NOFILE, limits.open_files, "limit of open files");
  Limit(RLIMIT_CPU, limits.cpu_seconds, "limit of CPU time");
  if (limits.memory_bytes > 0) {
    Limit(RLIMIT_DATA, DataBytes() + limits.memory_bytes + kMemorySlack, "limit of memory");
    std::set_new_handler(OutOfMemory);
  }
  if (limits.hide_memory) prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  if (limits.network == Network::kNone) {
    DropCapabilities();
  } else {
    DropCapabilitiesOverOthers();
  }
  int listener = -1;
  const int error = sandbox.Apply(getpid(), limits.report_refusals ? &listener : nullptr);
  if (error != 0) Die("system call filter", error, kExitSetup);
  if (limits.report_refusals) SendListener(report_fd, listener);
  close(report_fd);
  int code = kExitException;
  try {
    code = run_job(kJobSocket);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "job process: uncaught exception: %s\n", error.what());
  } catch (...) {
    std::fprintf(stderr, "job process: uncaught exception of unknown type\n");
  }
  std::fflush(nullptr);
  _exit(code);
}

}  // namespace parley::supervise
