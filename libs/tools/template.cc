#include "tools/template.h"

#include <nlohmann/json.hpp>

#include "base/status.h"

namespace parley::tools {

absl::StatusOr<Template> Template::Parse(std::string_view text) {
  Template result;
  std::string current;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c != '{' && c != '}') {
      current.push_back(c);
      continue;
    }
    if (i + 1 < text.size() && text[i + 1] == c) {
      current.push_back(c);
      ++i;
      continue;
    }
    const size_t end = text.find('}', i);
    if (c == '}' || end == std::string_view::npos || end == i + 1) {
      return InvalidArgument("\"{}\": a {{name}} is wanted at character {}; write {} for a brace",
                             text, i + 1, c == '}' ? "}}" : "{{");
    }
    result.texts_.push_back(std::move(current));
    current.clear();
    result.names_.emplace_back(text.substr(i + 1, end - i - 1));
    i = end;
  }
  result.texts_.push_back(std::move(current));
  return result;
}

absl::StatusOr<std::string> Template::Fill(
    const nlohmann::json& arguments,
    const std::function<std::string(std::string_view)>& encode) const {
  std::string text = texts_[0];
  for (size_t i = 0; i < names_.size(); ++i) {
    const auto it = arguments.find(names_[i]);
    if (it == arguments.end() || it->is_null()) {
      return InvalidArgument("argument \"{}\" is missing", names_[i]);
    }
    if (it->is_structured()) {
      return InvalidArgument("argument \"{}\" must be text, a number or a boolean", names_[i]);
    }
    text += encode(it->is_string() ? it->get<std::string>() : it->dump());
    text += texts_[i + 1];
  }
  return text;
}

}  // namespace parley::tools
