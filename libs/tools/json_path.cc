#include "tools/json_path.h"

#include <charconv>
#include <nlohmann/json.hpp>

#include "base/status.h"

namespace parley::tools {
namespace {

using Step = std::variant<std::string, int>;

// One step in brackets; `text` begins after the '['. Eats the step and the ']'.
absl::StatusOr<Step> ParseBrackets(std::string_view& text) {
  if (!text.empty() && (text.front() == '\'' || text.front() == '"')) {
    const char quote = text.front();
    const size_t end = text.find(quote, 1);
    if (end == std::string_view::npos || text.substr(end + 1, 1) != "]") {
      return InvalidArgument("a quoted key must end with {}]", quote);
    }
    std::string key(text.substr(1, end - 1));
    text.remove_prefix(end + 2);
    return Step(std::move(key));
  }
  const size_t end = text.find(']');
  int index = 0;
  if (end == std::string_view::npos) return InvalidArgument("a [ without its ]");
  const auto parsed = std::from_chars(text.data(), text.data() + end, index);
  if (end == 0 || parsed.ec != std::errc() || parsed.ptr != text.data() + end) {
    return InvalidArgument("[{}] is neither an index nor a quoted key", text.substr(0, end));
  }
  text.remove_prefix(end + 1);
  return Step(index);
}

}  // namespace

absl::StatusOr<JsonPath> JsonPath::Parse(std::string_view text) {
  const std::string whole(text);
  if (!text.starts_with('$')) return InvalidArgument("path \"{}\" must start with $", whole);
  text.remove_prefix(1);
  JsonPath path;
  while (!text.empty()) {
    const char next = text.front();
    text.remove_prefix(1);
    if (next == '.') {
      const size_t end = text.find_first_of(".[");
      const std::string_view key = text.substr(0, end);
      if (key.empty() || key == "*") {
        return InvalidArgument("path \"{}\": after . comes the name of one member", whole);
      }
      path.steps_.emplace_back(std::string(key));
      text.remove_prefix(key.size());
    } else if (next == '[') {
      absl::StatusOr<Step> step = ParseBrackets(text);
      if (!step.ok()) return InvalidArgument("path \"{}\": {}", whole, Message(step.status()));
      path.steps_.push_back(*std::move(step));
    } else {
      return InvalidArgument("path \"{}\": unexpected \"{}\"", whole, next);
    }
  }
  return path;
}

const nlohmann::json* JsonPath::Find(const nlohmann::json& document) const {
  const nlohmann::json* value = &document;
  for (const Step& step : steps_) {
    if (const auto* key = std::get_if<std::string>(&step)) {
      if (!value->is_object()) return nullptr;
      const auto it = value->find(*key);
      if (it == value->end()) return nullptr;
      value = &*it;
      continue;
    }
    if (!value->is_array()) return nullptr;
    const int64_t size = static_cast<int64_t>(value->size());
    int64_t index = std::get<int>(step);
    if (index < 0) index += size;
    if (index < 0 || index >= size) return nullptr;
    value = &(*value)[static_cast<size_t>(index)];
  }
  return value;
}

}  // namespace parley::tools
