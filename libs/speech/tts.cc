#include "speech/tts.h"

#include <algorithm>

#include "base/status.h"

namespace parley::speech {

TtsConfig With(TtsConfig config, const Prosody& prosody) {
  if (prosody == Prosody()) return config;
  config.rate = std::clamp(config.rate * prosody.rate, kSlowest, kFastest);
  config.pitch = std::clamp(config.pitch * prosody.pitch, kSlowest, kFastest);
  return config;
}

absl::Status CheckTtsConfig(const TtsConfig& config) {
  // Written so that NaN is refused too.
  if (!(config.rate >= kSlowest && config.rate <= kFastest))
    return InvalidArgument("rate {} is out of range: {} to {}", config.rate, kSlowest, kFastest);
  if (!(config.pitch >= kSlowest && config.pitch <= kFastest))
    return InvalidArgument("pitch {} is out of range: {} to {}", config.pitch, kSlowest, kFastest);
  return absl::OkStatus();
}

absl::Status UnknownVoice(std::string_view engine, std::string_view voice, std::string_view known) {
  return WithReason(NotFound("{} has no voice \"{}\"; it has: {}", engine, voice, known),
                    "UNKNOWN_VOICE",
                    {{"engine", std::string(engine)},
                     {"voice", std::string(voice)},
                     {"known", std::string(known)}});
}

}  // namespace parley::speech
