#include "webrtc/offering.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/ids.h"
#include "base/status.h"
#include "webrtc/data_transport.h"

namespace parley::webrtc {
namespace {

constexpr int kOpusType = 111;  // as browsers number it
constexpr uint8_t kAudioLevelId = 1;
constexpr uint8_t kAbsSendTimeId = 2;
constexpr uint16_t kSctpPort = 5000;

// Numbered and described as browsers do.
const std::vector<SdpCodec>& VideoCodecs() {
  static const auto* const kCodecs = new std::vector<SdpCodec>{
      {96, "vp8", 90'000, 1, ""},
      {98, "vp9", 90'000, 1, "profile-id=0"},
      {102, "h264", 90'000, 1,
       "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"}};
  return *kCodecs;
}

}  // namespace

Offering::Offering(std::string fingerprint, std::vector<Endpoint> candidates,
                   std::vector<ChannelPlan> channels)
    : local_{std::move(fingerprint), std::move(candidates), {}, {}, true},
      channels_(std::move(channels)),
      cname_(RandomBase62(16)),
      session_id_(fmt::format("{}", RandomSsrc())) {
  local_.Renew();
}

Offering::Offering(std::string fingerprint, IceCredentials credentials,
                   std::vector<ChannelPlan> channels)
    : local_{std::move(fingerprint),
             {},
             std::move(credentials.ufrag),
             std::move(credentials.pwd),
             false},
      channels_(std::move(channels)),
      cname_(RandomBase62(16)),
      session_id_(fmt::format("{}", RandomSsrc())) {}

void Offering::AddTrack(uint32_t number, std::string sid, std::string stream,
                        std::string_view codec) {
  const bool video = IsVideo(codec);
  tracks_.push_back({number, std::move(sid), std::move(stream), std::string(codec), RandomSsrc()});
  const auto free = std::ranges::find_if(
      sections_, [&](const Section& s) { return !s.used && s.video == video; });
  Section& section = free != sections_.end() ? *free : sections_.emplace_back();
  section = {true, video, number, false};
  changed_ = true;
}

void Offering::RemoveTrack(uint32_t number) {
  for (Section& section : sections_) {
    if (!section.used || section.number != number) continue;
    section.used = false;
    changed_ = true;
  }
  std::erase_if(tracks_, [&](const Track& track) { return track.number == number; });
}

void Offering::RestartIce() {
  local_.Renew();
  waiting_ = false;
  changed_ = true;
}

void Offering::RestartIce(IceCredentials credentials) {
  local_.ufrag = std::move(credentials.ufrag);
  local_.pwd = std::move(credentials.pwd);
  RestartIce();
}

void Offering::Withdraw() {
  if (std::exchange(waiting_, false)) changed_ = true;
}

const Offering::Track& Offering::TrackOf(const Section& section) const {
  const auto track =
      std::ranges::find_if(tracks_, [&](const Track& one) { return one.number == section.number; });
  PARLEY_CHECK(track != tracks_.end());
  return *track;
}

std::optional<Offering::Offer> Offering::Next() {
  if (waiting_ || !changed_) return std::nullopt;
  waiting_ = true;
  changed_ = false;
  Offer offer;
  offer.id = ++id_;
  std::string bundle = " 0";
  std::string sections = fmt::format(
      "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\n{}a=sctp-port:{}\r\n"
      "a=max-message-size:{}\r\n",
      local_.Lines("0", "actpass", true), kSctpPort, kMaxDataMessage);
  for (size_t i = 0; i < sections_.size(); ++i) {
    const std::string mid = fmt::format("{}", i + 1);
    bundle += " " + mid;
    sections += TrackSection(sections_[i], mid);
    sections_[i].offered = sections_[i].used;
    if (sections_[i].used) offer.mid_to_track[mid] = TrackOf(sections_[i]).sid;
  }
  offer.sdp = SessionLines(session_id_, id_, bundle, local_.lite) + sections;
  return offer;
}

std::string Offering::VideoSection(const Section& section, const std::string& mid) const {
  const auto& codecs = VideoCodecs();
  const auto name = section.used ? TrackOf(section).codec : codecs.front().name;
  const SdpCodec& codec = *std::ranges::find(codecs, name, &SdpCodec::name);
  return fmt::format(
      "m=video 9 UDP/TLS/RTP/SAVPF {0}\r\nc=IN IP4 0.0.0.0\r\n{1}a=extmap:{2} {3}\r\na={4}\r\n"
      "a=rtcp-mux\r\n{5}a=rtcp-fb:{0} goog-remb\r\n",
      codec.payload_type, local_.Lines(mid, "actpass", false), kAbsSendTimeId, kAbsSendTimeUri,
      Name(section.used ? Direction::kSendOnly : Direction::kInactive), VideoCodecLines(codec));
}

std::string Offering::TrackSection(const Section& section, const std::string& mid) const {
  if (section.video) {
    std::string lines = VideoSection(section, mid);
    if (!section.used) return lines;
    const Track& track = TrackOf(section);
    return lines + TrackLines(track.stream, track.sid, track.ssrc, cname_);
  }
  std::string lines = fmt::format(
      "m=audio 9 UDP/TLS/RTP/SAVPF {0}\r\nc=IN IP4 0.0.0.0\r\n{1}a=extmap:{2} {3}\r\na={4}\r\n"
      "a=rtcp-mux\r\na=rtpmap:{0} opus/48000/2\r\na=rtcp-fb:{0} nack\r\n"
      "a=fmtp:{0} minptime=10;useinbandfec=1\r\n",
      kOpusType, local_.Lines(mid, "actpass", false), kAudioLevelId, kAudioLevelUri,
      Name(section.used ? Direction::kSendOnly : Direction::kInactive));
  if (!section.used) return lines;
  const Track& track = TrackOf(section);
  return lines + TrackLines(track.stream, track.sid, track.ssrc, cname_);
}

absl::StatusOr<Plan> Offering::Accept(const Sdp& answer, uint32_t id) {
  if (!waiting_ || (id != 0 && id != id_)) return NotFound("no offer {} waits for an answer", id);
  if (answer.sections.empty() || answer.sections.size() > sections_.size() + 1) {
    return InvalidArgument("the answer has {} sections, the offer {}", answer.sections.size(),
                           sections_.size() + 1);
  }
  const SdpSection& data = answer.sections.front();
  if (data.kind != "application" || data.stopped()) {
    return InvalidArgument("the answer takes no data channels");
  }
  if (data.fingerprint_hash != "sha-256" || data.fingerprint.empty()) {
    return InvalidArgument("the answer's certificate needs a SHA-256 fingerprint");
  }
  const bool passive = data.setup == "passive" && !local_.lite;
  if (data.setup != "active" && !passive) {
    return InvalidArgument("the answer must be the DTLS client");
  }
  if (!IsSdpToken(data.ice_ufrag, kMaxIceUfrag)) {
    return InvalidArgument("the answer has no ICE credentials");
  }
  if (!remote_fingerprint_.empty() && data.fingerprint != remote_fingerprint_) {
    return InvalidArgument("the certificate of a connection cannot change");
  }
  remote_fingerprint_ = data.fingerprint;
  waiting_ = false;
  Plan plan;
  plan.local_ufrag = local_.ufrag;
  plan.local_pwd = local_.pwd;
  plan.remote_ufrag = data.ice_ufrag;
  plan.fingerprint = data.fingerprint;
  plan.dtls_client = passive;
  plan.sctp_port = kSctpPort;
  plan.channels = channels_;
  for (size_t i = 0; i < sections_.size() && i + 1 < answer.sections.size(); ++i) {
    const SdpSection& section = answer.sections[i + 1];
    const bool hears =
        section.direction == Direction::kRecvOnly || section.direction == Direction::kSendRecv;
    if (!sections_[i].used || !sections_[i].offered || section.stopped() || !hears) continue;
    const auto takes = [&](uint8_t id) {
      const bool named = std::ranges::any_of(
          section.extensions, [&](const auto& extension) { return extension.id == id; });
      return named ? id : uint8_t{0};
    };
    const Track& track = TrackOf(sections_[i]);
    SendPlan send;
    send.track = track.number;
    send.ssrc = track.ssrc;
    send.video = sections_[i].video;
    if (send.video) {
      const auto& codecs = VideoCodecs();
      send.payload_type = static_cast<uint8_t>(
          std::ranges::find(codecs, track.codec, &SdpCodec::name)->payload_type);
      send.abs_send_time_id = takes(kAbsSendTimeId);
    } else {
      send.payload_type = static_cast<uint8_t>(kOpusType);
      send.audio_level_id = takes(kAudioLevelId);
    }
    plan.send.push_back(send);
  }
  return plan;
}

}  // namespace parley::webrtc
