#pragma once
#include <absl/status/statusor.h>

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace parley::tools {

// Text with places for arguments: "https://rates.example/{room}?nights={nights}". "{{" and "}}"
// stand for braces.
class Template {
 public:
  // InvalidArgument: a brace without its partner, or an empty name.
  static absl::StatusOr<Template> Parse(std::string_view text);

  const std::vector<std::string>& names() const { return names_; }
  // Puts `encode(value)` in each place. Strings go in as they are, numbers and booleans as JSON
  // writes them.
  //   InvalidArgument  an argument is missing, null, an object or an array
  absl::StatusOr<std::string> Fill(
      const nlohmann::json& arguments,
      const std::function<std::string(std::string_view)>& encode) const;

 private:
  std::vector<std::string> texts_;  // one more than names_
  std::vector<std::string> names_;
};

}  // namespace parley::tools
