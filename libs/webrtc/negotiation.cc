#include "webrtc/negotiation.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/ids.h"
#include "base/status.h"
#include "webrtc/data_transport.h"

namespace parley::webrtc {
namespace {

constexpr auto kMid = "urn:ietf:params:rtp-hdrext:sdes:mid";
constexpr auto kTransportSequence =
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
constexpr int kMaxOneByteId = 14;
constexpr size_t kMaxMid = 64;
constexpr size_t kMaxExpected = 256;

constexpr auto kRid = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";

bool Sends(const SdpSection& offered) {
  return offered.direction == Direction::kSendOnly || offered.direction == Direction::kSendRecv;
}

bool Receives(const SdpSection& offered) {
  return offered.direction == Direction::kRecvOnly || offered.direction == Direction::kSendRecv;
}

Direction Reversed(const SdpSection& offered, bool send) {
  if (Sends(offered)) return send ? Direction::kSendRecv : Direction::kRecvOnly;
  return send ? Direction::kSendOnly : Direction::kInactive;
}

std::string Rejected(const SdpSection& offered) {
  return fmt::format("m={} 0 {} {}\r\nc=IN IP4 0.0.0.0\r\na=mid:{}\r\na=inactive\r\n", offered.kind,
                     offered.protocol, offered.formats, offered.mid);
}

// The id of a header extension that the offer names; 0: it does not.
uint8_t ExtensionId(const SdpSection& offered, std::string_view uri) {
  for (const SdpExtension& extension : offered.extensions) {
    if (extension.id <= kMaxOneByteId && extension.uri == uri) {
      return static_cast<uint8_t>(extension.id);
    }
  }
  return 0;
}

// Header extensions of what comes in; their lines.
std::string TakeExtensions(const SdpSection& offered, RtpExtensions* extensions) {
  std::string lines;
  for (const SdpExtension& extension : offered.extensions) {
    if (extension.id > kMaxOneByteId) continue;
    uint8_t* id = extension.uri == kAudioLevelUri       ? &extensions->audio_level
                  : extension.uri == kMid               ? &extensions->mid
                  : extension.uri == kRid               ? &extensions->rid
                  : extension.uri == kTransportSequence ? &extensions->transport_sequence
                                                        : nullptr;
    if (id == nullptr) continue;
    *id = static_cast<uint8_t>(extension.id);
    lines += fmt::format("a=extmap:{} {}\r\n", extension.id, extension.uri);
  }
  return lines;
}

}  // namespace

Negotiation::Negotiation(std::string fingerprint, std::vector<Endpoint> candidates)
    : local_{std::move(fingerprint), std::move(candidates), {}, {}, true},
      cname_(RandomBase62(16)),
      session_id_(fmt::format("{}", RandomSsrc())) {}

Negotiation::Negotiation(std::string fingerprint, IceCredentials credentials)
    : local_{std::move(fingerprint),
             {},
             std::move(credentials.ufrag),
             std::move(credentials.pwd),
             false},
      cname_(RandomBase62(16)),
      session_id_(fmt::format("{}", RandomSsrc())) {}

void Negotiation::RestartIce(IceCredentials credentials) {
  local_.ufrag = std::move(credentials.ufrag);
  local_.pwd = std::move(credentials.pwd);
}

void Negotiation::AddTrack(uint32_t number, std::string sid, std::string stream,
                           std::string_view codec) {
  tracks_.push_back({number, std::move(sid), std::move(stream), std::string(codec), RandomSsrc()});
}

void Negotiation::RemoveTrack(uint32_t number) {
  std::erase_if(tracks_, [&](const Track& track) { return track.number == number; });
  for (Section& section : sections_) {
    if (section.track != static_cast<int>(number)) continue;
    section.track = -1;
    section.ended = true;
  }
}

void Negotiation::ExpectVideo(const std::string& track_id, std::string_view codec) {
  if (expected_.size() < kMaxExpected || expected_.contains(track_id)) expected_[track_id] = codec;
}

Negotiation::Track* Negotiation::FindTrack(int number) {
  const auto found = std::ranges::find_if(
      tracks_, [&](const Track& track) { return static_cast<int>(track.number) == number; });
  return found == tracks_.end() ? nullptr : &*found;
}

bool Negotiation::Placed(const Track& track) const {
  return std::ranges::any_of(sections_, [&](const Section& section) {
    return section.track == static_cast<int>(track.number);
  });
}

Negotiation::Track* Negotiation::Unplaced(const std::vector<std::string>& codecs) {
  const auto found = std::ranges::find_if(tracks_, [&](const Track& track) {
    return std::ranges::find(codecs, track.codec) != codecs.end() && !Placed(track);
  });
  return found == tracks_.end() ? nullptr : &*found;
}

bool Negotiation::NeedsOffer() const {
  return std::ranges::any_of(tracks_, [this](const Track& track) { return !Placed(track); }) ||
         std::ranges::any_of(sections_, [](const Section& section) { return section.ended; });
}

size_t Negotiation::MissingSections(bool video) const {
  const auto unplaced = std::ranges::count_if(
      tracks_, [&](const Track& track) { return IsVideo(track.codec) == video && !Placed(track); });
  const auto free = std::ranges::count_if(sections_, [&](const Section& section) {
    return section.kind == (video ? "video" : "audio") && section.receives && section.track < 0 &&
           !section.ended;
  });
  return static_cast<size_t>(std::max<std::ptrdiff_t>(unplaced - free, 0));
}

absl::Status Negotiation::TakeTransport(const Sdp& offer) {
  const auto first =
      std::ranges::find_if(offer.sections, [](const auto& section) { return !section.stopped(); });
  if (first == offer.sections.end()) return InvalidArgument("the offer has no live section");
  if (!IsSdpToken(first->ice_ufrag, kMaxIceUfrag) || !IsSdpToken(first->ice_pwd, kMaxIceUfrag)) {
    return InvalidArgument("the offer has no ICE credentials");
  }
  if (first->fingerprint_hash != "sha-256") {
    return InvalidArgument("the offer's certificate needs a SHA-256 fingerprint");
  }
  if (first->setup == (local_.lite ? "passive" : "active")) {
    return InvalidArgument("the offer must let us be the DTLS {}",
                           local_.lite ? "server" : "client");
  }
  if (!remote_fingerprint_.empty() && first->fingerprint != remote_fingerprint_) {
    return InvalidArgument("the certificate of a connection cannot change");
  }
  remote_fingerprint_ = first->fingerprint;
  // New credentials of theirs: ICE starts anew, with new ones of ours.
  if (first->ice_ufrag != remote_ufrag_) {
    remote_ufrag_ = first->ice_ufrag;
    local_.Renew();
  }
  return absl::OkStatus();
}

absl::StatusOr<Negotiation::Answer> Negotiation::Accept(const Sdp& offer) {
  if (offer.sections.size() < sections_.size()) {
    return InvalidArgument("the offer has fewer sections than the one before");
  }
  for (size_t i = 0; i < offer.sections.size(); ++i) {
    if (!IsSdpToken(offer.sections[i].mid, kMaxMid)) return InvalidArgument("a section has no mid");
    if (i < sections_.size() && sections_[i].kind != offer.sections[i].kind) {
      return InvalidArgument("section {} changed its kind", i);
    }
  }
  PARLEY_RETURN_IF_ERROR(TakeTransport(offer));
  sections_.resize(offer.sections.size());
  Answer answer;
  candidates_told_ = false;
  std::string bundle;
  std::string sections;
  for (size_t i = 0; i < offer.sections.size(); ++i) {
    const SdpSection& offered = offer.sections[i];
    sections_[i].kind = offered.kind;
    const std::string lines = AnswerSection(offered, sections_[i], &answer);
    if (!lines.empty()) bundle += " " + offered.mid;
    sections += lines.empty() ? Rejected(offered) : lines;
  }
  answer.plan.local_ufrag = local_.ufrag;
  answer.plan.local_pwd = local_.pwd;
  answer.plan.remote_ufrag = remote_ufrag_;
  answer.plan.fingerprint = remote_fingerprint_;
  answer.plan.dtls_client = !local_.lite;
  answer.sdp = SessionLines(session_id_, ++version_, bundle, local_.lite) + sections;
  return answer;
}

// Empty: rejected.
std::string Negotiation::AnswerSection(const SdpSection& offered, Section& section,
                                       Answer* answer) {
  section.receives = false;
  if (offered.stopped()) {
    section.track = -1;
    section.ended = false;
    return {};
  }
  if (offered.kind == "audio") return AnswerAudio(offered, section, answer);
  if (offered.kind == "application" && offered.sctp_port != 0) {
    answer->plan.sctp_port = static_cast<uint16_t>(offered.sctp_port);
    return fmt::format(
        "m=application 9 {} {}\r\nc=IN IP4 0.0.0.0\r\n{}a=sctp-port:{}\r\n"
        "a=max-message-size:{}\r\n",
        offered.protocol, offered.formats, TransportLines(offered), offered.sctp_port,
        kMaxDataMessage);
  }
  if (offered.codecs.empty()) return {};
  if (offered.kind == "video") return AnswerVideo(offered, section, answer);
  return {};
}

const Negotiation::Track* Negotiation::Place(const SdpSection& offered, Section& section) {
  section.receives = Receives(offered);
  if (section.receives && section.track < 0 && !section.ended && !Sends(offered)) {
    if (const Track* track = Unplaced(section.codecs)) {
      section.track = static_cast<int>(track->number);
    }
  }
  section.ended = false;
  const Track* track = section.receives ? FindTrack(section.track) : nullptr;
  if (track == nullptr) section.track = -1;
  return track;
}

void Negotiation::TellTrack(const SdpSection& offered, const Track& track, SendPlan plan,
                            Answer* answer, std::string* lines) const {
  *lines += TrackLines(track.stream, track.sid, track.ssrc, cname_);
  answer->mid_to_track[offered.mid] = track.sid;
  plan.track = track.number;
  plan.ssrc = track.ssrc;
  answer->plan.send.push_back(plan);
}

std::string Negotiation::AnswerAudio(const SdpSection& offered, Section& section, Answer* answer) {
  const SdpCodec* opus = FindCodec(offered, kOpus);
  if (opus == nullptr || opus->clock_hz != 48'000) return {};
  section.codecs = {kOpus};
  const Track* track = Place(offered, section);
  RtpExtensions extensions;
  const std::string extension_lines = TakeExtensions(offered, &extensions);
  const auto type = static_cast<uint8_t>(opus->payload_type);
  std::string lines = fmt::format(
      "m=audio 9 {} {}\r\nc=IN IP4 0.0.0.0\r\n{}{}a={}\r\na=rtcp-mux\r\na=rtpmap:{} "
      "opus/48000/2\r\n"
      "a=rtcp-fb:{} nack\r\n{}a=fmtp:{} minptime=10;useinbandfec=1\r\n",
      offered.protocol, type, TransportLines(offered), extension_lines,
      Name(Reversed(offered, track != nullptr)), type, type,
      extensions.transport_sequence != 0 ? fmt::format("a=rtcp-fb:{} transport-cc\r\n", type)
                                         : std::string(),
      type);
  if (Sends(offered)) {
    ReceivePlan plan;
    plan.mid = offered.mid;
    plan.track_id = offered.msid_track;
    plan.ssrcs = offered.ssrcs;
    plan.payload_type = type;
    plan.extensions = extensions;
    answer->plan.receive.push_back(std::move(plan));
  }
  if (track != nullptr) {
    TellTrack(offered, *track, {.payload_type = type, .audio_level_id = extensions.audio_level},
              answer, &lines);
  }
  return lines;
}

std::string Negotiation::AnswerVideo(const SdpSection& offered, Section& section, Answer* answer) {
  section.codecs.clear();
  const SdpCodec* first = nullptr;  // of those carried, as its sender prefers them
  for (const SdpCodec& codec : offered.codecs) {
    if (!IsVideo(codec.name) || codec.clock_hz != 90'000) continue;
    if (first == nullptr) first = FindCodec(offered, codec.name);
    section.codecs.push_back(codec.name);
  }
  const Track* track = Place(offered, section);
  const auto expected = expected_.find(offered.msid_track);
  const SdpCodec* codec = track != nullptr              ? FindCodec(offered, track->codec)
                          : !Sends(offered)             ? first
                          : expected == expected_.end() ? first
                                                        : FindCodec(offered, expected->second);
  const std::string head = fmt::format("m=video 9 {} ", offered.protocol);
  // Named in every section: Chromium offers in a new one only what the others have agreed on.
  RtpExtensions extensions;
  std::string shared = TakeExtensions(offered, &extensions);
  const uint8_t abs_send_time = ExtensionId(offered, kAbsSendTimeUri);
  if (abs_send_time != 0)
    shared += fmt::format("a=extmap:{} {}\r\n", abs_send_time, kAbsSendTimeUri);
  shared += "a=rtcp-mux\r\n";
  if (codec == nullptr) {
    // Not carried. It must not be rejected: livekit-client gives up over that.
    const SdpCodec& any = offered.codecs.front();
    return fmt::format("{0}{1}\r\nc=IN IP4 0.0.0.0\r\n{2}a=inactive\r\n{3}a=rtpmap:{1} {4}/{5}\r\n",
                       head, any.payload_type, TransportLines(offered), shared, any.name,
                       any.clock_hz);
  }
  const auto type = static_cast<uint8_t>(codec->payload_type);
  std::string lines =
      fmt::format("{}{}\r\nc=IN IP4 0.0.0.0\r\n{}a={}\r\n{}{}", head, type, TransportLines(offered),
                  Name(Reversed(offered, track != nullptr)), shared, VideoCodecLines(*codec));
  if (track != nullptr) {
    // Without transport-wide numbers on what goes out, browsers say by REMB what they receive.
    lines += fmt::format("a=rtcp-fb:{} goog-remb\r\n", type);
    TellTrack(offered, *track,
              {.payload_type = type, .abs_send_time_id = abs_send_time, .video = true}, answer,
              &lines);
  }
  if (!Sends(offered)) return lines;
  ReceivePlan plan;
  plan.extensions = extensions;
  if (extensions.transport_sequence != 0) {
    lines += fmt::format("a=rtcp-fb:{} transport-cc\r\n", type);
  }
  for (const std::string& rid : offered.rids) lines += fmt::format("a=rid:{} recv\r\n", rid);
  if (!offered.rids.empty()) {
    lines += fmt::format("a=simulcast:recv {}\r\n", fmt::join(offered.rids, ";"));
  }
  plan.mid = offered.mid;
  plan.track_id = offered.msid_track;
  plan.ssrcs = offered.ssrcs;
  plan.payload_type = type;
  plan.video = VideoCodecOf(codec->name);
  plan.rids = offered.rids;
  answer->plan.receive.push_back(std::move(plan));
  return lines;
}

std::string Negotiation::TransportLines(const SdpSection& offered) {
  return local_.Lines(offered.mid, local_.lite ? "passive" : "active",
                      !std::exchange(candidates_told_, true));
}

}  // namespace parley::webrtc
