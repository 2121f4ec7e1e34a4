// Any bytes as what a LiveKit client sends: its join request, its frames in both forms, and its
// packets of text, bytes and calls.
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "room_server/data_streams.h"
#include "room_server/signal_codec.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace parley::room_server;  // NOLINT
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)ReadJoinRequest(text);
  (void)ReadSignalRequest(text, true);
  (void)ReadSignalRequest(text, false);
  (void)ReadJoinQuery({{"attributes", std::string(text)}, {"reconnect", std::string(text)}});
  // One byte of length before each packet.
  DataStreams streams;
  for (size_t at = 0; at < size;) {
    const size_t length = std::min<size_t>(data[at], size - at - 1);
    parley::livekit::v1::DataPacket packet;
    if (packet.ParseFromArray(data + at + 1, static_cast<int>(length))) {
      if (auto packet_in = streams.FromClient(packet)) {
        std::visit(
            [&](auto& piece) {
              piece.from_identity = "somebody";
              for (const auto& out : streams.ToClient(piece, absl::UnixEpoch())) {
                PARLEY_CHECK(out.stream_chunk().content().size() <= DataStreams::kChunkBytes);
              }
            },
            *packet_in);
      }
      if (const auto call = RpcFromClient(packet)) {
        const auto again = RpcFromClient(ToClient(*call));
        PARLEY_CHECK(again && again->step == call->step && again->request_id == call->request_id &&
                     again->error_code == call->error_code);
      }
    }
    at += 1 + length;
  }
  return 0;
}
