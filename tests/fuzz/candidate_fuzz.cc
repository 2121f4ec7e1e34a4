// Any text as a trickled candidate and as a server's URL: nothing, or one line that begins as a
// candidate does and survives being written again; no part of a URL out of range.
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "http/websocket_client.h"
#include "signalling/external_room.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::string line = parley::signalling::ReadCandidate(text);
  if (!line.empty()) {
    PARLEY_CHECK(line.starts_with("candidate:") && line.find('\n') == std::string::npos);
    PARLEY_CHECK(parley::signalling::ReadCandidate(parley::signalling::WriteCandidate(line)) ==
                 line);
  }
  const auto url = parley::http::ParseWebSocketUrl(text);
  if (url.ok()) {
    PARLEY_CHECK(!url->host.empty() && url->port >= 1 && url->port <= 65'535);
    PARLEY_CHECK(url->path.starts_with('/'));
  }
  return 0;
}
