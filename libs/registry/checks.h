#pragma once
// Checks of single values. Internal to `registry`. Each answers "" or what is wrong.
#include <string>
#include <string_view>
#include <vector>

#include "registry/tree.h"

namespace parley::registry {

bool IsId(std::string_view text);        // [a-z0-9-]{1,63}
bool IsToolName(std::string_view text);  // [A-Za-z_][A-Za-z0-9_-]{0,63}
bool IsHeaderName(std::string_view text);

// Form of a JSGF grammar: header, name, a public rule, balanced brackets, defined references.
// Whether it can be decoded within limits is the recogniser's to say.
std::string GrammarProblem(std::string_view grammar);

// "https://rates.example/{room}": scheme, host, no user, no place for an argument before the path,
// and, unless allowed, no address of the inside.
std::string UrlProblem(std::string_view url, bool allow_loopback);

// A path to one value, "$.rates[0].price".
std::string ResultPathProblem(std::string_view path);

// Names in braces of a template, e.g. {"room"}; `problem` says what is wrong with its braces.
std::vector<std::string> PlacesOf(std::string_view text, std::string* problem);

// A JSON schema of an object, as far as tools use it. On a problem, `line` is where.
std::string ParametersProblem(const Node& schema, int* line);

}  // namespace parley::registry
