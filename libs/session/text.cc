#include "session/text.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/strings.h"
#include "session/types.h"

namespace parley::session {
namespace {
constexpr int kMaxNesting = 64;  // of arguments: reading them recurses
}

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

std::string WithoutConfirmation(const std::string& arguments_json, bool* confirmed) {
  *confirmed = false;
  if (!JsonNestsWithin(arguments_json, kMaxNesting)) return arguments_json;
  auto arguments = nlohmann::json::parse(arguments_json, nullptr, false);
  if (!arguments.is_object() || !arguments.contains(kConfirmDuplicate)) return arguments_json;
  const auto& said = arguments[kConfirmDuplicate];
  *confirmed = said.is_boolean() && said.get<bool>();
  arguments.erase(kConfirmDuplicate);
  return arguments.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

bool SameArguments(const std::string& a_json, const std::string& b_json) {
  if (a_json == b_json) return true;
  if (!JsonNestsWithin(a_json, kMaxNesting) || !JsonNestsWithin(b_json, kMaxNesting)) return false;
  const auto a = nlohmann::json::parse(a_json, nullptr, false);
  return !a.is_discarded() && a == nlohmann::json::parse(b_json, nullptr, false);
}

}  // namespace parley::session
