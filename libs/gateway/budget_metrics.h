#pragma once
// What a replica says of budgets, by engine and by whose keys they are of.
#include <prometheus/registry.h>

#include <functional>
#include <string_view>

#include "base/mutex.h"
#include "metrics/metrics.h"
#include "speech_redis/budget.h"

namespace parley::gateway {

// The sum of one kind of keys' budgets. Thread-safe.
class BudgetMetrics {
 public:
  // `key`: operator (one budget) or projects (one for each key of their own; which, is not told).
  BudgetMetrics(prometheus::Registry& registry, std::string_view engine, std::string_view key,
                const speech_redis::BudgetLimits& limits);
  // One budget more. What hears how that stands, one call at a time; this outlives it.
  std::function<void(const speech_redis::BudgetStats&)> Add();

 private:
  void Tell(const speech_redis::BudgetStats& before, const speech_redis::BudgetStats& now);

  prometheus::Gauge& held_;       // parley_budget_streams_held
  prometheus::Gauge& waiting_;    // parley_budget_waiting
  prometheus::Gauge& replicas_;   // parley_budget_replicas
  prometheus::Gauge& shared_;     // parley_budget_shared
  prometheus::Counter& granted_;  // parley_budget_granted_total
  prometheus::Counter& refused_;  // parley_budget_refused_total
  Mutex mutex_;
  speech_redis::BudgetStats sum_ ABSL_GUARDED_BY(mutex_);  // held and waiting alone
  int alone_ ABSL_GUARDED_BY(mutex_) = 0;  // budgets that Redis does not share out now
};

}  // namespace parley::gateway
