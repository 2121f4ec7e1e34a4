// Logs of a run, as the checker reads them: any bytes may be in them, and judging what was read
// ends, too. The first byte of a line chooses the log it stands in.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "checker/checks.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace parley::checker;  // NOLINT
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  History history;
  for (int line = 1; !rest.empty(); ++line) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view text = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (text.empty()) continue;
    const auto source = static_cast<Source>(static_cast<unsigned char>(text[0]) % 4);
    (void)AddLine(source, "log", line, text.substr(1), history);
  }
  (void)Check(history, {{{"default", 1}}});
  return 0;
}
