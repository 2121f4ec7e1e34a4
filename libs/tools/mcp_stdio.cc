// MCP over the standard input and output of a program: a line of JSON a message.
#include <absl/time/clock.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <thread>

#include "base/status.h"
#include "base/strings.h"
#include "tools/mcp_session.h"

namespace parley::tools {
namespace {

constexpr size_t kMaxLine = 4 << 20;
constexpr absl::Duration kBetweenStarts = absl::Seconds(1);
constexpr absl::Duration kExit = absl::Seconds(1);        // after its input ended
constexpr absl::Duration kLook = absl::Milliseconds(50);  // whether a call was cancelled

std::vector<std::string> EnvironmentOf(const McpCommand& command) {
  std::map<std::string, std::string> variables = command.environment;
  for (const char* name : {"PATH", "HOME", "LANG"}) {
    const char* const value = getenv(name);  // NOLINT: nothing sets variables once threads run
    if (value != nullptr) variables.try_emplace(name, value);
  }
  std::vector<std::string> environment;
  for (const auto& [name, value] : variables) environment.push_back(name + "=" + value);
  return environment;
}

std::vector<char*> PointersTo(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

// A running program. Made and destroyed by whoever holds the session; its thread reads.
class Program {
 public:
  static absl::StatusOr<std::unique_ptr<Program>> Start(const McpCommand& command) {
    int in[2];
    int out[2];
    if (pipe2(in, O_CLOEXEC) != 0) return Unavailable("{}", std::strerror(errno));
    if (pipe2(out, O_CLOEXEC) != 0) {
      close(in[0]);
      close(in[1]);
      return Unavailable("{}", std::strerror(errno));
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t none;
    sigset_t all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(
        &attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    std::vector<std::string> arguments = command.command;
    std::vector<std::string> environment = EnvironmentOf(command);
    pid_t pid = 0;
    const int error = posix_spawnp(&pid, arguments[0].c_str(), &actions, &attributes,
                                   PointersTo(arguments).data(), PointersTo(environment).data());
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    close(in[0]);
    close(out[1]);
    if (error != 0) {
      close(in[1]);
      close(out[0]);
      return Unavailable("{} cannot be started: {}", command.command[0], std::strerror(error));
    }
    fcntl(in[1], F_SETFL, fcntl(in[1], F_GETFL) | O_NONBLOCK);
    return std::unique_ptr<Program>(new Program(pid, in[1], out[0]));
  }

  ~Program() {
    close(in_);
    const absl::Time until = absl::Now() + kExit;
    {
      MutexLock lock(&mutex_);
      while (!over_ && absl::Now() < until) changed_.WaitFor(&mutex_, until - absl::Now());
    }
    kill(-pid_, SIGKILL);
    // A child of the program's own may hold its output open for ever.
    const uint64_t one = 1;
    (void)!write(stop_, &one, sizeof(one));
    reader_.join();
    close(out_);
    close(stop_);
    waitpid(pid_, nullptr, 0);
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  bool over() const {
    MutexLock lock(&mutex_);
    return over_;
  }

  absl::StatusOr<std::string> Exchange(int64_t id, const std::string& request,
                                       absl::Duration timeout,
                                       const std::function<bool()>& cancelled) {
    const absl::Time end = absl::Now() + timeout;
    {
      MutexLock lock(&mutex_);
      waiting_[id];
    }
    absl::StatusOr<std::string> answer = Write(request, timeout);
    MutexLock lock(&mutex_);
    while (answer.ok()) {
      if (waiting_[id].has_value()) {
        answer = *std::move(waiting_[id]);
        break;
      }
      const absl::Duration left = end - absl::Now();
      if (over_) {
        answer = Unavailable("the MCP server has ended");
      } else if (cancelled && cancelled()) {
        answer = absl::CancelledError("cancelled");
      } else if (left <= absl::ZeroDuration()) {
        answer = DeadlineExceeded("the MCP server did not answer in time");
      } else {
        changed_.WaitFor(&mutex_, std::min(left, kLook));
      }
      if (!answer.ok()) break;
    }
    waiting_.erase(id);
    return answer;
  }

  absl::StatusOr<std::string> Write(std::string line, absl::Duration timeout) {
    const absl::Time end = absl::Now() + timeout;
    line += "\n";
    MutexLock lock(&writing_);
    std::string_view rest = line;
    while (!rest.empty()) {
      const ssize_t written = write(in_, rest.data(), rest.size());
      if (written > 0) {
        rest.remove_prefix(static_cast<size_t>(written));
        continue;
      }
      if (errno == EINTR) continue;
      if (errno != EAGAIN) return Unavailable("the MCP server takes nothing any more");
      const int64_t left_ms = absl::ToInt64Milliseconds(end - absl::Now());
      // Half a line cannot be taken back: what follows would be read as its end.
      if (left_ms <= 0) {
        kill(-pid_, SIGKILL);
        return DeadlineExceeded("the MCP server does not read");
      }
      pollfd wait{.fd = in_, .events = POLLOUT, .revents = 0};
      poll(&wait, 1, static_cast<int>(std::min<int64_t>(left_ms, 1000)));
    }
    return std::string();
  }

 private:
  Program(pid_t pid, int in, int out)
      : pid_(pid), in_(in), out_(out), stop_(eventfd(0, EFD_CLOEXEC)), reader_([this] {
          Read();
        }) {}

  void Read() {
    std::string lines;
    std::vector<char> buffer(size_t{64} << 10);
    for (;;) {
      std::array<pollfd, 2> wait = {pollfd{.fd = out_, .events = POLLIN, .revents = 0},
                                    pollfd{.fd = stop_, .events = POLLIN, .revents = 0}};
      if (poll(wait.data(), wait.size(), -1) < 0 && errno == EINTR) continue;
      if (wait[1].revents != 0) break;
      const ssize_t got = read(out_, buffer.data(), buffer.size());
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) break;
      lines.append(buffer.data(), static_cast<size_t>(got));
      size_t begin = 0;
      for (size_t end = lines.find('\n'); end != std::string::npos; end = lines.find('\n', begin)) {
        Take(std::string_view(lines).substr(begin, end - begin));
        begin = end + 1;
      }
      lines.erase(0, begin);
      if (lines.size() > kMaxLine) break;  // it does not speak MCP
    }
    MutexLock lock(&mutex_);
    over_ = true;
    changed_.SignalAll();
  }

  void Take(std::string_view line) {
    const absl::StatusOr<McpMessage> message = ReadMcpMessage(line);
    if (!message.ok()) return;
    if (message->kind == McpMessage::Kind::kRequest) {
      // We offer nothing; but whether we live may be asked.
      const std::string_view answer = message->method == "ping"
                                          ? R"("result":{})"
                                          : R"("error":{"code":-32601,"message":"not offered"})";
      (void)Write(fmt::format(R"({{"jsonrpc":"2.0","id":{},{}}})", message->id_json, answer),
                  kExit);
      return;
    }
    MutexLock lock(&mutex_);
    const auto waits = waiting_.find(message->id);
    if (waits == waiting_.end()) return;
    if (message->kind == McpMessage::Kind::kAnswer) waits->second = message->result_json;
    if (message->kind == McpMessage::Kind::kError) {
      waits->second = FailedPrecondition("{}", message->error);
    }
    changed_.SignalAll();
  }

  const pid_t pid_;
  const int in_;
  const int out_;
  const int stop_;
  Mutex writing_;
  mutable Mutex mutex_;
  CondVar changed_;
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<int64_t, std::optional<absl::StatusOr<std::string>>> waiting_ ABSL_GUARDED_BY(mutex_);
  std::thread reader_;  // last: it uses the rest
};

class StdioMcpServer final : public McpSession {
 public:
  explicit StdioMcpServer(McpCommand command) : command_(std::move(command)) {}

 protected:
  absl::StatusOr<std::string> Exchange(int64_t id, const std::string& request, bool first,
                                       absl::Duration timeout,
                                       const std::function<bool()>& cancelled) override {
    if (timeout <= absl::ZeroDuration()) return DeadlineExceeded("no time is left");
    if (first) PARLEY_RETURN_IF_ERROR(Start());
    const std::shared_ptr<Program> program = Running();
    if (program == nullptr || (!first && program->over())) {
      return Aborted("the MCP server has ended");
    }
    return program->Exchange(id, request, timeout, cancelled);
  }
  void Notify(const std::string& notification, absl::Duration timeout) override {
    if (const std::shared_ptr<Program> program = Running(); program != nullptr) {
      (void)program->Write(notification, timeout);
    }
  }
  void Reset() override {
    std::shared_ptr<Program> old;
    MutexLock lock(&mutex_);
    old.swap(program_);
  }
  bool Connected() const override {
    const std::shared_ptr<Program> program = Running();
    return program != nullptr && !program->over();
  }

 private:
  std::shared_ptr<Program> Running() const {
    MutexLock lock(&mutex_);
    return program_;
  }
  absl::Status Start() {
    MutexLock lock(&mutex_);
    if (absl::Now() - started_ < kBetweenStarts) {
      return Unavailable("the MCP server ended and is not started again yet");
    }
    started_ = absl::Now();
    PARLEY_ASSIGN_OR_RETURN(program_, Program::Start(command_));
    return absl::OkStatus();
  }

  const McpCommand command_;
  mutable Mutex mutex_;
  std::shared_ptr<Program> program_ ABSL_GUARDED_BY(mutex_);
  absl::Time started_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

}  // namespace

std::unique_ptr<McpServer> NewStdioMcpServer(McpCommand command) {
  return std::make_unique<StdioMcpServer>(std::move(command));
}

}  // namespace parley::tools
