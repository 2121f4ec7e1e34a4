#include "gateway/budget_metrics.h"

#include <string>

namespace parley::gateway {
namespace {

metrics::Labels Of(std::string_view engine) { return {{"engine", std::string(engine)}}; }

}  // namespace

BudgetMetrics::BudgetMetrics(prometheus::Registry& registry, std::string_view engine,
                             const speech_redis::BudgetLimits& limits)
    : held_(metrics::Gauge(registry, "parley_budget_streams_held",
                           "Requests under way that this replica has a place for", Of(engine))),
      waiting_(metrics::Gauge(registry, "parley_budget_waiting",
                              "Requests that wait here for a place", Of(engine))),
      replicas_(metrics::Gauge(registry, "parley_budget_replicas",
                               "Replicas that share the budget, this one included", Of(engine))),
      shared_(metrics::Gauge(registry, "parley_budget_shared",
                             "1 while Redis shares the budget out, 0 while this replica goes on "
                             "with what it had",
                             Of(engine))),
      granted_(metrics::Counter(registry, "parley_budget_granted_total",
                                "Requests that got a place", Of(engine))),
      refused_(metrics::Counter(registry, "parley_budget_refused_total",
                                "Requests that found no place in time", Of(engine))) {
  for (const auto& [what, most] : {std::pair{"streams", limits.streams},
                                   {"requests_per_minute", limits.requests_per_minute},
                                   {"tokens_per_minute", limits.tokens_per_minute}}) {
    metrics::Labels labels = Of(engine);
    labels["of"] = what;
    metrics::Gauge(registry, "parley_budget_limit",
                   "What the provider's key allows to all replicas together; 0: any number", labels)
        .Set(most);
  }
}

void BudgetMetrics::Tell(const speech_redis::BudgetStats& stats) {
  held_.Set(stats.held);
  waiting_.Set(stats.waiting);
  replicas_.Set(stats.replicas);
  shared_.Set(stats.reachable ? 1 : 0);
  granted_.Increment(static_cast<double>(stats.granted - told_.granted));
  refused_.Increment(static_cast<double>(stats.refused - told_.refused));
  told_ = stats;
}

}  // namespace parley::gateway
