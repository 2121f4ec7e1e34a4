#include "webrtc/sdp.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "base/status.h"
#include "base/strings.h"

namespace parley::webrtc {
namespace {

// The next piece of `text` up to `separator`, which is taken away, too.
std::string_view Take(std::string_view& text, char separator) {
  const size_t end = text.find(separator);
  const std::string_view piece = text.substr(0, end);
  text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
  return piece;
}

template <typename Number>
std::optional<Number> ToNumber(std::string_view text) {
  Number value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

absl::Status ReadMediaLine(std::string_view value, SdpSection* section) {
  section->kind = Take(value, ' ');
  const auto port = ToNumber<int>(Take(value, ' '));
  section->protocol = Take(value, ' ');
  section->formats = value;
  if (!port || *port < 0 || *port > 65535 || section->kind.empty() || section->protocol.empty()) {
    return InvalidArgument("an m= line is malformed");
  }
  section->port = *port;
  return absl::OkStatus();
}

// "111 opus/48000/2"
absl::Status ReadCodec(std::string_view value, SdpSection* section) {
  SdpCodec codec;
  const auto type = ToNumber<int>(Take(value, ' '));
  codec.name = ToLower(Take(value, '/'));
  const auto clock = ToNumber<int>(Take(value, '/'));
  if (!type || *type < 0 || *type > 127 || !clock || *clock <= 0) {
    return InvalidArgument("an rtpmap is malformed");
  }
  if (section->codecs.size() >= kMaxCodecs) {
    return InvalidArgument("more than {} codecs", kMaxCodecs);
  }
  codec.payload_type = *type;
  codec.clock_hz = *clock;
  codec.channels = ToNumber<int>(value).value_or(1);
  section->codecs.push_back(std::move(codec));
  return absl::OkStatus();
}

// "3/sendonly urn:ietf:params:rtp-hdrext:sdes:mid"
absl::Status ReadExtension(std::string_view value, SdpSection* section) {
  std::string_view name = Take(value, ' ');
  const auto id = ToNumber<int>(Take(name, '/'));
  if (!id || *id <= 0 || *id > 255) return InvalidArgument("an extmap is malformed");
  if (section->extensions.size() >= kMaxExtensions) {
    return InvalidArgument("more than {} header extensions", kMaxExtensions);
  }
  section->extensions.push_back({*id, std::string(Take(value, ' '))});
  return absl::OkStatus();
}

void ReadSsrc(std::string_view value, SdpSection* section) {
  const auto ssrc = ToNumber<uint32_t>(Take(value, ' '));
  if (!ssrc || section->ssrcs.size() >= kMaxSsrcs) return;
  if (std::ranges::find(section->ssrcs, *ssrc) == section->ssrcs.end()) {
    section->ssrcs.push_back(*ssrc);
  }
}

// "96 packetization-mode=1;…"
void ReadParameters(std::string_view value, SdpSection* section) {
  const auto type = ToNumber<int>(Take(value, ' '));
  if (!type || value.size() > kMaxParameterBytes) return;
  for (SdpCodec& codec : section->codecs) {
    if (codec.payload_type == *type) codec.parameters = value;
  }
}

// "send q;h;f": of alternatives the first counts, a layer that is paused stays one.
void ReadSimulcast(std::string_view value, SdpSection* section) {
  if (Take(value, ' ') != "send") return;
  std::string_view layers = Take(value, ' ');
  section->rids.clear();
  while (!layers.empty() && section->rids.size() < kMaxRids) {
    std::string_view layer = Take(layers, ';');
    std::string_view rid = Take(layer, ',');
    if (rid.starts_with('~')) rid.remove_prefix(1);
    const bool fine =
        !rid.empty() && rid.size() <= kMaxRidBytes && std::ranges::all_of(rid, [](char c) {
          return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                 c == '-' || c == '_';
        });
    if (fine) section->rids.emplace_back(rid);
  }
}

std::optional<Direction> ToDirection(std::string_view name) {
  for (const Direction direction :
       {Direction::kSendRecv, Direction::kSendOnly, Direction::kRecvOnly, Direction::kInactive}) {
    if (name == Name(direction)) return direction;
  }
  return std::nullopt;
}

absl::Status ReadAttribute(std::string_view value, SdpSection* section) {
  const std::string_view name = Take(value, ':');
  if (name == "rtpmap") return ReadCodec(value, section);
  if (name == "extmap") return ReadExtension(value, section);
  if (const auto direction = ToDirection(name)) {
    section->direction = *direction;
  } else if (name == "bundle-only") {
    section->bundle_only = true;
  } else if (name == "mid") {
    section->mid = value;
  } else if (name == "msid") {
    section->msid_stream = Take(value, ' ');
    section->msid_track = value;
  } else if (name == "ssrc") {
    ReadSsrc(value, section);
  } else if (name == "fmtp") {
    ReadParameters(value, section);
  } else if (name == "simulcast") {
    ReadSimulcast(value, section);
  } else if (name == "sctp-port") {
    section->sctp_port = ToNumber<uint16_t>(value).value_or(0);
  } else if (name == "candidate") {
    if (section->candidates.size() < kMaxCandidates) {
      section->candidates.push_back("candidate:" + std::string(value));
    }
  } else if (name == "ice-ufrag") {
    section->ice_ufrag = value;
  } else if (name == "ice-pwd") {
    section->ice_pwd = value;
  } else if (name == "fingerprint") {
    section->fingerprint_hash = ToLower(Take(value, ' '));
    section->fingerprint = value;
    std::ranges::transform(section->fingerprint, section->fingerprint.begin(),
                           [](char c) { return c >= 'a' && c <= 'f' ? c - 'a' + 'A' : c; });
  } else if (name == "setup") {
    section->setup = value;
  }
  return absl::OkStatus();
}

void Inherit(const SdpSection& session, SdpSection* section) {
  const auto take = [](const std::string& from, std::string& to) {
    if (to.empty()) to = from;
  };
  take(session.ice_ufrag, section->ice_ufrag);
  take(session.ice_pwd, section->ice_pwd);
  take(session.setup, section->setup);
  if (section->fingerprint.empty()) {
    section->fingerprint_hash = session.fingerprint_hash;
    section->fingerprint = session.fingerprint;
  }
}

}  // namespace

std::string_view Name(Direction direction) {
  switch (direction) {
    case Direction::kSendRecv:
      return "sendrecv";
    case Direction::kSendOnly:
      return "sendonly";
    case Direction::kRecvOnly:
      return "recvonly";
    case Direction::kInactive:
      break;
  }
  return "inactive";
}

absl::StatusOr<Sdp> ParseSdp(std::string_view text) {
  if (text.size() > kMaxSdpBytes) {
    return InvalidArgument("a session description of {} bytes; the limit is {}", text.size(),
                           kMaxSdpBytes);
  }
  if (!text.starts_with("v=0")) return InvalidArgument("not a session description");
  Sdp sdp;
  SdpSection session;
  while (!text.empty()) {
    std::string_view line = Take(text, '\n');
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.size() < 2 || line[1] != '=') continue;
    const std::string_view value = line.substr(2);
    if (line[0] == 'm') {
      if (sdp.sections.size() >= kMaxSections) {
        return InvalidArgument("more than {} media sections", kMaxSections);
      }
      PARLEY_RETURN_IF_ERROR(ReadMediaLine(value, &sdp.sections.emplace_back()));
    } else if (line[0] == 'a') {
      sdp.ice_lite |= value == "ice-lite";
      PARLEY_RETURN_IF_ERROR(
          ReadAttribute(value, sdp.sections.empty() ? &session : &sdp.sections.back()));
    }
  }
  for (SdpSection& section : sdp.sections) Inherit(session, &section);
  return sdp;
}

}  // namespace parley::webrtc
