#pragma once
// Listening streams of recognisers that take each utterance whole, once it is over.
#include <absl/status/statusor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/executor.h"
#include "speech/cancel.h"
#include "speech/stt.h"

namespace parley::engines {

// What an engine needs besides asking its provider: audio is gathered, requests run on threads of
// its own (one stream's one after another, so that finals keep the order of their questions), and
// what comes after a stream's end is dropped. Thread-safe. Make it the engine's last member: it
// waits for its requests.
class UtteranceStreams {
 public:
  static constexpr int kRateHz = 16'000;  // of the audio

  // Writes what was said. Blocks; returns soon after `cancel` fired. `heard` is never empty.
  using Transcribe = std::function<absl::StatusOr<std::string>(const std::vector<int16_t>& heard,
                                                               const speech::Cancellation& cancel)>;

  // `max_requests`: under way at a time, a thread each.
  explicit UtteranceStreams(int max_requests);

  // `language` is said of each final.
  std::unique_ptr<speech::SttStream> Open(Transcribe transcribe, std::string language,
                                          speech::SttSink sink);

 private:
  class Stream;
  struct Line;  // what a stream and its requests share

  static void Answer(Line& line, uint64_t utterance, const std::vector<int16_t>& heard);

  Executor requests_;
};

}  // namespace parley::engines
