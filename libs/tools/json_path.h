#pragma once
#include <absl/status/statusor.h>

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace parley::tools {

// A path to one value of a JSON document, in the part of JSONPath that names exactly one:
//   $            the whole document
//   $.rate       $['a key']      a member
//   $.rooms[0]   $.rooms[-1]     an element; negative from the end
class JsonPath {
 public:
  // InvalidArgument: what is wrong, and where.
  static absl::StatusOr<JsonPath> Parse(std::string_view text);

  // The value, owned by `document`; null when there is none.
  const nlohmann::json* Find(const nlohmann::json& document) const;

 private:
  std::vector<std::variant<std::string, int>> steps_;
};

}  // namespace parley::tools
