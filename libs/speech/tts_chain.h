#pragma once
// A fallback chain of voices that looks like one and does not end when one of them does.
#include <absl/status/statusor.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "audio/resample.h"
#include "base/clock.h"
#include "speech/breakers.h"
#include "speech/chain_errors.h"
#include "speech/engines.h"
#include "speech/tts.h"

namespace parley::speech {

// When a voice fails inside a sentence, the next one of the chain says the rest of it, from the
// first word that was not handed out whole: nothing is said twice, no word is lost. For that, while
// there is another voice to go to, the audio of a word is held back until all of it is there. A
// voice that gives no word times is believed to speak at kWordsPerMinute.
//
// After a voice further down has served, the preferred one is tried again at the next sentence, as
// soon as its breaker allows it. Belongs to one thread at a time.
class TtsChain {
 public:
  // Audiobooks are read at 150 to 160.
  static constexpr int kWordsPerMinute = 155;

  struct Options {
    std::vector<TtsConfig> voices;  // in order of preference; at least one
    // Rescues inside one sentence, at most.
    int max_rescues = 3;
    // `engine` speaks from here on. `failed`: why the one before it, or a preferred one, does not;
    // OK when the first of the chain opened at once and when a preferred one is back.
    std::function<void(const std::string& engine, const absl::Status& failed)> serves;
  };

  // The tables outlive the chain.
  TtsChain(const EngineTable<TtsEngine>& engines, Breakers& breakers, Options options);

  // Opens the first voice that will. May block. Errors: those of ChainErrors::Result().
  absl::Status Open();

  // Of the first voice that served; those after it are resampled. Valid after Open().
  int sample_rate_hz() const { return sample_rate_hz_; }
  const std::string& engine() const { return engine_; }
  size_t serving() const { return index_; }  // its place in `voices`

  // As TtsStream::Speak; an error (but Cancelled) means that the whole chain has failed. Word times
  // count from the start of the sentence, whoever says it.
  absl::Status Speak(std::string_view sentence, const TtsSink& sink, const Cancellation& cancel);

 private:
  class Progress;

  // Changes nothing when it fails.
  absl::Status OpenOne(size_t index);
  void TryPreferred();
  std::string KeyOf(size_t index) const;
  bool embedded(size_t index) const;

  const EngineTable<TtsEngine>& engines_;
  Breakers& breakers_;
  const Options options_;

  std::string engine_;
  size_t index_ = 0;
  int sample_rate_hz_ = 0;
  std::unique_ptr<TtsStream> stream_;
  std::optional<audio::Resampler> resampler_;
};

}  // namespace parley::speech
