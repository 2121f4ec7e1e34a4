#include "agent/server/reload.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace parley::agent {
namespace {

constexpr char kChildVariable[] = "PARLEY_DEV_CHILD";
constexpr int64_t kLookMs = 250;
constexpr int64_t kStandsMs = 1'000;  // a program that lives so long has started
constexpr int64_t kStopMs = 5'000;

int64_t NowMs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000 + now.tv_nsec / 1'000'000;
}

// Tells one build of a file from the next; all zero while there is none that could run.
using Version = std::tuple<ino_t, off_t, int64_t, int64_t>;
Version VersionOf(const std::string& path) {
  struct stat file {};
  if (stat(path.c_str(), &file) != 0 || access(path.c_str(), X_OK) != 0) return {};
  return {file.st_ino, file.st_size, file.st_mtim.tv_sec, file.st_mtim.tv_nsec};
}

std::string OwnPath() {
  char path[PATH_MAX];
  const ssize_t size = readlink("/proc/self/exe", path, sizeof path);
  return size <= 0 ? std::string() : std::string(path, static_cast<size_t>(size));
}

class Reloader {
 public:
  explicit Reloader(char** argv) : argv_(argv), path_(OwnPath()) {}

  int Run() {
    sigemptyset(&signals_);
    for (const int one : {SIGINT, SIGTERM, SIGHUP, SIGCHLD}) sigaddset(&signals_, one);
    sigprocmask(SIG_BLOCK, &signals_, &before_);
    running_ = VersionOf(path_);
    current_ = Start();
    if (current_ < 0) return 1;
    while (!over_) {
      const timespec wait{0, kLookMs * 1'000'000};
      const int signal = sigtimedwait(&signals_, nullptr, &wait);
      if (signal == SIGINT || signal == SIGTERM || signal == SIGHUP) return StopAll();
      Reap();
      if (!over_) Look();
    }
    return exit_code_;
  }

 private:
  pid_t Start() {
    const pid_t parent = getpid();
    const pid_t pid = fork();
    if (pid != 0) return pid;
    // A group of its own: the terminal's signals are for us to pass on.
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);  // on a developer's machine nothing is left behind
    if (getppid() != parent) _exit(1);
    sigprocmask(SIG_SETMASK, &before_, nullptr);
    setenv(kChildVariable, "1", 1);
    execv(path_.c_str(), argv_);
    fmt::print(stderr, "cannot run {}: errno {}\n", path_, errno);
    _exit(127);
  }

  void Reap() {
    int status = 0;
    for (pid_t pid = 0; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
      const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
      std::erase(draining_, pid);
      if (pid == next_) {
        fmt::print(stderr, "the new build ended at once with {}; the old one goes on\n", code);
        next_ = 0;
      } else if (pid == current_) {
        current_ = 0;
        exit_code_ = code;
        if (next_ != 0) {
          current_ = std::exchange(next_, 0);
        } else {
          over_ = true;
        }
      }
    }
  }

  void Look() {
    if (next_ != 0) {
      if (NowMs() - next_since_ms_ < kStandsMs) return;
      fmt::print(stderr, "rebuilt: the new build takes the jobs from now on, the old one drains\n");
      kill(current_, SIGTERM);
      draining_.push_back(current_);
      current_ = std::exchange(next_, 0);
      return;
    }
    // The same in two looks: whoever writes it is done.
    const Version now = VersionOf(path_);
    if (now == Version() || now == running_ || now != std::exchange(seen_, now)) return;
    running_ = now;
    next_ = Start();
    next_since_ms_ = NowMs();
    if (next_ < 0) next_ = 0;
  }

  int StopAll() {
    std::vector<pid_t> all = draining_;
    if (current_ != 0) all.push_back(current_);
    if (next_ != 0) all.push_back(next_);
    for (const int round : {SIGTERM, SIGTERM, SIGKILL}) {
      for (const pid_t pid : all) kill(pid, round);
      const int64_t until_ms = NowMs() + kStopMs;
      while (!all.empty() && NowMs() < until_ms) {
        const timespec wait{0, kLookMs * 1'000'000};
        sigtimedwait(&signals_, nullptr, &wait);
        for (pid_t pid = 0; (pid = waitpid(-1, nullptr, WNOHANG)) > 0;) std::erase(all, pid);
      }
      if (all.empty()) break;
    }
    return 0;
  }

  char** const argv_;
  const std::string path_;
  sigset_t signals_{};
  sigset_t before_{};
  Version running_;
  Version seen_;
  pid_t current_ = 0;
  pid_t next_ = 0;  // started, may still fall
  int64_t next_since_ms_ = 0;
  std::vector<pid_t> draining_;
  bool over_ = false;
  int exit_code_ = 0;
};

}  // namespace

int RunReloading(char** argv) { return Reloader(argv).Run(); }

bool IsReloadingChild() { return std::getenv(kChildVariable) != nullptr; }

}  // namespace parley::agent
