#include "registry/checks.h"

#include <re2/re2.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "base/ip.h"
#include "base/status.h"
#include "base/strings.h"

namespace parley::registry {
namespace {

bool AllOf(std::string_view text, std::string_view more) {
  return std::all_of(text.begin(), text.end(), [&](unsigned char letter) {
    return std::isalnum(letter) != 0 || more.find(static_cast<char>(letter)) != more.npos;
  });
}

std::string WithoutComments(std::string_view grammar) {
  std::string text(grammar);
  RE2::GlobalReplace(&text, R"((?s)/\*.*?\*/)", " ");
  RE2::GlobalReplace(&text, R"(//[^\n]*)", " ");
  return text;
}

std::string BracketProblem(std::string_view statement) {
  constexpr std::string_view kOpen = "([{<";
  constexpr std::string_view kClose = ")]}>";
  std::string open;
  for (const char letter : statement) {
    if (const size_t at = kOpen.find(letter); at != kOpen.npos) open.push_back(kClose[at]);
    if (kClose.find(letter) == kClose.npos) continue;
    if (open.empty() || open.back() != letter) return fmt::format("a \"{}\" too many", letter);
    open.pop_back();
  }
  return open.empty() ? "" : fmt::format("a \"{}\" is missing", open.back());
}

}  // namespace

bool IsId(std::string_view text) {
  return !text.empty() && text.size() <= 63 && AllOf(text, "-") && ToLower(text) == text;
}

bool IsToolName(std::string_view text) {
  return !text.empty() && text.size() <= 64 && AllOf(text, "_-") && text.front() != '-' &&
         std::isdigit(static_cast<unsigned char>(text.front())) == 0;
}

bool IsHeaderName(std::string_view text) {
  constexpr std::array<std::string_view, 5> kRefused = {"host", "content-length", "connection",
                                                        "transfer-encoding", "expect"};
  return !text.empty() && AllOf(text, "-_") &&
         std::find(kRefused.begin(), kRefused.end(), ToLower(text)) == kRefused.end();
}

std::string GrammarProblem(std::string_view grammar) {
  const std::string text = WithoutComments(grammar);
  if (!Trim(text).starts_with("#JSGF")) return "must begin with \"#JSGF V1.0;\"";
  static const RE2 kDefinition(R"(^\s*(public\s+)?<([A-Za-z0-9_.\-]+)>\s*=(?s)(.*)$)");
  static const RE2 kReference(R"(<([A-Za-z0-9_.\-]+)>)");
  std::vector<std::string> statements = Split(text, ';');
  if (!Trim(statements.back()).empty()) return "its last rule must end with \";\"";
  statements.pop_back();
  if (statements.size() < 2 || !RE2::FullMatch(Trim(statements[1]), R"(grammar\s+[\w.\-]+)")) {
    return "its second statement must be \"grammar NAME;\"";
  }
  std::set<std::string> defined = {"NULL", "VOID"};
  std::set<std::string> used;
  bool has_public = false;
  for (size_t i = 2; i < statements.size(); ++i) {
    const std::string_view statement = Trim(statements[i]);
    if (statement.starts_with("import")) return "imports are not taken; put all rules into it";
    std::string is_public;
    std::string name;
    std::string body;
    if (!RE2::FullMatch(statement, kDefinition, &is_public, &name, &body)) {
      return fmt::format("not a rule \"<name> = …;\": {}", statement.substr(0, 40));
    }
    if (Trim(body).empty()) return fmt::format("rule <{}> is empty", name);
    if (const std::string problem = BracketProblem(statement); !problem.empty()) {
      return fmt::format("rule <{}>: {}", name, problem);
    }
    if (!defined.insert(name).second) return fmt::format("rule <{}> stands here twice", name);
    has_public |= !is_public.empty();
    re2::StringPiece rest(body);
    for (std::string reference; RE2::FindAndConsume(&rest, kReference, &reference);) {
      used.insert(reference);
    }
  }
  if (!has_public) return "has no public rule";
  for (const std::string& name : used) {
    if (!defined.contains(name)) return fmt::format("rule <{}> is used but not defined", name);
  }
  return "";
}

std::string UrlProblem(std::string_view url, bool allow_loopback) {
  const size_t scheme = url.find("://");
  if (scheme == url.npos || (url.substr(0, scheme) != "http" && url.substr(0, scheme) != "https")) {
    return "must start with https:// or http://";
  }
  if (url.find_first_of(" \t\r\n\\") != url.npos) return "must not hold spaces or backslashes";
  const std::string_view authority =
      url.substr(scheme + 3, url.find_first_of("/?#", scheme + 3) - (scheme + 3));
  if (authority.find_first_of("{}") != authority.npos) {
    return "its host must not come from an argument";
  }
  if (authority.find('@') != authority.npos) return "must not hold a user or password";
  std::string_view host = authority;
  const size_t port = authority.find_last_of(':');
  if (port != authority.npos && authority.find(']', port) == authority.npos) {
    host = authority.substr(0, port);
    int number = 0;
    if (!RE2::FullMatch(authority.substr(port + 1), R"((\d{1,5}))", &number) || number < 1 ||
        number > 65535) {
      return "its port must be a number from 1 to 65535";
    }
  }
  if (!RE2::FullMatch(host, R"([A-Za-z0-9._\-]+|\[[0-9A-Fa-f:.]+\])")) return "has no proper host";
  const std::optional<IpScope> scope = LiteralScope(host);
  if (!scope || *scope == IpScope::kPublic) return "";
  if (*scope == IpScope::kLoopback && allow_loopback) return "";
  return fmt::format("{} is inside this network: tools may only call public addresses", host);
}

std::string ResultPathProblem(std::string_view path) {
  static const RE2 kPath(R"(\$(\.[A-Za-z_][A-Za-z0-9_\-]*|\['[^']+'\]|\[-?\d{1,6}\])*)");
  if (path.size() > 256 || !RE2::FullMatch(path, kPath)) {
    return "must be a path to one value, such as $.rates[0].price";
  }
  return "";
}

std::vector<std::string> PlacesOf(std::string_view text, std::string* problem) {
  std::vector<std::string> places;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '{' && text[i] != '}') continue;
    if (i + 1 < text.size() && text[i + 1] == text[i]) {
      ++i;  // a doubled brace stands for itself
      continue;
    }
    const size_t end = text.find_first_of("{}", i + 1);
    if (text[i] == '}' || end == text.npos || text[end] != '}' || end == i + 1) {
      *problem = "has a brace without its partner; write {{ or }} for a brace itself";
      return places;
    }
    places.emplace_back(text.substr(i + 1, end - i - 1));
    i = end;
  }
  return places;
}

std::string ParametersProblem(const Node& schema, int* line) {
  constexpr std::array<std::string_view, 6> kTypes = {"string",  "integer", "number",
                                                      "boolean", "array",   "object"};
  *line = schema.line;
  if (schema.kind != Node::Kind::kMap) return "must be a JSON schema of an object";
  const Node* type = schema.Find("type");
  if (type == nullptr || type->text != "object") return "its type must be object";
  const Node* properties = schema.Find("properties");
  if (properties != nullptr && properties->kind != Node::Kind::kMap) {
    return "its properties must be a map";
  }
  for (size_t i = 0; properties != nullptr && i < properties->items.size(); ++i) {
    const Node& property = properties->items[i];
    const std::string& name = properties->keys[i];
    *line = properties->key_lines[i];
    if (!IsToolName(name)) return fmt::format("\"{}\" is not a name of a parameter", name);
    const Node* kind = property.Find("type");
    if (kind == nullptr || std::find(kTypes.begin(), kTypes.end(), kind->text) == kTypes.end()) {
      return fmt::format(
          "the type of {} must be one of string, integer, number, boolean, array, "
          "object",
          name);
    }
    const Node* choices = property.Find("enum");
    if (choices != nullptr && (choices->kind != Node::Kind::kList || choices->items.empty())) {
      return fmt::format("the enum of {} must be a list of values", name);
    }
  }
  const Node* required = schema.Find("required");
  if (required == nullptr) return "";
  *line = required->line;
  if (required->kind != Node::Kind::kList) return "its required must be a list of names";
  for (const Node& name : required->items) {
    *line = name.line;
    if (properties == nullptr || properties->Find(name.text) == nullptr) {
      return fmt::format("\"{}\" is required but not among its properties", name.text);
    }
  }
  return "";
}

}  // namespace parley::registry
