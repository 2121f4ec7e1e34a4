#pragma once
// Network byte order on borrowed memory. Callers have checked the bounds.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace parley::webrtc {

using Bytes = std::span<const uint8_t>;

inline uint16_t Get16(const uint8_t* at) { return static_cast<uint16_t>(at[0] << 8 | at[1]); }
inline uint32_t Get32(const uint8_t* at) {
  return static_cast<uint32_t>(Get16(at)) << 16 | Get16(at + 2);
}
inline void Put16(uint8_t* at, uint16_t value) {
  at[0] = static_cast<uint8_t>(value >> 8);
  at[1] = static_cast<uint8_t>(value);
}
inline void Put32(uint8_t* at, uint32_t value) {
  Put16(at, static_cast<uint16_t>(value >> 16));
  Put16(at + 2, static_cast<uint16_t>(value));
}
inline std::string_view Text(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
inline Bytes AsBytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

}  // namespace parley::webrtc
