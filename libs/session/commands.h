#pragma once
// What a session wants done, in the order in which it wants it.
#include <absl/time/time.h>

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "session/types.h"

namespace parley::session::command {

// ---- hearing ----
// Take the audio of this person; empty: of nobody.
struct Link {
  std::string identity;
};
struct SttOpen {
  uint32_t stream = 0;
  // Of a model that hears and speaks: what it is told, instructions first, and who it is.
  std::vector<ChatItem> items = {};
  std::string agent = {};
};
// Feed the recogniser from now on, beginning with the last `preroll` of audio.
struct SttStart {
  uint32_t stream = 0;
  absl::Duration preroll;
};
// Stop feeding and ask for the final of `utterance`.
struct SttEnd {
  uint32_t stream = 0;
  uint64_t utterance = 0;
};
struct SttClose {
  uint32_t stream = 0;
};

// ---- thinking ----
// A turn was taken: the program may look at it before it is answered (Options::review_timeout) and
// says so with event::TurnReviewed. Replaces a review that has no answer yet, with what both say.
struct ReviewTurn {
  uint64_t review = 0;  // rises
  std::string text;
};
struct LlmChat {
  uint32_t stream = 0;
  std::string turn_id;
  std::vector<ChatItem> items;
  bool allow_tools = true;
  absl::Duration timeout;
  std::string agent;  // whose model it is; empty: there is only one
};
// Lets a model that hears and speaks answer. Answered by LlmText, LlmAudio, LlmToolCall and at last
// LlmDone or LlmFailed, of `stream`.
struct Respond {
  uint32_t stream = 0;
  uint64_t speech = 0;  // the audio is of this one
  std::string turn_id;
  std::vector<ChatItem> items;  // what it does not know yet
  std::string instructions;     // beside its own, for this answer
  bool allow_tools = true;
  bool first = true;  // of the speech: its audio begins anew
};
// What a model was fed since the last SttEnd does not count, nor do utterances from `from` on. Feed
// it no more.
struct SttForget {
  uint32_t stream = 0;
  uint64_t from = 0;
};
// The user has heard so much of that answer's audio, the model need not remember the rest.
struct Truncate {
  uint32_t stream = 0;
  int64_t heard_us = 0;
};
struct LlmCancel {
  uint32_t stream = 0;
};
struct CallTool {
  uint32_t call = 0;
  std::string name;
  std::string arguments_json;
  absl::Duration timeout;
  std::string agent;  // whose tool it is; empty: there is only one agent
};
struct CancelTool {
  uint32_t call = 0;
};

// ---- speaking ----
struct TtsOpen {
  uint32_t stream = 0;
  uint64_t speech = 0;
  std::string turn_id;
  std::string agent;  // whose voice it is; empty: there is only one agent
};
// Speak `text` as segment `segment`, which ends with it.
struct TtsText {
  uint32_t stream = 0;
  uint64_t segment = 0;
  std::string text;
};
// Take the program's own audio for this segment, all of it: it needs no voice. Answered as if a
// voice had spoken, with TtsAudio and TtsSegmentDone.
struct TakeClip {
  uint32_t stream = 0;
  uint64_t speech = 0;
  uint64_t segment = 0;
  uint64_t clip = 0;
};
struct TtsFinish {
  uint32_t stream = 0;
};
struct TtsCancel {
  uint32_t stream = 0;
};
// The output plays what comes for `speech`, as it comes. Until then its audio is kept.
struct PlayStart {
  uint64_t speech = 0;
};
struct PlayPause {};
struct PlayResume {};
// Forget what is not yet played.
struct PlayClear {};

// ---- showing ----
struct SetState {
  AgentState state = AgentState::kInitializing;
};
struct SetUserState {
  UserState state = UserState::kListening;
};
// Everything heard so far in this segment; replaces what was sent for it before.
struct UserText {
  std::string segment_id;
  std::string text;
  bool final = false;
};
// A further piece of what the agent says, as it is heard.
struct AgentText {
  std::string segment_id;
  std::string delta;
  bool final = false;  // the segment is over
};
struct ItemAdded {
  ChatItem item;
};
// The conversation was handed over; the one who leaves has said all it had to say.
struct AgentChanged {
  std::string from;
  std::string to;
  SwitchKind how = SwitchKind::kHandOver;
};
struct TurnDone {
  TurnReport report;
};
// A speech with a handle is over: said, cut, or dropped before it began.
struct SpeechDone {
  uint64_t handle = 0;
  bool interrupted = false;
  std::string heard;  // what the user has heard of it
};
struct FalseInterruption {
  bool resumed = true;
};
// The caller waits in silence for a stage that does not move. First it is named; then its turn is
// given up: the caller has the word (Options::patience).
struct Stalled {
  Stage stage = Stage::kModel;
  absl::Duration waited;
  bool given_up = false;
  std::string detail;  // tools: which
};
struct SaveCheckpoint {
  std::string blob;
};
struct Log {
  enum class Level { kInfo, kWarn, kError };
  Level level = Level::kInfo;
  std::string message;
  std::string detail;
};
// The session is over; nothing follows.
struct End {
  EndReason reason = EndReason::kShutdown;
  std::string error;
};

using Command =
    std::variant<Link, SttOpen, SttStart, SttEnd, SttClose, LlmChat, LlmCancel, CallTool,
                 CancelTool, TtsOpen, TtsText, TtsFinish, TtsCancel, PlayStart, PlayPause,
                 PlayResume, PlayClear, SetState, SetUserState, UserText, AgentText, ItemAdded,
                 TurnDone, SpeechDone, FalseInterruption, SaveCheckpoint, Log, End, AgentChanged,
                 Stalled, TakeClip, ReviewTurn, Respond, Truncate, SttForget>;

}  // namespace parley::session::command

namespace parley::session {
using command::Command;
}
