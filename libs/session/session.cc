#include "session/session.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <utility>

#include "base/check.h"
#include "base/status.h"
#include "base/strings.h"
#include "session/checkpoint.h"
#include "session/text.h"

namespace parley::session {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
// How long last words may take once the program has asked for the end.
constexpr int64_t kLastWordsUs = 15'000'000;
constexpr size_t kMaxUserDataBytes = size_t{32} * 1024;
constexpr size_t kMaxChatBytes = size_t{16} * 1024;
constexpr size_t kMaxStreamedBytes = size_t{32} * 1024;
constexpr size_t kMaxUntold = 64;

int64_t Micros(absl::Duration duration) { return absl::ToInt64Microseconds(duration); }

}  // namespace

Session::Session(Options options, Character character)
    : Session(std::move(options), std::vector<Character>{std::move(character)}) {}
Session::Session(Options options, std::vector<Character> agents)
    : options_(std::move(options)),
      agents_(std::move(agents)),
      model_patience_(options_.patience),
      voice_patience_(options_.patience),
      hearing_(options_, out_) {
  PARLEY_CHECK(!agents_.empty());
}
Session::~Session() = default;

void Session::RecordTo(Recorder* recorder) {
  recorder_ = recorder;
  recorder_->Begin(options_, agents_);
}

absl::Status Session::Restore(std::string_view checkpoint) {
  PARLEY_ASSIGN_OR_RETURN(session::Checkpoint saved, ParseCheckpoint(checkpoint));
  if (recorder_ != nullptr) recorder_->Restored(checkpoint);
  for (ChatItem& item : saved.items) history_.Add(std::move(item));
  user_data_ = std::move(saved.user_data);
  greeted_ = std::move(saved.greeted);
  turns_ = saved.turns;
  usage_ = saved.usage;
  if (const size_t agent = IndexOf(saved.agent); agent < agents_.size()) agent_ = agent;
  restored_ = true;
  return absl::OkStatus();
}

void Session::Start(int64_t now_us) {
  if (recorder_ != nullptr) recorder_->Started(now_us);
  now_us_ = started_us_ = now_us;
  out_.emplace_back(command::SetState{state_});
  hearing_.Open(now_us_);
  BriefModel();
  RecordDecisions();
}

void Session::Handle(const Event& event, int64_t now_us) {
  if (recorder_ != nullptr && !ended_) recorder_->Happened(event, now_us);
  now_us_ = std::max(now_us_, now_us);
  if (ended_) return;
  std::visit([this](const auto& one) { On(one); }, event);
  Advance();
  BriefModel();
  RecordDecisions();
}

void Session::Tick(int64_t now_us) {
  if (recorder_ != nullptr && !ended_) recorder_->Ticked(now_us);
  now_us_ = std::max(now_us_, now_us);
  Advance();
  BriefModel();
  RecordDecisions();
}

std::vector<Command> Session::Take() {
  recorded_ = 0;
  return std::exchange(out_, {});
}

// Whoever drives the session may take its commands late: they were decided now.
void Session::RecordDecisions() {
  if (recorder_ == nullptr) return;
  for (; recorded_ < out_.size(); ++recorded_) recorder_->Decided(now_us_, out_[recorded_]);
}

void Session::Advance() {
  // What is given up as soon as it is slow is named all the same.
  if (!ended_ && options_.max_stall != absl::InfiniteDuration()) ConsiderSlow();
  if (!ended_) CheckLimits();
  if (ended_) return;
  hearing_.Advance(now_us_);
  ConsiderKeys();
  ConsiderPause();
  TakeUserTurn();
  ConsiderReview();
  ConsiderDraft();
  ConsiderResume();
  ConsiderYield();
  Pump();
  ConsiderSuspending();
  while (active_ == nullptr && (SwitchAgent() || StartNext())) Pump();
  ConsiderSlow();
  const bool said_all = active_ == nullptr && !reviewed_ && (queue_.empty() || linked_.empty());
  if (closing_ && (said_all || now_us_ >= close_us_)) End(closing_->reason, closing_->error);
  if (ended_) return;
  UpdateState();
  UpdateUserState();
}

void Session::CheckLimits() {
  if (options_.max_duration != absl::InfiniteDuration() &&
      now_us_ - started_us_ >= Micros(options_.max_duration)) {
    return End(EndReason::kLimit,
               "the session reached its max_duration of " + DurationText(options_.max_duration));
  }
  if (active_ != nullptr) GiveUpOverdue(*active_);
  const std::optional<Wait> stuck = Stuck();
  if (now_us_ >= SummaryDue() || (summary_ && stuck && stuck->stage == Stage::kModel)) {
    GiveUp({Stage::kModel, summary_->asked_us, summary_->asked_us});
    SummaryMade("");
  }
}

int64_t Session::deadline_us() const {
  if (ended_) return kNever;
  int64_t deadline = hearing_.deadline_us();
  const auto at = [&deadline](int64_t one) { deadline = std::min(deadline, one); };
  if (!TurnWaits()) at(hearing_.turn_deadline_us());
  if (paused_ && !hearing_.speaking() && (!hearing_.turn_open() || TurnWaits())) {
    at(hearing_.last_speech_us() + Micros(options_.resume_false_after));
  }
  if (options_.max_duration != absl::InfiniteDuration())
    at(started_us_ + Micros(options_.max_duration));
  if (closing_) at(close_us_);
  if (reviewed_) at(review_us_);
  if (!keys_.empty()) at(keys_us_ + Micros(options_.dtmf_pause));
  if (user_state_ != UserState::kAway) at(AwayAt());
  at(SlowAt());
  at(StuckAt());
  at(YieldAt());
  at(SummaryDue());
  if (active_ == nullptr) return deadline;
  if (active_->llm_stream != 0) at(active_->llm_deadline_us);
  if (active_->tts_stream != 0 && !active_->spoken.all_done()) at(active_->tts_deadline_us);
  for (const ToolRun& run : active_->tools) {
    if (run.done) continue;
    at(run.deadline_us);
    at(FillerAt(*active_, run));
  }
  if (active_->more) at(active_->more_until_us);
  if (active_->owes_playing() && !paused_ && SlowIsNamed()) {
    at(active_->moved_us + Micros(options_.playout_timeout));
  }
  if (!active_->playing && active_->spoken.audio_us() > 0 && !subscribed_ && !OutputReady()) {
    at(linked_us_ + Micros(options_.subscribe_wait));
  }
  return deadline;
}

void Session::UpdateState() {
  AgentState state = AgentState::kListening;
  if (!joined_) {
    state = AgentState::kInitializing;
  } else if (linked_.empty()) {
    state = AgentState::kIdle;
  } else if (active_ != nullptr && !paused_) {
    const bool waits = active_->llm_stream != 0 || !active_->tools.empty();
    const bool silent = active_->played_us >= active_->spoken.audio_us();
    if (active_->playing && !(waits && silent)) {
      state = AgentState::kSpeaking;
    } else if ((active_->answer || !active_->turn_id.empty()) && !HasTheWord()) {
      state = AgentState::kThinking;
    }
  } else if ((reviewed_ || WaitsForSummary()) && !HasTheWord()) {
    state = AgentState::kThinking;
  }
  if (state == state_) return;
  state_ = state;
  out_.emplace_back(command::SetState{state});
}

void Session::UpdateUserState() {
  const bool silent = state_ == AgentState::kListening && !hearing_.speaking();
  if (!silent || silent_since_us_ == 0) silent_since_us_ = silent ? now_us_ : 0;
  UserState state = hearing_.speaking() ? UserState::kSpeaking : UserState::kListening;
  if (silent && now_us_ >= AwayAt()) state = UserState::kAway;
  if (state == user_state_) return;
  user_state_ = state;
  out_.emplace_back(command::SetUserState{state});
}

int64_t Session::AwayAt() const {
  if (silent_since_us_ == 0 || options_.away_after <= absl::ZeroDuration()) return kNever;
  return silent_since_us_ + Micros(options_.away_after);
}

// ---- the room ----

void Session::On(const event::Joined& joined) {
  joined_ = true;
  people_ = joined.people;
  if (linked_.empty() && !people_.empty()) LinkTo(people_.front());
}

void Session::On(const event::PersonJoined& joined) {
  std::erase_if(people_, [&](const Person& p) { return p.identity == joined.person.identity; });
  people_.push_back(joined.person);
  if (linked_.empty()) LinkTo(joined.person);
}

void Session::On(const event::PersonLeft& left) {
  std::erase_if(people_, [&](const Person& p) { return p.identity == left.identity; });
  if (left.identity != linked_) return;
  if (left.for_good && options_.close_on_disconnect) return End(EndReason::kParticipantsLeft);
  Unlink();
  if (!people_.empty()) LinkTo(Person(people_.front()));
}

void Session::On(const event::OutputSubscribed&) { subscribed_ = true; }

void Session::On(const event::RoomClosed& closed) { End(closed.reason, closed.error); }

void Session::LinkTo(const Person& person) {
  linked_ = person.identity;
  linked_us_ = now_us_;
  out_.emplace_back(command::Link{linked_});
  if (options_.listen_only) {
    // Nobody expects a word.
  } else if (greeted_ != linked_ && !character().greeting.empty()) {
    Enqueue({.text = character().greeting});
  } else if (restored_ && history_.OwesAnswer()) {
    // The attempt before this one was lost while it owed an answer.
    Speech speech{.answer = true, .turn_id = std::to_string(turns_)};
    speech.times = {.speech_end_us = now_us_, .decided_us = now_us_, .committed_us = now_us_};
    Enqueue(std::move(speech));
  }
  greeted_ = linked_;
  restored_ = false;
}

void Session::Unlink() {
  Cut();
  DropSuspended();
  DropQueue();
  DropDraft();
  reviewed_.reset();
  keys_.clear();
  hearing_.Reset();
  linked_.clear();
  subscribed_ = subscribed_ && !people_.empty();
  out_.emplace_back(command::Link{});
}

// ---- hearing ----

void Session::On(const event::Voice& voice) {
  // Whoever may not interrupt is not heard meanwhile.
  const bool deaf =
      active_ != nullptr && active_->playing && !active_->interruptible && !HasTheWord();
  hearing_.OnVoice(voice.speech && !deaf && !linked_.empty() && !closing_, now_us_, voice.quiet_us);
}

void Session::On(const event::SttPartial& partial) {
  hearing_.OnPartial(partial.stream, partial.text, now_us_);
}

void Session::On(const event::SttFinal& final) {
  if (!hearing_.OnFinal(final.stream, final.utterance, final.text, now_us_)) return;
  errors_[static_cast<int>(Engine::kStt)] = 0;
  ConsiderCut();
}

void Session::On(const event::SttActivity& activity) {
  hearing_.OnActivity(activity.stream, activity.speech, now_us_);
}

void Session::On(const event::SttUsage& usage) {
  usage_.stt_audio_us += static_cast<int64_t>(usage.audio_seconds * 1e6);
}

void Session::On(const event::SttFailed& failed) {
  const bool lost_words = hearing_.turn_open();
  // Gateways end streams that have been idle for long: that is no error, and the next one opens at
  // once.
  const bool idle = !lost_words && hearing_.open_us(now_us_) >= Hearing::kSettledUs;
  if (!hearing_.OnFailed(failed.stream, now_us_)) return;
  if (options_.realtime) ModelLost(failed.error);
  if (ended_ || idle || Failed(Engine::kStt, failed.error)) return;
  if (!lost_words || hearing_.words() > 0 || active_ != nullptr || linked_.empty()) return;
  Speech speech{.text = options_.apology};
  speech.apology = true;
  Enqueue(std::move(speech));
}

bool Session::EnoughWords() const {
  return options_.min_interruption_words <= 0 || options_.realtime || HasTheWord() ||
         hearing_.words() >= options_.min_interruption_words;
}

// The open turn has words, but too few to end what the agent says: it stays open.
bool Session::TurnWaits() const {
  return active_ != nullptr && active_->heard() && hearing_.words() > 0 && !EnoughWords();
}

// So far the user only shows that they listen, and the agent is not about to end.
bool Session::OnlyBackchannel() const {
  if (!options_.ignore_backchannels || active_ == nullptr || !active_->heard()) return false;
  if (active_->hold) return false;  // they had said it before
  if (hearing_.detection() == TurnDetection::kManual || hearing_.words() == 0) return false;
  const bool complete = active_->text_complete && active_->spoken.all_done();
  const int64_t left_us = active_->spoken.audio_us() - active_->played_us;
  if (complete && left_us < Micros(options_.backchannel_boundary)) return false;
  return IsBackchannel(hearing_.Transcript(), !hearing_.complete());
}

void Session::ConsiderPause() {
  if (active_ == nullptr || !active_->playing || paused_ || !active_->interruptible) return;
  if (hearing_.detection() == TurnDetection::kManual || OnlyBackchannel()) return;
  if (hearing_.detection() == TurnDetection::kStt && hearing_.words() == 0) return;
  if (hearing_.speech_us() < Micros(options_.min_interruption) || !EnoughWords()) return;
  if (options_.resume_false_after <= absl::ZeroDuration()) return Cut();
  paused_ = true;
  out_.emplace_back(command::PlayPause{});
}

void Session::ConsiderCut() {
  if (hearing_.detection() == TurnDetection::kManual || OnlyBackchannel()) return;
  if (active_ != nullptr && active_->heard() && active_->interruptible && EnoughWords()) Cut();
}

void Session::ConsiderResume() {
  if (!paused_ || active_ == nullptr || hearing_.speaking() || reviewed_) return;
  if (OnlyBackchannel() && hearing_.complete()) return Resume();
  if (hearing_.turn_open() && !TurnWaits()) return;
  if (now_us_ < hearing_.last_speech_us() + Micros(options_.resume_false_after)) return;
  Resume();
}

void Session::Resume() {
  paused_ = false;
  active_->moved_us = now_us_;
  out_.emplace_back(command::PlayResume{});
  out_.emplace_back(command::FalseInterruption{true});
}

void Session::TakeUserTurn() {
  if (TurnWaits()) return;
  const bool backchannel = OnlyBackchannel();
  std::optional<Turn> turn = hearing_.TakeTurn(now_us_);
  if (!turn) return;
  drafts_ = 0;
  if (options_.realtime) {
    if (!IsNoTurn(*turn)) Commit(*turn);
    return;
  }
  if (turn->asked_us > 0) RecogniserStalled(*turn);
  if (ended_ || turn->text.empty()) return;
  if (backchannel) {
    if (paused_) Resume();
    return;
  }
  Submit(std::move(*turn));
}

// Perhaps the program has something to say about it first.
void Session::Submit(Turn turn) {
  if (options_.review_timeout <= absl::ZeroDuration() || options_.realtime) return Commit(turn);
  if (reviewed_) turn.text = JoinText(reviewed_->text, turn.text);
  reviewed_ = std::move(turn);
  review_us_ = now_us_ + Micros(options_.review_timeout);
  out_.emplace_back(command::ReviewTurn{++reviews_, reviewed_->text});
}

void Session::On(const event::TurnReviewed& reviewed) {
  if (!reviewed_ || reviewed.review != reviews_) return;
  Turn turn = *std::exchange(reviewed_, std::nullopt);
  turn.text = std::string(Trim(std::string_view(reviewed.text).substr(0, kMaxChatBytes)));
  if (!reviewed.answer || turn.text.empty()) return DropDraft();
  Commit(turn, reviewed.instructions);
}

void Session::ConsiderReview() {
  if (!reviewed_) return;
  const std::optional<Wait> stuck = Stuck();
  if (now_us_ < review_us_ && !(stuck && stuck->stage == Stage::kProgram)) return;
  const int64_t asked_us = review_us_ - Micros(options_.review_timeout);
  GiveUp({Stage::kProgram, asked_us, asked_us});
  out_.emplace_back(command::Log{command::Log::Level::kWarn,
                                 "the program did not look at the user's turn in time", ""});
  Commit(*std::exchange(reviewed_, std::nullopt));
}

void Session::Commit(const Turn& turn, std::string instructions) {
  const ChatItem* last = history_.LastUserMessage();
  const bool written = options_.realtime && turn.last_utterance == 0;
  const bool goes_on = active_ != nullptr && last != nullptr && !active_->turn_id.empty() &&
                       !active_->heard() && !written && last != history_.Find(overheard_);
  if (goes_on) {
    // Nothing of the answer was heard: the user has simply gone on speaking.
    StopEngines(*active_);
    Report(*active_, true);
    active_.reset();
    paused_ = false;
    if (turn.last_utterance == 0) {
      history_.ExtendLastUserMessage(turn.text);
      out_.emplace_back(command::ItemAdded{*history_.LastUserMessage()});
    }
  } else {
    if (active_ != nullptr && (active_->interruptible || active_->hold || HasTheWord())) Cut();
    if (turn.last_utterance == 0) AddItem({.role = "user", .text = turn.text});
  }
  if (turn.last_utterance != 0) CommitHeard(turn, goes_on);
  // An answer that never began is replaced by this one.
  std::erase_if(queue_, [this](const Speech& speech) {
    if (speech.turn_id.empty()) return false;
    Discard(speech);
    return true;
  });
  ++usage_.turns;
  if (options_.listen_only) {
    DropDraft();
    ++turns_;
    return SaveCheckpoint();
  }
  Speech answer{
      .answer = true, .instructions = std::move(instructions), .turn_id = std::to_string(++turns_)};
  if (draft_ != nullptr && PromptFor(answer) == draft_prompt_) {
    answer = std::move(*draft_);
    draft_.reset();
  }
  DropDraft();
  answer.times.speech_end_us = turn.speech_end_us;
  answer.times.decided_us = turn.decided_us;
  answer.times.committed_us = turn.committed_us;
  Enqueue(std::move(answer));
  SaveCheckpoint();
}

// Asks the model before the turn is taken, where its words are already there.
void Session::ConsiderDraft() {
  constexpr int kMaxDrafts = 3;
  if (!options_.preemptive_generation || options_.realtime || options_.listen_only) return;
  const bool asks = hearing_.turn_open() && hearing_.complete() && hearing_.words() > 0 &&
                    hearing_.detection() != TurnDetection::kManual && active_ == nullptr &&
                    !reviewed_ && !summary_ && queue_.empty() && !linked_.empty() && !closing_;
  if (draft_ != nullptr) {
    const bool stands = reviewed_ ? draft_text_ == reviewed_->text
                                  : hearing_.turn_open() && draft_text_ == hearing_.Transcript();
    if (!stands) DropDraft();
    if (draft_ != nullptr) return;
  }
  if (!asks || hearing_.speaking() || drafts_ >= kMaxDrafts) return;
  ++drafts_;
  draft_ = std::make_unique<Speech>();
  draft_->answer = true;
  draft_->turn_id = std::to_string(turns_ + 1);
  draft_prompt_ = PromptFor(*draft_);
  draft_prompt_.push_back({.role = "user", .text = hearing_.Transcript()});
  draft_text_ = hearing_.Transcript();
  RequestAnswer(*draft_, draft_prompt_);
}

void Session::DropDraft() {
  if (draft_ != nullptr && draft_->llm_stream != 0) {
    out_.emplace_back(command::LlmCancel{draft_->llm_stream});
  }
  draft_.reset();
}

void Session::On(const event::Chat& chat) {
  const std::string text(Trim(std::string_view(chat.text).substr(0, kMaxChatBytes)));
  if (text.empty() || closing_ || (!linked_.empty() && chat.identity != linked_)) return;
  SubmitText(text);
}

// Something that was not said.
void Session::SubmitText(std::string text) {
  if (active_ != nullptr && active_->interruptible && active_->heard()) Cut();
  hearing_.Reset();
  Submit({.text = std::move(text),
          .speech_end_us = now_us_,
          .decided_us = now_us_,
          .committed_us = now_us_});
}

void Session::On(const event::Overheard& overheard) {
  const std::string text(Trim(std::string_view(overheard.text).substr(0, kMaxChatBytes)));
  const Person& person = overheard.person;
  if (text.empty() || person.identity == linked_) return;
  const std::string& name = person.name.empty() ? person.identity : person.name;
  overheard_ = AddItem({.role = "user", .text = name + ": " + text});
}

void Session::On(const event::Dtmf& dtmf) {
  constexpr size_t kMaxKeys = 64;
  if (event::kDtmfKeys.find(dtmf.key) == std::string_view::npos) return;
  if (options_.dtmf_pause <= absl::ZeroDuration() || closing_ || linked_.empty()) return;
  if (dtmf.identity != linked_ || keys_.size() >= kMaxKeys) return;
  // Whoever presses a key has heard enough.
  if (active_ != nullptr && active_->interruptible && active_->heard()) Cut();
  keys_us_ = now_us_;
  if (dtmf.key != '#' || keys_.empty()) keys_ += dtmf.key;
  if (dtmf.key == '#') keys_us_ -= Micros(options_.dtmf_pause);
}

void Session::ConsiderKeys() {
  if (keys_.empty() || now_us_ < keys_us_ + Micros(options_.dtmf_pause)) return;
  SubmitText("pressed " + std::exchange(keys_, {}));
}

// ---- the program ----

void Session::On(const event::Say& say) {
  if (closing_) return Over({.handle = say.handle}, true);
  Enqueue({.text = say.text,
           .interruptible = say.allow_interruptions,
           .handle = say.handle,
           .priority = say.priority,
           .clip = say.clip,
           .more = say.more && say.handle != 0 && say.clip == 0});
}

void Session::On(const event::SayMore& more) {
  Speech* speech = nullptr;
  if (active_ != nullptr && active_->handle == more.handle) speech = active_.get();
  for (Speech& one : queue_) {
    if (one.handle == more.handle) speech = &one;
  }
  // Cut, or none that is to be continued.
  if (more.handle == 0 || speech == nullptr || !speech->more) return;
  if (speech->text.size() + more.text.size() > kMaxStreamedBytes) {
    out_.emplace_back(
        command::Log{command::Log::Level::kWarn, "a text is over 32 KiB and was cut", ""});
    return TextOver(*speech);
  }
  speech->text += more.text;
  speech->more = !more.last;
  if (speech != active_.get()) return;
  speech->more_until_us = now_us_ + Micros(options_.llm_timeout);
  if (!options_.realtime) AddText(*speech, speech->splitter.Add(more.text));
  if (more.last) TextOver(*speech);
}

void Session::On(const event::GenerateReply& generate) {
  if (closing_) return Over({.handle = generate.handle}, true);
  Enqueue({.answer = true,
           .instructions = generate.instructions,
           .interruptible = generate.allow_interruptions,
           .handle = generate.handle,
           .priority = generate.priority});
}

void Session::On(const event::Interrupt& interrupt) {
  if (interrupt.handle == 0) {
    DropQueue();
    return Cut();
  }
  if (active_ != nullptr && active_->handle == interrupt.handle) return Cut();
  const auto found = std::find_if(queue_.begin(), queue_.end(), [&](const Speech& one) {
    return one.handle == interrupt.handle;
  });
  if (found == queue_.end()) return;
  Discard(*found);
  queue_.erase(found);
}

void Session::On(const event::SetTurnDetection& set) {
  using Detection = TurnDetection;
  const Detection now = hearing_.detection();
  const bool words = set.detection == Detection::kStt || set.detection == Detection::kSemantic;
  const bool model = set.detection == Detection::kRealtime || now == Detection::kRealtime;
  if (set.detection != now && (model || (options_.realtime && words))) {
    out_.emplace_back(command::Log{command::Log::Level::kError,
                                   "this conversation cannot take its turns so",
                                   std::string(Name(set.detection))});
    return;
  }
  hearing_.SetDetection(set.detection);
}

void Session::On(const event::CommitTurn&) { hearing_.Commit(now_us_); }

void Session::On(const event::ClearTurn&) {
  hearing_.Reset();
  DropDraft();
}

void Session::On(const event::SetUserData& data) {
  if (data.data.size() > kMaxUserDataBytes) {
    out_.emplace_back(
        command::Log{command::Log::Level::kError, "user data is over 32 KiB and was not kept", ""});
    return;
  }
  user_data_ = data.data;
  SaveCheckpoint();
}

void Session::On(const event::Shutdown& shutdown) {
  if (shutdown.reason != EndReason::kShutdown) return End(shutdown.reason, shutdown.error);
  closing_ = shutdown;
  close_us_ = now_us_ + kLastWordsUs;
}

// ---- common ----

bool Session::Failed(Engine engine, const std::string& error) {
  static constexpr const char* kNames[] = {"speech recognition", "the language model",
                                           "speech synthesis"};
  const auto index = static_cast<int>(engine);
  const std::string what = std::string(kNames[index]) + " failed";
  out_.emplace_back(command::Log{command::Log::Level::kWarn, what, error});
  constexpr int64_t kSameTroubleUs = 1'000'000;
  if (errors_[index] > 0 && now_us_ < error_us_[index] + kSameTroubleUs) return false;
  error_us_[index] = now_us_;
  if (++errors_[index] <= options_.max_errors) return false;
  End(EndReason::kError, what + " " + std::to_string(errors_[index]) + " times in a row: " + error);
  return true;
}

void Session::End(EndReason reason, std::string error) {
  if (ended_) return;
  Cut();
  DropSuspended();
  if (summary_) SummaryMade("");
  DropQueue();
  DropDraft();
  reviewed_.reset();
  hearing_.Close();
  // An end that another attempt may follow leaves it everything.
  if (reason == EndReason::kDrained || reason == EndReason::kError) SaveCheckpoint();
  ended_ = true;
  out_.emplace_back(command::End{reason, std::move(error)});
}

uint64_t Session::AddItem(ChatItem item) {
  // The model has said and called the rest itself.
  const bool told = item.kind == ChatItem::Kind::kToolResult ||
                    (item.kind == ChatItem::Kind::kMessage &&
                     (item.role == "user" || (active_ != nullptr && active_->clip != 0)));
  if (options_.realtime && told) {
    untold_.push_back(item);
    // A program that adds without end: the latest count.
    if (untold_.size() > kMaxUntold) untold_.pop_front();
  }
  out_.emplace_back(command::ItemAdded{item});
  return history_.Add(std::move(item));
}

bool Session::at_rest() const {
  return active_ == nullptr && queue_.empty() && keys_.empty() && suspended_.empty() && !summary_ &&
         !reviewed_ && !closing_ && !hearing_.speaking() && !hearing_.turn_open();
}

std::string Session::Checkpoint() const {
  std::vector<ChatItem> items;
  std::copy_if(history_.items().begin(), history_.items().end(), std::back_inserter(items),
               [](const ChatItem& item) {  // nobody knows yet what was said
                 return item.kind != ChatItem::Kind::kMessage || !item.text.empty();
               });
  session::Checkpoint checkpoint{.items = std::move(items),
                                 .agent = character().name,
                                 .user_data = user_data_,
                                 .greeted = greeted_,
                                 .turns = turns_,
                                 .usage = usage_};
  return FormatCheckpoint(std::move(checkpoint));
}

void Session::SaveCheckpoint() { out_.emplace_back(command::SaveCheckpoint{Checkpoint()}); }

}  // namespace parley::session
