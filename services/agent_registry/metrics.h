#pragma once
#include "metrics/metrics.h"

namespace parley::agent_registry {

// Every metric of the agent registry.
struct AgentRegistryMetrics {
  explicit AgentRegistryMetrics(prometheus::Registry& registry)
      : registered(metrics::Counter(registry, "parley_registry_versions_total",
                                    "Definitions that became a new version")),
        refused(metrics::Counter(registry, "parley_registry_refused_total",
                                 "Definitions that were refused")),
        watchers(metrics::Gauge(registry, "parley_registry_watchers", "Open watch streams")) {}

  prometheus::Counter& registered;
  prometheus::Counter& refused;
  prometheus::Gauge& watchers;
};

}  // namespace parley::agent_registry
