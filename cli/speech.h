#pragma once
#include <absl/status/statusor.h>

#include <string>

#include "api.h"

namespace parley::cli {

// `text` as a WAV file's bytes, spoken by the cluster's text-to-speech gateway.
absl::StatusOr<std::string> Speak(Api& api, const std::string& text, const std::string& engine,
                                  const std::string& voice);

}  // namespace parley::cli
