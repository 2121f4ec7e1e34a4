#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace parley::session {

// Both, with one space between them where both have text.
std::string JoinText(std::string_view first, std::string_view second);
// Pieces between white space.
std::vector<std::string> Words(std::string_view text);
int CountWords(std::string_view text);

}  // namespace parley::session
