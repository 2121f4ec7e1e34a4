#pragma once
// What a replica says of a provider key's budget, by engine.
#include <prometheus/registry.h>

#include <string_view>

#include "metrics/metrics.h"
#include "speech_redis/budget.h"

namespace parley::gateway {

class BudgetMetrics {
 public:
  BudgetMetrics(prometheus::Registry& registry, std::string_view engine,
                const speech_redis::BudgetLimits& limits);
  // One thread at a time.
  void Tell(const speech_redis::BudgetStats& stats);

 private:
  prometheus::Gauge& held_;       // parley_budget_streams_held
  prometheus::Gauge& waiting_;    // parley_budget_waiting
  prometheus::Gauge& replicas_;   // parley_budget_replicas
  prometheus::Gauge& shared_;     // parley_budget_shared
  prometheus::Counter& granted_;  // parley_budget_granted_total
  prometheus::Counter& refused_;  // parley_budget_refused_total
  speech_redis::BudgetStats told_;
};

}  // namespace parley::gateway
