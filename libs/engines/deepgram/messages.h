#pragma once
// What Deepgram's streaming recognition says over its WebSocket, from its documentation
// (developers.deepgram.com: reference/speech-to-text/listen-streaming, docs/finalize,
// docs/audio-keep-alive, docs/utterance-end, docs/speech-started).
#include <absl/status/statusor.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "speech/stt.h"

namespace parley::engines::deepgram {

struct Results {
  speech::SttTranscript transcript;  // of this piece of audio; words from the stream's start
  int64_t end_ms = 0;                // of the piece; 0 = not said
  bool final = false;                // it will not change any more
  bool finalized = false;            // all that was sent before a Finalize is answered
  bool speech_final = false;         // it ends in a pause
};
struct Message {
  enum class Kind { kResults, kSpeechStarted, kUtteranceEnd, kError, kOther };
  Kind kind = Kind::kOther;
  Results results;
  int64_t at_ms = 0;       // kSpeechStarted; kUtteranceEnd: where the last word ends
  std::string error;       // kError: names alone (speech/provider_words.h)
  std::string request_id;  // of the stream; empty: not said
};
//   Unavailable  not JSON, or nested deeper than any answer has reason to be
absl::StatusOr<Message> ParseMessage(std::string_view text);

// The URL of a stream of 16-bit mono samples. `base`: such as wss://api.deepgram.com/v1.
//   InvalidArgument  an option that does not exist here; more phrases than a URL can hold
absl::StatusOr<std::string> ListenUrl(const std::string& base, const std::string& model,
                                      const speech::SttConfig& config, int rate_hz);

inline constexpr std::string_view kFinalize = R"({"type":"Finalize"})";
inline constexpr std::string_view kKeepAlive = R"({"type":"KeepAlive"})";
inline constexpr std::string_view kCloseStream = R"({"type":"CloseStream"})";

}  // namespace parley::engines::deepgram
