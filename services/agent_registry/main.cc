#include "agent_registry/agent_registry.h"

int main(int argc, char** argv) {
  return parley::service::Main<parley::AgentRegistryConfig>(
      argc, argv, "agent-registry", "Agent definitions and their versions.",
      [](const parley::AgentRegistryConfig& config, parley::service::Context& context) {
        return parley::agent_registry::Run(config, context);
      });
}
