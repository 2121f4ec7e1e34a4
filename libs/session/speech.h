#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "session/sentences.h"
#include "session/spoken_text.h"
#include "session/types.h"

namespace parley::session {

// A tool that an answer of the model asked for.
struct ToolRun {
  uint32_t call = 0;
  ChatItem request;
  ChatItem result;
  bool done = false;
  std::string handoff;  // to this agent, when it succeeds
  std::string filler;
  int64_t since_us = 0;                                       // it runs; 0: not yet
  int64_t deadline_us = std::numeric_limits<int64_t>::max();  // once it runs
};

// When the stages of an answer were reached; 0: not yet.
struct AnswerTimes {
  int64_t speech_end_us = 0;
  int64_t decided_us = 0;
  int64_t committed_us = 0;
  int64_t first_text_us = 0;
  int64_t first_audio_us = 0;
  int64_t first_frame_us = 0;
};

// One thing the agent says, from the wish to the last sample: a fixed text, or an answer of the
// model in one or more rounds (with tool calls between them).
struct Speech {
  uint64_t id = 0;
  bool answer = false;  // of the model; else `text`
  std::string text;
  std::string instructions;  // for this answer alone
  std::string turn_id;       // the user's turn that it answers; empty: none
  bool interruptible = true;
  uint64_t handle = 0;  // the program's; 0: none
  Priority priority = Priority::kNormal;
  uint64_t clip = 0;          // ready audio in place of a voice; 0: none
  bool more = false;          // the program has more of its text
  int64_t more_until_us = 0;  // … and is waited for until then; 0: it was not needed yet
  AnswerTimes times;

  // Making it.
  uint32_t llm_stream = 0;   // in flight; 0: none
  bool asked = false;        // the model was
  bool round_waits = false;  // of a draft: the model is done, its tools are not called yet
  int64_t llm_deadline_us = 0;
  int64_t llm_asked_us = 0;          // in flight, without a word yet; 0: not so
  int rounds = 0;                    // of tools, done
  int part = 0;                      // the current answer of the model
  std::vector<uint64_t> part_items;  // earlier parts' numbers in the history; 0: they had no text
  SentenceSplitter splitter;
  std::vector<ToolRun> tools;  // of this round
  int tool_calls = 0;
  bool filled = false;  // something was said while tools of this round ran
  bool text_complete = false;
  bool apology = false;
  bool answered = false;  // some of the model's own words were played
  bool hold = false;      // asks the caller for a moment while something else is waited for
  std::optional<ToolRun> handoff;  // to be done once this has been said
  bool reported = false;           // the turn: who handed over has answered it

  // Speaking it.
  SpokenText spoken;
  uint32_t tts_stream = 0;
  bool tts_finished = false;
  int64_t tts_deadline_us = 0;
  bool playing = false;
  int64_t moved_us = 0;  // playing: when there was last something new to play, or to be heard
  int64_t played_us = 0;
  bool shown = false;  // some of its text

  // Of a model that hears and speaks: its answers, each with where its audio begins in the
  // speech's.
  struct Round {
    uint32_t stream = 0;
    uint64_t segment = 0;  // 0: it has said nothing yet
    int64_t start_us = 0;
    int64_t audio_us = 0;
  };
  std::vector<Round> spoken_rounds;

  bool heard() const { return played_us > 0; }
  // … of a model that hears and speaks.
  bool heard_model() const {
    return std::any_of(spoken_rounds.begin(), spoken_rounds.end(), [this](const Round& round) {
      return round.segment != 0 && played_us > round.start_us;
    });
  }
  // There is audio that nobody has heard, and nothing but the playout is to bring it.
  bool owes_playing() const { return playing && played_us < spoken.audio_us(); }
  // Some of what was there before the last `added_us` is still to be played.
  bool owes_audio_before(int64_t added_us) const {
    return played_us < spoken.audio_us() - added_us;
  }
  // Answers to the user come before whatever the program wants to say.
  int rank() const {
    if (hold) return 101;
    return turn_id.empty() ? static_cast<int>(priority) : 100;
  }
};

// Parts that sum to the total.
TurnReport MakeReport(const Speech& speech, bool interrupted);

}  // namespace parley::session
