// Selectors come back from the store and positions from clients: both forms are escaped text.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "job/selector.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto selector = parley::job::ParseSelector(text);
  if (selector.ok()) {
    const auto written = parley::job::SelectorText(*selector);
    if (written.ok() && *parley::job::ParseSelector(*written) != *selector) std::abort();
  }
  const auto back = parley::job::Unescape(parley::job::Escape(text));
  if (!back.ok() || *back != text) std::abort();
  return 0;
}
