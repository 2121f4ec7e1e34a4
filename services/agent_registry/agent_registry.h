#pragma once
// Keeps agent definitions and their versions. Stateless: everything is in Redis.
#include "redis/redis.h"
#include "service/service.h"

namespace parley {

struct AgentRegistryConfig {
  service::CommonConfig common;
  redis::Config redis;
  bool allow_loopback_tools = false;  // always on with --dev
  absl::Duration watch_interval = absl::Milliseconds(100);

  void Bind(config::Table& table);
};

namespace agent_registry {

// Serves until a stop is asked for; the exit code.
int Run(const AgentRegistryConfig& config, service::Context& context);

}  // namespace agent_registry
}  // namespace parley
