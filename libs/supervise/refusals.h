#pragma once
// What the filter of a job refuses comes to its server first, which notes it and answers.
#include <absl/status/statusor.h>

#include <optional>
#include <string>

#include "supervise/unique_fd.h"

namespace parley::supervise {

struct Refusal {
  std::string call;  // e.g. "ptrace"
  int error = 0;     // what the job gets: EPERM or EACCES; 0: it was allowed to exec this once
};

// The descriptor at which refused calls wait, as the job sends it over JobForked::report right
// after its start. Does not block.
//   Unavailable         nothing there yet
//   FailedPrecondition  this host's kernel or container does not hand them out: calls are refused
//                       all the same, but nobody is told
//   Aborted             the job is gone
absl::StatusOr<UniqueFd> ReceiveListener(int report_fd);

// Answers the next refused call, if one waits; `allow_exec`: an exec goes through. Does not block.
// The listener shows readable while calls wait, and as hung up once the job is gone.
std::optional<Refusal> AnswerRefusal(int listener, bool allow_exec);

// The job's side: sends the listener (or, for -1, that there is none) and closes it.
void SendListener(int report_fd, int listener);

}  // namespace parley::supervise
