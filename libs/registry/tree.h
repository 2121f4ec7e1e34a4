#pragma once
// A YAML or JSON document as a plain tree that knows its lines. Internal to `registry`.
#include <absl/status/statusor.h>

#include <string>
#include <string_view>
#include <vector>

namespace parley::registry {

inline constexpr int kMaxDepth = 32;

struct Node {
  enum class Kind { kNull, kBool, kNumber, kText, kList, kMap };
  Kind kind = Kind::kNull;
  int line = 0;                   // from 1; 0 = unknown
  std::string text;               // of scalars, as written (bool: "true" or "false")
  std::vector<std::string> keys;  // of a map, in order, each once
  std::vector<int> key_lines;
  std::vector<Node> items;  // of a list; of a map: the values

  const Node* Find(std::string_view key) const;
};

// InvalidArgument: "SOURCE:LINE: what is wrong" with metadata `line`. Refuses anchors, aliases,
// tags, keys that are not text or stand twice, several documents, more than kMaxDepth levels.
absl::StatusOr<Node> ParseTree(std::string_view text, std::string_view source);
// JSON only; lines are counted, too.
absl::StatusOr<Node> ParseJsonTree(std::string_view text, std::string_view source);

// An InvalidArgument of a definition: text "SOURCE:LINE: FIELD: what", reason and metadata as
// ParseDefinition says. `line` 0 and an empty `field` are left out.
absl::Status DefinitionError(std::string_view source, int line, std::string_view field,
                             std::string_view what, std::string_view reason = "DEFINITION_INVALID");

}  // namespace parley::registry
