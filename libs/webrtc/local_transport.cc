#include "webrtc/local_transport.h"

#include <fmt/format.h>
#include <openssl/rand.h>

#include <algorithm>
#include <array>

#include "base/check.h"
#include "base/ids.h"

namespace parley::webrtc {
namespace {

constexpr size_t kUfragLength = 12;
constexpr size_t kPwdLength = 24;
// Of host candidates: the first one named is the best.
constexpr uint32_t kHostPriority = 126u << 24 | 65535u << 8 | 255u;
// Of those over TCP (RFC 6544): passive ones come after all others.
constexpr uint32_t kTcpPriority = 90u << 24 | ((2u << 13) + 8191u) << 8 | 255u;

}  // namespace

uint32_t RandomSsrc() {
  uint32_t ssrc = 0;
  PARLEY_CHECK(RAND_bytes(reinterpret_cast<uint8_t*>(&ssrc), sizeof ssrc) == 1);
  return ssrc == 0 ? 1 : ssrc;
}

bool IsSdpToken(std::string_view text, size_t limit) {
  return !text.empty() && text.size() <= limit &&
         std::ranges::all_of(text, [](char c) { return c > ' ' && c < 0x7f; });
}

void LocalTransport::Renew() {
  if (!lite) return;
  ufrag = RandomBase62(kUfragLength);
  pwd = RandomBase62(kPwdLength);
}

std::string LocalTransport::Lines(std::string_view mid, std::string_view setup,
                                  bool with_candidates) const {
  std::string lines = fmt::format(
      "a=mid:{}\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=fingerprint:sha-256 {}\r\n"
      "a=setup:{}\r\n",
      mid, ufrag, pwd, fingerprint, setup);
  if (!lite) return lines + "a=ice-options:trickle\r\n";
  if (!with_candidates) return lines;
  uint32_t order = 0;
  for (const Endpoint& candidate : candidates) {
    lines += fmt::format("a=candidate:{} 1 {} {} {} {} typ host{}\r\n", order + 1,
                         candidate.tcp ? "tcp" : "udp",
                         (candidate.tcp ? kTcpPriority : kHostPriority) - 256 * order,
                         candidate.Ip(), candidate.port, candidate.tcp ? " tcptype passive" : "");
    ++order;
  }
  return lines + "a=end-of-candidates\r\n";
}

std::string VideoCodecLines(const SdpCodec& codec) {
  const int type = codec.payload_type;
  std::string lines = fmt::format(
      "a=rtpmap:{0} {1}/{2}\r\na=rtcp-fb:{0} nack\r\na=rtcp-fb:{0} nack pli\r\na=rtcp-fb:{0} ccm "
      "fir\r\n",
      type,
      codec.name == "vp8"   ? "VP8"
      : codec.name == "vp9" ? "VP9"
                            : "H264",
      codec.clock_hz);
  if (!codec.parameters.empty()) lines += fmt::format("a=fmtp:{} {}\r\n", type, codec.parameters);
  return lines;
}

const SdpCodec* FindCodec(const SdpSection& section, std::string_view name) {
  // Of H.264 the baseline profile in fragments, of VP9 eight bits: everybody has these.
  constexpr std::array<std::string_view, 3> kLiked = {"packetization-mode=1",
                                                      "profile-level-id=42e0", "profile-id=0"};
  const SdpCodec* best = nullptr;
  long best_points = -1;  // NOLINT(google-runtime-int): what count_if returns
  for (const SdpCodec& codec : section.codecs) {
    const bool printable =
        codec.parameters.empty() ||
        std::ranges::all_of(codec.parameters, [](char c) { return c >= ' ' && c < 0x7f; });
    if (codec.name != name || !printable) continue;
    const auto points = std::ranges::count_if(kLiked, [&](std::string_view liked) {
      return codec.parameters.find(liked) != std::string::npos;
    });
    if (points > best_points) {
      best = &codec;
      best_points = points;
    }
  }
  return best;
}

std::optional<VideoCodec> VideoCodecOf(std::string_view name) {
  if (name == "vp8") return VideoCodec::kVp8;
  if (name == "vp9") return VideoCodec::kVp9;
  if (name == "h264") return VideoCodec::kH264;
  return std::nullopt;
}

std::string SessionLines(std::string_view session_id, uint32_t version, std::string_view bundle,
                         bool lite) {
  return fmt::format(
      "v=0\r\no=- {} {} IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE{}\r\n"
      "a=msid-semantic: WMS *\r\n{}",
      session_id, version, bundle, lite ? "a=ice-lite\r\n" : "");
}

std::string TrackLines(std::string_view stream, std::string_view sid, uint32_t ssrc,
                       std::string_view cname) {
  return fmt::format("a=msid:{} {}\r\na=ssrc:{} cname:{}\r\na=ssrc:{} msid:{} {}\r\n", stream, sid,
                     ssrc, cname, ssrc, stream, sid);
}

}  // namespace parley::webrtc
