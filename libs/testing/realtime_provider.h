#pragma once
// A server of the realtime protocol for tests: a real WebSocket, real audio, and a check of every
// message that it gets, as strict as the documents are.
#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace parley::testing {

class RealtimeProvider {
 public:
  static constexpr int kRateHz = 24'000;

  // What it knows when it is to answer.
  struct Asked {
    int response = 0;               // counts from 1, over all sessions
    std::vector<std::string> said;  // new since the last answer: texts, "audio" for speech
    nlohmann::json outputs;         // new results of functions, by call id
    std::string instructions;       // of this response; empty: the session's hold
    nlohmann::json session;         // as configured
    std::vector<int16_t> heard;     // audio committed since the last answer
  };
  struct Call {
    std::string name;
    std::string arguments_json;
  };
  struct Answer {
    std::string text;
    std::vector<int16_t> samples;  // what it says, kRateHz
    std::vector<Call> calls;
    std::string fails;      // the response fails with this message
    bool hangs_up = false;  // after the first piece of audio
    bool silent = false;    // nothing comes, not even the end
    double speed = 20;      // audio is made so many times as fast as it is played
  };
  using Script = std::function<Answer(const Asked&)>;

  struct Options {
    std::string key = "secret-key";
    std::string transcript = "what was said";  // of any speech; the detection is by loudness
    int transcript_after_ms = 30;              // … after the commit
    bool old_names = false;                    // events as in the protocol's first version
  };
  RealtimeProvider(Options options, Script script);
  explicit RealtimeProvider(Script script);
  ~RealtimeProvider();

  std::string url() const;  // "http://127.0.0.1:port/v1"
  // Where PARLEY_REALTIME_DUMP names a file, each message is appended to it as it came, one a line.
  // Messages that a real server would have refused, and why; empty is good.
  std::vector<std::string> violations() const;
  // Every message, but for the audio in it, in order; `audio_ms` stands for that.
  std::vector<nlohmann::json> received() const;
  std::vector<nlohmann::json> received(const std::string& type) const;
  int sessions() const;  // that were opened
  void HangUp();         // on all

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace parley::testing
