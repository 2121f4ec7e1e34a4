#include "webrtc/video_packet.h"

namespace parley::webrtc {
namespace {

constexpr uint8_t kNalKeyPicture = 5;
constexpr uint8_t kNalParameters = 7;  // a key picture follows
constexpr uint8_t kNalAggregate = 24;
constexpr uint8_t kNalFragment = 28;

bool Vp8(Bytes payload) {
  const uint8_t first = payload[0];
  const bool begins = (first & 0x10) != 0 && (first & 0x0f) == 0;
  if (!begins) return false;
  size_t at = 1;
  if ((first & 0x80) != 0) {
    if (at >= payload.size()) return false;
    const uint8_t more = payload[at++];
    if ((more & 0x80) != 0) {  // the picture's number, of one byte or two
      if (at >= payload.size()) return false;
      at += (payload[at] & 0x80) != 0 ? 2 : 1;
    }
    if ((more & 0x40) != 0) ++at;  // TL0PICIDX
    if ((more & 0x30) != 0) ++at;  // TID, KEYIDX
  }
  return at < payload.size() && (payload[at] & 0x01) == 0;
}

bool Vp9(Bytes payload) {
  const uint8_t first = payload[0];
  const bool predicted = (first & 0x40) != 0;
  const bool begins = (first & 0x08) != 0;
  if (predicted || !begins) return false;
  if ((first & 0x20) == 0) return true;  // no layers inside
  size_t at = 1;
  if ((first & 0x80) != 0) {
    if (at >= payload.size()) return false;
    at += (payload[at] & 0x80) != 0 ? 2 : 1;
  }
  return at < payload.size() && (payload[at] & 0x0e) == 0;  // the lowest spatial layer
}

bool IsKeyNal(uint8_t type) { return type == kNalKeyPicture || type == kNalParameters; }

bool H264(Bytes payload) {
  const uint8_t type = payload[0] & 0x1f;
  if (type == kNalFragment) {
    return payload.size() >= 2 && (payload[1] & 0x80) != 0 && IsKeyNal(payload[1] & 0x1f);
  }
  if (type != kNalAggregate) return IsKeyNal(type);
  for (size_t at = 1; at + 2 < payload.size();) {
    if (IsKeyNal(payload[at + 2] & 0x1f)) return true;
    at += 2 + Get16(payload.data() + at);
  }
  return false;
}

}  // namespace

bool BeginsKeyPicture(VideoCodec codec, Bytes payload) {
  if (payload.empty()) return false;
  switch (codec) {
    case VideoCodec::kVp8:
      return Vp8(payload);
    case VideoCodec::kVp9:
      return Vp9(payload);
    case VideoCodec::kH264:
      break;
  }
  return H264(payload);
}

}  // namespace parley::webrtc
