#include "speech/tts.h"

#include "base/status.h"

namespace parley::speech {

absl::Status CheckTtsConfig(const TtsConfig& config) {
  constexpr double kLow = 0.5;
  constexpr double kHigh = 2;
  // Written so that NaN is refused too.
  if (!(config.rate >= kLow && config.rate <= kHigh))
    return InvalidArgument("rate {} is out of range: {} to {}", config.rate, kLow, kHigh);
  if (!(config.pitch >= kLow && config.pitch <= kHigh))
    return InvalidArgument("pitch {} is out of range: {} to {}", config.pitch, kLow, kHigh);
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
