#include "agent/console/child.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "base/status.h"
#include "base/strings.h"

namespace parley::agent {
namespace {

constexpr int kCannotExecute = 127;
constexpr int kEndMs = 2'000;

absl::Status MakePipe(int bytes, supervise::UniqueFd& read_end, supervise::UniqueFd& write_end) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return Unavailable("pipe: {}", std::strerror(errno));
  read_end.Reset(ends[0]);
  write_end.Reset(ends[1]);
  if (bytes > 0) fcntl(ends[0], F_SETPIPE_SZ, bytes);
  return absl::OkStatus();
}

// In the child, where only system calls are safe.
[[noreturn]] void Become(char* const* argv, int input, int output, bool messages) {
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  setpgid(0, 0);  // the terminal's signals are not for it
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  signal(SIGPIPE, SIG_DFL);
  dup2(input >= 0 ? input : open("/dev/null", O_RDONLY), STDIN_FILENO);
  if (output >= 0) dup2(output, STDOUT_FILENO);
  if (output >= 0 && messages) dup2(output, STDERR_FILENO);
  execvp(argv[0], argv);
  const char* why = std::strerror(errno);
  for (const char* part : {"cannot execute ", static_cast<const char*>(argv[0]), ": ", why, "\n"}) {
    if (write(STDERR_FILENO, part, std::strlen(part)) < 0) break;
  }
  _exit(kCannotExecute);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Child>> Child::Start(const std::vector<std::string>& argv,
                                                    const Pipes& pipes) {
  std::vector<char*> words;
  for (const std::string& word : argv) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  std::unique_ptr<Child> child(new Child());
  supervise::UniqueFd its_input;
  supervise::UniqueFd its_output;
  if (pipes.input) {
    PARLEY_RETURN_IF_ERROR(MakePipe(pipes.bytes, its_input, child->input_));
    fcntl(child->input_.get(), F_SETFL, O_NONBLOCK);
  }
  if (pipes.output) {
    PARLEY_RETURN_IF_ERROR(MakePipe(pipes.bytes, child->output_, its_output));
    fcntl(child->output_.get(), F_SETFL, O_NONBLOCK);
  }
  child->pid_ = fork();
  if (child->pid_ < 0) return Unavailable("fork: {}", std::strerror(errno));
  if (child->pid_ == 0) Become(words.data(), its_input.get(), its_output.get(), pipes.messages);
  return child;
}

bool Child::running() {
  if (pid_ <= 0) return false;
  if (waitpid(pid_, nullptr, WNOHANG) != pid_) return true;
  pid_ = -1;
  return false;
}

bool Child::WaitEnd(int timeout_ms) {
  for (int waited_ms = 0; running(); waited_ms += 10) {
    if (waited_ms >= timeout_ms) return false;
    usleep(10'000);
  }
  return true;
}

void Child::End() {
  if (!running()) return;
  kill(pid_, SIGTERM);
  if (WaitEnd(kEndMs)) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

absl::StatusOr<std::string> FindProgram(const std::string& name) {
  std::vector<std::string> folders;
  if (const char* own = std::getenv("PARLEY_BIN_DIR"); own != nullptr) folders.emplace_back(own);
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (!error) folders.push_back(self.parent_path().string());
  if (const char* path = std::getenv("PATH"); path != nullptr) {
    for (std::string& one : Split(path, ':')) folders.push_back(std::move(one));
  }
  for (const std::string& folder : folders) {
    const std::string path = folder + "/" + name;
    if (access(path.c_str(), X_OK) == 0) return path;
  }
  return NotFound("{} is neither beside this program nor on PATH", name);
}

}  // namespace parley::agent
