#pragma once
#include <absl/time/time.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace parley::session {

// How long a silence of one stage is borne: a least time, and for a stage that is slow in good
// health half as much again as it took at its slowest of the last eight times.
class Patience {
 public:
  // Whatever a stage has taken: who waits longer than this deserves a word.
  static constexpr int64_t kMostUs = 3'000'000;

  explicit Patience(absl::Duration least) : least_us_(absl::ToInt64Microseconds(least)) {}

  // It brought what was waited for.
  void Took(int64_t us) { took_us_[next_++ % took_us_.size()] = us; }
  int64_t us() const {
    const int64_t slowest_us = *std::max_element(took_us_.begin(), took_us_.end());
    return std::max(least_us_, std::min(slowest_us + slowest_us / 2, kMostUs));
  }

 private:
  const int64_t least_us_;
  std::array<int64_t, 8> took_us_{};
  size_t next_ = 0;
};

}  // namespace parley::session
