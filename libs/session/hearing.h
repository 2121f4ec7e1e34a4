#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "session/commands.h"
#include "session/gate.h"
#include "session/types.h"

namespace parley::session {

// What the user said when the turn was taken, and when things happened.
struct Turn {
  std::string text;
  int64_t speech_end_us = 0;
  int64_t decided_us = 0;    // the endpointing delay had passed
  int64_t committed_us = 0;  // … and the transcript was there
};

// The listening half of a session: speech, its transcript and the end of the user's turn. Commands
// go to `out`, which outlives it.
class Hearing {
 public:
  // A stream that has lived so long works: its end is no sign of trouble.
  static constexpr int64_t kSettledUs = 60'000'000;

  Hearing(const Options& options, std::vector<Command>& out);

  // Opens the recogniser; again after it failed, with a pause that grows.
  void Open(int64_t now_us);
  void Close();
  // The person talked to changed or left: what was heard so far is void.
  void Reset();

  void OnVoice(bool speech, int64_t now_us);
  // True when the transcript of the open turn has more text.
  bool OnPartial(uint32_t stream, const std::string& text);
  bool OnFinal(uint32_t stream, uint64_t utterance, const std::string& text, int64_t now_us);
  // True when it was the stream in use; what it had heard of the utterance is lost, its last
  // partial stands.
  bool OnFailed(uint32_t stream, int64_t now_us);

  // Whatever time brings: the end of speech without frames, the recogniser opened again.
  void Advance(int64_t now_us);
  // The user's turn, once it is over. An empty text: there was sound, and no words in it.
  std::optional<Turn> TakeTurn(int64_t now_us);
  // When Advance, and when TakeTurn, may have something to do.
  int64_t deadline_us() const;
  int64_t turn_deadline_us() const;

  // How long the recogniser's stream has been open; 0: it is not.
  int64_t open_us(int64_t now_us) const { return open_ ? now_us - opened_us_ : 0; }
  bool speaking() const { return gate_.speaking(); }
  // How long the person has been speaking.
  int64_t speech_us() const {
    return gate_.speaking() ? gate_.last_speech_us() - gate_.start_us() : 0;
  }
  int64_t last_speech_us() const { return gate_.last_speech_us(); }
  bool turn_open() const { return turn_open_; }
  int words() const;  // in the open turn's transcript so far

 private:
  void Begin(int64_t now_us);
  void End(int64_t now_us);
  std::string Transcript() const;

  const Options& options_;
  std::vector<Command>& out_;
  SpeechGate gate_;
  uint32_t stream_ = 0;
  bool open_ = false;
  bool feeding_ = false;
  int64_t opened_us_ = 0;
  int64_t reopen_us_ = 0;
  int failures_ = 0;
  uint64_t utterance_ = 0;  // the latest
  uint64_t answered_ = 0;   // finals up to here are in, or given up
  bool partial_shown_ = false;
  bool turn_open_ = false;
  std::string finals_;
  std::string partial_;
  int64_t final_us_ = 0;
};

}  // namespace parley::session
