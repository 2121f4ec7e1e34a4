#pragma once
// Session descriptions (RFC 8866) as browsers make them: what a peer connection needs of them, and
// nothing else. Reading keeps no more than the bounds below and never fails on lines it does not
// know.
#include <absl/status/statusor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace parley::webrtc {

inline constexpr size_t kMaxSdpBytes = 128 << 10;
inline constexpr size_t kMaxSections = 128;
inline constexpr size_t kMaxCodecs = 64;      // of a section
inline constexpr size_t kMaxExtensions = 32;  // of a section
inline constexpr size_t kMaxSsrcs = 16;       // of a section
inline constexpr size_t kMaxRids = 3;         // of a section
inline constexpr size_t kMaxRidBytes = 16;
inline constexpr size_t kMaxParameterBytes = 256;  // of a codec
inline constexpr size_t kMaxCandidates = 64;       // of a section

enum class Direction { kSendRecv, kSendOnly, kRecvOnly, kInactive };

struct SdpCodec {
  int payload_type = 0;
  std::string name;  // lower case: "opus", "vp8"
  int clock_hz = 0;
  int channels = 1;
  std::string parameters;  // of its fmtp line: "packetization-mode=1;profile-level-id=42e01f"
};

struct SdpExtension {
  int id = 0;  // 1 to 14 are usable in one-byte headers
  std::string uri;
};

struct SdpSection {
  std::string kind;      // audio, video, application
  std::string protocol;  // UDP/TLS/RTP/SAVPF, UDP/DTLS/SCTP
  std::string formats;   // of the m= line, as they stand
  int port = 0;
  bool bundle_only = false;  // lives on another section's transport, whatever its port
  std::string mid;
  Direction direction = Direction::kSendRecv;
  std::vector<SdpCodec> codecs;  // in order of preference
  std::vector<SdpExtension> extensions;
  std::string msid_stream;
  std::string msid_track;
  std::vector<uint32_t> ssrcs;
  std::vector<std::string> rids;  // of the layers that a simulcast line sends, in its order
  int sctp_port = 0;
  // Where the section says nothing, these are the session's.
  std::string ice_ufrag;
  std::string ice_pwd;
  std::string fingerprint_hash;         // lower case: "sha-256"
  std::string fingerprint;              // upper-case hex with colons
  std::string setup;                    // actpass, active, passive
  std::vector<std::string> candidates;  // "candidate:1 1 udp …"; more than the bound are left out

  bool stopped() const { return port == 0 && !bundle_only; }
};

struct Sdp {
  bool ice_lite = false;
  std::vector<SdpSection> sections;
};

//   InvalidArgument  not a description, or over a bound
absl::StatusOr<Sdp> ParseSdp(std::string_view text);

std::string_view Name(Direction direction);  // "sendrecv", …

}  // namespace parley::webrtc
