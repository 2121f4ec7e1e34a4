#pragma once
// A fallback chain of recognisers that looks like one and does not end when one of them does.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "audio/resample.h"
#include "base/clock.h"
#include "speech/breakers.h"
#include "speech/chain_errors.h"
#include "speech/engines.h"
#include "speech/pace.h"
#include "speech/stt.h"

namespace parley::speech {

// Audio since the last final is kept. When the engine that listens fails or stalls, the next one of
// the chain gets that audio and the questions that are still open, so that no word is lost and each
// EndUtterance still has its one final. After an engine further down has served, the preferred one
// is tried again between two utterances, as soon as its breaker allows it; should it fail, the
// utterance is not lost either.
//
// A remote engine that takes longer over a final than it usually does (Pace) plus kHedgeSlack gets
// a rival: the next engine of the chain hears the same and is asked the same, and whose final comes
// first serves from there on. So a slow engine in good health is not left, and one that is gone
// costs little.
//
// Belongs to one thread (or strand) at a time, its owner's: engines' events come on their own
// threads, and the owner carries them back here.
class SttChain {
 public:
  // A recogniser that hears an utterance anew needs most of the half second that a failure may
  // cost.
  static constexpr absl::Duration kHedgeSlack = absl::Milliseconds(100);

  struct Options {
    std::vector<SttConfig> engines;  // in order of preference; at least one
    int input_rate_hz = 16000;       // of what Write() takes; resampled for each engine
    // Bounds what is kept for a replay: 60 s at 16 kHz are 1.9 MB. Of a longer utterance, the end.
    absl::Duration keep = absl::Seconds(60);
    // An engine that was asked for a final and gave none for this long has stalled.
    absl::Duration final_timeout = absl::Seconds(5);
    // Engines opened for one utterance, at most: the first and as many rescues.
    int max_opens = 4;
    Pace* pace = nullptr;  // null: no rivals
  };
  struct Listener {
    // `engine` listens from here on. `failed`: why the one before it, or a preferred one, does not;
    // OK when the first of the chain opened at once and when a preferred one is back.
    std::function<void(const std::string& engine, const absl::Status& failed)> serves;
    // Partials, finals and activity. SttFailed once at most, as the last: no engine is left.
    std::function<void(SttEvent)> event;
    // Called on engines' threads: bring the event to the owner's, to OnEvent(), or drop it when the
    // chain is gone.
    std::function<void(uint64_t generation, SttEvent event)> deliver;
  };

  // The tables outlive the chain.
  SttChain(const EngineTable<SttEngine>& engines, Breakers& breakers, Clock& clock, Options options,
           Listener listener);

  // Opens the first engine that will. Blocks as SttEngine::Open does, for each that is tried.
  // Errors: those of ChainErrors::Result().
  absl::Status Open();

  // As those of SttStream, but an engine's failure is met here: an error means that the whole chain
  // has failed. They block only while another engine is opened.
  absl::Status Write(std::span<const int16_t> samples);
  absl::Status EndUtterance(uint64_t utterance);
  absl::Status Reset();
  // Events of engines that no longer serve are dropped.
  void OnEvent(uint64_t generation, SttEvent event);
  // For stalls: call about once a second, and when CheckAfter() says.
  void CheckStalled();
  // When a rival may be wanted, from now; InfiniteDuration: not for what is asked so far.
  absl::Duration CheckAfter() const;

  // Empty before Open().
  const std::string& engine() const { return ear_.engine; }

 private:
  struct Asked {  // an EndUtterance without its final
    uint64_t utterance = 0;
    uint64_t end = 0;  // position in the stream, in samples
    int64_t since_us = 0;
  };

  struct Ear {  // an open engine
    std::string engine;
    size_t index = 0;
    uint64_t generation = 0;
    std::unique_ptr<SttStream> stream;
    std::optional<audio::Resampler> resampler;
    uint64_t from = 0;  // where its own time began
  };

  // Changes nothing when it fails.
  absl::StatusOr<Ear> OpenEar(size_t index);
  absl::Status OpenOne(size_t index);
  // Goes on with another engine, and tells it what the last one had been told.
  absl::Status Replace(const absl::Status& failure);
  absl::Status Replay(Ear& ear);
  absl::Status Give(Ear& ear, std::span<const int16_t> samples);
  void Hedge();
  // The rival serves from here on.
  void Promote(const absl::Status& failure);
  absl::Duration Patience() const;
  void TryPreferred();
  void Forget(uint64_t until);
  std::string KeyOf(size_t index) const;
  bool embedded(size_t index) const;

  const EngineTable<SttEngine>& engines_;
  Breakers& breakers_;
  Clock& clock_;
  const Options options_;
  const Listener listener_;

  Ear ear_;                       // serves
  Ear rival_;                     // may serve soon; without a stream: none
  uint64_t last_generation_ = 0;  // given to an engine
  std::vector<int16_t> resampled_;
  std::vector<int16_t> kept_;  // what no final has answered for yet
  uint64_t kept_from_ = 0;     // its position in the stream
  uint64_t position_ = 0;      // of the next sample
  std::deque<Asked> asked_;
  ChainErrors errors_;   // since the last final
  int opens_ = 0;        // since the last final
  bool hedged_ = false;  // since the last final
  bool failed_ = false;
};

}  // namespace parley::speech
