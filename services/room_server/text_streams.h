#pragma once
// Text in data channels, as LiveKit's SDKs stream it, and the room's text packets: one becomes the
// other. One object for each participant; not thread-safe.
#include <absl/time/time.h>
#include <parley/livekit/v1/rtc.pb.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "room/types.h"

namespace parley::room_server {

class TextStreams {
 public:
  static constexpr size_t kMaxOpen = 64;         // in each direction; the oldest gives way
  static constexpr size_t kChunkBytes = 15'000;  // what SDKs send at once

  // A piece of a text stream that the participant sent. nullopt: nothing to say (another kind of
  // stream, compressed, or one that is not open).
  std::optional<room::TextPacket> FromClient(const livekit::v1::DataPacket& packet);
  // The packets that carry a piece of text to the participant.
  std::vector<livekit::v1::DataPacket> ToClient(const room::TextPacket& packet, absl::Time now);

 private:
  struct Incoming {
    std::string topic;
    room::Attributes attributes;
    std::vector<std::string> destinations;
    uint64_t order = 0;
  };
  struct Outgoing {
    uint64_t next_chunk = 0;
    uint64_t order = 0;
  };

  std::map<std::string, Incoming> incoming_;
  std::map<std::string, Outgoing> outgoing_;  // by identity and stream id
  uint64_t order_ = 0;
};

}  // namespace parley::room_server
