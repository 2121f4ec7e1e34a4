#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace parley {

// Prefixes of ids; the rest is 12 base-62 characters from the system's random source (71 bits).
inline constexpr std::string_view kRoomPrefix = "RM_";
inline constexpr std::string_view kParticipantPrefix = "PA_";
inline constexpr std::string_view kTrackPrefix = "TR_";
inline constexpr std::string_view kWorkerPrefix = "AW_";
inline constexpr std::string_view kJobPrefix = "AJ_";
inline constexpr std::string_view kDispatchPrefix = "AD_";
inline constexpr std::string_view kSessionPrefix = "AS_";

// "PREFIX" + `tag` + 12 random characters. `tag` routes an id (a pool's number); usually empty.
// Thread-safe, fork-safe.
std::string NewId(std::string_view prefix, std::string_view tag = {});
// `bytes` random bytes as lower-case hex. For secrets and instance names.
std::string RandomHex(size_t bytes);
// `length` base-62 characters.
std::string RandomBase62(size_t length);

}  // namespace parley
