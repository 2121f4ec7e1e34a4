// Any bytes as what a LiveKit client sends: its join request, its frames in both forms, and its
// packets of text.
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "room_server/signal_codec.h"
#include "room_server/text_streams.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace parley::room_server;  // NOLINT
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)ReadJoinRequest(text);
  (void)ReadSignalRequest(text, true);
  (void)ReadSignalRequest(text, false);
  // One byte of length before each packet.
  TextStreams streams;
  for (size_t at = 0; at < size;) {
    const size_t length = std::min<size_t>(data[at], size - at - 1);
    parley::livekit::v1::DataPacket packet;
    if (packet.ParseFromArray(data + at + 1, static_cast<int>(length))) {
      if (auto piece = streams.FromClient(packet)) {
        piece->from_identity = "somebody";
        for (const auto& out : streams.ToClient(*piece, absl::UnixEpoch())) {
          PARLEY_CHECK(out.stream_chunk().content().size() <= TextStreams::kChunkBytes);
        }
      }
    }
    at += 1 + length;
  }
  return 0;
}
