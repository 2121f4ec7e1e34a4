#pragma once
// Speech to text: what a recogniser looks like to a gateway.
#include <absl/status/statusor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "speech/caller.h"
#include "speech/words.h"

namespace parley::speech {

inline constexpr size_t kMaxGrammarBytes = 64 << 10;

struct SttConfig {
  std::string engine;
  std::string model;
  std::string language;              // BCP 47; empty = the engine's default
  std::string grammar;               // JSGF, at most kMaxGrammarBytes; empty = free speech
  std::vector<std::string> phrases;  // hints: phrases that are likely to be said
  std::map<std::string, std::string> options;
  bool interim_results = false;
  Caller caller;
};

struct SttTranscript {
  std::string text;  // may be empty: nothing was understood
  std::vector<WordTime> words;
  float confidence = 0;  // 0 to 1; 0 = unknown
  std::string language;
  uint64_t utterance = 0;  // finals: as given to EndUtterance
};
struct SttPartial {
  SttTranscript transcript;  // replaces the partial before it
};
struct SttFinal {
  SttTranscript transcript;
};
// What the recogniser makes of the sound itself; not all say it.
struct SttActivity {
  bool speech = false;  // it began; otherwise a pause that is taken for its end
  int32_t at_ms = 0;    // from the start of the stream's audio
};
// The stream is dead; last event. Unavailable: open another. ResourceExhausted: the engine could
// not keep up or broke a limit.
struct SttFailed {
  absl::Status status;
};
using SttEvent = std::variant<SttPartial, SttFinal, SttActivity, SttFailed>;

// Called on a thread of the engine, one event after another; must not block and must not destroy
// the stream. Never called after the stream's destructor has returned.
using SttSink = std::function<void(SttEvent)>;

// One listening session. Calls come from one thread at a time, return within a few milliseconds
// (they queue, bounded) and keep their order. Destroying the stream frees its resources at once.
class SttStream {
 public:
  virtual ~SttStream() = default;

  // Mono PCM16 at the engine's sample_rate_hz; any length.
  //   ResourceExhausted  more than the engine can catch up with; the stream is dead
  virtual absl::Status Write(std::span<const int16_t> samples) = 0;
  // Asks for the final of what was heard since the last one: exactly one SttFinal answers each
  // call.
  virtual absl::Status EndUtterance(uint64_t utterance) = 0;
  // Forgets the audio since the last final; answers nothing.
  virtual absl::Status Reset() = 0;
};

struct SttEngineInfo {
  std::string name;
  std::string description;
  std::vector<std::string> languages;  // BCP 47
  bool streaming = true;               // sends partials
  bool embedded = false;               // needs no key and no network
  int sample_rate_hz = 16000;          // what SttStream::Write takes
};

// Thread-safe. Must outlive its streams.
class SttEngine {
 public:
  virtual ~SttEngine() = default;
  virtual const SttEngineInfo& info() const = 0;

  // Blocks until the recogniser is ready (its process forked, its grammar compiled, its connection
  // open), at most the engine's own deadline: never on an event loop or in a gRPC reaction.
  //   InvalidArgument    the config, the grammar or a word in it; the text names what
  //   ResourceExhausted  no free recogniser; metadata retry_after_ms
  //   Unavailable        the engine cannot serve now; try the next one of the chain
  virtual absl::StatusOr<std::unique_ptr<SttStream>> Open(const SttConfig& config,
                                                          SttSink sink) = 0;
};

}  // namespace parley::speech
