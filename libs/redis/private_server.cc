#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <functional>
#include <thread>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/status.h"
#include "redis/connection.h"
#include "redis/redis.h"

namespace parley::redis {
namespace {

constexpr absl::Duration kStartLimit = absl::Seconds(15);  // without any answer
constexpr absl::Duration kStopLimit = absl::Seconds(3);

// In the child, between fork and exec: async-signal-safe calls only.
[[noreturn]] void BecomeRedis(char* const* argv, int parent, int error_fd) {
  prctl(PR_SET_PDEATHSIG, SIGTERM);  // an orderly end: what was acknowledged reaches the disk
  if (getppid() != parent) _exit(1);
  setpgid(0, 0);  // Ctrl-C goes to our owner, which stops us after its drain
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int fd = 0; fd < 3; ++fd) dup2(null, fd);
  // Sockets and locks of our owner must not outlive it in us; the error pipe closes itself at exec.
  if (error_fd > 3) close_range(3, static_cast<unsigned>(error_fd) - 1, 0);
  close_range(static_cast<unsigned>(error_fd) + 1, ~0U, 0);
  execvp(argv[0], argv);
  const int error = errno;
  [[maybe_unused]] const ssize_t written = write(error_fd, &error, sizeof error);
  _exit(127);
}

std::string LastLineOf(const std::string& path) {
  std::ifstream file(path);
  std::string line, last;
  while (std::getline(file, line)) {
    if (!line.empty()) last = line;
  }
  return last;
}

}  // namespace

// PDEATHSIG fires when the *thread* that forked ends, so one thread does all the forking and lives
// as long as this object.
struct PrivateServer::Impl {
  ~Impl() {
    {
      MutexLock lock(&mutex);
      stopping = true;
      changed.SignalAll();
    }
    if (thread.joinable()) thread.join();
    if (lock_fd >= 0) close(lock_fd);
  }

  void Serve() {
    MutexLock lock(&mutex);
    while (true) {
      while (!stopping && !work) changed.Wait(&mutex);
      if (work) {
        work();
        work = nullptr;
        changed.SignalAll();
      } else {
        return;
      }
    }
  }

  absl::Status Spawn() {
    absl::Status status;
    MutexLock lock(&mutex);
    if (!thread.joinable()) thread = std::thread([this] { Serve(); });
    work = [this, &status] { status = Fork(); };
    changed.SignalAll();
    while (work) changed.Wait(&mutex);
    return status;
  }

  absl::Status Fork() {
    std::vector<char*> argv;
    argv.reserve(arguments.size() + 1);
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) return Internal("pipe: {}", std::strerror(errno));
    const int parent = getpid();
    const int child = fork();
    if (child == 0) BecomeRedis(argv.data(), parent, fds[1]);
    close(fds[1]);
    int error = child < 0 ? errno : 0;
    if (child > 0 && read(fds[0], &error, sizeof error) != sizeof error) error = 0;
    close(fds[0]);
    if (error == 0) {
      pid = child;
      return absl::OkStatus();
    }
    if (child > 0) waitpid(child, nullptr, 0);
    if (error == ENOENT) {
      return NotFound("redis-server is not installed: apt-get install redis-server");
    }
    return Internal("cannot start redis-server: {}", std::strerror(error));
  }

  // Reaps without waiting. True once the child is gone.
  bool Reap() {
    if (pid > 0 && waitpid(pid, nullptr, WNOHANG) != 0) pid = -1;
    return pid <= 0;
  }

  absl::Status Start() {
    unlink(socket.c_str());
    PARLEY_RETURN_IF_ERROR(Spawn());
    Config config;
    config.address = "unix:" + socket;
    MasterFinder finder(config);
    Connection connection(config, finder);
    const int64_t limit_us = absl::ToInt64Microseconds(kStartLimit);
    int64_t until = Clock::Real().MonotonicMicros() + limit_us;
    while (Clock::Real().MonotonicMicros() < until) {
      const auto pong = connection.Run({{"PING"}}, absl::Milliseconds(200));
      if (pong.ok() && pong->front().ok()) return absl::OkStatus();
      // It reads what it had on disk, as long as that takes.
      if (pong.ok()) until = Clock::Real().MonotonicMicros() + limit_us;
      if (Reap()) {
        return Unavailable("redis-server ended at once; its log says: {}", LastLineOf(log_path));
      }
      usleep(2'000);
    }
    const std::string log = LastLineOf(log_path);  // before it says that it stops
    Stop();
    return Unavailable("redis-server did not answer within {}; its log says: {}",
                       absl::FormatDuration(kStartLimit), log);
  }

  void Stop() {
    if (Reap()) return;
    kill(pid, SIGTERM);
    const int64_t until = Clock::Real().MonotonicMicros() + absl::ToInt64Microseconds(kStopLimit);
    while (!Reap()) {
      if (Clock::Real().MonotonicMicros() > until) return Kill();
      usleep(2'000);
    }
  }

  void Kill() {
    if (pid <= 0) return;
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    pid = -1;
  }

  std::string socket;
  std::string log_path;
  std::vector<std::string> arguments;
  int lock_fd = -1;
  int pid = -1;
  Mutex mutex;
  CondVar changed;
  std::function<void()> work ABSL_GUARDED_BY(mutex);
  bool stopping ABSL_GUARDED_BY(mutex) = false;
  std::thread thread;
};

absl::StatusOr<std::unique_ptr<PrivateServer>> PrivateServer::Start(
    const std::string& directory, const std::vector<std::string>& extra_arguments) {
  std::unique_ptr<PrivateServer> server(new PrivateServer);
  server->impl_ = std::make_unique<Impl>();
  Impl& impl = *server->impl_;
  if (mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) {
    return FailedPrecondition("cannot make {}: {}", directory, std::strerror(errno));
  }
  impl.socket = directory + "/redis.sock";
  impl.log_path = directory + "/redis.log";
  PARLEY_RETURN_IF_ERROR(ParseAddress("unix:" + impl.socket).status());
  impl.lock_fd = open((directory + "/redis.lock").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  if (impl.lock_fd < 0) {
    return FailedPrecondition("cannot write into {}: {}", directory, std::strerror(errno));
  }
  if (flock(impl.lock_fd, LOCK_EX | LOCK_NB) != 0) {
    return FailedPrecondition("{} belongs to a cluster that is running; name another directory",
                              directory);
  }
  impl.arguments = {"redis-server", "--port",           "0",          "--unixsocket",
                    impl.socket,    "--unixsocketperm", "700",        "--dir",
                    directory,      "--appendonly",     "yes",        "--appendfsync",
                    "everysec",     "--save",           "",           "--daemonize",
                    "no",           "--logfile",        impl.log_path};
  impl.arguments.insert(impl.arguments.end(), extra_arguments.begin(), extra_arguments.end());
  PARLEY_RETURN_IF_ERROR(impl.Start());
  return server;
}

PrivateServer::~PrivateServer() {
  if (impl_) impl_->Stop();
}

std::string PrivateServer::address() const { return "unix:" + impl_->socket; }
int PrivateServer::pid() const { return impl_->pid; }
void PrivateServer::Kill() { impl_->Kill(); }
absl::Status PrivateServer::Restart() { return impl_->Start(); }

}  // namespace parley::redis
