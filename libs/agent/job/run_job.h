#pragma once
#include "agent/agent.h"

namespace parley::agent {

// The life of one job process: speaks parley.job.v1 on `socket_fd` (its end of a SOCK_STREAM pair;
// owned from here on) from hello to ended. Call it in a process that has no other threads, right
// after the fork. Returns the exit code: 0 when the job said how it ended (a replaced one too,
// quietly); 1 when the channel broke or spoke nonsense. The caller then leaves with _exit: the
// entrypoint's thread may still be running.
int RunJob(int socket_fd, const AgentOptions& options);

}  // namespace parley::agent
