#pragma once
// What the replicas of a gateway share through Redis, as the operator configures it.
#include <absl/status/statusor.h>

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "config/table.h"
#include "gateway/budget_metrics.h"
#include "gateway/metered.h"
#include "gateway/provider.h"
#include "redis/redis.h"
#include "service/service.h"
#include "speech/breakers.h"
#include "speech_redis/health_board.h"

namespace parley::gateway {

struct SharedConfig {
  // No address and no sentinels: a gateway by itself, without budgets, caps and ledger.
  redis::Config redis = Nowhere();
  std::vector<std::string> spend_caps;
  absl::Duration budget_wait = absl::Milliseconds(500);

  void Bind(config::Table& table, std::string_view kind);  // redis.…, KIND.spend_caps, …
  bool has_redis() const { return !redis.address.empty() || !redis.sentinels.empty(); }
  static redis::Config Nowhere();
};

// Thread-safe.
class Shared {
 public:
  // `kind`: stt, tts or llm. `context` and `breakers` outlive it. Redis need not be there yet.
  //   InvalidArgument  a cap cannot be read, or needs a Redis that is not configured
  static absl::StatusOr<std::unique_ptr<Shared>> Create(std::string kind,
                                                        const SharedConfig& config,
                                                        service::Context& context,
                                                        speech::Breakers& breakers);
  ~Shared();

  // Of the engine `name`; its budget is that of the provider's address and key: projects with a key
  // of their own have each its limits, by themselves.
  //   InvalidArgument  limits without Redis
  absl::StatusOr<Meter> MeterOf(std::string_view name, const ProviderConfig& provider);
  absl::StatusOr<Meter> MeterOf(std::string_view name, const WyomingConfig& provider);
  Meter MeterOfEmbedded() {
    Meter meter;
    meter.ledger = ledger_.get();
    return meter;
  }

  // Null without Redis.
  redis::Pool* redis() { return pool_.get(); }
  speech_redis::Ledger* ledger() { return ledger_.get(); }
  const std::string& kind() const { return kind_; }
  const std::string& replica() const { return replica_; }  // drawn at the start
  // By engine.
  const std::map<std::string, std::unique_ptr<speech_redis::Budget>, std::less<>>& budgets() const {
    return budgets_;
  }

 private:
  Shared(std::string kind, service::Context& context);
  absl::StatusOr<Meter> MakeMeter(std::string_view name, const std::string& account,
                                  const speech_redis::BudgetLimits& limits);
  std::unique_ptr<speech_redis::Budget> MakeBudget(std::string_view name,
                                                   const std::string& account,
                                                   const speech_redis::BudgetLimits& limits,
                                                   BudgetMetrics& metrics);

  const std::string kind_;
  service::Context& context_;
  const std::string replica_;
  absl::Duration budget_wait_;
  std::unique_ptr<redis::Pool> pool_;
  std::unique_ptr<speech_redis::Ledger> ledger_;
  std::unique_ptr<speech_redis::HealthBoard> health_;
  prometheus::Counter& capped_;       // parley_spend_cap_refused_total
  std::list<BudgetMetrics> metrics_;  // of budgets_ and own_, which tell them
  std::map<std::string, std::unique_ptr<speech_redis::Budget>, std::less<>> budgets_;
  std::list<std::unique_ptr<speech_redis::Budget>> own_;  // of projects' keys
  std::list<std::map<std::string, speech_redis::Budget*, std::less<>>> by_project_;  // of an engine
};

}  // namespace parley::gateway
