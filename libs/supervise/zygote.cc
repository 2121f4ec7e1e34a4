#include "supervise/zygote.h"

#include <dirent.h>
#include <execinfo.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <exception>

#include "base/status.h"
#include "supervise/child.h"
#include "supervise/zygote_process.h"

namespace parley::supervise {
namespace {

constexpr int kNoticeSeconds = 10;
constexpr int kReapSeconds = 5;

// The other threads of this process by name, e.g. "grpc_timer, default-executo".
std::string OtherThreads() {
  std::string names;
  DIR* tasks = opendir("/proc/self/task");
  if (tasks == nullptr) return names;
  while (const dirent* entry = readdir(tasks)) {
    const int id = std::atoi(entry->d_name);
    if (id == 0 || id == getpid()) continue;
    char name[64] = "?";
    if (std::FILE* file = std::fopen(fmt::format("/proc/self/task/{}/comm", id).c_str(), "re")) {
      if (std::fgets(name, sizeof(name), file) != nullptr) name[std::strcspn(name, "\n")] = '\0';
      std::fclose(file);
    }
    names += (names.empty() ? "" : ", ") + std::string(name);
  }
  closedir(tasks);
  return names;
}

int64_t MonotonicMs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000;
}

// Waits for one child with a deadline; kills it when that has passed.
void WaitAtMost(pid_t pid, int seconds) {
  const int64_t until = MonotonicMs() + int64_t{seconds} * 1000;
  while (waitpid(pid, nullptr, WNOHANG) == 0) {
    if (MonotonicMs() > until) {
      kill(pid, SIGKILL);
      waitpid(pid, nullptr, 0);
      return;
    }
    poll(nullptr, 0, 5);
  }
}

int ExitCode(int status) {
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace

ZygoteProcess::ZygoteProcess(ZygoteOptions options, UniqueFd socket, UniqueFd signals, pid_t server)
    : options_(std::move(options)),
      self_(getpid()),
      server_(server),
      socket_(std::move(socket)),
      signals_(std::move(signals)) {}

int ZygoteProcess::Run() {
  while (!server_status_.has_value()) {
    pollfd watched[2] = {{signals_.get(), POLLIN, 0},
                         {socket_open_ ? socket_.get() : -1,
                          static_cast<short>(outbox_.empty() ? POLLIN : POLLIN | POLLOUT), 0}};
    if (poll(watched, 2, -1) < 0 && errno != EINTR) break;
    if (watched[0].revents != 0) OnSignals();
    if (watched[1].revents == 0) continue;
    absl::StatusOr<wire::Message> message = wire::Receive(socket_.get());
    if (message.ok()) {
      OnRequest(*message);
    } else if (!absl::IsUnavailable(message.status())) {
      socket_open_ = false;  // the server is about to be reaped
    }
    Flush();
  }
  // The server may be reaped before its last words were read: its notice, its leave.
  while (socket_open_) {
    absl::StatusOr<wire::Message> message = wire::Receive(socket_.get());
    if (!message.ok()) break;
    if (message->kind == wire::kNotice || message->kind == wire::kLeave) OnRequest(*message);
  }
  KillJobs();
  cgroups_.reset();
  if (!left_ && !notice_flag_.empty()) SendNotice();
  return ExitCode(server_status_.value_or(0));
}

void ZygoteProcess::OnRequest(const wire::Message& message) {
  switch (message.kind) {
    case wire::kStart:
      return Prewarm(message.body);
    case wire::kFork: {
      wire::ForkBody body{};
      if (wire::ReadStruct(message.body, body)) Fork(body);
      return;
    }
    case wire::kSignal: {
      wire::SignalBody body{};
      if (wire::ReadStruct(message.body, body) && jobs_.contains(body.pid)) {
        // The group exists once the job has made it; until then there is only the process.
        if (kill(-body.pid, body.signal) != 0) kill(body.pid, body.signal);
      }
      return;
    }
    case wire::kStacks: {
      wire::StacksBody body{};
      if (wire::ReadStruct(message.body, body) && jobs_.contains(body.pid)) DumpStacks(body.pid);
      return;
    }
    case wire::kNotice: {
      const size_t border = message.body.find('\0');
      if (border == std::string::npos) return;
      notice_flag_ = message.body.substr(0, border);
      notice_input_ = message.body.substr(border + 1);
      return;
    }
    case wire::kLeave:
      left_ = true;
      return;
    default:
      return;
  }
}

void ZygoteProcess::OnSignals() {
  signalfd_siginfo info{};
  while (read(signals_.get(), &info, sizeof(info)) == static_cast<ssize_t>(sizeof(info))) {
    if (info.ssi_signo == SIGCHLD) continue;
    // A terminal that hangs up asks for an orderly end too.
    kill(server_, info.ssi_signo == SIGHUP ? SIGTERM : static_cast<int>(info.ssi_signo));
  }
  Reap();
}

// Why jobs get no control groups; empty: they do.
std::string ZygoteProcess::TakeCgroups(const std::string& where) {
  if (where == "off") return "they are turned off";
  CgroupOptions options;
  if (where != "auto") options.parent = where;
  options.residents = {server_};
  if (getppid() == 1) options.residents.push_back(1);  // a container's init
  auto groups = JobCgroups::Take(options);
  if (!groups.ok()) return std::string(Message(groups.status()));
  cgroups_ = *std::move(groups);
  return "";
}

void ZygoteProcess::Prewarm(const std::string& cgroups) {
  const std::string no_cgroups = TakeCgroups(cgroups);
  std::string error;
  try {
    const absl::Status status = options_.prewarm ? options_.prewarm() : absl::OkStatus();
    if (!status.ok()) error = fmt::format("prewarm failed: {}", Message(status));
  } catch (const std::exception& failure) {
    error = fmt::format("prewarm failed: {}", failure.what());
  }
  if (const std::string threads = OtherThreads(); error.empty() && !threads.empty()) {
    error = fmt::format(
        "prewarm left threads behind ({}): jobs are forked from this process, which must stay "
        "single-threaded; start threads in the entrypoint instead",
        threads);
  }
  for (Network network : {Network::kHost, Network::kNone}) {
    absl::StatusOr<Sandbox> sandbox = Sandbox::Make(network, options_.executes);
    if (sandbox.ok()) {
      sandboxes_[static_cast<int>(network)] = *std::move(sandbox);
    } else if (error.empty()) {
      error = std::string(Message(sandbox.status()));
    }
  }
  // Loads what reading a stack needs: a job may not open the library any more.
  void* stack[1];
  backtrace(stack, 1);
  std::fflush(nullptr);  // or each job would write what is buffered here
  error.push_back('\0');
  Post(wire::kReady, error + no_cgroups);
}

void ZygoteProcess::Fork(const wire::ForkBody& request) {
  const auto& sandbox = sandboxes_[request.network_none != 0 ? 1 : 0];
  int sockets[2] = {-1, -1};
  int output[2] = {-1, -1};
  if (!sandbox.has_value()) {
    return AnswerFork(request.request, 0, EINVAL, "the zygote is not ready: prewarm failed", {});
  }
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0) {
    return AnswerFork(request.request, 0, errno, std::strerror(errno), {});
  }
  UniqueFd ours(sockets[0]);
  UniqueFd job_end(sockets[1]);
  if (pipe2(output, O_CLOEXEC) != 0) {
    return AnswerFork(request.request, 0, errno, std::strerror(errno), {});
  }
  UniqueFd output_read(output[0]);
  UniqueFd output_write(output[1]);
  int report[2] = {-1, -1};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, report) != 0) {
    return AnswerFork(request.request, 0, errno, std::strerror(errno), {});
  }
  UniqueFd report_read(report[0]);
  UniqueFd report_write(report[1]);
  fcntl(ours.get(), F_SETFL, O_NONBLOCK);
  fcntl(output_read.get(), F_SETFL, O_NONBLOCK);
  UniqueFd group;
  if (cgroups_ != nullptr) {
    const int64_t memory = request.memory_bytes > 0 ? request.memory_bytes + kMemorySlack : 0;
    absl::StatusOr<UniqueFd> made = cgroups_->Make(memory);
    if (!made.ok()) {
      return AnswerFork(request.request, 0, EIO, std::string(Message(made.status())), {});
    }
    group = *std::move(made);
  }
  const pid_t pid = fork();
  const int fork_error = errno;
  if (cgroups_ != nullptr && pid != 0) cgroups_->Born(std::max(pid, 0));
  if (pid < 0) return AnswerFork(request.request, 0, fork_error, std::strerror(fork_error), {});
  if (pid == 0) {
    JobLimits limits;
    limits.memory_bytes = request.memory_bytes;
    limits.cpu_seconds = request.cpu_seconds;
    limits.open_files = request.open_files;
    limits.network = request.network_none != 0 ? Network::kNone : Network::kHost;
    limits.hide_memory = request.hide_memory != 0;
    limits.report_refusals = request.report_refusals != 0;
    BecomeJob(self_, {job_end.get(), output_write.get(), report_write.get(), group.get()}, limits,
              *sandbox, options_.run_job);
  }
  jobs_.insert(pid);
  std::vector<UniqueFd> fds;
  fds.push_back(std::move(ours));
  fds.push_back(std::move(output_read));
  fds.push_back(std::move(report_read));
  AnswerFork(request.request, pid, 0, {}, std::move(fds));
}

void ZygoteProcess::AnswerFork(uint64_t request, pid_t pid, int error, std::string_view what,
                               std::vector<UniqueFd> fds) {
  std::string body(wire::BytesOf(wire::ForkedBody{request, pid, error}));
  body.append(what);
  Post(wire::kForked, std::move(body), std::move(fds));
}

void ZygoteProcess::DumpStacks(pid_t pid) const {
  if (options_.executes) return;
  DIR* tasks = opendir(fmt::format("/proc/{}/task", pid).c_str());
  if (tasks == nullptr) return;
  while (const dirent* entry = readdir(tasks)) {
    const int id = std::atoi(entry->d_name);
    if (id > 0) syscall(SYS_tgkill, pid, id, kStackSignal);
  }
  closedir(tasks);
}

void ZygoteProcess::Reap() {
  int status = 0;
  rusage usage{};
  for (;;) {
    const pid_t pid = wait4(-1, &status, WNOHANG, &usage);
    if (pid <= 0) return;
    OnExit(pid, status, usage);
  }
}

void ZygoteProcess::OnExit(pid_t pid, int status, const rusage& usage) {
  if (pid == server_) server_status_ = status;
  if (jobs_.erase(pid) == 0) return;  // the server, or an orphan that became ours
  kill(-pid, SIGKILL);                // whatever it left behind in its group
  wire::ExitedBody body{};
  body.pid = pid;
  body.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
  body.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  body.core_dumped = WIFSIGNALED(status) && WCOREDUMP(status) ? 1 : 0;
  if (cgroups_ != nullptr) body.out_of_memory = cgroups_->Gone(pid) && body.signal != 0 ? 1 : 0;
  body.cpu_us = (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * int64_t{1'000'000} +
                usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
  body.max_rss_bytes = usage.ru_maxrss * int64_t{1024};
  Post(wire::kExited, std::string(wire::BytesOf(body)));
}

void ZygoteProcess::Post(uint32_t kind, std::string body, std::vector<UniqueFd> fds) {
  if (!socket_open_) return;
  outbox_.push_back({kind, std::move(body), std::move(fds)});
  Flush();
}

void ZygoteProcess::Flush() {
  while (socket_open_ && !outbox_.empty()) {
    const Outgoing& next = outbox_.front();
    std::vector<int> fds;
    for (const UniqueFd& fd : next.fds) fds.push_back(fd.get());
    const absl::Status sent =
        wire::Send(socket_.get(), next.kind, next.body, fds, /*dont_wait=*/true);
    if (absl::IsUnavailable(sent)) return;
    if (!sent.ok()) socket_open_ = false;
    outbox_.pop_front();
  }
  if (!socket_open_) outbox_.clear();
}

void ZygoteProcess::KillJobs() {
  outbox_.clear();
  for (pid_t pid : jobs_) {
    if (kill(-pid, SIGKILL) != 0) kill(pid, SIGKILL);
  }
  const int64_t until = MonotonicMs() + int64_t{kReapSeconds} * 1000;
  while (!jobs_.empty() && MonotonicMs() < until) {
    pollfd watched = {signals_.get(), POLLIN, 0};
    poll(&watched, 1, 100);
    OnSignals();
  }
}

void ZygoteProcess::SendNotice() const {
  int input[2];
  if (pipe2(input, O_CLOEXEC) != 0) return;
  const pid_t pid = fork();
  if (pid == 0) {
    dup2(input[0], STDIN_FILENO);
    close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    execl("/proc/self/exe", "parley", notice_flag_.c_str(), nullptr);
    _exit(127);
  }
  close(input[0]);
  // Fits the pipe's buffer of 64 KiB: does not block.
  if (pid > 0 && write(input[1], notice_input_.data(), notice_input_.size()) < 0) {
    std::fprintf(stderr, "death notice: %s\n", std::strerror(errno));
  }
  close(input[1]);
  if (pid > 0) WaitAtMost(pid, kNoticeSeconds);
}

}  // namespace parley::supervise
