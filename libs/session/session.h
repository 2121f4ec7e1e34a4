#pragma once
// The conversation engine: who listens, thinks and speaks when. Pure: no threads, no I/O, no clock.
// Events come in with their times, commands come out; the same events at the same times make the
// same commands.
//
//   session.Handle(event::Joined{people}, now_us);
//   for (Command& command : session.Take()) Do(command);
//   wait until session.deadline_us() or the next event; session.Tick(now_us); …
//
// One thread. Times are microseconds of one monotonic clock; a time before an earlier one counts as
// that one.
#include <absl/status/status.h>

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "session/commands.h"
#include "session/events.h"
#include "session/hearing.h"
#include "session/history.h"
#include "session/patience.h"
#include "session/recording.h"
#include "session/speech.h"
#include "session/types.h"

namespace parley::session {

class Session {
 public:
  Session(Options options, Character character);
  // With several agents; the first of them begins.
  Session(Options options, std::vector<Character> agents);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // Writes down all that comes and, at the end, a sum of what was decided. Before anything else;
  // the recorder outlives the session.
  void RecordTo(Recorder* recorder);

  // Takes up where an earlier attempt left off: history, user data, nobody greeted twice, and a
  // question that was left unanswered gets its answer. Before Start.
  //   InvalidArgument  not a checkpoint; the session is as new
  absl::Status Restore(std::string_view checkpoint);

  void Start(int64_t now_us);
  void Handle(const Event& event, int64_t now_us);
  void Tick(int64_t now_us);
  // When Tick should be called, at the latest; INT64_MAX: only events matter.
  int64_t deadline_us() const;
  // The commands since the last call.
  std::vector<Command> Take();

  // Nobody speaks, thinks or owes an answer: a good moment to be handed over.
  bool at_rest() const;
  // What Restore takes, as of now.
  std::string Checkpoint() const;

  AgentState state() const { return state_; }
  bool ended() const { return ended_; }
  const History& history() const { return history_; }
  const Usage& usage() const { return usage_; }
  const std::string& user_data() const { return user_data_; }
  // The name of the agent that has the conversation.
  const std::string& agent() const { return character().name; }

 private:
  enum class Engine { kStt, kLlm, kTts };
  // A turn of a model that hears: which utterances it was, and where the history keeps their words.
  struct HeardTurn {
    uint64_t first = 0;
    uint64_t last = 0;
    uint64_t item = 0;
  };
  // The next agent, and what it takes over of the turn in which that was decided.
  struct Handoff {
    std::string to;
    bool answers = false;  // a turn is open: it says something at once
    std::string turn_id;
    AnswerTimes times;
    bool reported = false;
    int rounds = 0;
    SwitchKind how = SwitchKind::kHandOver;
  };
  // An agent that waits for the end of a task, and its answer whose tool began it; null: none did.
  struct Suspended {
    size_t agent = 0;
    std::unique_ptr<Speech> speech;
  };
  // What an agent that takes over is told of what was said before, while its model makes it.
  struct Summary {
    uint32_t stream = 0;
    uint64_t item = 0;  // the handoff, in the history
    int64_t asked_us = 0;
    std::string text;
  };

  void On(const event::Joined& joined);
  void On(const event::PersonJoined& joined);
  void On(const event::PersonLeft& left);
  void On(const event::OutputSubscribed& subscribed);
  void On(const event::RoomClosed& closed);
  void On(const event::Voice& voice);
  void On(const event::SttPartial& partial);
  void On(const event::SttFinal& final);
  void On(const event::SttActivity& activity);
  void On(const event::SttUsage& usage);
  void On(const event::SttFailed& failed);
  void On(const event::LlmText& text);
  void On(const event::LlmToolCall& call);
  void On(const event::LlmDone& done);
  void On(const event::LlmFailed& failed);
  void On(const event::LlmAudio& audio);
  void On(const event::ModelSpeech& speech);
  void On(const event::ModelTranscript& transcript);
  void On(const event::TtsAudio& audio);
  void On(const event::TtsSegmentDone& done);
  void On(const event::TtsClosed& closed);
  void On(const event::TtsFailed& failed);
  void On(const event::ToolDone& done);
  void On(const event::Played& played);
  void On(const event::Chat& chat);
  void On(const event::Dtmf& dtmf);
  void On(const event::Overheard& overheard);
  void On(const event::Say& say);
  void On(const event::GenerateReply& generate);
  void On(const event::Interrupt& interrupt);
  void On(const event::SetTurnDetection& set);
  void On(const event::CommitTurn& commit);
  void On(const event::ClearTurn& clear);
  void On(const event::TurnReviewed& reviewed);
  void On(const event::SetUserData& data);
  void On(const event::Shutdown& shutdown);
  void On(const event::AddAgent& add);
  void On(const event::SetAgent& set);
  void On(const event::SayMore& more);

  void RecordDecisions();
  void Advance();
  void CheckLimits();
  // Watching over the stages (session_watchdog.cc).
  struct Wait {
    Stage stage = Stage::kModel;
    int64_t since_us = 0;  // in silence
    int64_t asked_us = 0;  // since when it owes what it is waited for
    std::string detail = {};
    // The same thing is waited for, perhaps in another silence.
    bool Is(const Wait& other) const { return stage == other.stage && asked_us == other.asked_us; }
  };
  std::optional<Wait> AwaitedInSilence() const;
  void ConsiderSlow();
  int64_t SlowAt() const;
  bool SlowIsNamed() const;
  int64_t StuckAt() const;
  std::optional<Wait> Stuck() const;
  void GiveUp(const Wait& wait);
  int64_t PatienceUs(Stage stage) const;
  int64_t YieldAt() const;
  void ConsiderYield();
  void AskForAMoment(Stage stage);
  bool HasTheWord() const;
  void GiveUpOverdue(Speech& speech);
  void RecogniserStalled(const Turn& turn);
  void UpdateState();
  void UpdateUserState();
  int64_t AwayAt() const;
  void LinkTo(const Person& person);
  void Unlink();
  // Counts an error of an engine; true when the session ended for it.
  bool Failed(Engine engine, const std::string& error);
  void End(EndReason reason, std::string error = {});
  void SaveCheckpoint();
  uint64_t AddItem(ChatItem item);

  // The user's turn.
  void ConsiderPause();
  void ConsiderCut();
  void ConsiderResume();
  void TakeUserTurn();
  void Submit(Turn turn);
  void SubmitText(std::string text);
  void ConsiderKeys();
  void ConsiderReview();
  void Commit(const Turn& turn, std::string instructions = {});
  bool EnoughWords() const;
  bool TurnWaits() const;
  bool OnlyBackchannel() const;
  void ConsiderDraft();
  void DropDraft();
  void Resume();

  // The agent's turn (session_speaking.cc).
  Speech& Enqueue(Speech speech);
  void DropQueue();
  void Discard(const Speech& speech);
  void Over(const Speech& speech, bool interrupted);
  std::vector<ChatItem> PromptFor(const Speech& speech) const;
  bool StartNext();
  void RequestAnswer(Speech& speech, std::vector<ChatItem> prompt);
  void AddText(Speech& speech, std::vector<std::string> sentences);
  void EndRound(Speech& speech);
  void CallTools(Speech& speech);
  const ChatItem* DoneBefore(const ChatItem& request) const;
  void ToolFinished(ToolRun& run, event::ToolDone done);
  void ToolsDone(Speech& speech);
  // With a model that hears and speaks (session_realtime.cc).
  void BriefModel();
  void CommitHeard(const Turn& turn, bool goes_on);
  bool IsNoTurn(const Turn& turn) const;
  std::string WordsOf(const HeardTurn& turn) const;
  void RequestSpoken(Speech& speech, std::string instructions, bool allow_tools);
  void SayByModel(Speech& speech);
  void AddSpoken(Speech& speech);
  void SpeakAside(Speech& speech);
  void DropAside(Speech& speech);
  void RoundOver(Speech& speech);
  void CutSpoken(Speech& speech);
  void ModelLost(const std::string& error);
  void ApologiseLater(Speech& speech);
  // Handing over (session_agents.cc).
  void PrepareHandoff(Speech& speech, ToolRun run);
  bool SwitchAgent();
  void ForgetAnswersBegun();
  void ConsiderSuspending();
  bool EndTask();
  void DropSuspended();
  void AskSummary(uint64_t item);
  void SummaryMade(std::string text);
  int64_t SummaryDue() const;
  bool WaitsForSummary() const;
  void Enter(const Handoff& handoff);
  const Character& character() const { return agents_[agent_]; }
  size_t IndexOf(std::string_view agent) const;
  std::string AgentLabel() const;
  void Pump();
  void SendText(Speech& speech);
  int64_t FillerAt(const Speech& speech, const ToolRun& run) const;
  void ConsiderFiller(Speech& speech);
  void AddAside(Speech& speech, std::string text);
  void ModelMoved(Speech& speech);
  void TextOver(Speech& speech);
  void StartPlaying(Speech& speech);
  void Apologise(Speech& speech);
  void Finish();
  void Cut();
  void StopEngines(Speech& speech);
  void Remember(Speech& speech, bool interrupted);
  void ShowText(Speech& speech, std::string delta, bool final);
  void Report(const Speech& speech, bool interrupted);
  bool OutputReady() const;
  Speech* OfLlm(uint32_t stream);
  Speech* OfTts(uint32_t stream);

  Recorder* recorder_ = nullptr;  // null: nothing is recorded
  size_t recorded_ = 0;           // of out_
  const Options options_;
  std::vector<Character> agents_;     // at least one
  size_t agent_ = 0;                  // which of them has the conversation
  std::optional<Handoff> next_;       // once nothing is being said
  std::vector<Suspended> suspended_;  // the innermost task's last
  std::optional<Summary> summary_;    // while it is made
  std::optional<Wait> told_slow_;     // what was named last
  std::optional<Wait> yielded_;       // what the caller was last given the word for
  int64_t held_us_ = 0;               // when they were last asked for a moment
  Patience model_patience_;
  Patience voice_patience_;
  std::vector<Command> out_;
  int64_t now_us_ = 0;
  int64_t started_us_ = 0;

  Hearing hearing_;
  History history_;
  Usage usage_;
  std::string user_data_;
  std::vector<Person> people_;
  std::string linked_;   // identity; empty: nobody
  std::string greeted_;  // identity
  bool restored_ = false;
  bool joined_ = false;
  bool subscribed_ = false;
  int64_t linked_us_ = 0;

  uint64_t overheard_ = 0;  // the latest item of somebody else's
  std::string keys_;        // pressed, and not taken as a turn yet
  int64_t keys_us_ = 0;

  // The turn that the program looks at.
  std::optional<Turn> reviewed_;
  uint64_t reviews_ = 0;   // the latest
  int64_t review_us_ = 0;  // when it is over

  // Of a model that hears and speaks.
  std::deque<ChatItem> untold_;           // items that it does not know yet; bounded
  std::map<uint64_t, std::string> said_;  // transcripts, by utterance
  std::deque<HeardTurn> heard_;           // the latest

  std::unique_ptr<Speech> active_;
  // The answer to a turn that is not taken yet, being made; and what it was asked.
  std::unique_ptr<Speech> draft_;
  std::vector<ChatItem> draft_prompt_;
  std::string draft_text_;  // the transcript it answers
  int drafts_ = 0;          // of this turn
  std::deque<Speech> queue_;
  bool paused_ = false;
  AgentState state_ = AgentState::kInitializing;
  UserState user_state_ = UserState::kListening;
  int64_t silent_since_us_ = 0;  // both
  int errors_[3] = {0, 0, 0};
  int64_t error_us_[3] = {0, 0, 0};  // when one last counted
  uint64_t turns_ = 0;
  uint64_t speeches_ = 0;
  uint64_t segments_ = 0;
  uint32_t streams_ = 0;  // of models and voices
  uint32_t calls_ = 0;
  std::optional<event::Shutdown> closing_;
  int64_t close_us_ = 0;
  bool ended_ = false;
};

}  // namespace parley::session
