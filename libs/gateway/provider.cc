#include "gateway/provider.h"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/status.h"
#include "base/strings.h"

namespace parley::gateway {

namespace {

namespace fs = std::filesystem;

absl::StatusOr<std::string> ReadKey(const std::string& path, std::string_view kind) {
  std::ifstream file(path);
  if (!file)
    return InvalidArgument("the key file {} of a provider of {} cannot be read", path, kind);
  std::stringstream text;
  text << file.rdbuf();
  return std::string(Trim(text.str()));
}

}  // namespace

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
  table.Text(prefix + ".project_keys", &project_keys,
             "Folder with keys of projects that have their own: a file each, named as the project");
  table.Text(prefix + ".model", &model, "Model of requests that name none");
  BindLimits(table, prefix, limits);
}

absl::StatusOr<ProviderConfig> ProviderConfig::Resolve(std::string_view kind) const {
  ProviderConfig resolved = *this;
  while (resolved.base_url.ends_with('/')) resolved.base_url.pop_back();
  if (!key_file.empty()) {
    PARLEY_ASSIGN_OR_RETURN(resolved.key, ReadKey(key_file, kind));
  }
  if (project_keys.empty()) return resolved;
  std::error_code error;
  fs::directory_iterator files(project_keys, error);
  if (error) {
    return InvalidArgument("the folder {} with keys of projects for {} cannot be read: {}",
                           project_keys, kind, error.message());
  }
  for (const fs::directory_entry& file : files) {
    const std::string project = file.path().filename();
    // A mounted secret holds its versions beside the links to their files.
    if (project.starts_with('.') || !file.is_regular_file()) continue;
    PARLEY_ASSIGN_OR_RETURN(std::string own, ReadKey(file.path(), kind));
    if (own.empty()) return InvalidArgument("the key file {} is empty", file.path().string());
    resolved.own_keys[project] = std::move(own);
  }
  return resolved;
}

speech::ProviderKeys ProviderConfig::keys() const {
  speech::ProviderKeys keys(key);
  keys.own = own_keys;
  return keys;
}

}  // namespace parley::gateway
