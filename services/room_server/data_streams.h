#pragma once
// Text, bytes and calls in data channels, as LiveKit's SDKs send them, and the room's packets: one
// becomes the other. One object for each participant; not thread-safe.
#include <absl/time/time.h>
#include <parley/livekit/v1/rtc.pb.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "room/types.h"

namespace parley::room_server {

class DataStreams {
 public:
  static constexpr size_t kMaxOpen = 64;         // in each direction; the oldest gives way
  static constexpr size_t kChunkBytes = 15'000;  // what SDKs send at once

  using Packet = std::variant<room::TextPacket, room::BytePacket>;

  // A piece of a stream that the participant sent. nullopt: nothing to say (no stream, compressed,
  // or one that is not open).
  std::optional<Packet> FromClient(const livekit::v1::DataPacket& packet);
  // The packets that carry a piece to the participant.
  std::vector<livekit::v1::DataPacket> ToClient(const room::TextPacket& packet, absl::Time now);
  std::vector<livekit::v1::DataPacket> ToClient(const room::BytePacket& packet, absl::Time now);

 private:
  struct Incoming {
    Packet like;  // what every piece says again; without content
    uint64_t order = 0;
  };
  struct Outgoing {
    uint64_t next_chunk = 0;
    uint64_t order = 0;
  };

  template <typename Any>
  std::vector<livekit::v1::DataPacket> Pieces(const Any& packet, std::string_view content,
                                              size_t (*chunk_size)(std::string_view rest),
                                              const livekit::v1::StreamHeader& header);

  std::map<std::string, Incoming> incoming_;
  std::map<std::string, Outgoing> outgoing_;  // by identity and stream id
  uint64_t order_ = 0;
};

// A step of a call. nullopt: none.
std::optional<room::RpcPacket> RpcFromClient(const livekit::v1::DataPacket& packet);
livekit::v1::DataPacket ToClient(const room::RpcPacket& packet);
// A telephone's key: in our rooms a packet on the topic parley.dtmf whose payload it is. nullopt:
// none, or one that there is not.
std::optional<room::DataPacket> KeyFromClient(const livekit::v1::DataPacket& packet);
std::optional<livekit::v1::DataPacket> KeyToClient(const room::DataPacket& packet);

}  // namespace parley::room_server
