#pragma once
#include <cstdint>
#include <span>

namespace parley::audio {

// How loud, as RTP's audio level says it: -dBov, 0 (a full-scale square wave) to 127 (digital
// silence, or no samples).
uint32_t Level(std::span<const int16_t> samples);
// The same as a negative number with fractions, -127 to 0.
float LevelDbov(std::span<const int16_t> samples);

}  // namespace parley::audio
