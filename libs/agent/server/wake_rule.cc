#include "agent/server/wake_rule.h"

#include <cstddef>
#include <utility>

namespace parley::agent {
namespace {

constexpr uint32_t kQuietLevel = 60;  // -dBov; the detector of voices begins at -52 dBov
constexpr uint32_t kLevelUnknown = 127;
constexpr int64_t kQuietForUs = 1'000'000;
constexpr int kQuietFrames = 20;
constexpr int kSpokenFrames = 5;  // the recogniser gets as many at a time
constexpr int kFirstSpoken = 10;  // each at once: speech begins
constexpr int64_t kFrameUs = 20'000;
// How long before a pause may be an end each of its frames goes at once: five frames, and jitter.
constexpr int64_t kEndMarginUs = 150'000;
constexpr size_t kMaxTracksWithLevels = 64;

}  // namespace

bool WakeRule::MayWait(uint32_t track, uint32_t level, int64_t now_us) {
  // Senders that know no level say the lowest, or none at all.
  if (level > 0 && level < kLevelUnknown && levels_of_.size() < kMaxTracksWithLevels) {
    levels_of_.insert(track);
  }
  const bool known = levels_of_.contains(track);
  const bool silent = utterance_over_ || now_us - loud_us_ >= kQuietForUs;
  int together = 1;
  if (!known || level < kQuietLevel) {
    if (silent) loud_frames_ = 0;
    utterance_over_ = false;
    loud_us_ = now_us;
    if (known && ++loud_frames_ > kFirstSpoken) together = kSpokenFrames;
  } else if (silent) {
    together = kQuietFrames;
  } else if (now_us - loud_us_ < shortest_end_us_ - kEndMarginUs) {
    together = kSpokenFrames;
  }
  if (waiting_frames_ == 0) waiting_since_us_ = now_us;
  const bool soon = now_us - waiting_since_us_ < kFrameUs * together - kFrameUs / 2;
  if (++waiting_frames_ < together && soon) return true;
  waiting_frames_ = 0;
  return false;
}

void WakeRule::UtteranceOver(int64_t now_us) {
  utterance_over_ = true;
  const int64_t end_us = now_us - loud_us_;
  if (shortest_end_us_ == 0 || end_us < shortest_end_us_) shortest_end_us_ = end_us;
}

bool WakeRule::Stranded(int64_t now_us) {
  const bool spoken = waiting_frames_ > 0 && loud_us_ >= waiting_since_us_;
  if (!spoken || now_us - loud_us_ <= 2 * kFrameUs) return false;
  waiting_frames_ = 0;
  return true;
}

}  // namespace parley::agent
