#include "agent_registry/agent_registry.h"

#include <atomic>

#include "agent_registry/change_feed.h"
#include "agent_registry/metrics.h"
#include "agent_registry/registry_service.h"
#include "registry_redis/store.h"

namespace parley {
namespace {

constexpr int kDefaultPort = 7101;

}  // namespace

void AgentRegistryConfig::Bind(config::Table& table) {
  common.Bind(table, kDefaultPort);
  redis.Bind(table);
  table.Bool("tools.allow_loopback", &allow_loopback_tools,
             "Take definitions whose tools call this host; always on with --dev");
  table.Duration("watch.interval", &watch_interval, absl::Milliseconds(10), absl::Seconds(10),
                 "How often watchers are told of changes");
}

namespace agent_registry {

int Run(const AgentRegistryConfig& config, service::Context& context) {
  AgentRegistryMetrics metrics(context.registry());
  redis::Pool pool(config.redis, context.log());
  registry_redis::RedisAgentStore store(pool);
  ChangeFeed feed(store, config.watch_interval, context.log());
  registry::ParseOptions options;
  options.allow_loopback = config.allow_loopback_tools || config.common.dev;
  RegistryService service(store, feed, metrics, context, options);
  service::Context::Hooks hooks;
  hooks.ready = [&pool] { return pool.Ping().ok(); };
  hooks.drain = [&feed](absl::Duration) { feed.Stop(); };
  return context.Serve({&service}, std::move(hooks));
}

}  // namespace agent_registry
}  // namespace parley
