#pragma once
// The words of a conversation. No protobuf here: adapters convert.
#include <absl/time/time.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace parley::session {

// Published as the participant attribute `lk.agent.state`, in lower case.
enum class AgentState { kInitializing, kIdle, kListening, kThinking, kSpeaking };
std::string_view Name(AgentState state);

enum class UserState { kListening, kSpeaking, kAway };
std::string_view Name(UserState state);

// One thing that was said or done, as the model sees it.
struct ChatItem {
  enum class Kind { kMessage, kToolCall, kToolResult, kHandoff };
  Kind kind = Kind::kMessage;
  std::string role;            // messages: system, user, assistant
  std::string text;            // messages; results: the output; handoffs: who left
  bool interrupted = false;    // messages: cut to what was heard
  std::string call_id;         // calls and results
  std::string name;            // calls and results: the tool; handoffs: who took over
  std::string arguments_json;  // calls
  bool is_error = false;       // results
  std::string summary;         // handoffs: what was said before, where who took over sees only that
  friend bool operator==(const ChatItem&, const ChatItem&) = default;
};

// For people and logs: "user: text", "assistant (cut): text", "call NAME {…}", "result NAME: text",
// "error NAME: text", "handoff NAME".
std::string LineOf(const ChatItem& item);

// A word of synthesised speech, counted from the start of its segment's audio.
struct WordTime {
  std::string word;
  int64_t start_us = 0;
  int64_t end_us = 0;
};

// Who counts as somebody to talk with: people and phone calls.
struct Person {
  std::string identity;
  std::string name;
};

// A tool the model may call. What it does is the business of who runs it.
struct ToolSpec {
  std::string name;
  absl::Duration timeout = absl::Seconds(10);
  // Said once the user has waited Options::filler_after for it in silence; empty: nothing. It is no
  // part of the history.
  std::string filler;
  // What has been done with the same arguments is done again only with kConfirmDuplicate.
  bool confirm_duplicates = false;
};
// The argument of a call, true, by which a model says that it means it.
inline constexpr char kConfirmDuplicate[] = "confirm_duplicate";

// What an agent that takes over sees of what was said before it did.
enum class Context {
  kWhole,
  kFresh,    // what the user said last
  kSummary,  // what the user said last, and a summary that its model makes first, in 4 s at most;
             // where that fails, everything
};
std::string_view Name(Context context);  // whole, fresh, summary

// Who speaks, and what it is told. A session has at least one, the first, and may be handed over
// among them: history, caller and limits stay, instructions, tools and voice change.
struct Character {
  std::string name;          // one of its own in the session
  std::string instructions;  // the system prompt
  // The first: said once to each person; empty: the agent waits. The others: said when they take
  // over; empty: they answer at once.
  std::string greeting;
  std::vector<ToolSpec> tools;
  std::string farewell;  // said before it hands over, where its answer says nothing
  // Whom it may hand over to. The model does so by calling HandoffTool(name), without arguments.
  std::vector<std::string> handoffs;
  Context context = Context::kWhole;  // and always what follows
};
std::string HandoffTool(std::string_view agent);

// How an agent comes to have the conversation.
enum class SwitchKind {
  kHandOver,
  kBeginTask,  // for a while: whoever had it waits, with what a tool of its answer is doing
  kEndTask,    // … and goes on
};

// What ends the user's turn.
enum class TurnDetection {
  kVad,       // silence
  kStt,       // no new words, whatever else there is to hear: for lines that are never silent
  kSemantic,  // silence, longer where the words so far do not sound finished
  kManual,    // the program, or the caller's own button
  kRealtime,  // the detection of a model that hears (Options::realtime)
};
std::string_view Name(TurnDetection detection);

// In which order what waits to be said is said: the higher first, in one priority the older first.
enum class Priority { kLow = 0, kNormal = 5, kHigh = 10 };

// How turns are taken and how long things may take. Durations count in the time that events carry.
struct Options {
  // Speech has begun once `min_speech` of the last 200 ms was speech, and is over after
  // `min_silence` without.
  absl::Duration min_speech = absl::Milliseconds(100);
  absl::Duration min_silence = absl::Milliseconds(450);
  absl::Duration preroll =
      absl::Milliseconds(400);  // audio from before the start that the recogniser gets too
  absl::Duration max_utterance = absl::Seconds(60);  // longer speech is cut into pieces

  TurnDetection turn_detection = TurnDetection::kVad;

  // One model hears and speaks, in place of recogniser, model and voice (kVad, kManual and
  // kRealtime only). A turn is over without its transcript, which comes when it comes; while the
  // agent speaks, less than `min_interruption` of speech is no turn. The model says what is to be
  // said word for word; a voice (TtsOpen) says `hold`, whole and before the model begins, or not at
  // all. No fillers, farewells, summaries, nothing asked ahead or reviewed; words count nowhere.
  bool realtime = false;

  // The turn is taken `min_delay` after the end of speech when its transcript is there, else when
  // it comes, at `max_delay` at the latest (with the partial transcript, if there is one).
  absl::Duration min_endpointing_delay = absl::Milliseconds(500);
  absl::Duration max_endpointing_delay = absl::Seconds(3);
  // The minimum follows the pauses this caller makes inside a turn: an exponential average with
  // this weight on what was before, never under the configured minimum or over the maximum.
  bool dynamic_endpointing = false;
  double endpointing_alpha = 0.9;
  // The model is asked as soon as the transcript is there, before the turn is taken; its answer is
  // thrown away when the user goes on. At most three times a turn.
  bool preemptive_generation = false;

  bool allow_interruptions = true;
  absl::Duration min_interruption =
      absl::Milliseconds(500);                           // speech as long as this pauses the agent
  int min_interruption_words = 0;                        // … and so many words, when more than 0
  absl::Duration resume_false_after = absl::Seconds(2);  // 0: the agent is cut, not paused
  // "mhm", "yeah", "okay" over the agent's speech neither stop it nor are they a turn; within
  // `backchannel_boundary` of its end they may be an answer, and are one.
  bool ignore_backchannels = true;
  absl::Duration backchannel_boundary = absl::Seconds(1);

  // The program looks at each turn before it is answered, for so long at most; then it is answered
  // as it is. 0: the program does not look.
  absl::Duration review_timeout = absl::ZeroDuration();

  // Keys pressed on a telephone are the user's turn, "pressed 42", once none came for so long, or
  // at "#". 0: they are the program's business alone.
  absl::Duration dtmf_pause = absl::Milliseconds(1500);

  // The agent only listens: what is said is history, nothing is greeted or answered. What the
  // program lets it say it says.
  bool listen_only = false;
  // Each turn is answered by itself: the model sees its instructions and what was said in it.
  bool turn_by_turn = false;

  int max_tool_steps = 3;
  bool close_on_disconnect = true;
  absl::Duration away_after = absl::Seconds(15);  // of both being silent; 0: the user is never away

  absl::Duration subscribe_wait =
      absl::Seconds(5);  // how long first words wait for somebody to receive them
  absl::Duration llm_timeout = absl::Seconds(15);   // request → first answer, and between pieces
  absl::Duration tts_timeout = absl::Seconds(10);   // text → first audio, and between pieces
  absl::Duration tool_timeout = absl::Seconds(10);  // of tools that name none
  absl::Duration filler_after = absl::Milliseconds(600);
  absl::Duration playout_timeout =
      absl::Milliseconds(1300);  // audio that is to be played → some is
  absl::Duration slow_after =
      absl::Seconds(1);  // a stage that the caller waits for is named; 0: never
  // Silence that a caller bears. After it the turn is given up: the caller has the word, and what
  // they say is answered without waiting for whatever stands still. Recogniser, model and voice
  // that took longer in this call, in good health, get half as much again as they took, 3 s at
  // most.
  //   voice         that has spoken before in this speech: the rest of the text is shown, not said
  //   recogniser    the turn is taken with the words so far, where there are any
  //   all the rest  may still bring what it was asked for, which is then said, until its own limit
  // At least `slow_after`. 0: nobody is given the word before a stage's own limit.
  absl::Duration patience = absl::Milliseconds(1300);
  // Said then, where the caller has heard nothing of the answer and something may still come. It is
  // no part of the history. Empty: nothing is said.
  std::string hold = "One moment, please.";
  // A stage that the caller waits for in silence is cancelled after this, whatever its own limit:
  // for calls in which a second of silence is worse than no answer. At least `slow_after`.
  absl::Duration max_stall = absl::InfiniteDuration();
  absl::Duration max_duration = absl::InfiniteDuration();
  // Of a kind in a row; the next one closes the session. Those within a second of one that counted
  // are the same trouble and do not count.
  int max_errors = 3;
  std::string apology = "I am sorry, something went wrong on my side. Please say that again.";
};

// Times the turn report is made of; see parley.job.v1.TurnReport. They sum to `total_us`.
struct TurnReport {
  std::string turn_id;
  int64_t endpointing_us = 0;
  int64_t transcript_us = 0;
  int64_t llm_us = 0;
  int64_t tts_us = 0;
  int64_t output_us = 0;
  int64_t total_us = 0;
  bool interrupted = false;
  int tool_calls = 0;
};

struct Usage {
  int turns = 0;
  int64_t input_tokens = 0;
  int64_t output_tokens = 0;
  int64_t tts_characters = 0;
  int64_t stt_audio_us = 0;
};

// What the caller waits for in silence.
enum class Stage { kRecogniser, kModel, kTool, kVoice, kPlayout, kProgram };
std::string_view Name(Stage stage);

// Why a session is over.
enum class EndReason {
  kParticipantsLeft,
  kRoomClosed,
  kShutdown,
  kTerminated,
  kDrained,
  kLimit,
  kReplaced,
  kError
};
std::string_view Name(EndReason reason);

}  // namespace parley::session
