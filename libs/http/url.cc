#include <string>
#include <string_view>

#include "http/client.h"

namespace parley::http {

std::string UrlEncode(std::string_view value) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  constexpr std::string_view kPlain =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
  std::string out;
  out.reserve(value.size());
  for (const unsigned char byte : value) {
    if (kPlain.find(static_cast<char>(byte)) != std::string_view::npos) {
      out.push_back(static_cast<char>(byte));
      continue;
    }
    out.push_back('%');
    out.push_back(kHex[byte >> 4]);
    out.push_back(kHex[byte & 15]);
  }
  // A value of dots alone would walk up the path, also when encoded: URL parsers undo %2E.
  if (value == "." || value == "..") return value == "." ? "%252E" : "%252E%252E";
  return out;
}

}  // namespace parley::http
