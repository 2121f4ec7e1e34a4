// The stock agent program: serves every agent of its pool that is defined in the registry.
#include "agent/run_agent.h"

int main(int argc, char** argv) {
  return parley::agent::RunAgent(argc, argv, parley::agent::ConfiguredAgents());
}
