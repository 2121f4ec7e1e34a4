#include "session/hearing.h"

#include <algorithm>
#include <limits>

#include "base/strings.h"
#include "session/text.h"

namespace parley::session {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

std::string SegmentId(uint64_t utterance) { return "u" + std::to_string(utterance); }

}  // namespace

Hearing::Hearing(const Options& options, std::vector<Command>& out)
    : options_(options), out_(out), gate_(options) {}

void Hearing::Open(int64_t now_us) {
  open_ = true;
  opened_us_ = now_us;
  out_.emplace_back(command::SttOpen{++stream_});
  if (gate_.speaking()) Begin(now_us);
}

void Hearing::Close() {
  if (open_) out_.emplace_back(command::SttClose{stream_});
  open_ = false;
  reopen_us_ = 0;
}

void Hearing::Reset() {
  if (feeding_) out_.emplace_back(command::SttEnd{stream_, utterance_});
  feeding_ = false;
  answered_ = utterance_;
  gate_.Reset();
  turn_open_ = false;
  finals_.clear();
  partial_.clear();
  partial_shown_ = false;
}

void Hearing::OnVoice(bool speech, int64_t now_us) {
  switch (gate_.Add(speech, now_us)) {
    case SpeechGate::Edge::kStarted:
      turn_open_ = true;
      if (open_) Begin(now_us);
      break;
    case SpeechGate::Edge::kStopped:
      End(now_us);
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

void Hearing::Begin(int64_t now_us) {
  feeding_ = true;
  ++utterance_;
  partial_.clear();
  partial_shown_ = false;
  const auto since_start = absl::Microseconds(now_us - gate_.start_us());
  out_.emplace_back(command::SttStart{stream_, options_.preroll + since_start});
}

void Hearing::End(int64_t now_us) {
  if (!feeding_) {
    final_us_ = now_us;
    return;
  }
  feeding_ = false;
  out_.emplace_back(command::SttEnd{stream_, utterance_});
}

bool Hearing::OnPartial(uint32_t stream, const std::string& text) {
  if (stream != stream_ || !open_ || answered_ >= utterance_ || text == partial_) return false;
  partial_ = text;
  partial_shown_ = true;
  out_.emplace_back(command::UserText{SegmentId(utterance_), text, false});
  return true;
}

bool Hearing::OnFinal(uint32_t stream, uint64_t utterance, const std::string& text,
                      int64_t now_us) {
  // Too late, for a turn that was taken without it, or nothing that was asked for.
  if (stream != stream_ || utterance <= answered_ || utterance > utterance_) return false;
  const bool current = utterance == utterance_;
  answered_ = utterance;
  final_us_ = now_us;
  failures_ = 0;
  const std::string_view words = Trim(text);
  if (!words.empty() || (current && partial_shown_)) {
    out_.emplace_back(command::UserText{SegmentId(utterance), std::string(words), true});
  }
  if (current) partial_.clear();
  if (words.empty()) return false;
  finals_ = JoinText(finals_, words);
  return true;
}

bool Hearing::OnFailed(uint32_t stream, int64_t now_us) {
  if (stream != stream_ || !open_) return false;
  if (now_us - opened_us_ >= kSettledUs) failures_ = 0;
  open_ = false;
  feeding_ = false;
  finals_ = Transcript();
  partial_.clear();
  answered_ = utterance_;
  final_us_ = now_us;
  // At once, then ever later.
  constexpr int64_t kFirstUs = 100'000;
  constexpr int64_t kLongestUs = 2'000'000;
  reopen_us_ = now_us + std::min(kFirstUs << std::min(failures_, 5), kLongestUs);
  ++failures_;
  return true;
}

void Hearing::Advance(int64_t now_us) {
  if (gate_.Expire(now_us) == SpeechGate::Edge::kStopped) End(now_us);
  if (!open_ && reopen_us_ != 0 && now_us >= reopen_us_) {
    reopen_us_ = 0;
    Open(now_us);
  }
}

std::optional<Turn> Hearing::TakeTurn(int64_t now_us) {
  if (!turn_open_ || gate_.speaking()) return std::nullopt;
  const int64_t end_us = gate_.last_speech_us();
  const int64_t decide_us = end_us + absl::ToInt64Microseconds(options_.min_endpointing_delay);
  if (now_us < std::max(decide_us, gate_.starting_until_us())) return std::nullopt;
  const bool complete = answered_ == utterance_;
  if (!complete && now_us < end_us + absl::ToInt64Microseconds(options_.max_endpointing_delay)) {
    return std::nullopt;
  }
  Turn turn{.text = Transcript(), .speech_end_us = end_us, .committed_us = now_us};
  // When the last final was there in time, all of the wait is endpointing.
  turn.decided_us = complete && final_us_ <= decide_us ? now_us : decide_us;
  if (!complete && partial_shown_) {
    out_.emplace_back(command::UserText{SegmentId(utterance_), partial_, true});
  }
  answered_ = utterance_;
  turn_open_ = false;
  finals_.clear();
  partial_.clear();
  partial_shown_ = false;
  return turn;
}

int64_t Hearing::deadline_us() const {
  return !open_ && reopen_us_ != 0 ? std::min(gate_.expiry_us(), reopen_us_) : gate_.expiry_us();
}

int64_t Hearing::turn_deadline_us() const {
  if (!turn_open_ || gate_.speaking()) return kNever;
  const absl::Duration delay = answered_ == utterance_ ? options_.min_endpointing_delay
                                                       : std::max(options_.min_endpointing_delay,
                                                                  options_.max_endpointing_delay);
  return std::max(gate_.last_speech_us() + absl::ToInt64Microseconds(delay),
                  gate_.starting_until_us());
}

std::string Hearing::Transcript() const { return JoinText(finals_, partial_); }

int Hearing::words() const { return CountWords(finals_) + CountWords(partial_); }

}  // namespace parley::session
