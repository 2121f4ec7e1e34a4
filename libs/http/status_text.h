#pragma once
#include <string_view>

namespace parley::http {

// The reason phrase of a status line, e.g. "Not Found"; "Status" for codes that have none here.
std::string_view StatusText(int status);

}  // namespace parley::http
