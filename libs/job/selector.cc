#include "job/selector.h"

#include <vector>

#include "base/status.h"
#include "base/strings.h"

namespace parley::job {
namespace {

bool IsPlain(unsigned char c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '-' ||
         c == '_' || c == '.';
}

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

void Add(std::string& text, std::string_view key, std::string_view value) {
  if (!text.empty()) text += '&';
  text += key;
  text += '=';
  text += Escape(value);
}

}  // namespace

std::string Escape(std::string_view text) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  std::string out;
  out.reserve(text.size());
  for (const char raw : text) {
    const auto c = static_cast<unsigned char>(raw);
    if (IsPlain(c)) {
      out += raw;
    } else {
      out += '%';
      out += kDigits[c >> 4];
      out += kDigits[c & 15];
    }
  }
  return out;
}

absl::StatusOr<std::string> Unescape(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    const int high = i + 2 < text.size() ? HexValue(text[i + 1]) : -1;
    const int low = i + 2 < text.size() ? HexValue(text[i + 2]) : -1;
    if (high < 0 || low < 0) return InvalidArgument("a % needs two hexadecimal digits");
    out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return out;
}

absl::StatusOr<std::string> SelectorText(const Selector& selector) {
  std::string text;
  if (!selector.deployment.empty()) Add(text, "d", selector.deployment);
  for (const auto& [key, value] : selector.labels) Add(text, "l." + Escape(key), value);
  if (!selector.preferred_region.empty()) Add(text, "r", selector.preferred_region);
  for (const auto& [key, value] : selector.preferred_labels) Add(text, "p." + Escape(key), value);
  if (text.size() > kMaxSelectorBytes) {
    return InvalidArgument("the selector has {} bytes; at most {} are allowed", text.size(),
                           kMaxSelectorBytes);
  }
  return text.empty() ? "-" : text;
}

std::string RelaxedSelectorText(std::string_view text) {
  std::string out;
  if (text == "-") return "-";
  for (const std::string& part : Split(text, '&')) {
    if (part.starts_with("r=") || part.starts_with("p.")) continue;
    if (!out.empty()) out += '&';
    out += part;
  }
  return out.empty() ? "-" : out;
}

absl::StatusOr<Selector> ParseSelector(std::string_view text) {
  Selector selector;
  if (text == "-" || text.empty()) return selector;
  for (const std::string& part : Split(text, '&')) {
    const size_t equals = part.find('=');
    if (equals == part.npos) return InvalidArgument("a selector's part needs a =: \"{}\"", part);
    const std::string key = part.substr(0, equals);
    PARLEY_ASSIGN_OR_RETURN(std::string value, Unescape(part.substr(equals + 1)));
    if (key == "d") {
      selector.deployment = std::move(value);
    } else if (key == "r") {
      selector.preferred_region = std::move(value);
    } else if (key.starts_with("l.") || key.starts_with("p.")) {
      PARLEY_ASSIGN_OR_RETURN(const std::string name, Unescape(key.substr(2)));
      (key[0] == 'l' ? selector.labels : selector.preferred_labels)[name] = std::move(value);
    } else {
      return InvalidArgument("a selector has no part \"{}\"", key);
    }
  }
  return selector;
}

}  // namespace parley::job
