// A file that should hold the weights of a voice detector.
#include <cstdint>
#include <string_view>

#include "audio/silero.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  (void)parley::audio::SileroModel::Parse({reinterpret_cast<const char*>(data), size});
  return 0;
}
