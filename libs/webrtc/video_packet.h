#pragma once
// Packets of video, which are carried as they are: only where a picture begins that needs no other
// is looked up, so that a listener can be given another layer there.
#include <cstdint>
#include <string_view>

#include "webrtc/bytes.h"

namespace parley::webrtc {

enum class VideoCodec { kVp8, kVp9, kH264 };

struct VideoPacket {
  uint32_t timestamp = 0;    // 90 kHz media clock, wraps
  uint16_t sequence = 0;     // of its layer: a gap is what was lost, or comes later
  uint8_t layer = 0;         // of those its sender sends at once, the lowest is 0
  bool marker = false;       // the last packet of a picture
  bool key = false;          // begins a picture that needs no other
  std::string_view payload;  // valid during the call only
};

// Does this payload of an RTP packet (RFC 7741, 9628, 6184) begin such a picture?
bool BeginsKeyPicture(VideoCodec codec, Bytes payload);

}  // namespace parley::webrtc
