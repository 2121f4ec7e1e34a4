#pragma once
#include <absl/status/statusor.h>

#include <map>
#include <string>
#include <string_view>

#include "config/table.h"
#include "speech/provider_keys.h"
#include "speech_redis/budget.h"

namespace parley::gateway {

// Settings PREFIX.{max_streams, requests_per_minute, tokens_per_minute}.
void BindLimits(config::Table& table, std::string_view prefix, speech_redis::BudgetLimits& limits);

// A server that speaks Wyoming: KIND.wyoming.{address, …}.
struct WyomingConfig {
  std::string address;  // "" = there is no such engine
  speech_redis::BudgetLimits limits;

  void Bind(config::Table& table, std::string_view kind);
};

// How the settings of a provider are called and explained.
struct ProviderNames {
  std::string_view engine = "openai";
  std::string_view example = "https://api.openai.com/v1";
  std::string_view key_variable = "OPENAI_API_KEY";
};
inline constexpr ProviderNames kDeepgram = {"deepgram", "wss://api.deepgram.com/v1",
                                            "DEEPGRAM_API_KEY"};

// Where a remote provider is, as the operator says: settings KIND.ENGINE.{base_url, key, key_file,
// project_keys, model, max_streams, requests_per_minute, tokens_per_minute} of the gateway KIND
// (stt, tts, llm). The key comes from the environment or a file, never a flag, and is never logged.
struct ProviderConfig {
  std::string base_url;  // "" = there is no such engine
  std::string key;
  std::string key_file;
  std::string project_keys;  // folder: a file with a key for each project of its own
  std::map<std::string, std::string, std::less<>> own_keys;  // of projects; once resolved
  std::string model;                                         // of requests that name none
  speech_redis::BudgetLimits limits;  // what the provider allows for the key, to all replicas

  void Bind(config::Table& table, std::string_view kind, const ProviderNames& names = {});
  // With the keys read and no slash at the URL's end. Blocks on the disk.
  //   InvalidArgument  the key file or the folder cannot be read, a project's key is empty
  absl::StatusOr<ProviderConfig> Resolve(std::string_view kind) const;
  speech::ProviderKeys keys() const;
};

}  // namespace parley::gateway
