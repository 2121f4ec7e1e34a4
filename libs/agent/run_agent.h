#pragma once
// main() of an agent program:
//
//   int main(int argc, char** argv) {
//     return parley::agent::RunAgent(argc, argv, {.agent_name = "concierge", .entrypoint = Run});
//   }
#include "agent/agent.h"

namespace parley::agent {

// Runs the program: `start` (the default) serves until SIGTERM and then drains, `dev` does so with
// development keys, readable logs and a short drain; settings follow as flags (--help). Call it
// first thing in main(), before any thread exists. Returns the exit code.
int RunAgent(int argc, char** argv, AgentOptions options);

// What the stock program serves: the agents of a pool that are defined in the registry.
AgentOptions ConfiguredAgents();

}  // namespace parley::agent
