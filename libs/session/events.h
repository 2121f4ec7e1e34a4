#pragma once
// What happens to a session. Every event carries its time with it (Session::Handle), so that the
// same events at the same times always make the same commands.
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "session/types.h"

namespace parley::session::event {

// The room was entered; `people` are those already there, in the order in which they came.
struct Joined {
  std::vector<Person> people;
};
struct PersonJoined {
  Person person;
};
struct PersonLeft {
  std::string identity;
  bool for_good = true;  // left, was removed; false: the connection was lost
};
// The first listener of the agent's own track is there.
struct OutputSubscribed {};
struct RoomClosed {
  EndReason reason = EndReason::kRoomClosed;
  std::string error;
};

// 20 ms of the linked person's audio, after voice detection.
// Its time is that of its end.
struct Voice {
  bool speech = false;
  // The end of the frame, and of its way here, in which there was nothing more of that speech.
  int64_t quiet_us = 0;
};

// The recogniser, on stream `stream`.
struct SttPartial {
  uint32_t stream = 0;
  std::string text;
};
struct SttFinal {
  uint32_t stream = 0;
  uint64_t utterance = 0;
  std::string text;  // may be empty
};
// What it makes of the sound itself, where it says so: speech begins, or is taken to be over. Who
// speaks on has words after it.
struct SttActivity {
  uint32_t stream = 0;
  bool speech = false;
};
struct SttUsage {
  uint32_t stream = 0;
  double audio_seconds = 0;
};
struct SttFailed {
  uint32_t stream = 0;
  std::string error;
};

struct LlmText {
  uint32_t stream = 0;
  std::string text;
};
struct LlmToolCall {
  uint32_t stream = 0;
  std::string call_id;
  std::string name;
  std::string arguments_json;
};
struct LlmDone {
  uint32_t stream = 0;
  int64_t input_tokens = 0;
  int64_t output_tokens = 0;
};
struct LlmFailed {
  uint32_t stream = 0;
  std::string error;
};

// Audio of a segment has come; the samples themselves go straight to the output.
struct TtsAudio {
  uint32_t stream = 0;
  uint64_t segment = 0;
  int64_t duration_us = 0;
  std::vector<WordTime> words;
};
struct TtsSegmentDone {
  uint32_t stream = 0;
  uint64_t segment = 0;
};
// The stream is over; to be expected once it was finished and all segments are done, else an error.
struct TtsClosed {
  uint32_t stream = 0;
};
struct TtsFailed {
  uint32_t stream = 0;
  std::string error;
};

struct ToolDone {
  uint32_t call = 0;
  std::string output;
  bool is_error = false;
  std::string handoff;  // the agent that goes on from here; empty: who called the tool
};

// So much audio of the speech that plays has been handed to the room, since its beginning.
struct Played {
  uint64_t speech = 0;
  int64_t position_us = 0;
};

// Text typed by somebody (topic lk.chat).
struct Chat {
  std::string identity;
  std::string text;
};

// A key of somebody's telephone.
inline constexpr std::string_view kDtmfKeys = "0123456789*#ABCD";
struct Dtmf {
  std::string identity;
  char key = '0';
};

// Somebody who is not talked to has said something: history, and no turn.
struct Overheard {
  Person person;
  std::string text;
};

// What the program asks for. `handle` is the program's own number for a speech, told again in
// command::SpeechDone; 0: it does not want to know.
struct Say {
  std::string text;
  bool allow_interruptions = true;
  uint64_t handle = 0;
  Priority priority = Priority::kNormal;
  bool more = false;  // SayMore follows, under this handle, which must not be 0
  uint64_t clip = 0;  // ready audio of the program's, whose words `text` are; 0: to be synthesised
};
// The next piece of a text that is said as it comes. Sentences are spoken once they are whole.
struct SayMore {
  uint64_t handle = 0;
  std::string text;
  bool last = false;
};
struct GenerateReply {
  std::string instructions;
  uint64_t handle = 0;
  Priority priority = Priority::kNormal;
  bool allow_interruptions = true;
};
// Cuts what is being said and drops what waits; with a handle, that speech alone.
struct Interrupt {
  uint64_t handle = 0;
};
struct SetTurnDetection {
  TurnDetection detection = TurnDetection::kVad;
};
// The user's turn is over, whatever the detection thinks: it is taken once its transcript is there.
struct CommitTurn {};
// What the user has said in this turn does not count.
struct ClearTurn {};
// What the program thinks of a turn that it was asked about (command::ReviewTurn). Of the latest
// one: an answer to an earlier question, or a late one, changes nothing.
struct TurnReviewed {
  uint64_t review = 0;
  std::string text;          // what the turn says from now on
  std::string instructions;  // for the answer to it alone
  bool answer = true;        // false: the turn does not count, and nothing is answered
};
struct SetUserData {
  std::string data;
};
// An agent that the session may be handed to from now on; replaces the one of its name.
struct AddAgent {
  Character character;
};
// This agent goes on, once what is being said has been said. It says its greeting; without one it
// waits.
//   kBeginTask  a tool that runs meanwhile does not hold it up: its answer waits for the task's end
//   kEndTask    goes back to who had the conversation when the task began; `name` is not looked at
struct SetAgent {
  std::string name;
  SwitchKind how = SwitchKind::kHandOver;
};
struct Shutdown {
  EndReason reason = EndReason::kShutdown;
  std::string error;
};

// Of a model that hears and speaks: audio of an answer (its words come as LlmText), what its
// detection says of the user's speech, and what the user has said.
struct LlmAudio {
  uint32_t stream = 0;
  int64_t duration_us = 0;
};
struct ModelSpeech {
  uint32_t stream = 0;  // of hearing
  bool started = false;
  uint64_t utterance = 0;  // of this stream, from 1
};
struct ModelTranscript {
  uint32_t stream = 0;
  uint64_t utterance = 0;  // as in SttEnd, with kRealtime as in ModelSpeech
  std::string text;        // all of it so far
  bool final = false;
};

using Event =
    std::variant<Joined, PersonJoined, PersonLeft, OutputSubscribed, RoomClosed, Voice, SttPartial,
                 SttFinal, SttUsage, SttFailed, LlmText, LlmToolCall, LlmDone, LlmFailed, TtsAudio,
                 TtsSegmentDone, TtsClosed, TtsFailed, ToolDone, Played, Chat, Say, GenerateReply,
                 Interrupt, SetTurnDetection, CommitTurn, ClearTurn, SetUserData, Shutdown,
                 AddAgent, SetAgent, SayMore, TurnReviewed, LlmAudio, ModelSpeech, ModelTranscript,
                 Dtmf, Overheard, SttActivity>;

}  // namespace parley::session::event

namespace parley::session {
using event::Event;
}
