#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/mutex.h"
#include "speech/tts.h"

namespace parley::engines {

struct EspeakOptions {
  std::string binary = "espeak-ng";  // a path, or a name looked up in PATH
  absl::Duration sentence_timeout = absl::Seconds(10);
};

// espeak-ng as a child process per sentence (it is GPL-3 and one speaker per process, so nothing
// links it). More than a hundred languages, 22.05 kHz, formant sound, no word times. Voices are its
// own names ("en-us", "de", "en-gb-scotland"); default "en-us", or the language that was asked for.
// Options: none.
class EspeakEngine : public speech::TtsEngine {
 public:
  explicit EspeakEngine(EspeakOptions options = {});
  ~EspeakEngine() override;

  std::string_view name() const override { return "espeak"; }
  bool embedded() const override { return true; }
  // Asks the program once; empty when it is not installed. Blocks for some 10 ms the first time.
  std::vector<speech::TtsVoiceInfo> Voices() const override;
  // Unavailable when the program is not installed.
  absl::StatusOr<std::unique_ptr<speech::TtsStream>> Open(const speech::TtsConfig& config) override;

 private:
  absl::StatusOr<std::vector<speech::TtsVoiceInfo>> Known() const;

  const EspeakOptions options_;
  mutable Mutex mutex_;
  mutable std::vector<speech::TtsVoiceInfo> voices_ ABSL_GUARDED_BY(mutex_);  // once asked
};

// The table that `espeak-ng --voices` prints.
std::vector<speech::TtsVoiceInfo> ParseEspeakVoices(std::string_view table);

}  // namespace parley::engines
