#pragma once
// What a session description says of our own side of a connection: ICE-lite on the engine's port,
// or an agent of full ICE, and our certificate. Internal to `webrtc`.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "webrtc/endpoint.h"
#include "webrtc/sdp.h"
#include "webrtc/video_packet.h"

namespace parley::webrtc {

// Of an agent of full ICE. Its candidates go to the other side by themselves.
struct IceCredentials {
  std::string ufrag;
  std::string pwd;
};

struct LocalTransport {
  std::string fingerprint;  // SHA-256 of our certificate
  std::vector<Endpoint> candidates;
  std::string ufrag;
  std::string pwd;
  bool lite = true;  // false: full ICE, and somebody else's credentials

  // New credentials: ICE begins anew. No effect with full ICE.
  void Renew();
  // Of one section. `setup`: passive, actpass. Candidates stand in one section of a description.
  std::string Lines(std::string_view mid, std::string_view setup, bool with_candidates) const;
};

// The lines before the first section. `bundle`: " 0 1 2".
std::string SessionLines(std::string_view session_id, uint32_t version, std::string_view bundle,
                         bool lite);
// The lines of a section that sends one track.
std::string TrackLines(std::string_view stream, std::string_view sid, uint32_t ssrc,
                       std::string_view cname);
// What a section says of the video codec that it uses: of `codec`'s number and parameters.
std::string VideoCodecLines(const SdpCodec& codec);
// The codec of this name in `section` that other browsers are the likeliest to know; null: none.
const SdpCodec* FindCodec(const SdpSection& section, std::string_view name);
// nullopt: not one that is carried.
std::optional<VideoCodec> VideoCodecOf(std::string_view name);
inline bool IsVideo(std::string_view codec) { return VideoCodecOf(codec).has_value(); }
uint32_t RandomSsrc();  // never 0
// May `text` stand in a description of ours? It must bring no lines of its own.
bool IsSdpToken(std::string_view text, size_t limit);

inline constexpr auto kAudioLevelUri = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
inline constexpr auto kAbsSendTimeUri =
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";
inline constexpr auto kOpus = "opus";
inline constexpr size_t kMaxIceUfrag = 256;  // RFC 8839

}  // namespace parley::webrtc
