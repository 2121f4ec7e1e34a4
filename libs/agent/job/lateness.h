#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>

namespace parley::agent {

// How late a frame comes: by its sender's media clock, compared with the quickest of the last
// seconds. Networks and batches on the way add some milliseconds to each; the sender's clock knows
// when it was spoken.
class Lateness {
 public:
  static constexpr int64_t kMostUs = 40'000;  // more is a pause of the sender's, or another clock

  // Of a frame with this time on the 48 kHz media clock.
  int64_t Of(uint32_t timestamp, int64_t arrived_us) {
    media_us_ += int64_t{static_cast<int32_t>(timestamp - last_timestamp_)} * 1000 / 48;
    last_timestamp_ = timestamp;
    const int64_t offset_us = arrived_us - media_us_;
    const int64_t quickest_us = std::min(now_us_, before_us_);
    if (quickest_us == kNone || offset_us - quickest_us > kAnotherClockUs) Forget(arrived_us);
    if (arrived_us - begun_us_ > kWindowUs) {
      begun_us_ = arrived_us;
      before_us_ = now_us_;
      now_us_ = kNone;
    }
    now_us_ = std::min(now_us_, offset_us);
    return std::clamp<int64_t>(offset_us - std::min(now_us_, before_us_), 0, kMostUs);
  }
  void Reset() { Forget(0); }

 private:
  static constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
  static constexpr int64_t kWindowUs = 2'000'000;
  static constexpr int64_t kAnotherClockUs = 500'000;
  void Forget(int64_t arrived_us) {
    begun_us_ = arrived_us;
    now_us_ = before_us_ = kNone;
  }

  uint32_t last_timestamp_ = 0;
  int64_t media_us_ = 0;
  int64_t begun_us_ = 0;
  int64_t now_us_ = kNone;     // the least offset of this window,
  int64_t before_us_ = kNone;  // and of the one before
};

}  // namespace parley::agent
