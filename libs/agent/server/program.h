#pragma once
// The pieces of RunAgent, for programs with more in them (`parley dev`), in this order:
//   1  HandledDeathReport (serve.h), unless nothing outlives the program anyway
//   2  SplitProgram, before any thread exists
//   3  UseOneArena, if the program is an agent server and nothing else
//   4  service::Context, then ServeAgents (serve.h) with the settings of ConfigFor
#include <absl/status/statusor.h>

#include <memory>

#include "agent/agent.h"
#include "agent/server/config.h"
#include "supervise/zygote.h"

namespace parley::agent {

// Errors as supervise::Split.
// With `exec` each job becomes that program (words divided by spaces, found by PATH), which speaks
// parley.job.v1 on descriptor 3.
absl::StatusOr<std::unique_ptr<supervise::ZygoteClient>> SplitProgram(AgentOptions options,
                                                                      std::string exec = {},
                                                                      std::string vad_model = {});
// Of a dozen arenas of the allocator each keeps pages for the little that is left in it, and more
// of them after thousands of jobs. Before any thread exists.
void UseOneArena();
// The defaults of a server for these agents: what it serves, and whether its jobs have a network.
AgentServerConfig ConfigFor(const AgentOptions& options);

}  // namespace parley::agent
