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

// The arguments of a call without kConfirmDuplicate, and whether that was true. What is no JSON
// object stays as it is.
std::string WithoutConfirmation(const std::string& arguments_json, bool* confirmed);
// Both say the same, however they are written.
bool SameArguments(const std::string& a_json, const std::string& b_json);

}  // namespace parley::session
