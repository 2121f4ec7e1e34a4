#pragma once
// Samples everywhere are signed 16-bit, mono, in the host's (little-endian) order.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace parley::audio {

inline constexpr int kRoomRateHz = 48'000;   // of rooms and of Opus on the wire
inline constexpr int kVoiceRateHz = 16'000;  // of voice detection and speech recognition
inline constexpr int kFrameMs = 20;
inline constexpr size_t kRoomFrameSamples = size_t{kRoomRateHz} * kFrameMs / 1000;    // 960
inline constexpr size_t kVoiceFrameSamples = size_t{kVoiceRateHz} * kFrameMs / 1000;  // 320

// The bytes of `samples` as they go over a wire. Borrows.
inline std::string_view AsBytes(std::span<const int16_t> samples) {
  return {reinterpret_cast<const char*>(samples.data()), samples.size_bytes()};
}
// Appends the whole samples of `bytes` (any alignment); an odd last byte is left out.
void AppendSamples(std::string_view bytes, std::vector<int16_t>& samples);
// One channel of interleaved audio, or the mean of all channels.
std::vector<int16_t> Channel(std::span<const int16_t> interleaved, int channels, int channel);
std::vector<int16_t> MixDown(std::span<const int16_t> interleaved, int channels);

constexpr int64_t SamplesToMicros(int64_t samples, int rate_hz) {
  return samples * 1'000'000 / rate_hz;
}
constexpr int64_t MicrosToSamples(int64_t micros, int rate_hz) {
  return micros * rate_hz / 1'000'000;
}

}  // namespace parley::audio
