// Packets of people's microphones and of other servers: samples or an error, and the decoder goes
// on after either.
#include <array>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "audio/opus.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using parley::audio::OpusDecoder;
  if (size < 1) return 0;
  static constexpr std::array kRates = {8'000, 12'000, 16'000, 24'000, 48'000};
  const int rate_hz = kRates[data[0] % kRates.size()];
  const std::string_view packet(reinterpret_cast<const char*>(data) + 1, size - 1);
  auto decoder = OpusDecoder::Create(rate_hz);
  if (!decoder.ok()) std::abort();
  std::vector<int16_t> samples(OpusDecoder::MaxSamples(rate_hz));
  const auto decoded = decoder->Decode(packet, samples);
  if (decoded.ok() && *decoded > samples.size()) std::abort();
  const auto frame = std::span(samples).first(static_cast<size_t>(rate_hz / 50));
  static_cast<void>(decoder->Recover(packet, frame).ok());
  if (!decoder->Conceal(frame).ok()) std::abort();
  static_cast<void>(decoder->Decode(packet, samples).ok());
  return 0;
}
