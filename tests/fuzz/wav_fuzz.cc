// WAV files of callers: whatever comes is audio or an error.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "audio/wav.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto wav = parley::audio::ParseWav({reinterpret_cast<const char*>(data), size});
  if (!wav.ok()) return 0;
  const bool sound = wav->rate_hz >= 8'000 && wav->channels >= 1 && !wav->samples.empty() &&
                     wav->samples.size() % static_cast<size_t>(wav->channels) == 0;
  if (!sound) std::abort();
  return 0;
}
