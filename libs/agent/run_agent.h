#pragma once
// main() of an agent program:
//
//   int main(int argc, char** argv) {
//     return parley::agent::RunAgent(argc, argv, {.agent_name = "concierge", .entrypoint = Run});
//   }
#include <absl/status/statusor.h>

#include <memory>

#include "agent/agent.h"
#include "agent/server/config.h"
#include "supervise/zygote.h"

namespace parley::agent {

// Runs the program: `start` (the default) serves until SIGTERM and then drains, `dev` does so with
// development keys, readable logs and a short drain; settings follow as flags (--help). Call it
// first thing in main(), before any thread exists. Returns the exit code.
int RunAgent(int argc, char** argv, AgentOptions options);

// The pieces, for programs with more in them (`parley dev`), in this order:
//   1  HandledDeathReport (server/serve.h), unless nothing outlives the program anyway
//   2  SplitProgram, before any thread exists
//   3  service::Context, then ServeAgents (server/serve.h) with the settings of ConfigFor
// Errors as supervise::Split.
absl::StatusOr<std::unique_ptr<supervise::ZygoteClient>> SplitProgram(AgentOptions options);
// The defaults of a server for these agents: what it serves, and whether its jobs have a network.
AgentServerConfig ConfigFor(const AgentOptions& options);
// What the stock program serves: the agents of a pool that are defined in the registry.
AgentOptions ConfiguredAgents();

}  // namespace parley::agent
