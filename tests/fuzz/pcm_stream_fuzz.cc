// Audio of Riva's clients, cut anywhere: however it is cut, the samples are the same.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "audio/pcm_stream.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const int channels = 1 + data[0] % 3;
  const size_t cut = 1 + data[1];
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 2, size - 2);
  parley::audio::PcmStream whole(channels);
  const auto wanted = whole.Append(bytes);
  parley::audio::PcmStream stream(channels);
  std::string got;
  for (size_t at = 0; at < bytes.size(); at += cut) {
    const auto piece = stream.Append(bytes.substr(at, cut));
    if (!piece.ok()) return 0;
    got += *piece;
  }
  if (wanted.ok() && got != *wanted) std::abort();
  if (got.size() % 2 != 0 || got.size() > bytes.size()) std::abort();
  return 0;
}
