#include <cstddef>
#include <cstdint>
#include <string_view>

#include "engines/rules/rules.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto rules = parley::engines::RuleSet::Parse(text);
  parley::engines::SpokenResult(text);
  if (!rules.ok()) return 0;
  const std::vector<parley::speech::ChatItem> items = {
      parley::speech::ChatMessage{"user", "how much is a single room"},
      parley::speech::ChatToolResult{"1", "room_rate", "{\"rate\": 89}"}};
  rules->Answer(items, {{"room_rate", "", "{}"}}).status().IgnoreError();
  return 0;
}
