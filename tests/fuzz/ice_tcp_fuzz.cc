// Any bytes as a stream of ICE over TCP, cut anywhere: the datagrams in it are the same, and none
// is larger than what a reader has room for.
#include <cstdint>
#include <string>
#include <vector>

#include "base/check.h"
#include "webrtc/tcp_port.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace parley::webrtc;  // NOLINT
  const auto read = [&](size_t piece) {
    std::vector<std::string> found;
    TcpFrames frames;
    for (size_t at = 0; at < size; at += piece) {
      const bool fine = frames.Take({data + at, std::min(piece, size - at)}, [&](auto datagram) {
        PARLEY_CHECK(!datagram.empty() && datagram.size() <= TcpFrames::kMaxFrame);
        found.emplace_back(Text(datagram));
      });
      if (!fine) break;
    }
    return found;
  };
  PARLEY_CHECK(read(1) == read(size == 0 ? 1 : size));
  return 0;
}
