#include <malloc.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "base/status.h"
#include "supervise/environment.h"
#include "supervise/zygote.h"
#include "supervise/zygote_process.h"

namespace parley::supervise {
namespace {

int Threads() {
  std::error_code error;
  int count = 0;
  for (std::filesystem::directory_iterator it("/proc/self/task", error), end; it != end; ++it) {
    ++count;
  }
  return count;
}

[[noreturn]] void StayZygote(ZygoteOptions options, UniqueFd socket, UniqueFd signals,
                             pid_t server) {
  prctl(PR_SET_CHILD_SUBREAPER, 1);  // what a dead job leaves behind is reaped here
  prctl(PR_SET_NAME, "parley-zygote");
  std::signal(SIGPIPE, SIG_IGN);
  mallopt(M_ARENA_MAX, 1);  // for the jobs: two threads each, hundreds of them
  WipeSecrets(options.keep_environment);
  ZygoteProcess zygote(std::move(options), std::move(socket), std::move(signals), server);
  const int code = zygote.Run();
  std::fflush(nullptr);
  _exit(code);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ZygoteClient>> Split(ZygoteOptions options) {
  if (const int threads = Threads(); threads > 1) {
    return FailedPrecondition(
        "this process has {} threads already: split it first thing in main(), before anything "
        "starts a thread",
        threads);
  }
  sigset_t set;
  sigset_t before;
  sigemptyset(&set);
  for (int signal_number : {SIGCHLD, SIGTERM, SIGINT}) sigaddset(&set, signal_number);
  // Under nohup it stays ignored.
  struct sigaction hang_up {};
  sigaction(SIGHUP, nullptr, &hang_up);
  if (hang_up.sa_handler != SIG_IGN) sigaddset(&set, SIGHUP);
  sigprocmask(SIG_BLOCK, &set, &before);
  UniqueFd signals(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  int ends[2];
  if (!signals.valid() || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return Internal("cannot make the zygote's socket: {}", std::strerror(errno));
  }
  UniqueFd zygote_end(ends[0]);
  UniqueFd server_end(ends[1]);
  std::fflush(nullptr);
  const pid_t server = fork();
  if (server < 0) return Internal("cannot split: {}", std::strerror(errno));
  if (server > 0) {
    server_end.Reset();
    StayZygote(std::move(options), std::move(zygote_end), std::move(signals), server);
  }
  // A group of its own: Ctrl-C reaches the zygote alone, which passes it on once.
  setpgid(0, 0);
  sigprocmask(SIG_SETMASK, &before, nullptr);
  return std::make_unique<ZygoteClient>(std::move(server_end));
}

}  // namespace parley::supervise
