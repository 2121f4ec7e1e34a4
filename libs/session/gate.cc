#include "session/gate.h"

#include <algorithm>
#include <limits>

namespace parley::session {

SpeechGate::SpeechGate(const Options& options)
    : needed_frames_(static_cast<size_t>(std::clamp<int64_t>(
          absl::ToInt64Microseconds(options.min_speech) / kFrameUs, 1, kWindowFrames))),
      min_silence_us_(absl::ToInt64Microseconds(options.min_silence)) {}

SpeechGate::Edge SpeechGate::Add(bool speech, int64_t now_us, int64_t quiet_us) {
  const bool before = window_[0];
  last_frame_us_ = now_us;
  window_ <<= 1;
  window_[0] = speech;
  if (!speaking_) {
    if (window_.count() < needed_frames_) return Edge::kNone;
    size_t first = kWindowFrames - 1;
    while (!window_[first]) --first;
    speaking_ = true;
    start_us_ = now_us - static_cast<int64_t>(first + 1) * kFrameUs;
    last_speech_us_ = now_us - quiet_us;
    return Edge::kStarted;
  }
  // One frame alone is a click, not somebody who goes on.
  if (speech && before) last_speech_us_ = std::max(last_speech_us_, now_us - quiet_us);
  if (now_us - last_speech_us_ < min_silence_us_) return Edge::kNone;
  speaking_ = false;
  window_.reset();
  return Edge::kStopped;
}

SpeechGate::Edge SpeechGate::Expire(int64_t now_us) {
  if (!speaking_ || now_us < expiry_us()) return Edge::kNone;
  speaking_ = false;
  window_.reset();
  return Edge::kStopped;
}

int64_t SpeechGate::expiry_us() const {
  // Later than any frame that is on its way: jitter is not silence.
  constexpr int64_t kJitterUs = 100'000;
  return speaking_ && !held_ ? last_speech_us_ + min_silence_us_ + kJitterUs
                             : std::numeric_limits<int64_t>::max();
}

int64_t SpeechGate::starting_until_us() const {
  constexpr unsigned long kLastFive = 0x1F;
  const bool starting =
      !speaking_ && (window_ & std::bitset<kWindowFrames>(kLastFive)).count() >= 2;
  return starting ? last_frame_us_ + 3 * kFrameUs : 0;
}

void SpeechGate::Hold(int64_t now_us) {
  speaking_ = held_ = true;
  start_us_ = last_speech_us_ = now_us;
}

void SpeechGate::Release(int64_t end_us) {
  speaking_ = held_ = false;
  last_speech_us_ = std::max(end_us, start_us_);
}

void SpeechGate::Reset() {
  speaking_ = held_ = false;
  window_.reset();
}

}  // namespace parley::session
