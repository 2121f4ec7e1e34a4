// The watchdog: whatever the caller waits for in silence is named when it is slow, and given up
// when it is overdue.
#include <absl/time/time.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "base/strings.h"
#include "session/session.h"

namespace parley::session {

// One thing is to blame: the first that has to move.
std::optional<Session::Wait> Session::AwaitedInSilence() const {
  if (const int64_t owed_us = hearing_.owed_since_us(); owed_us > 0 && !hearing_.speaking()) {
    return Wait{.stage = Stage::kRecogniser, .since_us = owed_us};
  }
  if (reviewed_ && !hearing_.speaking()) {
    return Wait{.stage = Stage::kProgram,
                .since_us = review_us_ - absl::ToInt64Microseconds(options_.review_timeout)};
  }
  if (WaitsForSummary() && !hearing_.speaking()) {
    return Wait{.stage = Stage::kModel, .since_us = summary_->asked_us};
  }
  const Speech* speech = active_.get();
  if (speech == nullptr || paused_ || hearing_.speaking()) return std::nullopt;
  if (speech->owes_playing()) return Wait{.stage = Stage::kPlayout, .since_us = speech->moved_us};
  if (speech->played_us < speech->spoken.audio_us()) return std::nullopt;  // waits to be played
  // Whatever it is: while there was something to hear, nobody waited.
  const auto since = [speech](int64_t since_us) { return std::max(since_us, speech->moved_us); };
  const auto before = [](int64_t deadline_us, absl::Duration timeout) {
    return deadline_us - absl::ToInt64Microseconds(timeout);
  };
  if (speech->tts_stream != 0 && !speech->spoken.all_done()) {
    return Wait{.stage = Stage::kVoice,
                .since_us = since(before(speech->tts_deadline_us, options_.tts_timeout))};
  }
  if (speech->llm_stream != 0) {
    return Wait{.stage = Stage::kModel,
                .since_us = since(before(speech->llm_deadline_us, options_.llm_timeout))};
  }
  for (const ToolRun& run : speech->tools) {
    if (!run.done && run.since_us > 0) {
      return Wait{
          .stage = Stage::kTool, .since_us = since(run.since_us), .detail = run.request.name};
    }
  }
  return std::nullopt;
}

int64_t Session::SlowAt() const {
  constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
  if (options_.slow_after <= absl::ZeroDuration()) return kNever;
  const std::optional<Wait> wait = AwaitedInSilence();
  if (!wait || wait == told_slow_) return kNever;
  return wait->since_us + absl::ToInt64Microseconds(options_.slow_after);
}

// What is waited for now was named, or never is.
bool Session::SlowIsNamed() const {
  return options_.slow_after <= absl::ZeroDuration() ||
         (told_slow_ && told_slow_ == AwaitedInSilence());
}

// When what is waited for is given up before its own limit. It is named first.
int64_t Session::StuckAt() const {
  constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
  if (options_.max_stall == absl::InfiniteDuration()) return kNever;
  const std::optional<Wait> wait = AwaitedInSilence();
  // The user's turn ends without the final; Hearing sees to that.
  if (!wait || wait->stage == Stage::kRecogniser) return kNever;
  if (!SlowIsNamed()) return kNever;
  return wait->since_us + absl::ToInt64Microseconds(options_.max_stall);
}

std::optional<Session::Wait> Session::Stuck() const {
  return now_us_ >= StuckAt() ? AwaitedInSilence() : std::nullopt;
}

void Session::ConsiderSlow() {
  if (now_us_ < SlowAt()) return;
  told_slow_ = AwaitedInSilence();
  out_.emplace_back(command::Stalled{.stage = told_slow_->stage,
                                     .waited = absl::Microseconds(now_us_ - told_slow_->since_us),
                                     .detail = told_slow_->detail});
}

void Session::GiveUp(Stage stage, int64_t since_us, std::string detail) {
  out_.emplace_back(command::Stalled{.stage = stage,
                                     .waited = absl::Microseconds(now_us_ - since_us),
                                     .given_up = true,
                                     .detail = std::move(detail)});
}

void Session::GiveUpOverdue(Speech& speech) {
  const auto micros = [](absl::Duration duration) { return absl::ToInt64Microseconds(duration); };
  const std::optional<Wait> stuck = Stuck();
  const auto is_stuck = [&](Stage stage) { return stuck && stuck->stage == stage; };
  const auto waited = [&](int64_t since_us) {
    return DurationText(absl::Microseconds(now_us_ - since_us));
  };
  if (speech.llm_stream != 0 && (now_us_ >= speech.llm_deadline_us || is_stuck(Stage::kModel))) {
    const int64_t since_us = is_stuck(Stage::kModel)
                                 ? stuck->since_us
                                 : speech.llm_deadline_us - micros(options_.llm_timeout);
    GiveUp(Stage::kModel, since_us);
    out_.emplace_back(command::LlmCancel{speech.llm_stream});
    return On(event::LlmFailed{speech.llm_stream, "no answer within " + waited(since_us)});
  }
  if (speech.tts_stream != 0 && !speech.spoken.all_done() &&
      (now_us_ >= speech.tts_deadline_us || is_stuck(Stage::kVoice))) {
    const int64_t since_us = is_stuck(Stage::kVoice)
                                 ? stuck->since_us
                                 : speech.tts_deadline_us - micros(options_.tts_timeout);
    GiveUp(Stage::kVoice, since_us);
    return On(event::TtsFailed{speech.tts_stream, "no audio within " + waited(since_us)});
  }
  // Named first: a process that stood still as a whole plays on when it wakes.
  if (speech.owes_playing() && !paused_ && SlowIsNamed() &&
      (now_us_ >= speech.moved_us + micros(options_.playout_timeout) ||
       is_stuck(Stage::kPlayout))) {
    // What was not played was not heard; the next speech begins anew.
    GiveUp(Stage::kPlayout, speech.moved_us);
    return Cut();
  }
  if (speech.more && speech.text_complete == false && now_us_ >= speech.more_until_us) {
    out_.emplace_back(command::Log{command::Log::Level::kWarn,
                                   "a text that is said as it comes stood still and was ended",
                                   ""});
    TextOver(speech);
  }
  for (ToolRun& run : speech.tools) {
    const bool overdue =
        now_us_ >= run.deadline_us || (is_stuck(Stage::kTool) && run.since_us > 0 &&
                                       std::max(run.since_us, speech.moved_us) <= stuck->since_us);
    if (run.done || !overdue) continue;
    GiveUp(Stage::kTool, run.since_us, run.request.name);
    out_.emplace_back(command::CancelTool{run.call});
    ToolFinished(run, {.output = "the tool did not answer in time", .is_error = true});
  }
  ToolsDone(speech);
}

// The turn was taken without the last final, perhaps without a word: whoever waits should know.
void Session::RecogniserStalled(const Turn& turn) {
  GiveUp(Stage::kRecogniser, turn.asked_us);
  hearing_.Replace(now_us_);
  if (!turn.text.empty()) return;  // its partial served
  const auto waited = absl::Microseconds(now_us_ - turn.asked_us);
  if (Failed(Engine::kStt, "no transcript within " + DurationText(waited))) return;
  if (active_ != nullptr || !queue_.empty() || linked_.empty()) return;
  Speech speech{.text = options_.apology};
  speech.apology = true;
  Enqueue(std::move(speech));
}

}  // namespace parley::session
