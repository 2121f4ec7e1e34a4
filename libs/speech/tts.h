#pragma once
// Text to speech: what a voice looks like to a gateway.
#include <absl/status/statusor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "speech/caller.h"
#include "speech/cancel.h"
#include "speech/words.h"

namespace parley::speech {

struct TtsConfig {
  std::string engine;
  std::string voice;  // empty = the engine's default
  std::string language;
  double rate = 1;   // 0.5 (slow) to 2 (fast)
  double pitch = 1;  // 0.5 to 2, relative to the voice
  std::map<std::string, std::string> options;
  Caller caller;
};

inline constexpr double kSlowest = 0.5;  // of rate and pitch
inline constexpr double kFastest = 2;

// How a part of a text differs from the rest: times the config's own, within its ranges.
struct Prosody {
  double rate = 1;
  double pitch = 1;
  bool operator==(const Prosody&) const = default;
};
// The config of a voice that speaks so.
TtsConfig With(TtsConfig config, const Prosody& prosody);

// InvalidArgument when rate or pitch is out of range.
absl::Status CheckTtsConfig(const TtsConfig& config);
// NotFound with reason UNKNOWN_VOICE, naming the known ones.
absl::Status UnknownVoice(std::string_view engine, std::string_view voice, std::string_view known);

// Takes mono PCM16 at the stream's rate, with the words that begin in it, timed from the start of
// this Speak()'s audio. Returns false to stop. Called on the thread that called Speak(). Engines
// that wait for a server hand out nothing (no samples) every 50 ms while they do, so that whoever
// listens may give up.
using TtsSink =
    std::function<bool(std::span<const int16_t> samples, const std::vector<WordTime>& words)>;

// One speaker. Calls come from one thread at a time.
class TtsStream {
 public:
  virtual ~TtsStream() = default;
  virtual int sample_rate_hz() const = 0;

  // Speaks one sentence (plain text, at most kMaxSentenceBytes) and hands out audio as soon as it
  // exists. Blocks until all of it is made, the sink said stop, or `cancel` fired (then returns
  // Cancelled within about 10 ms).
  //   InvalidArgument  the engine cannot speak this text
  //   Unavailable      the engine failed; nothing or a part was spoken
  virtual absl::Status Speak(std::string_view sentence, const TtsSink& sink,
                             const Cancellation& cancel) = 0;
};

struct TtsVoiceInfo {
  std::string voice;
  std::string language;  // BCP 47
  int sample_rate_hz = 0;
  std::string description;
};

// Thread-safe. Must outlive its streams.
class TtsEngine {
 public:
  virtual ~TtsEngine() = default;
  virtual std::string_view name() const = 0;
  virtual bool embedded() const = 0;  // needs no key and no network
  // What else decides how a voice sounds: the program's version, a server's address.
  virtual std::string version() const { return {}; }
  virtual std::vector<TtsVoiceInfo> Voices() const = 0;

  // May block: never on an event loop or in a gRPC reaction.
  //   NotFound (reason UNKNOWN_VOICE, metadata `known`), InvalidArgument, Unavailable,
  //   ResourceExhausted
  virtual absl::StatusOr<std::unique_ptr<TtsStream>> Open(const TtsConfig& config) = 0;
};

}  // namespace parley::speech
