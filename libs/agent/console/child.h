#pragma once
// A program that runs beside the console: a gateway, a microphone, a loudspeaker.
#include <absl/status/statusor.h>
#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "supervise/unique_fd.h"

namespace parley::agent {

// Ends with this process, whatever happens to it.
class Child {
 public:
  // What is connected to us; the rest it shares with us, but for standard input, which is empty.
  struct Pipes {
    bool input = false;     // we write
    bool output = false;    // we read
    bool messages = false;  // its standard error comes with the output
    int bytes = 0;          // that a pipe holds; 0: as the system has it
  };
  // `argv[0]` as execvp finds it. Blocks for the fork alone: that it cannot be executed shows as an
  // early end, with a line on its standard error.
  static absl::StatusOr<std::unique_ptr<Child>> Start(const std::vector<std::string>& argv,
                                                      const Pipes& pipes);
  ~Child() { End(); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  int input() const { return input_.get(); }
  int output() const { return output_.get(); }
  bool running();
  // Asks it to end, kills it after 2 s, reaps it.
  void End();
  // Waits until it has ended by itself; says whether it has.
  bool WaitEnd(int timeout_ms);

 private:
  Child() = default;
  pid_t pid_ = -1;
  supervise::UniqueFd input_;
  supervise::UniqueFd output_;
};

// The full path of one of Parley's programs: in PARLEY_BIN_DIR, beside this program, or on PATH.
//   NotFound  nowhere
absl::StatusOr<std::string> FindProgram(const std::string& name);

}  // namespace parley::agent
