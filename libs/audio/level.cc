#include "audio/level.h"

#include <algorithm>
#include <cmath>

namespace parley::audio {

float LevelDbov(std::span<const int16_t> samples) {
  if (samples.empty()) return -127.0F;
  int64_t energy = 0;
  for (const int16_t sample : samples) energy += int64_t{sample} * sample;
  if (energy == 0) return -127.0F;
  constexpr double kFullScale = 32768.0 * 32768.0;
  const double mean = static_cast<double>(energy) / static_cast<double>(samples.size());
  return std::clamp(static_cast<float>(10.0 * std::log10(mean / kFullScale)), -127.0F, 0.0F);
}

uint32_t Level(std::span<const int16_t> samples) {
  return static_cast<uint32_t>(std::lround(-LevelDbov(samples)));
}

}  // namespace parley::audio
