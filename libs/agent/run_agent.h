#pragma once
// main() of an agent program:
//
//   int main(int argc, char** argv) {
//     return parley::agent::RunAgent(argc, argv, {.agent_name = "concierge", .entrypoint = Run});
//   }
#include "agent/agent.h"

namespace parley::agent {

// Runs the program; settings follow the command as flags (--help). Call it first thing in main(),
// before any thread exists. Returns the exit code.
//   start    (the default) serves until SIGTERM and then drains
//   dev      development keys, readable logs; when the program is rebuilt, the new build takes the
//            next jobs and the old one ends with its last
//   console  a conversation in the terminal, without a cluster: written, or with --wav FILE or
//   --mic
//            (microphone and loudspeaker, by ALSA) spoken; --record FILE keeps a spoken one
//   connect  --room NAME: as dev, with one job, in that room, at once; ends with it
int RunAgent(int argc, char** argv, AgentOptions options);

// What the stock program serves: the agents of a pool that are defined in the registry.
AgentOptions ConfiguredAgents();

}  // namespace parley::agent
