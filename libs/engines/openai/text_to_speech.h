#pragma once
#include <absl/time/time.h>

#include <string>
#include <string_view>
#include <vector>

#include "http/client.h"
#include "speech/provider_keys.h"
#include "speech/tts.h"

namespace parley::engines {

// Where the provider is and how long it may take: set by the operator, never by a definition.
struct OpenAiTtsOptions {
  std::string base_url = "https://api.openai.com/v1";
  speech::ProviderKeys keys;
  std::string default_model;  // for voices that name none
  std::string default_voice;
  // A slow provider in good health sends its first byte within 0.8 s; twice that is no health.
  absl::Duration first_audio_timeout = absl::Milliseconds(1600);
  // Between two pieces. Providers make speech faster than it is heard.
  absl::Duration stall_timeout = absl::Seconds(1);
  absl::Duration timeout = absl::Minutes(1);  // for one sentence
};

// Any server that speaks OpenAI's /audio/speech with response_format pcm (24 kHz, 16 bits, mono),
// streamed. No word times. Option `model` names the model; pitch cannot be changed. An answer
// without audio is a failure, whatever its status says.
class OpenAiTts : public speech::TtsEngine {
 public:
  explicit OpenAiTts(OpenAiTtsOptions options);

  std::string_view name() const override { return "openai"; }
  bool embedded() const override { return false; }
  std::string version() const override {
    return options_.base_url + "|" + options_.default_model + "|" + options_.default_voice;
  }
  std::vector<speech::TtsVoiceInfo> Voices() const override;
  absl::StatusOr<std::unique_ptr<speech::TtsStream>> Open(const speech::TtsConfig& config) override;

 private:
  class Stream;

  const OpenAiTtsOptions options_;
  http::Client client_;
};

}  // namespace parley::engines
