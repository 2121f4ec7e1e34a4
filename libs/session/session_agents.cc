// Several agents in one session: handing over, tasks, summaries.
#include <algorithm>
#include <limits>
#include <utility>

#include "session/session.h"
#include "session/text.h"

namespace parley::session {
namespace {

constexpr int64_t kSummaryUs = 4'000'000;  // the caller waits for it, and most models take less
constexpr char kSummarise[] =
    "Sum up the conversation so far for a colleague who takes it over: what the user wants, what "
    "is "
    "settled and what is open, with all names, numbers and dates. At most 100 words, nothing else.";
constexpr size_t kWorthSummary = 4;  // items; fewer are as short as any summary of them
constexpr size_t kMaxTasks = 8;      // inside each other

}  // namespace

size_t Session::IndexOf(std::string_view agent) const {
  const auto found = std::find_if(agents_.begin(), agents_.end(),
                                  [&](const Character& one) { return one.name == agent; });
  return static_cast<size_t>(found - agents_.begin());
}

std::string Session::AgentLabel() const {
  return agents_.size() > 1 ? character().name : std::string();
}

// Who leaves says its last words first; whoever interrupts them keeps it.
void Session::PrepareHandoff(Speech& speech, ToolRun run) {
  // A tool of the program's has done something beside, which the model should know.
  if (run.request.name != HandoffTool(run.handoff)) {
    AddItem(std::exchange(run.request, {}));
    AddItem(std::exchange(run.result, {}));
  }
  speech.handoff = std::move(run);
  if (speech.text.empty() && !character().farewell.empty() && !options_.realtime) {
    if (speech.times.first_text_us == 0) speech.times.first_text_us = now_us_;
    AddText(speech, speech.splitter.Add(character().farewell));
    AddText(speech, speech.splitter.Finish());
  }
  speech.text_complete = true;
}

void Session::On(const event::AddAgent& add) {
  constexpr size_t kMaxAgents = 64;
  const size_t known = IndexOf(add.character.name);
  if (known < agents_.size()) {
    agents_[known] = add.character;
  } else if (agents_.size() < kMaxAgents) {
    agents_.push_back(add.character);
  } else {
    out_.emplace_back(command::Log{command::Log::Level::kError,
                                   "a session has 64 agents at most: one was not added",
                                   add.character.name});
  }
}

void Session::On(const event::SetAgent& set) {
  if (set.how != SwitchKind::kEndTask && IndexOf(set.name) >= agents_.size()) {
    out_.emplace_back(
        command::Log{command::Log::Level::kError, "there is no such agent to go on", set.name});
  } else if (set.how == SwitchKind::kBeginTask && suspended_.size() >= kMaxTasks) {
    out_.emplace_back(command::Log{command::Log::Level::kError,
                                   "too many tasks inside each other; not begun", set.name});
  } else if (set.how == SwitchKind::kEndTask && next_ && next_->how == SwitchKind::kBeginTask) {
    next_.reset();  // over before it began
  } else {
    next_ = Handoff{.to = set.name, .how = set.how};
  }
}

bool Session::SwitchAgent() {
  if (!next_) return false;
  const Handoff handoff = *std::exchange(next_, std::nullopt);
  if (closing_) return false;
  if (handoff.how == SwitchKind::kEndTask) return EndTask();
  const size_t to = IndexOf(handoff.to);
  if (to >= agents_.size() || to == agent_) return false;
  const std::string from = character().name;
  if (summary_) SummaryMade("");
  uint64_t item = 0;  // of a task: none, it is not the end of anything
  if (handoff.how == SwitchKind::kBeginTask) {
    suspended_.push_back({.agent = agent_, .speech = nullptr});
    agent_ = to;
  } else {
    DropSuspended();
    agent_ = to;
    item = AddItem({.kind = ChatItem::Kind::kHandoff, .text = from, .name = handoff.to});
  }
  out_.emplace_back(command::AgentChanged{from, handoff.to, handoff.how});
  ForgetAnswersBegun();
  if (options_.realtime) hearing_.Replace(now_us_);
  if (item != 0 && character().context == Context::kSummary && !options_.realtime) AskSummary(item);
  Enter(handoff);
  SaveCheckpoint();
  return true;
}

// What the other was asked is no answer of this one.
void Session::ForgetAnswersBegun() {
  DropDraft();
  for (Speech& speech : queue_) {
    if (!speech.asked) continue;
    if (speech.llm_stream != 0) out_.emplace_back(command::LlmCancel{speech.llm_stream});
    speech = Speech{.id = speech.id,
                    .answer = true,
                    .instructions = std::move(speech.instructions),
                    .turn_id = std::move(speech.turn_id),
                    .interruptible = speech.interruptible,
                    .handle = speech.handle,
                    .priority = speech.priority,
                    .times = {.speech_end_us = speech.times.speech_end_us,
                              .decided_us = speech.times.decided_us,
                              .committed_us = speech.times.committed_us}};
  }
}

void Session::Enter(const Handoff& handoff) {
  Speech speech{.turn_id = handoff.turn_id,
                .priority = Priority::kHigh,
                .times = handoff.times,
                .rounds = handoff.rounds,
                .reported = handoff.reported};
  const bool known = agent_ == 0 && greeted_ == linked_;  // who began greets nobody twice
  if (!character().greeting.empty() && !known) {
    speech.text = character().greeting;
  } else if (handoff.answers) {
    speech.answer = true;
  } else {
    return;
  }
  Enqueue(std::move(speech));
}

// ---- tasks ----

// A tool that waits for the end of a task would keep that task from speaking: the answer that
// called it is put aside, once all of it so far has been heard.
void Session::ConsiderSuspending() {
  if (!next_ || next_->how != SwitchKind::kBeginTask || active_ == nullptr || closing_) return;
  Speech& speech = *active_;
  const bool tools_run = std::any_of(speech.tools.begin(), speech.tools.end(),
                                     [](const ToolRun& run) { return !run.done; });
  const bool all_heard = speech.spoken.all_done() && speech.played_us >= speech.spoken.audio_us();
  if (speech.llm_stream != 0 || !tools_run || !all_heard) return;
  auto rest = std::make_unique<Speech>();
  rest->answer = rest->asked = true;
  rest->instructions = std::move(speech.instructions);
  rest->turn_id = speech.turn_id;
  rest->interruptible = speech.interruptible;
  rest->handle = std::exchange(speech.handle, 0);
  rest->priority = speech.priority;
  rest->times = speech.times;
  rest->rounds = speech.rounds;
  rest->tools = std::move(speech.tools);
  rest->tool_calls = speech.tool_calls;
  rest->reported = speech.reported || speech.heard();
  speech.tools.clear();
  if (speech.tts_stream != 0) out_.emplace_back(command::TtsCancel{speech.tts_stream});
  ShowText(speech, speech.spoken.TakeRest(), true);
  if (speech.heard()) Report(speech, false);
  active_.reset();
  paused_ = false;
  const size_t waits = suspended_.size();
  if (SwitchAgent() && suspended_.size() > waits) {
    suspended_.back().speech = std::move(rest);
  } else {  // there was no agent to go on
    active_ = std::move(rest);
    active_->id = ++speeches_;
  }
}

bool Session::EndTask() {
  if (suspended_.empty()) return false;
  const std::string from = character().name;
  Suspended waits = std::move(suspended_.back());
  suspended_.pop_back();
  if (summary_) SummaryMade("");
  agent_ = waits.agent;
  out_.emplace_back(command::AgentChanged{from, character().name, SwitchKind::kEndTask});
  ForgetAnswersBegun();
  if (options_.realtime) hearing_.Replace(now_us_);
  SaveCheckpoint();
  if (waits.speech == nullptr) return true;
  active_ = std::move(waits.speech);
  active_->id = ++speeches_;
  active_->moved_us = now_us_;
  // It was the task that took so long.
  for (ToolRun& run : active_->tools) {
    if (run.since_us == 0) continue;
    run.deadline_us += now_us_ - run.since_us;
    run.since_us = now_us_;
  }
  ToolsDone(*active_);
  return true;
}

void Session::DropSuspended() {
  for (Suspended& waits : suspended_) {
    if (waits.speech == nullptr) continue;
    StopEngines(*waits.speech);
    Remember(*waits.speech, true);
    Over(*waits.speech, true);
  }
  suspended_.clear();
}

// ---- what was said before, in short ----

void Session::AskSummary(uint64_t item) {
  std::vector<ChatItem> prompt = history_.Prompt("", kSummarise);
  if (prompt.size() <= kWorthSummary) return;
  summary_ = Summary{.stream = ++streams_, .item = item, .asked_us = now_us_};
  out_.emplace_back(command::LlmChat{.stream = summary_->stream,
                                     .turn_id = {},
                                     .items = std::move(prompt),
                                     .allow_tools = false,
                                     .timeout = absl::Microseconds(kSummaryUs),
                                     .agent = AgentLabel()});
}

// Without a text it is not to be had: who took over sees everything.
void Session::SummaryMade(std::string text) {
  if (text.empty()) {
    out_.emplace_back(command::LlmCancel{summary_->stream});
    out_.emplace_back(command::Log{command::Log::Level::kWarn,
                                   "no summary was made; the next agent sees everything", ""});
  } else {
    history_.SetSummary(summary_->item, std::move(text));
  }
  summary_.reset();
  SaveCheckpoint();
}

int64_t Session::SummaryDue() const {
  return summary_ ? summary_->asked_us + kSummaryUs : std::numeric_limits<int64_t>::max();
}

// An answer would be made without knowing what it is about; a greeting needs no summary.
bool Session::WaitsForSummary() const {
  return summary_ && active_ == nullptr && !queue_.empty() && queue_.front().answer;
}

}  // namespace parley::session
