// Recordings are files that anybody may have made.
#include <cstdint>
#include <string_view>

#include "session/recording.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto replayed =
      parley::session::Replay(std::string_view(reinterpret_cast<const char*>(data), size));
  (void)replayed.ok();
  return 0;
}
