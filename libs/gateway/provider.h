#pragma once
#include <absl/status/statusor.h>

#include <string>
#include <string_view>

#include "config/table.h"

namespace parley::gateway {

// Where a remote provider is, as the operator says: settings KIND.openai.{base_url, key, key_file,
// model} of the gateway KIND (stt, tts, llm). The key comes from the environment or a file, never a
// flag, and is never logged.
struct ProviderConfig {
  std::string base_url;  // "" = there is no such engine
  std::string key;
  std::string key_file;
  std::string model;  // of requests that name none

  void Bind(config::Table& table, std::string_view kind);
  // With the key read and no slash at the URL's end. Blocks on the disk.
  //   InvalidArgument  the key file cannot be read
  absl::StatusOr<ProviderConfig> Resolve(std::string_view kind) const;
};

}  // namespace parley::gateway
