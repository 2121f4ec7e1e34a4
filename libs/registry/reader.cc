#include "registry/reader.h"

#include <algorithm>
#include <charconv>

#include "base/strings.h"

namespace parley::registry {
namespace {

std::string ToSnake(std::string_view name) {
  std::string out;
  for (const char letter : name) {
    if (letter >= 'A' && letter <= 'Z') {
      if (!out.empty()) out.push_back('_');
      out.push_back(static_cast<char>(letter - 'A' + 'a'));
    } else {
      out.push_back(letter);
    }
  }
  return out;
}

size_t Distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

template <typename Number>
std::optional<Number> ToNumber(const std::string& text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

bool IsEmpty(const Node& node) {
  switch (node.kind) {
    case Node::Kind::kNull:
      return true;
    case Node::Kind::kBool:
      return node.text == "false";
    case Node::Kind::kText:
      return node.text.empty();
    case Node::Kind::kNumber:
      return false;
    case Node::Kind::kList:
    case Node::Kind::kMap:
      return node.items.empty();
  }
  return false;
}

}  // namespace

MapReader::MapReader(const Node& node, std::string path, Errors& errors)
    : node_(node), path_(std::move(path)), errors_(errors) {
  if (node.kind != Node::Kind::kMap) {
    errors_.Fail(node.line, path_, "must be a map of fields");
    return;
  }
  for (size_t i = 0; i < node.keys.size(); ++i) {
    std::string name = ToSnake(node.keys[i]);
    if (std::find(names_.begin(), names_.end(), name) != names_.end()) {
      errors_.Fail(node.key_lines[i], PathOf(name), "stands here twice, in two spellings");
    }
    names_.push_back(std::move(name));
  }
}

std::string MapReader::PathOf(std::string_view name) const {
  if (name.empty()) return path_;
  return path_.empty() ? std::string(name) : path_ + "." + std::string(name);
}

int MapReader::LineOf(std::string_view name) const {
  for (size_t i = 0; i < names_.size(); ++i) {
    if (names_[i] == name) return node_.key_lines[i];
  }
  return node_.line;
}

const Node* MapReader::Take(std::string_view name) {
  known_.emplace(name);
  if (!errors_.ok()) return nullptr;
  for (size_t i = 0; i < names_.size(); ++i) {
    if (names_[i] == name && node_.items[i].kind != Node::Kind::kNull) return &node_.items[i];
  }
  return nullptr;
}

bool MapReader::Text(std::string_view name, std::string* out, TextRange range) {
  const Node* node = Take(name);
  if (node == nullptr) return false;
  if (node->kind != Node::Kind::kText && node->kind != Node::Kind::kNumber) {
    Fail(name, "must be text");
  } else if (node->text.size() < range.min) {
    Fail(name, "must not be empty");
  } else if (node->text.size() > range.max) {
    Fail(name, "has {} bytes; at most {} are taken", node->text.size(), range.max);
  } else if (node->text.find('\0') != std::string::npos) {
    Fail(name, "holds a NUL character");
  }
  *out = node->text;
  return errors_.ok();
}

bool MapReader::Bool(std::string_view name, bool* out) {
  const Node* node = Take(name);
  if (node == nullptr) return false;
  if (node->kind != Node::Kind::kBool) Fail(name, "must be true or false");
  *out = node->text == "true";
  return errors_.ok();
}

bool MapReader::Int(std::string_view name, int* out, int min, int max) {
  const Node* node = Take(name);
  if (node == nullptr) return false;
  const std::optional<int> value =
      node->kind == Node::Kind::kNumber ? ToNumber<int>(node->text) : std::nullopt;
  if (!value || *value < min || *value > max) {
    Fail(name, "must be a whole number from {} to {}", min, max);
    return false;
  }
  *out = *value;
  return true;
}

bool MapReader::Double(std::string_view name, double* out, double min, double max) {
  const Node* node = Take(name);
  if (node == nullptr) return false;
  const std::optional<double> value =
      node->kind == Node::Kind::kNumber ? ToNumber<double>(node->text) : std::nullopt;
  if (!value || !(*value >= min && *value <= max)) {
    Fail(name, "must be a number from {} to {}", min, max);
    return false;
  }
  *out = *value;
  return true;
}

bool MapReader::Duration(std::string_view name, absl::Duration* out, absl::Duration min,
                         absl::Duration max) {
  const Node* node = Take(name);
  if (node == nullptr) return false;
  const std::optional<absl::Duration> value = ParseDuration(node->text);
  if (!value) {
    Fail(name, "must be a duration with a unit, such as 500ms, 2s or 1h");
    return false;
  }
  if (*value < min || *value > max) {
    Fail(name, "must be from {} to {}", DurationText(min), DurationText(max));
    return false;
  }
  *out = *value;
  return true;
}

bool MapReader::Size(std::string_view name, int64_t* out, int64_t min, int64_t max) {
  const Node* node = Take(name);
  if (node == nullptr) return false;
  const std::optional<int64_t> value = ParseSize(node->text);
  if (!value) {
    Fail(name, "must be a size with a unit, such as 64KiB or 256MiB");
    return false;
  }
  if (*value < min || *value > max) {
    Fail(name, "must be from {} to {}", SizeText(min), SizeText(max));
    return false;
  }
  *out = *value;
  return true;
}

bool MapReader::Texts(std::string_view name, std::map<std::string, std::string>* out,
                      size_t max_entries, TextRange keys, TextRange values) {
  const Node* node = Take(name);
  if (node == nullptr) return false;
  if (node->kind != Node::Kind::kMap) {
    Fail(name, "must be a map of names and texts");
    return false;
  }
  if (node->items.size() > max_entries) {
    Fail(name, "has {} entries; at most {} are taken", node->items.size(), max_entries);
  }
  for (size_t i = 0; i < node->items.size() && errors_.ok(); ++i) {
    const Node& value = node->items[i];
    const std::string& key = node->keys[i];
    const std::string path = PathOf(name) + "." + key;
    if (key.size() < keys.min || key.size() > keys.max) {
      errors_.Fail(node->key_lines[i], path, "its name must have {} to {} bytes", keys.min,
                   keys.max);
    } else if (value.kind != Node::Kind::kText && value.kind != Node::Kind::kNumber) {
      errors_.Fail(node->key_lines[i], path, "must be text");
    } else if (value.text.size() < values.min || value.text.size() > values.max) {
      errors_.Fail(node->key_lines[i], path, "must have {} to {} bytes", values.min, values.max);
    }
    (*out)[key] = value.text;
  }
  return errors_.ok();
}

bool MapReader::List(std::string_view name, size_t max_items,
                     const std::function<void(const Node& item, const std::string& path)>& read) {
  const Node* node = Take(name);
  if (node == nullptr) return false;
  if (node->kind != Node::Kind::kList) {
    Fail(name, "must be a list");
    return false;
  }
  if (node->items.size() > max_items) {
    Fail(name, "has {} entries; at most {} are taken", node->items.size(), max_items);
  }
  for (size_t i = 0; i < node->items.size() && errors_.ok(); ++i) {
    read(node->items[i], fmt::format("{}[{}]", PathOf(name), i));
  }
  return errors_.ok();
}

bool MapReader::TextList(std::string_view name, std::vector<std::string>* out, size_t max_items,
                         TextRange range) {
  return List(name, max_items, [&](const Node& item, const std::string& path) {
    if (item.kind != Node::Kind::kText && item.kind != Node::Kind::kNumber) {
      errors_.Fail(item.line, path, "must be text");
    } else if (item.text.size() < range.min || item.text.size() > range.max) {
      errors_.Fail(item.line, path, "must have {} to {} bytes", range.min, range.max);
    }
    out->push_back(item.text);
  });
}

bool MapReader::Map(std::string_view name,
                    const std::function<void(const Node& map, const std::string& path)>& read) {
  const Node* node = Take(name);
  if (node == nullptr) return false;
  if (node->kind != Node::Kind::kMap) {
    Fail(name, "must be a map of fields");
    return false;
  }
  read(*node, PathOf(name));
  return errors_.ok();
}

void MapReader::NotBuilt(std::string_view name) {
  const Node* node = Take(name);
  if (node != nullptr && !IsEmpty(*node)) errors_.Unsupported(LineOf(name), PathOf(name));
}

void MapReader::Required(std::string_view name) {
  if (errors_.ok() && Take(name) == nullptr) Fail(name, "is missing");
}

void MapReader::Finish() {
  for (const std::string& name : names_) {
    if (known_.contains(name)) continue;
    std::string_view closest;
    for (const std::string& known : known_) {
      const size_t limit = name.size() / 3 + 1;
      if (Distance(name, known) > limit) continue;
      if (closest.empty() || Distance(name, known) < Distance(name, closest)) closest = known;
    }
    if (closest.empty() || name.size() > 64) return Fail(name, "is not a known field");
    return Fail(name, "is not a known field; did you mean {}?", closest);
  }
}

}  // namespace parley::registry
