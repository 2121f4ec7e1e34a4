#include "gateway/provider.h"

#include <fmt/format.h>

#include <fstream>
#include <sstream>

#include "base/status.h"
#include "base/strings.h"

namespace parley::gateway {

void BindLimits(config::Table& table, std::string_view prefix, speech_redis::BudgetLimits& limits) {
  table.Int(fmt::format("{}.max_streams", prefix), &limits.streams, 0, 100'000,
            "Requests under way at a time, of all replicas together; 0: any number");
  table.Int(fmt::format("{}.requests_per_minute", prefix), &limits.requests_per_minute, 0,
            10'000'000, "Requests a minute, of all replicas together; 0: any number");
  table.Int(fmt::format("{}.tokens_per_minute", prefix), &limits.tokens_per_minute, 0,
            2'000'000'000, "Tokens a minute, of all replicas together; 0: any number");
}

void WyomingConfig::Bind(config::Table& table, std::string_view kind) {
  table.Text(fmt::format("{}.wyoming.address", kind), &address,
             "host:port of the engine wyoming; none: no such engine");
  BindLimits(table, fmt::format("{}.wyoming", kind), limits);
}

void ProviderConfig::Bind(config::Table& table, std::string_view kind, const ProviderNames& names) {
  const std::string prefix = fmt::format("{}.{}", kind, names.engine);
  table.Text(prefix + ".base_url", &base_url,
             fmt::format("Server of the engine {}, such as {}; none: no such engine", names.engine,
                         names.example));
  table.Text(prefix + ".key", &key, "Its key");
  table.NotAFlag();
  table.AlsoFromEnv(names.key_variable);
  table.Text(prefix + ".key_file", &key_file, "File that holds its key");
  table.Text(prefix + ".model", &model, "Model of requests that name none");
  BindLimits(table, prefix, limits);
}

absl::StatusOr<ProviderConfig> ProviderConfig::Resolve(std::string_view kind) const {
  ProviderConfig resolved = *this;
  while (resolved.base_url.ends_with('/')) resolved.base_url.pop_back();
  if (key_file.empty()) return resolved;
  std::ifstream file(key_file);
  if (!file) {
    return InvalidArgument("the key file {} of a provider of {} cannot be read", key_file, kind);
  }
  std::stringstream text;
  text << file.rdbuf();
  resolved.key = std::string(Trim(text.str()));
  return resolved;
}

}  // namespace parley::gateway
