// Checkpoints come back from a store: one that is read is written again as it was.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "session/checkpoint.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace parley::session;
  const auto read = ParseCheckpoint({reinterpret_cast<const char*>(data), size});
  if (!read.ok()) return 0;
  const auto again = ParseCheckpoint(FormatCheckpoint(*read));
  if (!again.ok() || again->items.size() > read->items.size()) std::abort();
  return 0;
}
