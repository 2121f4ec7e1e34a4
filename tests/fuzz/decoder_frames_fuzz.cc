#include <cstddef>
#include <cstdint>
#include <string_view>

#include "engines/pocketsphinx/frames.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace parley::engines;
  FrameReader reader;
  reader.Append({reinterpret_cast<const char*>(data), size});
  while (true) {
    const auto frame = reader.Next();
    if (!frame.ok() || !frame->has_value()) return 0;
    const std::string& payload = (*frame)->payload;
    DecodeDecoderConfig(payload).status().IgnoreError();
    DecodeTranscript(payload).status().IgnoreError();
    DecodeUint(payload).status().IgnoreError();
    DecodeStatus(payload).IgnoreError();
  }
}
