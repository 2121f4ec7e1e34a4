#include "http/encode.h"

#include <fmt/format.h>

#include "http/status_text.h"

namespace parley::http {

std::string Encode(const Response& response, size_t room, bool close, bool head_only) {
  std::string out(room, '\0');
  out += fmt::format("HTTP/1.1 {} {}\r\n", response.status, StatusText(response.status));
  const bool bodiless = response.status == 204 || response.status == 304;
  if (!bodiless) {
    if (!response.content_type.empty()) {
      out += fmt::format("content-type: {}\r\n", response.content_type);
    }
    // A body of unknown length ends with its connection.
    if (response.stream == nullptr) {
      out += fmt::format("content-length: {}\r\n", response.body.size());
    }
  }
  for (const auto& [name, value] : response.headers) {
    // A line break inside a value would let it add headers of its own.
    if (value.find_first_of("\r\n") != std::string::npos) continue;
    out += fmt::format("{}: {}\r\n", name, value);
  }
  out += close ? "connection: close\r\n\r\n" : "connection: keep-alive\r\n\r\n";
  if (!bodiless && !head_only) out += response.body;
  return out;
}

}  // namespace parley::http
