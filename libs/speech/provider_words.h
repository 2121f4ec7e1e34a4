#pragma once
#include <initializer_list>
#include <string>
#include <string_view>

namespace parley::speech {

// `word` where it is the name of something, such as context_length_exceeded or messages[2].content;
// else "". Only that much of what a provider says about an error goes on: its sentences may quote
// what a person said, and errors stand in logs and traces.
std::string_view NameOnly(std::string_view word);
// `id` where it is one that may stand in a log: 64 letters, digits, - and _ at most; else "".
std::string_view IdOnly(std::string_view id);
// Those of them that are names, as "a, b"; "no reason given".
std::string NamesAmong(std::initializer_list<std::string_view> words);

}  // namespace parley::speech
