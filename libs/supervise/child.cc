#include "supervise/child.h"

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

namespace parley::supervise {
namespace {

// Room beside the limit for what is no payload: thread stacks, allocator slack, codec tables.
constexpr int64_t kMemorySlack = 64 << 20;

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

void TakeDescriptors(int socket_fd, int output_fd) {
  // High numbers first, so that no dup2 below hits one that is still needed.
  socket_fd = fcntl(socket_fd, F_DUPFD, 16);
  output_fd = fcntl(output_fd, F_DUPFD, 16);
  const int null_fd = open("/dev/null", O_RDONLY);
  if (socket_fd < 0 || output_fd < 0 || null_fd < 0) _exit(kExitSetup);
  dup2(null_fd, STDIN_FILENO);
  dup2(output_fd, STDOUT_FILENO);
  dup2(output_fd, STDERR_FILENO);
  dup2(socket_fd, kJobSocket);
  close_range(kJobSocket + 1, ~0U, 0);
}

void ResetSignals() {
  for (int signal_number : {SIGCHLD, SIGHUP, SIGUSR1, SIGUSR2, SIGQUIT}) {
    std::signal(signal_number, SIG_DFL);
  }
  // Service managers send these to the whole group; a job ends when its server tells it to.
  std::signal(SIGTERM, SIG_IGN);
  std::signal(SIGINT, SIG_IGN);
  std::signal(SIGPIPE, SIG_IGN);
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

void BecomeJob(pid_t zygote, int socket_fd, int output_fd, const JobLimits& limits,
               const Sandbox& sandbox, const std::function<int(int)>& run_job) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != zygote) _exit(kExitSetup);  // it died before the line above
  prctl(PR_SET_CHILD_SUBREAPER, 0);
  prctl(PR_SET_NAME, "parley-job");
  ResetSignals();
  TakeDescriptors(socket_fd, output_fd);
  std::setvbuf(stdout, nullptr, _IOLBF, 4096);
  PreferAsOomVictim();
  Limit(RLIMIT_NOFILE, limits.open_files, "limit of open files");
  Limit(RLIMIT_CPU, limits.cpu_seconds, "limit of CPU time");
  if (limits.memory_bytes > 0) {
    Limit(RLIMIT_DATA, DataBytes() + limits.memory_bytes + kMemorySlack, "limit of memory");
    std::set_new_handler(OutOfMemory);
  }
  if (limits.network == Network::kNone) DropCapabilities();
  if (const int error = sandbox.Apply(); error != 0) Die("system call filter", error, kExitSetup);
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
