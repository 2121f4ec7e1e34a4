// The watchdog: whatever the caller waits for in silence is named when it is slow; when they have
// waited for long they get the word back; what is overdue is cancelled.
#include <absl/time/time.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "base/strings.h"
#include "session/session.h"

namespace parley::session {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

int64_t Micros(absl::Duration duration) { return absl::ToInt64Microseconds(duration); }

}  // namespace

// One thing is to blame: the first that has to move.
std::optional<Session::Wait> Session::AwaitedInSilence() const {
  if (const int64_t owed_us = hearing_.owed_since_us(); owed_us > 0 && !hearing_.speaking()) {
    return Wait{
        .stage = Stage::kRecogniser, .since_us = hearing_.still_since_us(), .asked_us = owed_us};
  }
  const auto before = [](int64_t deadline_us, absl::Duration timeout) {
    return deadline_us - absl::ToInt64Microseconds(timeout);
  };
  if (reviewed_ && !hearing_.speaking()) {
    const int64_t asked_us = before(review_us_, options_.review_timeout);
    return Wait{.stage = Stage::kProgram, .since_us = asked_us, .asked_us = asked_us};
  }
  if (WaitsForSummary() && !hearing_.speaking()) {
    return Wait{
        .stage = Stage::kModel, .since_us = summary_->asked_us, .asked_us = summary_->asked_us};
  }
  const Speech* speech = active_.get();
  if (speech == nullptr || paused_ || hearing_.speaking()) return std::nullopt;
  // Whatever it is: while there was something to hear, nobody waited.
  const auto wait = [speech](Stage stage, int64_t asked_us, std::string detail = {}) {
    return Wait{.stage = stage,
                .since_us = std::max(asked_us, speech->moved_us),
                .asked_us = asked_us,
                .detail = std::move(detail)};
  };
  if (speech->owes_playing()) return wait(Stage::kPlayout, speech->moved_us);
  if (speech->played_us < speech->spoken.audio_us()) return std::nullopt;  // waits to be played
  // With a model that speaks, the voice has only a word for who waits for the model.
  if (speech->tts_stream != 0 && !speech->spoken.all_done() && !options_.realtime) {
    return wait(Stage::kVoice, before(speech->tts_deadline_us, options_.tts_timeout));
  }
  if (speech->llm_stream != 0) {
    return wait(Stage::kModel, before(speech->llm_deadline_us, options_.llm_timeout));
  }
  for (const ToolRun& run : speech->tools) {
    if (!run.done && run.since_us > 0) return wait(Stage::kTool, run.since_us, run.request.name);
  }
  return std::nullopt;
}

int64_t Session::SlowAt() const {
  if (options_.slow_after <= absl::ZeroDuration()) return kNever;
  const std::optional<Wait> wait = AwaitedInSilence();
  if (!wait || (told_slow_ && told_slow_->Is(*wait))) return kNever;
  return wait->since_us + Micros(options_.slow_after);
}

// What is waited for now was named, or never is.
bool Session::SlowIsNamed() const {
  if (options_.slow_after <= absl::ZeroDuration()) return true;
  const std::optional<Wait> wait = AwaitedInSilence();
  return wait && told_slow_ && told_slow_->Is(*wait);
}

void Session::ConsiderSlow() {
  if (now_us_ < SlowAt()) return;
  told_slow_ = AwaitedInSilence();
  out_.emplace_back(command::Stalled{.stage = told_slow_->stage,
                                     .waited = absl::Microseconds(now_us_ - told_slow_->since_us),
                                     .detail = told_slow_->detail});
}

int64_t Session::PatienceUs(Stage stage) const {
  if (stage == Stage::kModel) return model_patience_.us();
  if (stage == Stage::kVoice) return voice_patience_.us();
  return Micros(options_.patience);
}

// When the caller is given the word though what is waited for may still come. It is named first.
int64_t Session::YieldAt() const {
  if (options_.patience <= absl::ZeroDuration()) return kNever;
  const std::optional<Wait> wait = AwaitedInSilence();
  if (!wait || (yielded_ && yielded_->Is(*wait)) || !SlowIsNamed()) return kNever;
  switch (wait->stage) {
    case Stage::kRecogniser:  // with a partial, the turn is taken: Hearing sees to that
      return hearing_.has_partial() ? kNever : hearing_.overdue_us();
    case Stage::kPlayout:
      return kNever;
    case Stage::kVoice:
      if (active_->heard()) return kNever;
      break;
    default:
      break;
  }
  return wait->since_us + PatienceUs(wait->stage);
}

void Session::ConsiderYield() {
  if (now_us_ < YieldAt()) return;
  const Wait wait = *AwaitedInSilence();
  GiveUp(wait);
  yielded_ = wait;
  AskForAMoment(wait.stage);
}

void Session::AskForAMoment(Stage stage) {
  if (options_.hold.empty() || options_.listen_only || closing_) return;
  // Their turn is not over, and will be answered in place of this one.
  if (options_.realtime && hearing_.busy()) return;
  // One wait may follow another: nobody is told so twice.
  constexpr int64_t kAgainUs = 5'000'000;
  if (held_us_ > 0 && now_us_ < held_us_ + kAgainUs) return;
  if (Speech* speech = active_.get(); speech != nullptr) {
    // Whoever has heard something knows that somebody is there.
    const bool owes = stage == Stage::kModel || stage == Stage::kTool;
    if (owes && !speech->turn_id.empty() && !speech->reported &&
        speech->spoken.segments().empty()) {
      held_us_ = now_us_;
      AddAside(*speech, options_.hold);
      if (options_.realtime) SpeakAside(*speech);
    }
    return;
  }
  // It may have been a cough.
  if (stage == Stage::kRecogniser &&
      hearing_.turn_speech_us() < Micros(options_.min_interruption)) {
    return;
  }
  held_us_ = now_us_;
  Speech hold{.text = options_.hold};
  hold.apology = hold.hold = true;
  Enqueue(std::move(hold));
}

// What the caller was given the word for is still to come.
bool Session::HasTheWord() const {
  if (!yielded_) return false;
  const auto is = [this](int64_t deadline_us, absl::Duration timeout) {
    return deadline_us - Micros(timeout) == yielded_->asked_us;
  };
  const Speech* speech = active_.get();
  switch (yielded_->stage) {
    case Stage::kRecogniser:
      return hearing_.owed_since_us() == yielded_->asked_us;
    case Stage::kProgram:
      return reviewed_ && is(review_us_, options_.review_timeout);
    case Stage::kModel:
      if (summary_ && summary_->asked_us == yielded_->asked_us) return true;
      return speech != nullptr && speech->llm_stream != 0 &&
             is(speech->llm_deadline_us, options_.llm_timeout);
    case Stage::kVoice:
      return speech != nullptr && speech->tts_stream != 0 && !speech->spoken.all_done() &&
             is(speech->tts_deadline_us, options_.tts_timeout);
    case Stage::kTool:
      return speech != nullptr &&
             std::any_of(speech->tools.begin(), speech->tools.end(), [this](const ToolRun& run) {
               return !run.done && run.since_us == yielded_->asked_us;
             });
    case Stage::kPlayout:
      break;
  }
  return false;
}

// When what is waited for now is cancelled before its own limit. It is named first.
int64_t Session::StuckAt() const {
  const std::optional<Wait> wait = AwaitedInSilence();
  // The user's turn ends without the final; Hearing sees to that.
  if (!wait || wait->stage == Stage::kRecogniser || !SlowIsNamed()) return kNever;
  int64_t limit_us =
      options_.max_stall == absl::InfiniteDuration() ? kNever : Micros(options_.max_stall);
  // A voice that stops in the middle is no slow one.
  if (wait->stage == Stage::kVoice && active_->heard() &&
      options_.patience > absl::ZeroDuration()) {
    limit_us = std::min(limit_us, PatienceUs(Stage::kVoice));
  }
  return limit_us == kNever ? kNever : wait->since_us + limit_us;
}

std::optional<Session::Wait> Session::Stuck() const {
  return now_us_ >= StuckAt() ? AwaitedInSilence() : std::nullopt;
}

// Told once: a caller who was given the word is not told again that it does not come.
void Session::GiveUp(const Wait& wait) {
  if (yielded_ && yielded_->Is(wait)) return;
  out_.emplace_back(command::Stalled{.stage = wait.stage,
                                     .waited = absl::Microseconds(now_us_ - wait.since_us),
                                     .given_up = true,
                                     .detail = wait.detail});
}

void Session::GiveUpOverdue(Speech& speech) {
  const std::optional<Wait> stuck = Stuck();
  const auto is_stuck = [&](Stage stage) { return stuck && stuck->stage == stage; };
  const auto overdue = [&](Stage stage, int64_t deadline_us, absl::Duration timeout) {
    const int64_t asked_us = deadline_us - Micros(timeout);
    return is_stuck(stage) ? *stuck : Wait{stage, asked_us, asked_us};
  };
  const auto waited = [&](const Wait& wait) {
    return DurationText(absl::Microseconds(now_us_ - wait.asked_us));
  };
  if (speech.llm_stream != 0 && (now_us_ >= speech.llm_deadline_us || is_stuck(Stage::kModel))) {
    const Wait wait = overdue(Stage::kModel, speech.llm_deadline_us, options_.llm_timeout);
    GiveUp(wait);
    out_.emplace_back(command::LlmCancel{speech.llm_stream});
    return On(event::LlmFailed{speech.llm_stream, "no answer within " + waited(wait)});
  }
  if (speech.tts_stream != 0 && !speech.spoken.all_done() &&
      (now_us_ >= speech.tts_deadline_us || is_stuck(Stage::kVoice))) {
    const Wait wait = overdue(Stage::kVoice, speech.tts_deadline_us, options_.tts_timeout);
    if (!options_.realtime) GiveUp(wait);
    return On(event::TtsFailed{speech.tts_stream, "no audio within " + waited(wait)});
  }
  // Named first: a process that stood still as a whole plays on when it wakes.
  if (speech.owes_playing() && !paused_ && SlowIsNamed() &&
      (now_us_ >= speech.moved_us + Micros(options_.playout_timeout) ||
       is_stuck(Stage::kPlayout))) {
    // What was not played was not heard; the next speech begins anew.
    GiveUp({Stage::kPlayout, speech.moved_us, speech.moved_us});
    return Cut();
  }
  if (speech.more && speech.text_complete == false && now_us_ >= speech.more_until_us) {
    out_.emplace_back(command::Log{command::Log::Level::kWarn,
                                   "a text that is said as it comes stood still and was ended",
                                   ""});
    TextOver(speech);
  }
  for (ToolRun& run : speech.tools) {
    const bool late =
        now_us_ >= run.deadline_us || (is_stuck(Stage::kTool) && run.since_us > 0 &&
                                       std::max(run.since_us, speech.moved_us) <= stuck->since_us);
    if (run.done || !late) continue;
    GiveUp({Stage::kTool, run.since_us, run.since_us, run.request.name});
    out_.emplace_back(command::CancelTool{run.call});
    ToolFinished(run, {.output = "the tool did not answer in time", .is_error = true});
  }
  ToolsDone(speech);
}

// The turn was taken without the last final, perhaps without a word: whoever waits should know.
void Session::RecogniserStalled(const Turn& turn) {
  GiveUp({Stage::kRecogniser, turn.asked_us, turn.asked_us});
  hearing_.Replace(now_us_);
  if (!turn.text.empty()) return;  // its partial served
  const auto waited = absl::Microseconds(now_us_ - turn.asked_us);
  if (Failed(Engine::kStt, "no transcript within " + DurationText(waited))) return;
  if ((active_ != nullptr && !active_->hold) || !queue_.empty() || linked_.empty()) return;
  Speech speech{.text = options_.apology};
  speech.apology = true;
  Enqueue(std::move(speech));
}

}  // namespace parley::session
