#include "testing/process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <thread>

#include "base/status.h"

extern char** environ;

namespace parley::testing {
namespace {

constexpr auto kPollInterval = std::chrono::milliseconds(2);

std::vector<std::string> Environment(const std::map<std::string, std::string>& added) {
  std::vector<std::string> all;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    if (!added.contains(text.substr(0, text.find('=')))) all.push_back(text);
  }
  for (const auto& [name, value] : added) all.push_back(name + "=" + value);
  return all;
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  pointers.reserve(strings.size() + 1);
  for (std::string& text : strings) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Process>> Process::Start(
    const std::vector<std::string>& argv, const std::string& log_path,
    const std::map<std::string, std::string>& env) {
  // Killed by the kernel should this program die without its destructors.
  std::vector<std::string> arguments = {"/usr/bin/setpriv", "--pdeathsig", "KILL"};
  arguments.insert(arguments.end(), argv.begin(), argv.end());
  std::vector<std::string> variables = Environment(env);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log_path.c_str(),
                                   O_WRONLY | O_CREAT | O_APPEND, 0600);
  posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  pid_t pid = -1;
  const int error = posix_spawn(&pid, arguments[0].c_str(), &actions, &attributes,
                                Pointers(arguments).data(), Pointers(variables).data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) return NotFound("cannot start {}: {}", argv[0], strerror(error));
  std::unique_ptr<Process> process(new Process);
  process->pid_ = pid;
  process->log_path_ = log_path;
  return process;
}

Process::~Process() {
  if (!running()) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

std::string Process::Log() const {
  std::ifstream file(log_path_);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void Process::Signal(int number) {
  if (running()) kill(pid_, number);
}

bool Process::running() {
  if (exit_code_ >= 0) return false;
  int status = 0;
  const pid_t got = waitpid(pid_, &status, WNOHANG);
  if (got == 0) return true;
  exit_code_ = got == pid_ && WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return false;
}

absl::StatusOr<int> Process::Wait(absl::Duration timeout) {
  const auto until = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(timeout);
  while (running()) {
    if (std::chrono::steady_clock::now() > until)
      return DeadlineExceeded("process {} still runs", pid_);
    std::this_thread::sleep_for(kPollInterval);
  }
  return exit_code_;
}

absl::StatusOr<std::string> Process::WaitForLine(std::string_view text, absl::Duration timeout) {
  const auto until = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(timeout);
  while (true) {
    const bool ended = !running();  // before the log is read: what it wrote at its end counts
    const std::string log = Log();
    const size_t found = log.find(text);
    const size_t end = found == std::string::npos ? found : log.find('\n', found);
    if (end != std::string::npos) {
      const size_t start = log.rfind('\n', found);
      return log.substr(start == std::string::npos ? 0 : start + 1,
                        end - (start == std::string::npos ? 0 : start + 1));
    }
    const std::string tail = log.size() > 2000 ? log.substr(log.size() - 2000) : log;
    if (ended)
      return Aborted("it ended with {} before it wrote \"{}\":\n{}", exit_code_, text, tail);
    if (std::chrono::steady_clock::now() > until)
      return DeadlineExceeded("no \"{}\" in its log:\n{}", text, tail);
    std::this_thread::sleep_for(kPollInterval);
  }
}

}  // namespace parley::testing
