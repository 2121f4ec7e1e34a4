#include "speech/engines.h"

#include <fmt/ranges.h>

namespace parley::speech {

absl::Status UnknownEngine(std::string_view kind, std::string_view name,
                           const std::vector<std::string>& known) {
  const std::string list = fmt::format("{}", fmt::join(known, ", "));
  return WithReason(NotFound("there is no {} engine \"{}\"; this server has: {}", kind, name, list),
                    "UNKNOWN_ENGINE", {{"engine", std::string(name)}, {"known", list}});
}

}  // namespace parley::speech
