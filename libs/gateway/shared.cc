#include "gateway/shared.h"

#include <absl/strings/escaping.h>
#include <fmt/format.h>
#include <openssl/evp.h>

#include <array>
#include <functional>
#include <utility>

#include "base/ids.h"
#include "base/status.h"
#include "metrics/metrics.h"

namespace parley::gateway {
namespace {

// Tells budgets of different keys apart in Redis without showing a key there.
std::string DigestOf(std::string_view account) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  EVP_Digest(account.data(), account.size(), digest.data(), &size, EVP_sha256(), nullptr);
  constexpr size_t kShown = 8;
  return absl::BytesToHexString({reinterpret_cast<const char*>(digest.data()), kShown});
}

int WeightOf(const service::Context& context, std::string_view project) {
  for (const auth::ProjectQuota& quota : context.keys()->quotas())
    if (quota.project == project) return quota.weight;
  return 1;
}

}  // namespace

redis::Config SharedConfig::Nowhere() {
  redis::Config config;
  config.address.clear();
  return config;
}

void SharedConfig::Bind(config::Table& table, std::string_view kind) {
  redis.Bind(table);
  table.List(fmt::format("{}.spend_caps", kind), &spend_caps,
             "What projects may use of remote engines, as PROJECT/LIMIT/PERIOD=NUMBER: "
             "stt_seconds, tts_characters or tokens, by day or session; * for each project");
  table.Duration(fmt::format("{}.budget_wait", kind), &budget_wait, absl::ZeroDuration(),
                 absl::Minutes(1),
                 "How long a request may wait for a place in its provider's budget before the "
                 "chain goes on");
}

Shared::Shared(std::string kind, service::Context& context)
    : kind_(std::move(kind)),
      context_(context),
      replica_(RandomHex(8)),
      capped_(metrics::Counter(context.registry(), "parley_spend_cap_refused_total",
                               "Utterances, voices and answers that a spend cap stopped")) {}

Shared::~Shared() = default;

absl::StatusOr<std::unique_ptr<Shared>> Shared::Create(std::string kind, const SharedConfig& config,
                                                       service::Context& context,
                                                       speech::Breakers& breakers) {
  PARLEY_ASSIGN_OR_RETURN(std::vector<speech_redis::SpendCap> caps,
                          speech_redis::SpendCap::ParseAll(config.spend_caps));
  if (!config.has_redis() && !caps.empty())
    return InvalidArgument("{}.spend_caps needs redis.address", kind);
  std::unique_ptr<Shared> shared(new Shared(std::move(kind), context));
  shared->budget_wait_ = config.budget_wait;
  if (!config.has_redis()) return shared;
  shared->pool_ = std::make_unique<redis::Pool>(config.redis, context.log());
  shared->ledger_ = std::make_unique<speech_redis::Ledger>(*shared->pool_, shared->replica_,
                                                           std::move(caps), context.log());
  shared->health_ = std::make_unique<speech_redis::HealthBoard>(*shared->pool_, shared->kind_,
                                                                breakers, context.log());
  return shared;
}

absl::StatusOr<Meter> Shared::MeterOf(std::string_view name, const ProviderConfig& provider) {
  const auto account = [&provider](const std::string& key) {
    return provider.base_url + "\n" + key;
  };
  PARLEY_ASSIGN_OR_RETURN(Meter meter, MakeMeter(name, account(provider.key), provider.limits));
  if (meter.budget == nullptr || provider.own_keys.empty()) return meter;
  // Of one key there is one budget.
  std::map<std::string, speech_redis::Budget*> by_key = {{provider.key, meter.budget}};
  auto& own = by_project_.emplace_back();
  BudgetMetrics& metrics =
      metrics_.emplace_back(context_.registry(), name, "projects", provider.limits);
  for (const auto& [project, key] : provider.own_keys) {
    speech_redis::Budget*& budget = by_key[key];
    if (budget == nullptr) {
      own_.push_back(MakeBudget(name, account(key), provider.limits, metrics));
      budget = own_.back().get();
    }
    own[project] = budget;
  }
  meter.own_budgets = &own;
  return meter;
}

absl::StatusOr<Meter> Shared::MeterOf(std::string_view name, const WyomingConfig& provider) {
  return MakeMeter(name, provider.address, provider.limits);
}

absl::StatusOr<Meter> Shared::MakeMeter(std::string_view name, const std::string& account,
                                        const speech_redis::BudgetLimits& limits) {
  Meter meter;
  meter.ledger = ledger_.get();
  meter.capped = &capped_;
  if (!limits.any()) return meter;
  if (pool_ == nullptr) {
    return InvalidArgument("the limits of {}.{} are shared by all replicas and need redis.address",
                           kind_, name);
  }
  BudgetMetrics& metrics = metrics_.emplace_back(context_.registry(), name, "operator", limits);
  auto& budget = budgets_[std::string(name)];
  budget = MakeBudget(name, account, limits, metrics);
  meter.budget = budget.get();
  return meter;
}

std::unique_ptr<speech_redis::Budget> Shared::MakeBudget(std::string_view name,
                                                         const std::string& account,
                                                         const speech_redis::BudgetLimits& limits,
                                                         BudgetMetrics& metrics) {
  speech_redis::BudgetOptions options;
  options.provider = fmt::format("{}:{}:{}", kind_, name, DigestOf(account));
  options.limits = limits;
  options.wait = budget_wait_;
  options.told = metrics.Add();
  return std::make_unique<speech_redis::Budget>(
      *pool_, replica_, std::move(options),
      [this](std::string_view project) { return WeightOf(context_, project); }, context_.log());
}

}  // namespace parley::gateway
