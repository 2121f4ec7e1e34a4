#include "engines/espeak/child.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/clock.h"
#include "base/status.h"
#include "base/strings.h"

extern char** environ;

namespace parley::engines {
namespace {

constexpr int kPollMs = 10;  // how soon a cancellation is seen
constexpr size_t kMaxErrorBytes = 1000;

class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  ~Fd() { Close(); }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  void Set(int fd) {
    Close();
    fd_ = fd;
  }
  void Close() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }
  int get() const { return fd_; }

 private:
  int fd_ = -1;
};

// Ends and reaps a child that is still there.
class Process {
 public:
  ~Process() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      Wait();
    }
  }
  int Wait() {
    int status = 0;
    while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = 0;
    return status;
  }
  pid_t pid_ = 0;
};

struct Pipes {
  Fd input;   // ours: write
  Fd output;  // ours: read
  Fd error;   // ours: read
};

absl::Status Spawn(const std::vector<std::string>& arguments, Process& process, Pipes& pipes) {
  int in[2];
  int out[2];
  int err[2];
  // A socket for the input: writes to it can be told not to raise SIGPIPE.
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, in) != 0)
    return Unavailable("no descriptors left: {}", std::strerror(errno));
  pipes.input.Set(in[1]);
  const Fd child_in(in[0]);
  if (pipe2(out, O_CLOEXEC) != 0)
    return Unavailable("no descriptors left: {}", std::strerror(errno));
  pipes.output.Set(out[0]);
  const Fd child_out(out[1]);
  if (pipe2(err, O_CLOEXEC) != 0)
    return Unavailable("no descriptors left: {}", std::strerror(errno));
  pipes.error.Set(err[0]);
  const Fd child_err(err[1]);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, child_in.get(), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, child_out.get(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, child_err.get(), STDERR_FILENO);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigset_t all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const int error =
      posix_spawnp(&process.pid_, argv[0], &actions, &attributes, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) {
    process.pid_ = 0;
    return Unavailable("cannot start {}: {}", arguments[0], std::strerror(error));
  }
  fcntl(pipes.input.get(), F_SETFL, O_NONBLOCK);
  return absl::OkStatus();
}

// Reads once from `fd`; closes it at the end.
std::string_view ReadSome(Fd& fd, char* buffer, size_t size) {
  const ssize_t got = read(fd.get(), buffer, size);
  if (got <= 0) {
    fd.Close();
    return {};
  }
  return {buffer, static_cast<size_t>(got)};
}

}  // namespace

absl::Status RunChild(const std::vector<std::string>& arguments, std::string_view input,
                      absl::Duration timeout, const speech::Cancellation& cancel,
                      const std::function<bool(std::string_view)>& on_output) {
  Process process;
  Pipes pipes;
  PARLEY_RETURN_IF_ERROR(Spawn(arguments, process, pipes));
  const int64_t until = Clock::Real().MonotonicMicros() + absl::ToInt64Microseconds(timeout);
  std::string complaint;
  char buffer[16 << 10];
  while (pipes.output.get() >= 0 || pipes.error.get() >= 0) {
    if (cancel.cancelled()) return Cancelled("cancelled");
    if (Clock::Real().MonotonicMicros() > until)
      return DeadlineExceeded("{} took longer than {} s", arguments[0],
                              absl::ToInt64Seconds(timeout));
    if (input.empty()) pipes.input.Close();
    pollfd watched[] = {{pipes.output.get(), POLLIN, 0},
                        {pipes.error.get(), POLLIN, 0},
                        {pipes.input.get(), POLLOUT, 0}};
    if (poll(watched, 3, kPollMs) <= 0) continue;
    if (watched[2].revents != 0) {
      const ssize_t sent = send(pipes.input.get(), input.data(), input.size(), MSG_NOSIGNAL);
      // It may end without reading all of it; then its exit code tells.
      input.remove_prefix(sent > 0 ? static_cast<size_t>(sent) : input.size());
    }
    if (watched[0].revents != 0) {
      const std::string_view bytes = ReadSome(pipes.output, buffer, sizeof(buffer));
      if (!bytes.empty() && !on_output(bytes)) return absl::OkStatus();
    }
    if (watched[1].revents != 0) {
      const std::string_view bytes = ReadSome(pipes.error, buffer, sizeof(buffer));
      complaint += bytes.substr(0, kMaxErrorBytes - std::min(kMaxErrorBytes, complaint.size()));
    }
  }
  const int status = process.Wait();
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return absl::OkStatus();
  const std::string_view line = Trim(std::string_view(complaint).substr(0, complaint.find('\n')));
  return Unavailable("{} failed: {}", arguments[0], line.empty() ? "it gave no reason" : line);
}

}  // namespace parley::engines
