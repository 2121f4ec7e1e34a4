#include "speech/provider_words.h"

#include <absl/strings/ascii.h>

#include <algorithm>

namespace parley::speech {
namespace {

constexpr size_t kMaxNameBytes = 64;
constexpr int kMaxDigits = 4;  // of an index or a status, not of anybody's number

}  // namespace

std::string_view NameOnly(std::string_view word) {
  const bool name = !word.empty() && word.size() <= kMaxNameBytes &&
                    std::all_of(word.begin(), word.end(), [](char c) {
                      return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
                             std::string_view("_-.[]").find(c) != std::string_view::npos;
                    });
  const auto digits = std::count_if(word.begin(), word.end(), [](char c) {
    return absl::ascii_isdigit(static_cast<unsigned char>(c));
  });
  return name && digits <= kMaxDigits ? word : std::string_view();
}

std::string_view IdOnly(std::string_view id) {
  const bool plain =
      id.size() <= kMaxNameBytes && std::all_of(id.begin(), id.end(), [](char c) {
        return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_';
      });
  return plain ? id : std::string_view();
}

std::string NamesAmong(std::initializer_list<std::string_view> words) {
  std::string names;
  for (const std::string_view word : words) {
    const std::string_view name = NameOnly(word);
    if (name.empty()) continue;
    if (!names.empty()) names += ", ";
    names += name;
  }
  return names.empty() ? "no reason given" : names;
}

}  // namespace parley::speech
