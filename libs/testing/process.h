#pragma once
// A child process of a test or benchmark: its standard error goes to a file, and it never outlives
// its owner.
#include <absl/status/statusor.h>
#include <absl/time/time.h>
#include <sys/types.h>

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace parley::testing {

class Process {
 public:
  // `env` is added to the environment. Standard output and error go to `log_path`.
  static absl::StatusOr<std::unique_ptr<Process>> Start(
      const std::vector<std::string>& argv, const std::string& log_path,
      const std::map<std::string, std::string>& env = {});
  ~Process();  // SIGKILL, reaped
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t pid() const { return pid_; }
  const std::string& log_path() const { return log_path_; }
  std::string Log() const;  // what it wrote so far
  void Signal(int number);
  bool running();
  // The exit status as a shell says it (128 + signal); DeadlineExceeded when it still runs.
  absl::StatusOr<int> Wait(absl::Duration timeout);
  // The whole first line of the log that contains `text`, or DeadlineExceeded / Aborted (it ended
  // first) with the log's end.
  absl::StatusOr<std::string> WaitForLine(std::string_view text, absl::Duration timeout);

 private:
  Process() = default;
  pid_t pid_ = -1;
  int exit_code_ = -1;
  std::string log_path_;
};

}  // namespace parley::testing
