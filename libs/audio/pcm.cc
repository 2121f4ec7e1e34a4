#include "audio/pcm.h"

#include <bit>
#include <cstring>

#include "base/check.h"

namespace parley::audio {

static_assert(std::endian::native == std::endian::little,
              "samples go over the wire as they are in memory");

void AppendSamples(std::string_view bytes, std::vector<int16_t>& samples) {
  const size_t count = bytes.size() / sizeof(int16_t);
  if (count == 0) return;
  const size_t old = samples.size();
  samples.resize(old + count);
  std::memcpy(samples.data() + old, bytes.data(), count * sizeof(int16_t));
}

std::vector<int16_t> Channel(std::span<const int16_t> interleaved, int channels, int channel) {
  PARLEY_CHECK(channels > 0 && channel >= 0 && channel < channels);
  const auto step = static_cast<size_t>(channels);
  std::vector<int16_t> out(interleaved.size() / step);
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = interleaved[i * step + static_cast<size_t>(channel)];
  }
  return out;
}

std::vector<int16_t> MixDown(std::span<const int16_t> interleaved, int channels) {
  PARLEY_CHECK(channels > 0);
  const auto step = static_cast<size_t>(channels);
  std::vector<int16_t> out(interleaved.size() / step);
  for (size_t i = 0; i < out.size(); ++i) {
    int sum = 0;
    for (size_t c = 0; c < step; ++c) sum += interleaved[i * step + c];
    out[i] = static_cast<int16_t>(sum / channels);
  }
  return out;
}

}  // namespace parley::audio
