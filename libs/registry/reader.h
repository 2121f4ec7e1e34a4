#pragma once
// Reads the fields of a map one by one; the first thing that is wrong is kept, with line and field,
// and everything after it is skipped. Internal to `registry`.
#include <absl/status/status.h>
#include <absl/time/time.h>

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "registry/tree.h"

namespace parley::registry {

// Where the first error is kept.
class Errors {
 public:
  explicit Errors(std::string_view source) : source_(source) {}

  template <typename... Args>
  void Fail(int line, std::string_view field, fmt::format_string<Args...> format, Args&&... args) {
    if (!status_.ok()) return;
    status_ =
        DefinitionError(source_, line, field, fmt::format(format, std::forward<Args>(args)...));
  }
  // What it asks for is part of the language, not of this version.
  void Unsupported(int line, std::string_view field) {
    if (!status_.ok()) return;
    status_ = DefinitionError(source_, line, field, "not built yet in this version", "UNSUPPORTED");
  }
  bool ok() const { return status_.ok(); }
  const absl::Status& status() const { return status_; }

 private:
  const std::string source_;
  absl::Status status_;
};

// Length of a text in bytes.
struct TextRange {
  size_t min = 0;
  size_t max = 256;
};

// One map whose field names are known. Names are matched in snake_case; camelCase is turned into
// it.
class MapReader {
 public:
  // `path`: "" for the document, else e.g. "tools[0]".
  MapReader(const Node& node, std::string path, Errors& errors);

  // Each leaves `out` alone when the field is absent or null; false then.
  bool Text(std::string_view name, std::string* out, TextRange range = {});
  bool Bool(std::string_view name, bool* out);
  bool Int(std::string_view name, int* out, int min, int max);
  bool Double(std::string_view name, double* out, double min, double max);
  bool Duration(std::string_view name, absl::Duration* out, absl::Duration min, absl::Duration max);
  bool Size(std::string_view name, int64_t* out, int64_t min, int64_t max);
  // A map from free names to texts.
  bool Texts(std::string_view name, std::map<std::string, std::string>* out, size_t max_entries,
             TextRange keys, TextRange values);
  bool List(std::string_view name, size_t max_items,
            const std::function<void(const Node& item, const std::string& path)>& read);
  bool TextList(std::string_view name, std::vector<std::string>* out, size_t max_items,
                TextRange range);
  bool Map(std::string_view name,
           const std::function<void(const Node& map, const std::string& path)>& read);

  // The field's value, for whom none of the above fits; null when absent or null.
  const Node* Take(std::string_view name);
  // The field is part of the schema, its feature is not part of this version: any value but null,
  // false, "" or an empty list or map is refused by name.
  void NotBuilt(std::string_view name);
  void Required(std::string_view name);
  // Refuses fields that nobody asked for. Call last.
  void Finish();

  std::string PathOf(std::string_view name) const;
  int LineOf(std::string_view name) const;  // of the field, else of the map
  int line() const { return node_.line; }
  template <typename... Args>
  void Fail(std::string_view name, fmt::format_string<Args...> format, Args&&... args) {
    errors_.Fail(LineOf(name), PathOf(name), format, std::forward<Args>(args)...);
  }

 private:
  const Node& node_;
  const std::string path_;
  Errors& errors_;
  std::vector<std::string> names_;  // in snake_case, as in node_.keys
  std::set<std::string, std::less<>> known_;
};

}  // namespace parley::registry
