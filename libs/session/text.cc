#include "session/text.h"

#include <algorithm>

#include "base/strings.h"

namespace parley::session {

std::string JoinText(std::string_view first, std::string_view second) {
  std::string joined(Trim(first));
  const std::string_view rest = Trim(second);
  if (!joined.empty() && !rest.empty()) joined += ' ';
  joined += rest;
  return joined;
}

std::vector<std::string> Words(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  std::vector<std::string> words;
  size_t at = text.find_first_not_of(kSpace);
  while (at != std::string_view::npos) {
    const size_t end = std::min(text.find_first_of(kSpace, at), text.size());
    words.emplace_back(text.substr(at, end - at));
    at = text.find_first_not_of(kSpace, end);
  }
  return words;
}

int CountWords(std::string_view text) { return static_cast<int>(Words(text).size()); }

}  // namespace parley::session
