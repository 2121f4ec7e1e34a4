#include "webrtc/local_transport.h"

#include <fmt/format.h>
#include <openssl/rand.h>

#include <algorithm>

#include "base/check.h"
#include "base/ids.h"

namespace parley::webrtc {
namespace {

constexpr size_t kUfragLength = 12;
constexpr size_t kPwdLength = 24;
// Of host candidates: the first one named is the best.
constexpr uint32_t kHostPriority = 126u << 24 | 65535u << 8 | 255u;

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
  uint32_t priority = kHostPriority;
  int foundation = 1;
  for (const Endpoint& candidate : candidates) {
    lines += fmt::format("a=candidate:{} 1 udp {} {} {} typ host\r\n", foundation++, priority,
                         candidate.Ip(), candidate.port);
    priority -= 256;
  }
  return lines + "a=end-of-candidates\r\n";
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
