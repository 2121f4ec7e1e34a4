// The agent's half of a session: answers, tools, speech.
#include <algorithm>
#include <limits>
#include <utility>

#include "base/strings.h"
#include "session/session.h"
#include "session/text.h"

namespace parley::session {
namespace {

// Audio that may wait to be played before more text is spoken: enough to bridge any stall, little
// enough to throw away.
constexpr int64_t kMaxAheadUs = 10'000'000;
constexpr int kMaxSegmentsInFlight = 2;
constexpr size_t kMaxToolsPerRound = 16;
constexpr size_t kMaxQueue = 32;
constexpr size_t kMaxAnswerBytes = size_t{32} * 1024;
constexpr size_t kMaxSummaryBytes = size_t{4} * 1024;

}  // namespace

Speech& Session::Enqueue(Speech speech) {
  speech.id = ++speeches_;
  speech.interruptible = speech.interruptible && options_.allow_interruptions;
  if (queue_.size() >= kMaxQueue) {
    out_.emplace_back(
        command::Log{command::Log::Level::kWarn, "too much to say; the oldest is dropped", ""});
    Discard(queue_.front());
    queue_.pop_front();
  }
  const auto after = std::find_if(queue_.begin(), queue_.end(),
                                  [&](const Speech& one) { return one.rank() < speech.rank(); });
  return *queue_.insert(after, std::move(speech));
}

void Session::DropQueue() {
  for (const Speech& speech : queue_) Discard(speech);
  queue_.clear();
}

// It never began.
void Session::Discard(const Speech& speech) {
  if (speech.llm_stream != 0) out_.emplace_back(command::LlmCancel{speech.llm_stream});
  Over(speech, true);
}

// Whoever holds the speech's handle learns its end.
void Session::Over(const Speech& speech, bool interrupted) {
  if (speech.handle == 0) return;
  std::string heard;
  for (int part = 0; part <= speech.part; ++part) {
    heard = JoinText(heard, speech.spoken.Heard(part));
  }
  out_.emplace_back(command::SpeechDone{speech.handle, interrupted, std::move(heard)});
}

bool Session::StartNext() {
  if (queue_.empty() || linked_.empty() || WaitsForSummary()) return false;
  if (options_.realtime && !hearing_.open()) return false;  // nobody could say it
  active_ = std::make_unique<Speech>(std::move(queue_.front()));
  queue_.pop_front();
  paused_ = false;
  if (active_->answer) {
    if (!active_->asked) RequestAnswer(*active_, PromptFor(*active_));
    if (std::exchange(active_->round_waits, false)) CallTools(*active_);
  } else {
    if (active_->times.first_text_us == 0) active_->times.first_text_us = now_us_;
    if (active_->clip != 0) {  // one piece, as it is
      AddText(*active_, {active_->text});
      active_->text_complete = true;
      return true;
    }
    if (options_.realtime) {
      active_->times.first_text_us = 0;
      active_->more_until_us = now_us_ + absl::ToInt64Microseconds(options_.llm_timeout);
      if (!active_->more) SayByModel(*active_);
      return true;
    }
    AddText(*active_, active_->splitter.Add(active_->text));
    active_->more_until_us = now_us_ + absl::ToInt64Microseconds(options_.llm_timeout);
    if (!active_->more) TextOver(*active_);
  }
  return true;
}

void Session::TextOver(Speech& speech) {
  speech.more = false;
  if (&speech != active_.get()) return;  // it is split when it begins
  if (options_.realtime) return SayByModel(speech);
  AddText(speech, speech.splitter.Finish());
  speech.text_complete = true;
}

// ---- thinking ----

std::vector<ChatItem> Session::PromptFor(const Speech& speech) const {
  if (options_.turn_by_turn) {
    return history_.LastTurn(character().instructions, speech.instructions);
  }
  return history_.Prompt(character().instructions, speech.instructions, character().context);
}

void Session::RequestAnswer(Speech& speech, std::vector<ChatItem> prompt) {
  if (options_.realtime) {
    return RequestSpoken(speech, speech.instructions, speech.rounds < options_.max_tool_steps);
  }
  speech.asked = true;
  speech.llm_stream = ++streams_;
  speech.llm_deadline_us = now_us_ + absl::ToInt64Microseconds(options_.llm_timeout);
  speech.llm_asked_us = now_us_;
  out_.emplace_back(command::LlmChat{
      .stream = speech.llm_stream,
      .turn_id = speech.turn_id,
      .items = std::move(prompt),
      .allow_tools = !(character().tools.empty() && character().handoffs.empty()) &&
                     speech.rounds < options_.max_tool_steps,
      .timeout = options_.llm_timeout,
      .agent = AgentLabel()});
}

Speech* Session::OfLlm(uint32_t stream) {
  if (stream == 0) return nullptr;
  if (active_ != nullptr && active_->llm_stream == stream) return active_.get();
  if (draft_ != nullptr && draft_->llm_stream == stream) return draft_.get();
  // A turn was taken, and its answer waits for what is being said.
  const auto waits = std::find_if(queue_.begin(), queue_.end(),
                                  [stream](const Speech& one) { return one.llm_stream == stream; });
  return waits == queue_.end() ? nullptr : &*waits;
}

void Session::ModelMoved(Speech& speech) {
  speech.llm_deadline_us = now_us_ + absl::ToInt64Microseconds(options_.llm_timeout);
  if (const int64_t asked_us = std::exchange(speech.llm_asked_us, 0); asked_us > 0) {
    model_patience_.Took(now_us_ - asked_us);
  }
}

void Session::On(const event::LlmText& text) {
  if (summary_ && text.stream == summary_->stream) {
    if (summary_->text.size() + text.text.size() <= kMaxSummaryBytes) summary_->text += text.text;
    return;
  }
  Speech* speech = OfLlm(text.stream);
  if (speech == nullptr || text.text.empty()) return;
  ModelMoved(*speech);
  if (speech->times.first_text_us == 0) speech->times.first_text_us = now_us_;
  speech->text += text.text;
  if (options_.realtime && speech->text.size() <= kMaxAnswerBytes) {
    AddSpoken(*speech);
    speech->spoken.Append(speech->spoken_rounds.back().segment, text.text);
    return;
  }
  if (speech->text.size() > kMaxAnswerBytes) {
    out_.emplace_back(command::LlmCancel{speech->llm_stream});
    out_.emplace_back(
        command::Log{command::Log::Level::kWarn, "an answer is over 32 KiB and was cut", ""});
    return EndRound(*speech);
  }
  AddText(*speech, speech->splitter.Add(text.text));
}

void Session::On(const event::LlmToolCall& call) {
  Speech* speech = OfLlm(call.stream);
  if (speech == nullptr || speech->tools.size() >= kMaxToolsPerRound) return;
  ModelMoved(*speech);
  const std::string call_id =
      call.call_id.empty() ? "call_" + std::to_string(calls_ + 1) : call.call_id;
  ToolRun run{.call = ++calls_};
  run.request = {.kind = ChatItem::Kind::kToolCall,
                 .call_id = call_id,
                 .name = call.name,
                 .arguments_json = call.arguments_json.empty() ? "{}" : call.arguments_json};
  run.result = {.kind = ChatItem::Kind::kToolResult, .call_id = call_id, .name = call.name};
  speech->tools.push_back(std::move(run));
}

void Session::On(const event::LlmDone& done) {
  Speech* speech = OfLlm(done.stream);
  const bool summary = summary_ && done.stream == summary_->stream;
  if (speech == nullptr && !summary) return;
  usage_.input_tokens += done.input_tokens;
  usage_.output_tokens += done.output_tokens;
  if (summary) return SummaryMade(std::string(Trim(summary_->text)));
  EndRound(*speech);
}

void Session::On(const event::LlmFailed& failed) {
  if (summary_ && failed.stream == summary_->stream) return SummaryMade("");
  Speech* speech = OfLlm(failed.stream);
  if (speech == nullptr) return;
  speech->llm_stream = 0;
  speech->tools.clear();
  if (speech == draft_.get()) return DropDraft();
  if (Failed(Engine::kLlm, failed.error)) return;
  AddText(*speech, speech->splitter.Finish());
  if (options_.realtime) return ApologiseLater(*speech);
  Apologise(*speech);
}

// Silence would leave the caller to wonder: unless the answer has begun, say that there will be
// none.
void Session::Apologise(Speech& speech) {
  if (speech.text.empty() && !options_.apology.empty()) {
    speech.apology = true;
    if (speech.times.first_text_us == 0) speech.times.first_text_us = now_us_;
    AddText(speech, {options_.apology});
  }
  speech.text_complete = true;
}

void Session::AddText(Speech& speech, std::vector<std::string> sentences) {
  for (std::string& sentence : sentences) {
    speech.spoken.Add(++segments_, speech.part, std::move(sentence));
  }
}

void Session::EndRound(Speech& speech) {
  speech.llm_stream = 0;
  if (options_.realtime) RoundOver(speech);
  AddText(speech, speech.splitter.Finish());
  if (speech.tools.empty()) {
    speech.text_complete = true;
  } else if (&speech == active_.get()) {
    CallTools(speech);
  } else {
    speech.round_waits = true;  // nothing is done for a turn that may not be one
  }
}

void Session::CallTools(Speech& speech) {
  uint64_t number = 0;
  if (std::string said = speech.spoken.Full(speech.part); !said.empty()) {
    ChatItem item{.role = "assistant", .text = std::move(said)};
    out_.emplace_back(command::ItemAdded{item});
    number = history_.Add(std::move(item));
  }
  speech.part_items.push_back(number);
  ++speech.part;
  const Character& agent = character();
  for (ToolRun& run : speech.tools) {
    const auto next = std::find_if(
        agent.handoffs.begin(), agent.handoffs.end(),
        [&](const std::string& name) { return HandoffTool(name) == run.request.name; });
    if (next != agent.handoffs.end()) {
      ToolFinished(run, {.handoff = *next});
      continue;
    }
    const auto tool =
        std::find_if(agent.tools.begin(), agent.tools.end(),
                     [&](const ToolSpec& spec) { return spec.name == run.request.name; });
    if (tool == agent.tools.end()) {
      std::string names;
      const auto add = [&names](const std::string& name) {
        names += (names.empty() ? "" : ", ") + name;
      };
      for (const ToolSpec& spec : agent.tools) add(spec.name);
      for (const std::string& name : agent.handoffs) add(HandoffTool(name));
      ToolFinished(run,
                   {.output = "there is no tool \"" + run.request.name + "\"; there are: " + names,
                    .is_error = true});
      continue;
    }
    if (tool->confirm_duplicates) {
      bool confirmed = false;
      std::string& arguments = run.request.arguments_json;
      arguments = WithoutConfirmation(arguments, &confirmed);
      if (const ChatItem* done = DoneBefore(run.request); done != nullptr && !confirmed) {
        ToolFinished(run, {.output = "this was done before, with the result: " + done->text +
                                     "; ask the user, and to do it once more call it again with " +
                                     kConfirmDuplicate + " true",
                           .is_error = true});
        continue;
      }
    }
    run.since_us = now_us_;
    run.filler = tool->filler;
    run.deadline_us = now_us_ + absl::ToInt64Microseconds(tool->timeout);
    out_.emplace_back(command::CallTool{run.call, run.request.name, run.request.arguments_json,
                                        tool->timeout, AgentLabel()});
  }
  speech.filled = false;
  speech.tool_calls += static_cast<int>(speech.tools.size());
  ToolsDone(speech);
}

// The result of a call that says the same and has succeeded; null: there is none.
const ChatItem* Session::DoneBefore(const ChatItem& request) const {
  const std::deque<ChatItem>& items = history_.items();
  for (size_t i = 0; i < items.size(); ++i) {
    if (items[i].kind != ChatItem::Kind::kToolCall || items[i].name != request.name ||
        !SameArguments(items[i].arguments_json, request.arguments_json)) {
      continue;
    }
    const auto result = std::find_if(items.begin() + static_cast<std::ptrdiff_t>(i), items.end(),
                                     [&](const ChatItem& one) {
                                       return one.kind == ChatItem::Kind::kToolResult &&
                                              one.call_id == items[i].call_id && !one.is_error;
                                     });
    if (result != items.end()) return &*result;
  }
  return nullptr;
}

void Session::On(const event::ToolDone& done) {
  for (Suspended& waits : suspended_) {
    if (waits.speech == nullptr) continue;
    for (ToolRun& run : waits.speech->tools) {
      if (run.call == done.call && !run.done) ToolFinished(run, done);
    }
  }
  if (active_ == nullptr) return;
  for (ToolRun& run : active_->tools) {
    if (run.call == done.call && !run.done) ToolFinished(run, done);
  }
  ToolsDone(*active_);
}

void Session::ToolFinished(ToolRun& run, event::ToolDone done) {
  run.done = true;
  run.result.text = std::move(done.output);
  run.result.is_error = done.is_error;
  if (done.handoff.empty() || done.is_error) return;
  const size_t next = IndexOf(done.handoff);
  if (next < agents_.size() && next != agent_) {
    run.handoff = std::move(done.handoff);
    return;
  }
  run.result.is_error = true;
  run.result.text = (next == agent_ ? "you are already " : "there is no agent ") + done.handoff;
}

void Session::ToolsDone(Speech& speech) {
  if (speech.llm_stream != 0 || speech.tools.empty()) return;
  if (!std::all_of(speech.tools.begin(), speech.tools.end(),
                   [](const ToolRun& run) { return run.done; }))
    return;
  const auto hands_over = [](const ToolRun& run) { return !run.handoff.empty(); };
  if (std::count_if(speech.tools.begin(), speech.tools.end(), hands_over) > 1) {
    for (ToolRun& run : speech.tools) {
      if (!hands_over(run)) continue;
      run.handoff.clear();
      run.result.text = "only one agent can take over at a time";
      run.result.is_error = true;
    }
  }
  const auto next = std::find_if(speech.tools.begin(), speech.tools.end(), hands_over);
  std::optional<ToolRun> handoff;
  if (next != speech.tools.end()) {
    handoff = std::move(*next);
    speech.tools.erase(next);
  }
  for (ToolRun& run : speech.tools) AddItem(std::move(run.request));
  for (ToolRun& run : speech.tools) AddItem(std::move(run.result));
  speech.tools.clear();
  ++speech.rounds;
  if (handoff) return PrepareHandoff(speech, *std::move(handoff));
  RequestAnswer(speech, PromptFor(speech));
}

int64_t Session::FillerAt(const Speech& speech, const ToolRun& run) const {
  constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
  if (speech.filled || run.done || run.since_us == 0 || run.filler.empty()) return kNever;
  if (options_.realtime) return kNever;
  // Not before all that was said has been heard, and a while more.
  if (speech.played_us < speech.spoken.audio_us() || !speech.spoken.all_done()) return kNever;
  return std::max(run.since_us, speech.moved_us) + absl::ToInt64Microseconds(options_.filler_after);
}

void Session::ConsiderFiller(Speech& speech) {
  const auto due = std::find_if(speech.tools.begin(), speech.tools.end(), [&](const ToolRun& run) {
    return now_us_ >= FillerAt(speech, run);
  });
  if (due == speech.tools.end()) return;
  AddAside(speech, due->filler);
}

// A part of its own, which the history leaves out.
void Session::AddAside(Speech& speech, std::string text) {
  speech.filled = true;
  // One that a model which speaks may overtake counts once it is there.
  if (speech.times.first_text_us == 0 && !options_.realtime) speech.times.first_text_us = now_us_;
  AddText(speech, {std::move(text)});
  speech.part_items.push_back(0);
  ++speech.part;
}

// ---- speaking ----

Speech* Session::OfTts(uint32_t stream) {
  return active_ != nullptr && stream != 0 && active_->tts_stream == stream ? active_.get()
                                                                            : nullptr;
}

void Session::On(const event::TtsAudio& audio) {
  Speech* speech = OfTts(audio.stream);
  if (speech == nullptr || !speech->spoken.OnAudio(audio.segment, audio.duration_us, audio.words))
    return;
  if (speech->times.first_audio_us == 0 && speech->clip == 0) {
    voice_patience_.Took(
        now_us_ - (speech->tts_deadline_us - absl::ToInt64Microseconds(options_.tts_timeout)));
  }
  speech->tts_deadline_us = now_us_ + absl::ToInt64Microseconds(options_.tts_timeout);
  if (!speech->owes_audio_before(audio.duration_us)) speech->moved_us = now_us_;
  if (speech->times.first_text_us == 0) speech->times.first_text_us = now_us_;
  if (speech->times.first_audio_us == 0) speech->times.first_audio_us = now_us_;
}

void Session::On(const event::TtsSegmentDone& done) {
  Speech* speech = OfTts(done.stream);
  if (speech == nullptr) return;
  speech->spoken.OnDone(done.segment);
  speech->tts_deadline_us = now_us_ + absl::ToInt64Microseconds(options_.tts_timeout);
  if (options_.realtime && speech->clip == 0) speech->tts_stream = 0;  // it has nothing more to say
}

void Session::On(const event::TtsClosed& closed) {
  const Speech* speech = OfTts(closed.stream);
  if (speech == nullptr || (speech->tts_finished && speech->spoken.all_done())) return;
  On(event::TtsFailed{closed.stream, "the stream ended early"});
}

void Session::On(const event::TtsFailed& failed) {
  Speech* speech = OfTts(failed.stream);
  if (speech == nullptr) return;
  if (options_.realtime && speech->clip == 0) {
    out_.emplace_back(command::Log{command::Log::Level::kWarn,
                                   "nobody could ask the caller for a moment", failed.error});
    return DropAside(*speech);
  }
  StopEngines(*speech);
  if (Failed(Engine::kTts, failed.error)) return;
  // What cannot be heard can still be read.
  ShowText(*speech, speech->spoken.TakeRest(), false);
  Finish();
}

void Session::On(const event::Played& played) {
  Speech* speech = active_.get();
  if (speech == nullptr || speech->id != played.speech || !speech->playing) return;
  if (speech->times.first_frame_us == 0) {
    speech->times.first_frame_us = now_us_;
    errors_[static_cast<int>(Engine::kTts)] = 0;
  }
  speech->played_us = std::max(speech->played_us, played.position_us);
  speech->moved_us = now_us_;
  // A word in between is no answer of the model's.
  const bool answers = options_.realtime ? speech->heard_model() && !speech->apology
                                         : speech->answer && !speech->text.empty();
  if (answers && !std::exchange(speech->answered, true)) {
    errors_[static_cast<int>(Engine::kLlm)] = 0;
    // One stream hears and speaks, and not every model writes down what it heard.
    if (options_.realtime) errors_[static_cast<int>(Engine::kStt)] = 0;
  }
  ShowText(*speech, speech->spoken.TakeHeard(speech->played_us), false);
}

void Session::Pump() {
  if (active_ == nullptr) return;
  Speech& speech = *active_;
  ConsiderFiller(speech);
  if (options_.realtime && speech.text_complete) DropAside(speech);  // nothing is waited for
  SendText(speech);
  StartPlaying(speech);
  const bool made = speech.text_complete && speech.spoken.all_done();
  if (made && speech.played_us >= speech.spoken.audio_us()) Finish();
}

void Session::SendText(Speech& speech) {
  if (speech.tts_finished || (options_.realtime && speech.clip == 0)) return;
  int in_flight = 0;
  for (SpokenText::Segment& segment : speech.spoken.segments()) {
    if (segment.done) continue;
    if (!segment.sent) {
      if (speech.spoken.audio_us() - speech.played_us > kMaxAheadUs) return;
      if (speech.clip != 0) {
        speech.tts_stream = ++streams_;
        speech.tts_finished = true;
        segment.sent = true;
        speech.tts_deadline_us = now_us_ + absl::ToInt64Microseconds(options_.tts_timeout);
        out_.emplace_back(
            command::TakeClip{speech.tts_stream, speech.id, segment.number, speech.clip});
        return;
      }
      if (speech.tts_stream == 0) {
        speech.tts_stream = ++streams_;
        out_.emplace_back(
            command::TtsOpen{speech.tts_stream, speech.id, speech.turn_id, AgentLabel()});
      }
      segment.sent = true;
      speech.tts_deadline_us = now_us_ + absl::ToInt64Microseconds(options_.tts_timeout);
      usage_.tts_characters += static_cast<int64_t>(segment.text.size());
      out_.emplace_back(command::TtsText{speech.tts_stream, segment.number, segment.text});
    }
    if (++in_flight >= kMaxSegmentsInFlight) break;
  }
  const bool all_sent =
      std::all_of(speech.spoken.segments().begin(), speech.spoken.segments().end(),
                  [](const SpokenText::Segment& s) { return s.sent; });
  if (!speech.text_complete || !all_sent || speech.tts_stream == 0) return;
  speech.tts_finished = true;
  out_.emplace_back(command::TtsFinish{speech.tts_stream});
}

bool Session::OutputReady() const {
  return subscribed_ || now_us_ >= linked_us_ + absl::ToInt64Microseconds(options_.subscribe_wait);
}

void Session::StartPlaying(Speech& speech) {
  if (speech.playing || speech.spoken.audio_us() == 0 || !OutputReady()) return;
  // Somebody speaks, or has just spoken and may have said something: first hear what.
  // Where it is what they said that is waited for, only that they are silent.
  if (speech.interruptible && (speech.hold ? hearing_.speaking() : hearing_.busy())) return;
  if (speech.interruptible && !keys_.empty()) return;
  speech.playing = true;
  speech.moved_us = now_us_;
  hearing_.OnAnswered(now_us_);
  out_.emplace_back(command::PlayStart{speech.id});
}

void Session::Finish() {
  Speech& speech = *active_;
  ShowText(speech, speech.spoken.TakeRest(), true);
  Remember(speech, false);
  // Without a word of its own, the turn is answered by who takes over.
  if (!speech.handoff || speech.heard()) Report(speech, false);
  Over(speech, false);
  if (speech.handoff) {
    next_ = Handoff{.to = speech.handoff->handoff,
                    .answers = true,
                    .turn_id = speech.turn_id,
                    .times = speech.times,
                    .reported = speech.reported || speech.heard(),
                    .rounds = speech.rounds};
  }
  const bool turn = !speech.turn_id.empty();
  active_.reset();
  paused_ = false;
  if (turn || !history_.items().empty()) SaveCheckpoint();
}

void Session::Cut() {
  if (active_ == nullptr) return;
  Speech& speech = *active_;
  StopEngines(speech);
  ShowText(speech, "", true);
  Remember(speech, true);
  Report(speech, true);
  Over(speech, true);
  active_.reset();
  paused_ = false;
}

void Session::StopEngines(Speech& speech) {
  if (speech.llm_stream != 0) out_.emplace_back(command::LlmCancel{speech.llm_stream});
  for (ToolRun& run : speech.tools) {
    if (!run.done) out_.emplace_back(command::CancelTool{run.call});
  }
  if (speech.tts_stream != 0) out_.emplace_back(command::TtsCancel{speech.tts_stream});
  if (speech.spoken.audio_us() > 0) out_.emplace_back(command::PlayClear{});
  CutSpoken(speech);
  speech.llm_stream = 0;
  speech.tts_stream = 0;
}

// The history keeps what the user has heard, and what tools have done.
void Session::Remember(Speech& speech, bool interrupted) {
  for (size_t part = 0; part < speech.part_items.size(); ++part) {
    const int number = static_cast<int>(part);
    const std::string heard = speech.spoken.Heard(number);
    if (speech.part_items[part] == 0 || heard == speech.spoken.Full(number)) continue;
    if (!interrupted) continue;
    if (heard.empty()) {
      history_.Remove(speech.part_items[part]);
    } else {
      history_.SetText(speech.part_items[part], heard, true);
    }
  }
  for (ToolRun& run : speech.tools) {
    if (!run.done) {
      ToolFinished(run, {.output = "cancelled: the user interrupted", .is_error = true});
    }
    AddItem(std::move(run.request));
    AddItem(std::move(run.result));
  }
  speech.tools.clear();
  std::string said =
      interrupted ? speech.spoken.Heard(speech.part) : speech.spoken.Full(speech.part);
  if (!said.empty() && !speech.apology) {
    AddItem({.role = "assistant", .text = std::move(said), .interrupted = interrupted});
  }
  if (!interrupted || !speech.handoff) return;
  ToolRun& run = *speech.handoff;
  if (run.request.name.empty()) return;  // the history has it
  run.result.text = "not handed over: the user interrupted";
  run.result.is_error = true;
  AddItem(std::move(run.request));
  AddItem(std::move(run.result));
}

void Session::ShowText(Speech& speech, std::string delta, bool final) {
  if (delta.empty() && !(final && speech.shown)) return;
  if (speech.shown && !delta.empty()) delta.insert(0, " ");
  speech.shown = true;
  out_.emplace_back(command::AgentText{"a" + std::to_string(speech.id), std::move(delta), final});
}

void Session::Report(const Speech& speech, bool interrupted) {
  if (!speech.turn_id.empty() && !speech.reported)
    out_.emplace_back(command::TurnDone{MakeReport(speech, interrupted)});
}

}  // namespace parley::session
