#include "registry/tree.h"

#include <yaml-cpp/emitterstyle.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/status.h"
#include "base/strings.h"

namespace parley::registry {
namespace {

// What went wrong while a tree was built; thrown through yaml-cpp, never out of this file.
struct Refused {
  int line;
  std::string what;
};

// Puts nodes together as either parser reports them.
class Builder {
 public:
  void Scalar(Node::Kind kind, int line, std::string text) {
    Node node;
    node.kind = kind;
    node.line = line;
    node.text = std::move(text);
    Put(std::move(node));
  }
  void Key(int line, std::string key) {
    Node& map = *open_.back();
    if (map.Find(key) != nullptr) throw Refused{line, fmt::format("\"{}\" stands here twice", key)};
    map.keys.push_back(std::move(key));
    map.key_lines.push_back(line);
  }
  void Open(Node::Kind kind, int line) {
    if (open_.size() >= kMaxDepth) {
      throw Refused{line, fmt::format("nested more than {} levels deep", kMaxDepth)};
    }
    Node node;
    node.kind = kind;
    node.line = line;
    open_.push_back(Put(std::move(node)));
  }
  void Close() { open_.pop_back(); }

  bool in_map() const { return !open_.empty() && open_.back()->kind == Node::Kind::kMap; }
  // The next thing in a map is a key when all keys have their values.
  bool wants_key() const {
    return in_map() && open_.back()->keys.size() == open_.back()->items.size();
  }
  Node Take() { return std::move(root_); }

 private:
  // Pointers into `items` stay valid: only the innermost open node grows.
  Node* Put(Node node) {
    if (open_.empty()) {
      root_ = std::move(node);
      return &root_;
    }
    open_.back()->items.push_back(std::move(node));
    return &open_.back()->items.back();
  }

  Node root_;
  std::vector<Node*> open_;
};

bool IsJsonNumber(std::string_view text) {
  const nlohmann::json value = nlohmann::json::parse(text, nullptr, false);
  return value.is_number();
}

// Plain scalars as YAML's core schema reads them, less its octal and hexadecimal numbers.
Node::Kind KindOfPlain(std::string_view text) {
  if (text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL") {
    return Node::Kind::kNull;
  }
  const std::string lower = ToLower(text);
  if (lower == "true" || lower == "false") return Node::Kind::kBool;
  return IsJsonNumber(text) ? Node::Kind::kNumber : Node::Kind::kText;
}

class YamlEvents : public YAML::EventHandler {
 public:
  explicit YamlEvents(Builder& builder) : builder_(builder) {}

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    Check(mark, "", anchor);
    if (builder_.wants_key()) throw Refused{mark.line + 1, "a key must be text"};
    builder_.Scalar(Node::Kind::kNull, mark.line + 1, "");
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    throw Refused{mark.line + 1, "aliases (*name) are not taken"};
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    const int line = mark.line + 1;
    Check(mark, tag, anchor);
    if (builder_.wants_key()) return builder_.Key(line, value);
    const Node::Kind kind = tag == "!" ? Node::Kind::kText : KindOfPlain(value);
    builder_.Scalar(kind, line, kind == Node::Kind::kBool ? ToLower(value) : value);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    Start(mark, tag, anchor, Node::Kind::kList);
  }
  void OnSequenceEnd() override { builder_.Close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    Start(mark, tag, anchor, Node::Kind::kMap);
  }
  void OnMapEnd() override { builder_.Close(); }

 private:
  void Start(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
             Node::Kind kind) {
    Check(mark, tag, anchor);
    if (builder_.wants_key()) throw Refused{mark.line + 1, "a key must be text"};
    builder_.Open(kind, mark.line + 1);
  }
  static void Check(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    if (anchor != 0) throw Refused{mark.line + 1, "anchors (&name) are not taken"};
    if (!tag.empty() && tag != "!" && tag != "?") {
      throw Refused{mark.line + 1, "tags (!type) are not taken"};
    }
  }

  Builder& builder_;
};

// Counts lines while the JSON parser reads.
class CountingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountingIterator(const char* at, int* line) : at_(at), line_(line) {}
  reference operator*() const { return *at_; }
  CountingIterator& operator++() {
    if (*at_ == '\n' && line_ != nullptr) ++*line_;
    ++at_;
    return *this;
  }
  bool operator==(const CountingIterator& other) const { return at_ == other.at_; }
  bool operator!=(const CountingIterator& other) const { return at_ != other.at_; }

 private:
  const char* at_;
  int* line_;
};

class JsonEvents : public nlohmann::json_sax<nlohmann::json> {
 public:
  JsonEvents(Builder& builder, const int& line) : builder_(builder), line_(line) {}

  bool null() override { return Scalar(Node::Kind::kNull, ""); }
  bool boolean(bool value) override { return Scalar(Node::Kind::kBool, value ? "true" : "false"); }
  bool number_integer(number_integer_t value) override {
    return Scalar(Node::Kind::kNumber, std::to_string(value));
  }
  bool number_unsigned(number_unsigned_t value) override {
    return Scalar(Node::Kind::kNumber, std::to_string(value));
  }
  bool number_float(number_float_t, const string_t& text) override {
    return Scalar(Node::Kind::kNumber, text);
  }
  bool string(string_t& value) override { return Scalar(Node::Kind::kText, std::move(value)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override {
    builder_.Open(Node::Kind::kMap, line_);
    return true;
  }
  bool key(string_t& value) override {
    builder_.Key(line_, std::move(value));
    return true;
  }
  bool end_object() override {
    builder_.Close();
    return true;
  }
  bool start_array(std::size_t) override {
    builder_.Open(Node::Kind::kList, line_);
    return true;
  }
  bool end_array() override {
    builder_.Close();
    return true;
  }
  bool parse_error(std::size_t, const std::string& last_token,
                   const nlohmann::detail::exception&) override {
    throw Refused{line_, fmt::format("not JSON from here on: {}", last_token.substr(0, 40))};
  }

 private:
  bool Scalar(Node::Kind kind, std::string text) {
    builder_.Scalar(kind, line_, std::move(text));
    return true;
  }
  Builder& builder_;
  const int& line_;
};

std::string WithoutPrefix(const std::string& message) {
  const size_t colon = message.rfind(": ");
  return colon == std::string::npos ? message : message.substr(colon + 2);
}

}  // namespace

const Node* Node::Find(std::string_view key) const {
  for (size_t i = 0; i < keys.size() && i < items.size(); ++i) {
    if (keys[i] == key) return &items[i];
  }
  return nullptr;
}

absl::Status DefinitionError(std::string_view source, int line, std::string_view field,
                             std::string_view what, std::string_view reason) {
  std::string text(source);
  if (line > 0) text += fmt::format(":{}", line);
  if (!field.empty()) text += fmt::format(": {}", field);
  return WithReason(InvalidArgument("{}: {}", text, what), reason,
                    {{"line", std::to_string(line)}, {"field", std::string(field)}});
}

absl::StatusOr<Node> ParseJsonTree(std::string_view text, std::string_view source) {
  Builder builder;
  int line = 1;
  JsonEvents events(builder, line);
  try {
    const CountingIterator begin(text.data(), &line);
    const CountingIterator end(text.data() + text.size(), nullptr);
    if (nlohmann::json::sax_parse(begin, end, &events)) return builder.Take();
  } catch (const Refused& refused) {
    return DefinitionError(source, refused.line, "", refused.what);
  }
  return DefinitionError(source, line, "", "not JSON");
}

absl::StatusOr<Node> ParseTree(std::string_view text, std::string_view source) {
  if (!IsValidUtf8(text)) return DefinitionError(source, 0, "", "not UTF-8 text");
  // JSON with its own parser (YAML lacks surrogate pairs); what only looks like it may be YAML.
  if (Trim(text).starts_with("{") && nlohmann::json::accept(text)) {
    return ParseJsonTree(text, source);
  }
  Builder builder;
  YamlEvents events(builder);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    if (!parser.HandleNextDocument(events)) return DefinitionError(source, 1, "", "empty");
    Builder ignored;
    YamlEvents more(ignored);
    if (parser.HandleNextDocument(more)) {
      return DefinitionError(source, 1, "", "holds more than one document");
    }
  } catch (const Refused& refused) {
    return DefinitionError(source, refused.line, "", refused.what);
  } catch (const YAML::Exception& error) {
    return DefinitionError(source, error.mark.line + 1, "", WithoutPrefix(error.msg));
  }
  return builder.Take();
}

}  // namespace parley::registry
