#pragma once
// A fallback chain of voices that looks like one and does not end when one of them does.
#include <absl/status/statusor.h>

#include <functional>
#include <map>
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
#include "speech/pace.h"
#include "speech/tts.h"

namespace parley::speech {

// When a voice fails inside a sentence, the next one of the chain says the rest of it, from the
// first word that was not handed out whole: nothing is said twice, no word is lost. For that, while
// there is another voice to go to, the audio of a word is held back until all of it is there.
//
// Where a voice without word times is in its sentence is found by laying what it said beside the
// same sentence as `reference` says it (align.h); without one it is believed to speak at
// kWordsPerMinute. Of its audio the listener gets kAhead more than is heard by now; the rest waits,
// so that a break can be moved to a border between two words, and to one that is surely there. When
// nothing comes for longer than this voice usually pauses, what is there is played up to such a
// border only, until more comes.
//
// Remote voices have failed when they take longer over their first audio than they usually do
// (Pace) plus kFirstSlack, or when the listener has heard all they sent for kDry: listeners notice
// silence, not slow servers. Both only while there is another voice to go to; the engines' own
// deadlines stand behind them.
//
// After a voice further down has served, the preferred one is tried again at the next sentence, as
// soon as its breaker allows it. Belongs to one thread at a time.
class TtsChain {
 public:
  // Audiobooks are read at 150 to 160.
  static constexpr int kWordsPerMinute = 155;
  // With what follows (finding the border, the next voice's first audio) they keep the silence that
  // a failure adds under half a second.
  static constexpr absl::Duration kFirstSlack = absl::Milliseconds(250);
  static constexpr absl::Duration kDry = absl::Milliseconds(200);
  static constexpr absl::Duration kAhead = absl::Milliseconds(300);

  struct Options {
    std::vector<TtsConfig> voices;  // in order of preference; at least one
    // Rescues inside one sentence, at most.
    int max_rescues = 3;
    Pace* pace = nullptr;            // null: the engines' own deadlines alone
    TtsEngine* reference = nullptr;  // an embedded one with word times
    Clock* clock = &Clock::Real();
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
  // count from the start of the sentence, whoever says it. A voice that cannot speak so (`prosody`)
  // speaks as it can.
  absl::Status Speak(std::string_view sentence, const TtsSink& sink, const Cancellation& cancel,
                     const Prosody& prosody = {});

 private:
  class Progress;
  struct Border;
  struct Reference;

  // Changes nothing when it fails.
  absl::Status OpenOne(size_t index);
  void TryPreferred();
  // `said`: all that it was asked to say, when it did.
  void LearnFrom(const Progress& progress, std::string_view said);
  // Where in `sentence` the next voice goes on; may hand out the rest of the last whole word.
  size_t Break(std::string_view sentence, Progress& progress, Reference& reference) const;
  // Where to stop, by what was heard of a voice without word times. Nullopt: it cannot be told.
  std::optional<Border> FindBorder(std::string_view sentence, const Progress& progress,
                                   Reference& reference) const;
  std::string KeyOf(size_t index) const;
  bool embedded(size_t index) const;

  const EngineTable<TtsEngine>& engines_;
  Breakers& breakers_;
  const Options options_;

  std::string engine_;
  size_t index_ = 0;
  int sample_rate_hz_ = 0;
  std::map<size_t, double> letter_ms_;  // by voice: how long a letter takes, lately
  std::map<size_t, int64_t> pause_us_;  // by voice: its longest pause inside a sentence, lately
  Prosody prosody_;                     // of stream_
  std::unique_ptr<TtsStream> stream_;
  std::optional<audio::Resampler> resampler_;
};

}  // namespace parley::speech
