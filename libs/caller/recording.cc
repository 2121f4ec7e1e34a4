#include "caller/recording.h"

#include <algorithm>
#include <limits>

namespace parley::caller {
namespace {

constexpr int64_t kMaxEarly = int64_t{48'000} * 2;  // a sender may run this far ahead of real time
constexpr int64_t kMaxLate = 48'000 / 10;      // later than this: a new stretch of speech begins
constexpr int32_t kMaxClockStep = 48'000 * 5;  // a longer jump of the media clock means nothing

}  // namespace

void Recording::Add(std::vector<int16_t>& channel, int64_t at, std::span<const int16_t> samples) {
  if (at < 0 || at + static_cast<int64_t>(samples.size()) > kMaxSamples) return;
  const auto begin = static_cast<size_t>(at);
  if (channel.size() < begin + samples.size()) channel.resize(begin + samples.size());
  for (size_t i = 0; i < samples.size(); ++i) {
    channel[begin + i] = static_cast<int16_t>(std::clamp<int>(channel[begin + i] + samples[i],
                                                              std::numeric_limits<int16_t>::min(),
                                                              std::numeric_limits<int16_t>::max()));
  }
}

int64_t Placement::Place(uint32_t timestamp, int64_t arrival) {
  const auto step = static_cast<int32_t>(timestamp - timestamp_);
  int64_t position = position_ + step;
  const bool clock_holds = started_ && step > 0 && step <= kMaxClockStep;
  if (!clock_holds || position + kMaxLate < arrival || position > arrival + kMaxEarly) {
    position = std::max(arrival, started_ ? position_ + 960 : arrival);
    if (position > arrival + kMaxEarly) position = arrival;
  }
  started_ = true;
  timestamp_ = timestamp;
  position_ = position;
  return position;
}

}  // namespace parley::caller
