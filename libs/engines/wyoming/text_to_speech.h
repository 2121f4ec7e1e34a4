#pragma once
#include <absl/time/time.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "speech/tts.h"

namespace parley::engines {

// Where the server is and how long it may take: set by the operator, never by a definition.
struct WyomingTtsOptions {
  std::string address;        // host:port
  std::string default_voice;  // "" = the server's
  absl::Duration connect_timeout = absl::Seconds(1);
  // As for OpenAiTts: twice what a slow server in good health takes.
  absl::Duration first_audio_timeout = absl::Milliseconds(1600);
  absl::Duration stall_timeout = absl::Seconds(1);
};

// A voice server of Home Assistant's (Piper, Kokoro, …), spoken to in Wyoming over TCP: a
// connection for each sentence. Whatever rate it speaks at is brought to kRateHz. No word times,
// rate or pitch.
class WyomingTts : public speech::TtsEngine {
 public:
  static constexpr int kRateHz = 24'000;

  explicit WyomingTts(WyomingTtsOptions options) : options_(std::move(options)) {}

  std::string_view name() const override { return "wyoming"; }
  bool embedded() const override { return false; }
  std::string version() const override { return options_.address + "|" + options_.default_voice; }
  std::vector<speech::TtsVoiceInfo> Voices() const override;
  absl::StatusOr<std::unique_ptr<speech::TtsStream>> Open(const speech::TtsConfig& config) override;

 private:
  class Stream;
  const WyomingTtsOptions options_;
};

}  // namespace parley::engines
