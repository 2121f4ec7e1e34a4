#pragma once
#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "session/commands.h"
#include "session/end_of_turn.h"
#include "session/gate.h"
#include "session/patience.h"
#include "session/types.h"

namespace parley::session {

// What the user said when the turn was taken, and when things happened.
struct Turn {
  std::string text;  // of a model that hears: empty, it comes later
  int64_t speech_end_us = 0;
  int64_t decided_us = 0;    // the endpointing delay had passed
  int64_t committed_us = 0;  // … and the transcript was there
  int64_t asked_us = 0;      // since when a final was owed that never came; 0: all came
  // Of a model that hears: the utterances it is made of, and how long they were.
  uint64_t first_utterance = 0;
  uint64_t last_utterance = 0;
  int64_t speech_us = 0;
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

  void OnVoice(bool speech, int64_t now_us, int64_t quiet_us = 0);
  // True when the transcript of the open turn has more text.
  bool OnPartial(uint32_t stream, const std::string& text, int64_t now_us);
  bool OnFinal(uint32_t stream, uint64_t utterance, const std::string& text, int64_t now_us);
  // The recogniser says itself when speech begins and is over. With kStt the turn ends no sooner
  // than it says so, half of the longest delay after the end of speech at the latest.
  void OnActivity(uint32_t stream, bool speech, int64_t now_us);
  // Of a model that hears (Options::realtime). True when it is about an utterance of this stream,
  // which then has its own number in `utterance`.
  void OnSpeech(uint32_t stream, bool started, uint64_t utterance, int64_t now_us);
  bool OnTranscript(uint32_t stream, uint64_t& utterance, const std::string& text, bool final);
  // True when it was the stream in use; what it had heard of the utterance is lost, its last
  // partial stands.
  bool OnFailed(uint32_t stream, int64_t now_us);

  // Whatever time brings: the end of speech without frames, the recogniser opened again.
  void Advance(int64_t now_us);
  // The user's turn, once it is over. An empty text: there was sound, and no words in it.
  std::optional<Turn> TakeTurn(int64_t now_us);
  void SetDetection(TurnDetection detection);
  TurnDetection detection() const { return detection_; }
  // The turn is over now; it is taken once its transcript is there.
  void Commit(int64_t now_us);
  // The agent began to answer: the pause before what the user says next tells how they speak.
  void OnAnswered(int64_t now_us) { answered_us_ = now_us; }
  // When Advance, and when TakeTurn, may have something to do.
  int64_t deadline_us() const;
  int64_t turn_deadline_us() const;

  bool open() const { return open_; }
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
  std::string Transcript() const;
  // Every final that was asked for in the open turn is in.
  bool complete() const { return answered_ == utterance_ || options_.realtime; }
  // Somebody speaks, or has just spoken and may have said something.
  bool busy() const {
    if (detection_ == TurnDetection::kManual) return false;
    if (detection_ == TurnDetection::kStt) return words() > 0;
    return gate_.speaking() || turn_open_;
  }
  // How long a silence ends the turn as it stands.
  int64_t delay_us() const { return delay_us_; }
  // Since when a final is owed, with nobody speaking; 0: none is.
  int64_t owed_since_us() const {
    return open_ && turn_open_ && !feeding_ && !complete() ? asked_us_ : 0;
  }
  // Since when it has not moved: words that come meanwhile are a sign of life.
  int64_t still_since_us() const { return owed_since_us() > 0 ? std::max(asked_us_, text_us_) : 0; }
  // When a final that is owed is overdue for who waits in silence; INT64_MAX: none is, or it is
  // still waited for whatever the silence (a turn that only the program ends).
  int64_t overdue_us() const;
  // The open turn has words of the utterance whose final is owed.
  bool has_partial() const { return partial_shown_ && !partial_.empty(); }
  // How much speech the open turn has, in utterances that are over.
  int64_t turn_speech_us() const { return turn_speech_us_; }
  // The recogniser gives no more finals: another one takes its place.
  void Replace(int64_t now_us);

 private:
  void Begin(int64_t now_us);
  void Hush(int64_t now_us);
  void End(int64_t now_us);
  void Started(int64_t now_us);
  void Judge();
  int64_t EndUs() const;
  int64_t LongestUs() const;
  int64_t PauseLimitUs() const { return LongestUs() / 2; }
  void ConsiderWordless(int64_t now_us);
  void ConsiderPause(int64_t now_us);
  bool AwaitsPause() const;
  void PauseMissed();
  int64_t WordlessUs() const;
  int64_t StuckUs() const;

  const Options& options_;
  std::vector<Command>& out_;
  SpeechGate gate_;
  uint32_t stream_ = 0;
  bool open_ = false;
  bool feeding_ = false;
  int64_t opened_us_ = 0;
  int64_t reopen_us_ = 0;
  int failures_ = 0;
  uint64_t utterance_ = 0;   // the latest
  uint64_t answered_ = 0;    // finals up to here are in, or given up
  uint64_t base_ = 0;        // of a model that detects: its numbers count from here
  uint64_t turn_first_ = 0;  // the first utterance of the open turn
  int64_t turn_speech_us_ = 0;
  bool partial_shown_ = false;
  bool turn_open_ = false;
  bool wordless_ = false;  // the utterance was ended while there is still sound
  std::string finals_;
  std::string partial_;
  int64_t final_us_ = 0;
  int64_t asked_us_ = 0;       // when a final was last asked for
  int64_t last_end_us_ = 0;    // of speech, before what is said now
  int64_t text_us_ = 0;        // when the transcript last had more words
  bool tells_pauses_ = false;  // the recogniser does
  bool missed_pause_ = false;  // … and has not told the last one
  int64_t pause_us_ = 0;       // when it told one, and no words since; 0: it has not
  Patience final_patience_;

  TurnDetection detection_;
  int64_t min_delay_us_;     // follows the speaker where it may
  int64_t delay_us_;         // of the turn as it stands
  int64_t commit_us_ = 0;    // when the program ended the turn; 0: it has not
  int64_t answered_us_ = 0;  // when the agent last began to answer
  int64_t turn_end_us_ = 0;  // end of speech of the last turn that was taken
};

}  // namespace parley::session
