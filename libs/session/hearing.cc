#include "session/hearing.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/strings.h"
#include "session/text.h"

namespace parley::session {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

int64_t Micros(absl::Duration duration) { return absl::ToInt64Microseconds(duration); }

std::string SegmentId(uint64_t utterance) { return "u" + std::to_string(utterance); }

}  // namespace

Hearing::Hearing(const Options& options, std::vector<Command>& out)
    : options_(options),
      out_(out),
      gate_(options),
      final_patience_(options.patience),
      detection_(options.turn_detection),
      min_delay_us_(absl::ToInt64Microseconds(options.min_endpointing_delay)),
      delay_us_(min_delay_us_) {}

void Hearing::Open(int64_t now_us) {
  open_ = true;
  opened_us_ = now_us;
  tells_pauses_ = missed_pause_ = false;
  pause_us_ = 0;
  out_.emplace_back(command::SttOpen{++stream_});
  base_ = utterance_;
  if (detection_ == TurnDetection::kRealtime) {
    // It hears everything, and says itself what is speech.
    if (gate_.speaking()) {
      gate_.Reset();
      turn_open_ = false;  // its beginning was heard by the one before
    }
    out_.emplace_back(command::SttStart{stream_, absl::ZeroDuration()});
  } else if (gate_.speaking()) {
    Begin(now_us);
  }
}

// Speech that its stream will not say the end of.
void Hearing::Hush(int64_t now_us) {
  gate_.Release(now_us);
  End(now_us);
}

void Hearing::Close() {
  if (open_) out_.emplace_back(command::SttClose{stream_});
  open_ = false;
  reopen_us_ = 0;
}

void Hearing::Replace(int64_t now_us) {
  if (!open_) return;
  Close();
  feeding_ = false;
  Open(now_us);
}

void Hearing::Reset() {
  if (!options_.realtime) {
    if (feeding_) out_.emplace_back(command::SttEnd{stream_, utterance_});
  } else if (open_ && turn_open_ && detection_ != TurnDetection::kRealtime) {
    out_.emplace_back(command::SttForget{stream_, turn_first_});
  }
  feeding_ = false;
  answered_ = utterance_;
  gate_.Reset();
  turn_open_ = false;
  finals_.clear();
  partial_.clear();
  partial_shown_ = false;
  commit_us_ = 0;
  wordless_ = false;
  Judge();
}

void Hearing::OnVoice(bool speech, int64_t now_us, int64_t quiet_us) {
  if (detection_ == TurnDetection::kRealtime) {
    if (gate_.held()) gate_.Touch(now_us);
    return;
  }
  switch (gate_.Add(speech, now_us, quiet_us)) {
    case SpeechGate::Edge::kStarted:
      Started(now_us);
      break;
    case SpeechGate::Edge::kStopped:
      wordless_ = false;
      last_end_us_ = gate_.last_speech_us();
      if (!AwaitsPause()) End(now_us);
      break;
    case SpeechGate::Edge::kNone:
      if (gate_.speaking() &&
          now_us - gate_.start_us() > absl::ToInt64Microseconds(options_.max_utterance)) {
        gate_.Reset();
        End(now_us);
      }
      break;
  }
}

void Hearing::OnSpeech(uint32_t stream, bool started, uint64_t utterance, int64_t now_us) {
  if (stream != stream_ || !open_ || detection_ != TurnDetection::kRealtime) return;
  if (started == gate_.speaking()) return;
  if (started) {
    if (utterance == 0) return;
    gate_.Hold(now_us);
    utterance_ = base_ + utterance - 1;
    Started(now_us);
  } else {
    // It waits for this silence before it says so.
    gate_.Release(now_us - absl::ToInt64Microseconds(options_.min_endpointing_delay));
    End(now_us);
  }
}

bool Hearing::OnTranscript(uint32_t stream, uint64_t& utterance, const std::string& text,
                           bool final) {
  if (stream != stream_ || !open_) return false;
  if (detection_ == TurnDetection::kRealtime) utterance += base_;
  if (utterance == 0 || utterance > utterance_) return false;
  failures_ = 0;
  if (!text.empty()) out_.emplace_back(command::UserText{SegmentId(utterance), text, final});
  return true;
}

void Hearing::Started(int64_t now_us) {
  if (options_.dynamic_endpointing) {
    // A pause inside a turn, or one that was taken for its end when it was none: the agent has not
    // begun to answer, or only just.
    constexpr int64_t kAtOnceUs = 1'000'000;
    const bool cut_in = answered_us_ < turn_end_us_ || now_us - answered_us_ < kAtOnceUs;
    const int64_t from_us = turn_open_ ? last_end_us_ : turn_end_us_;
    const int64_t gap_us = gate_.start_us() - from_us;
    if ((turn_open_ || cut_in) && from_us > 0 && gap_us > 0 && gap_us <= LongestUs()) {
      const double alpha = options_.endpointing_alpha;
      const auto pause_us = static_cast<double>(gap_us);
      const auto mean_us =
          static_cast<int64_t>(alpha * static_cast<double>(min_delay_us_) + (1 - alpha) * pause_us);
      min_delay_us_ = std::clamp(mean_us, absl::ToInt64Microseconds(options_.min_endpointing_delay),
                                 LongestUs());
    }
  }
  if (!turn_open_) {
    turn_first_ = utterance_ + 1;
    turn_speech_us_ = 0;
  }
  turn_open_ = true;
  text_us_ = now_us;
  if (open_ && !feeding_) Begin(now_us);  // else the utterance goes on
}

void Hearing::Begin(int64_t now_us) {
  feeding_ = true;
  ++utterance_;
  partial_.clear();
  partial_shown_ = false;
  pause_us_ = 0;
  if (detection_ == TurnDetection::kRealtime) return;
  const auto since_start = absl::Microseconds(now_us - gate_.start_us());
  // After sound without words the beginning of the sound is long past.
  const absl::Duration since = std::min(since_start, absl::Seconds(1));
  out_.emplace_back(command::SttStart{stream_, options_.preroll + since});
}

void Hearing::End(int64_t now_us) {
  last_end_us_ = gate_.last_speech_us();
  turn_speech_us_ += last_end_us_ - gate_.start_us();
  if (!feeding_) {
    final_us_ = now_us;
    return;
  }
  feeding_ = false;
  asked_us_ = now_us;
  if (detection_ == TurnDetection::kRealtime) return;  // it knows
  out_.emplace_back(command::SttEnd{stream_, utterance_});
}

bool Hearing::OnPartial(uint32_t stream, const std::string& text, int64_t now_us) {
  if (stream != stream_ || !open_ || answered_ >= utterance_ || text == partial_) return false;
  partial_ = text;
  partial_shown_ = true;
  text_us_ = now_us;
  if (gate_.speaking()) pause_us_ = 0;  // else the words are from before it
  Judge();
  out_.emplace_back(command::UserText{SegmentId(utterance_), text, false});
  return true;
}

bool Hearing::OnFinal(uint32_t stream, uint64_t utterance, const std::string& text,
                      int64_t now_us) {
  // Too late, for a turn that was taken without it, or nothing that was asked for.
  if (stream != stream_ || utterance <= answered_ || utterance > utterance_) return false;
  const bool current = utterance == utterance_;
  if (current && !feeding_) final_patience_.Took(now_us - asked_us_);
  answered_ = utterance;
  final_us_ = now_us;
  failures_ = 0;
  const std::string_view words = Trim(text);
  if (!words.empty() || (current && partial_shown_)) {
    out_.emplace_back(command::UserText{SegmentId(utterance), std::string(words), true});
  }
  if (current) partial_.clear();
  if (!words.empty()) finals_ = JoinText(finals_, words);
  Judge();
  return !words.empty();
}

void Hearing::OnActivity(uint32_t stream, bool speech, int64_t now_us) {
  if (stream != stream_ || !open_ || options_.realtime) return;
  if (speech) {
    tells_pauses_ = !missed_pause_;
    pause_us_ = 0;
    return;
  }
  tells_pauses_ = true;
  missed_pause_ = false;
  if (feeding_) pause_us_ = now_us;
}

bool Hearing::AwaitsPause() const {
  return detection_ == TurnDetection::kStt && tells_pauses_ && pause_us_ == 0 && feeding_;
}

// The utterance of somebody who is silent, and whom the recogniser goes on listening to.
void Hearing::ConsiderPause(int64_t now_us) {
  if (!feeding_ || gate_.speaking() || options_.realtime) return;
  if (AwaitsPause() && now_us < gate_.last_speech_us() + PauseLimitUs()) return;
  PauseMissed();
  End(now_us);
}

// Where it was waited for in vain, perhaps of another engine that serves by now, none is waited for
// until it tells one again.
void Hearing::PauseMissed() {
  if (!AwaitsPause()) return;
  tells_pauses_ = false;
  missed_pause_ = true;
}

bool Hearing::OnFailed(uint32_t stream, int64_t now_us) {
  if (stream != stream_ || !open_) return false;
  if (now_us - opened_us_ >= kSettledUs) failures_ = 0;
  open_ = false;
  if (gate_.held()) gate_.Reset();
  if (options_.realtime && !gate_.speaking()) turn_open_ = false;  // who heard it is gone
  feeding_ = false;
  finals_ = Transcript();
  partial_.clear();
  answered_ = utterance_;
  final_us_ = now_us;
  Judge();
  // At once, then ever later.
  constexpr int64_t kFirstUs = 100'000;
  constexpr int64_t kLongestUs = 2'000'000;
  reopen_us_ = now_us + std::min(kFirstUs << std::min(failures_, 5), kLongestUs);
  ++failures_;
  return true;
}

void Hearing::Advance(int64_t now_us) {
  if (gate_.Expire(now_us) == SpeechGate::Edge::kStopped) End(now_us);
  if (gate_.held() && now_us >= gate_.start_us() + Micros(options_.max_utterance)) Hush(now_us);
  ConsiderWordless(now_us);
  ConsiderPause(now_us);
  if (!open_ && reopen_us_ != 0 && now_us >= reopen_us_) {
    reopen_us_ = 0;
    Open(now_us);
  }
}

// Sound without new words does not keep a turn open where only words count.
void Hearing::ConsiderWordless(int64_t now_us) {
  if (now_us < WordlessUs()) return;
  wordless_ = true;
  PauseMissed();
  End(now_us);
}

int64_t Hearing::WordlessUs() const {
  if (detection_ != TurnDetection::kStt || !gate_.speaking() || wordless_ || words() == 0)
    return kNever;
  return text_us_ + (AwaitsPause() ? std::max(delay_us_, PauseLimitUs()) : delay_us_);
}

void Hearing::SetDetection(TurnDetection detection) {
  detection_ = detection;
  Judge();
}

void Hearing::Commit(int64_t now_us) {
  if (!turn_open_) return;
  commit_us_ = now_us;
  if (!gate_.speaking() && !feeding_) return;
  if (gate_.speaking()) gate_.Reset();
  End(now_us);
}

int64_t Hearing::LongestUs() const {
  return std::max(absl::ToInt64Microseconds(options_.min_endpointing_delay),
                  absl::ToInt64Microseconds(options_.max_endpointing_delay));
}

// How long to wait for more, as far as the words so far tell.
void Hearing::Judge() {
  delay_us_ = min_delay_us_;
  if (detection_ != TurnDetection::kSemantic) return;
  const std::string text = Transcript();
  if (!text.empty()) delay_us_ = PatienceUs(EndOfTurn(text), min_delay_us_, LongestUs());
}

// Since when there has been nothing of the turn.
int64_t Hearing::EndUs() const {
  if (detection_ == TurnDetection::kStt && words() > 0) {
    return std::min(gate_.last_speech_us(), text_us_);
  }
  return gate_.last_speech_us();
}

std::optional<Turn> Hearing::TakeTurn(int64_t now_us) {
  const int64_t due_us = turn_deadline_us();
  if (due_us == kNever || now_us < due_us) return std::nullopt;
  const int64_t end_us = EndUs();
  const int64_t decide_us = commit_us_ > 0 ? commit_us_ : end_us + delay_us_;
  Turn turn{.text = Transcript(), .speech_end_us = end_us, .committed_us = now_us};
  // When the last final was there in time, all of the wait is endpointing.
  turn.decided_us = complete() && final_us_ <= decide_us ? now_us : decide_us;
  turn.asked_us = owed_since_us();
  if (options_.realtime) {
    turn.decided_us = now_us;
    turn.first_utterance = turn_first_;
    turn.last_utterance = utterance_;
    turn.speech_us = turn_speech_us_;
  }
  if (!complete() && partial_shown_) {
    out_.emplace_back(command::UserText{SegmentId(utterance_), partial_, true});
  }
  turn_end_us_ = end_us;
  answered_ = utterance_;
  turn_open_ = false;
  commit_us_ = 0;
  finals_.clear();
  partial_.clear();
  partial_shown_ = false;
  Judge();
  if (std::exchange(wordless_, false) && gate_.speaking()) {
    // The sound goes on: new words in it are a new turn.
    turn_open_ = true;
    text_us_ = now_us;
    if (open_) Begin(now_us);
  }
  return turn;
}

int64_t Hearing::deadline_us() const {
  int64_t deadline_us = gate_.expiry_us();
  if (gate_.held()) deadline_us = gate_.start_us() + Micros(options_.max_utterance);
  if (!open_ && reopen_us_ != 0) deadline_us = std::min(deadline_us, reopen_us_);
  if (feeding_ && !gate_.speaking() && !options_.realtime) {
    deadline_us =
        std::min(deadline_us, AwaitsPause() ? gate_.last_speech_us() + PauseLimitUs() : asked_us_);
  }
  return std::min(deadline_us, WordlessUs());
}

int64_t Hearing::turn_deadline_us() const {
  if (!turn_open_ || (gate_.speaking() && !wordless_)) return kNever;
  if (feeding_ && !gate_.speaking() && !options_.realtime) return kNever;  // see AwaitsPause
  if (commit_us_ > 0 && complete()) return commit_us_;
  if (commit_us_ > 0) {
    return std::max(commit_us_, std::min(commit_us_ + LongestUs(), StuckUs()));
  }
  if (detection_ == TurnDetection::kManual) return kNever;
  if (detection_ == TurnDetection::kRealtime) return EndUs();
  int64_t due_us = EndUs() + (complete() ? delay_us_ : std::max(delay_us_, LongestUs()));
  due_us = std::min(due_us, std::max(EndUs() + delay_us_, StuckUs()));
  return std::max(due_us, gate_.starting_until_us());
}

// When the turn is taken without the final that is owed.
int64_t Hearing::StuckUs() const {
  if (owed_since_us() == 0) return kNever;
  int64_t stuck_us = kNever;
  if (options_.max_stall != absl::InfiniteDuration()) {
    stuck_us = still_since_us() + Micros(options_.max_stall);
  }
  if (has_partial() && options_.patience > absl::ZeroDuration()) {
    stuck_us = std::min(stuck_us, still_since_us() + final_patience_.us());
  }
  return stuck_us;
}

int64_t Hearing::overdue_us() const {
  if (owed_since_us() == 0 || turn_deadline_us() == kNever) return kNever;
  return std::max(still_since_us() + final_patience_.us(), EndUs() + delay_us_);
}

std::string Hearing::Transcript() const { return JoinText(finals_, partial_); }

int Hearing::words() const { return CountWords(finals_) + CountWords(partial_); }

}  // namespace parley::session
