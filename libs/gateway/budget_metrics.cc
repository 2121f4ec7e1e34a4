#include "gateway/budget_metrics.h"

#include <string>
#include <utility>

namespace parley::gateway {
namespace {

metrics::Labels Of(std::string_view engine, std::string_view key) {
  return {{"engine", std::string(engine)}, {"key", std::string(key)}};
}

}  // namespace

BudgetMetrics::BudgetMetrics(prometheus::Registry& registry, std::string_view engine,
                             std::string_view key, const speech_redis::BudgetLimits& limits)
    : held_(metrics::Gauge(registry, "parley_budget_streams_held",
                           "Requests under way that this replica has a place for",
                           Of(engine, key))),
      waiting_(metrics::Gauge(registry, "parley_budget_waiting",
                              "Requests that wait here for a place", Of(engine, key))),
      replicas_(metrics::Gauge(registry, "parley_budget_replicas",
                               "Replicas that share the budget, this one included",
                               Of(engine, key))),
      shared_(metrics::Gauge(registry, "parley_budget_shared",
                             "1 while Redis shares the budget out, 0 while this replica goes on "
                             "with what it had",
                             Of(engine, key))),
      granted_(metrics::Counter(registry, "parley_budget_granted_total",
                                "Requests that got a place", Of(engine, key))),
      refused_(metrics::Counter(registry, "parley_budget_refused_total",
                                "Requests that found no place in time", Of(engine, key))) {
  for (const auto& [what, most] : {std::pair{"streams", limits.streams},
                                   {"requests_per_minute", limits.requests_per_minute},
                                   {"tokens_per_minute", limits.tokens_per_minute}}) {
    metrics::Labels labels = Of(engine, key);
    labels["of"] = what;
    metrics::Gauge(registry, "parley_budget_limit",
                   "What each key of the provider allows to all replicas together; 0: any number",
                   labels)
        .Set(most);
  }
}

std::function<void(const speech_redis::BudgetStats&)> BudgetMetrics::Add() {
  {
    MutexLock lock(&mutex_);
    ++alone_;  // until it says otherwise
  }
  return [this, told = speech_redis::BudgetStats()](const speech_redis::BudgetStats& now) mutable {
    Tell(std::exchange(told, now), now);
  };
}

void BudgetMetrics::Tell(const speech_redis::BudgetStats& before,
                         const speech_redis::BudgetStats& now) {
  replicas_.Set(now.replicas);
  granted_.Increment(static_cast<double>(now.granted - before.granted));
  refused_.Increment(static_cast<double>(now.refused - before.refused));
  MutexLock lock(&mutex_);
  held_.Set(sum_.held += now.held - before.held);
  waiting_.Set(sum_.waiting += now.waiting - before.waiting);
  alone_ += static_cast<int>(before.reachable) - static_cast<int>(now.reachable);
  shared_.Set(alone_ == 0 ? 1 : 0);
}

}  // namespace parley::gateway
