#include "webrtc/video_sender.h"

#include <algorithm>
#include <cstring>

#include "webrtc/send_stream.h"

namespace parley::webrtc {
namespace {

constexpr int64_t kTicksPerMs = 90;
constexpr int64_t kLookUs = 500'000;    // over which a layer's rate is measured
constexpr int64_t kLiveUs = 2'000'000;  // a shared screen that stands still sends little
// Late packets of before a switch are told from wrapped numbers for so long.
constexpr uint32_t kSoonAfter = 10'000;
// Between two of the same packet: a round trip, within these.
constexpr int64_t kLeastAgainUs = 50'000;
constexpr int64_t kMostAgainUs = 1'000'000;

}  // namespace

VideoSender::VideoSender(const SendPlan& plan, uint16_t first_sequence)
    : plan_(plan), highest_(static_cast<uint16_t>(first_sequence - 1)) {}

void VideoSender::SwitchTo(const VideoPacket& packet, int64_t now_us) {
  uint32_t timestamp = packet.timestamp;
  if (started()) {
    timestamp = timestamp_ + static_cast<uint32_t>(
                                 std::max<int64_t>((now_us - sent_us_) * kTicksPerMs / 1'000, 1));
  }
  timestamp_shift_ = timestamp - packet.timestamp;
  sequence_shift_ = static_cast<uint16_t>(highest_ + 1 - packet.sequence);
  first_in_ = packet.sequence;
  since_switch_ = 0;
  current_ = packet.layer;
  if (kept_ == nullptr) return;
  for (Slot& slot : *kept_) slot.size = 0;
}

size_t VideoSender::NextHeader(const VideoPacket& packet, int64_t now_us, std::span<uint8_t> out) {
  if (packet.layer >= LayerChooser::kLayers) return 0;
  bytes_[packet.layer] += static_cast<int64_t>(packet.payload.size());
  seen_us_[packet.layer] = now_us;
  if (target_ < 0) (void)Tick(now_us);
  if (packet.layer != current_) {
    if (packet.layer != target_ || !packet.key) return 0;
    SwitchTo(packet, now_us);
  }
  if (since_switch_ < kSoonAfter && static_cast<int16_t>(packet.sequence - first_in_) < 0) return 0;
  ++since_switch_;
  going_out_ = static_cast<uint16_t>(packet.sequence + sequence_shift_);
  RtpHeader header;
  header.payload_type = plan_.payload_type;
  header.marker = packet.marker;
  header.sequence = going_out_;
  header.timestamp = packet.timestamp + timestamp_shift_;
  header.ssrc = plan_.ssrc;
  header.abs_send_time_id = plan_.abs_send_time_id;
  header.send_time_us = now_us;
  if (static_cast<int16_t>(going_out_ - highest_) > 0) {
    highest_ = going_out_;
    timestamp_ = header.timestamp;
    sent_us_ = now_us;
  }
  return WriteRtpHeader(header, out);
}

void VideoSender::OnSent(Bytes sent, size_t payload_bytes) {
  if (kept_ == nullptr) kept_ = std::make_unique<std::array<Slot, kKept>>();
  Slot& slot = (*kept_)[going_out_ % kKept];
  slot.sequence = going_out_;
  slot.size = sent.size() <= kKeptBytes ? static_cast<uint16_t>(sent.size()) : 0;
  slot.again_us = 0;
  std::memcpy(slot.packet.data(), sent.data(), slot.size);
  ++packets_;
  bytes_sent_ += static_cast<uint32_t>(payload_bytes);
}

Bytes VideoSender::Kept(uint16_t sequence) const {
  if (kept_ == nullptr) return {};
  const Slot& slot = (*kept_)[sequence % kKept];
  if (slot.size == 0 || slot.sequence != sequence) return {};
  return {slot.packet.data(), slot.size};
}

Bytes VideoSender::Again(uint16_t sequence, int64_t now_us) {
  const Bytes kept = Kept(sequence);
  if (kept.empty()) return {};
  Slot& slot = (*kept_)[sequence % kKept];
  const int64_t round_trip_us = int64_t{round_trip_} * 1'000'000 / 65'536;
  const int64_t since_us = now_us - slot.again_us;
  if (since_us < std::clamp(round_trip_us, kLeastAgainUs, kMostAgainUs)) return {};
  slot.again_us = now_us;
  return kept;
}

int VideoSender::Tick(int64_t now_us) {
  if (now_us - looked_us_ >= kLookUs) {
    for (size_t i = 0; i < rates_.size(); ++i) {
      const bool live = seen_us_[i] != 0 && now_us - seen_us_[i] < kLiveUs;
      const int64_t rate = looked_us_ == 0 ? 0 : bytes_[i] * 8 * 1'000'000 / (now_us - looked_us_);
      rates_[i] = live ? std::max<int64_t>(rate, 1) : 0;
      bytes_[i] = 0;
    }
    looked_us_ = now_us;
  }
  target_ = chooser_.Choose(rates_, now_us);
  if (target_ < 0) current_ = -1;  // later it begins anew: what comes meanwhile is missing
  return target_ != current_ ? target_ : -1;
}

void VideoSender::OnReport(const ReportBlock& block, uint32_t now_ntp_middle, int64_t now_us) {
  fraction_lost_ = block.fraction_lost;
  if (block.last_sr != 0) round_trip_ = now_ntp_middle - block.last_sr - block.delay_since_sr;
  chooser_.OnLoss(block.fraction_lost, now_us);
}

SenderReport VideoSender::Report(int64_t now_us, int64_t now_unix_us) const {
  SenderReport report;
  report.ssrc = plan_.ssrc;
  report.ntp = NtpTime(now_unix_us);
  report.rtp_timestamp =
      timestamp_ + static_cast<uint32_t>((now_us - sent_us_) * kTicksPerMs / 1'000);
  report.packets = packets_;
  report.bytes = bytes_sent_;
  return report;
}

}  // namespace parley::webrtc
