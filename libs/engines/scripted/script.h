#pragma once
// What the scripted engines answer, and after which delays. For tests and benchmarks;
// deterministic.
//
//   {"stt": {"delay": "20ms", "partials": true,
//            "utterances": ["hello", "how much is a single room"]},
//    "tts": {"delay": "50ms", "sample_rate_hz": 24000, "per_character": "60ms", "tone_hz": 440},
//    "llm": {"delay": "100ms", "per_token": "10ms",
//            "answers": [{"when": "how much", "call": "room_rate", "arguments": {"room":
//            "single"}},
//                        {"when": "room_rate", "text": "It is 89 euros."},
//                        {"text": "Good day."}]}}
//
// All parts and fields are optional. `stt`: the n-th utterance of a stream is the n-th text, from
// the start again after the last; its final comes `delay` after it was asked for, and with
// `partials` one partial per word, 100 ms of audio apart. `tts`: a tone as long as the text,
// `delay` before its first sample; the audio then comes at once. `llm`: the first answer whose
// `when` is found (ignoring case) in the last item of the history (a message's text, the name of a
// tool whose result it is); words come `per_token` apart after `delay`. In its text "{earlier}" is
// what the user said before the last thing, "nothing" if that was the first.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <string>
#include <string_view>
#include <vector>

namespace parley::engines {

struct ScriptedAnswer {
  std::string when;  // empty = always
  std::string text;
  std::string call;  // a tool
  std::string arguments_json = "{}";
};

struct Script {
  struct Stt {
    absl::Duration delay;
    bool partials = false;
    std::vector<std::string> utterances = {"hello"};
  } stt;
  struct Tts {
    absl::Duration delay;
    int sample_rate_hz = 24000;
    absl::Duration per_character = absl::Milliseconds(60);
    double tone_hz = 440;
  } tts;
  struct Llm {
    absl::Duration delay;
    absl::Duration per_token;
    std::vector<ScriptedAnswer> answers = {{"", "All right.", "", "{}"}};
  } llm;

  // InvalidArgument names the field.
  static absl::StatusOr<Script> Parse(std::string_view json);
  static absl::StatusOr<Script> Load(const std::string& path);
};

}  // namespace parley::engines
