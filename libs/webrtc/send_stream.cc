#include "webrtc/send_stream.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace parley::webrtc {
namespace {

constexpr uint32_t kFrameTicks = 960;  // 20 ms
constexpr int64_t kUnixEpochInNtp = 2'208'988'800;

}  // namespace

uint64_t NtpTime(int64_t unix_us) {
  const auto seconds = static_cast<uint64_t>(unix_us / 1'000'000 + kUnixEpochInNtp);
  const auto fraction =
      static_cast<uint64_t>(unix_us % 1'000'000) * (uint64_t{1} << 32) / 1'000'000;
  return seconds << 32 | fraction;
}

SendStream::SendStream(uint32_t ssrc, uint8_t payload_type, uint8_t audio_level_id,
                       uint16_t first_sequence)
    : ssrc_(ssrc),
      payload_type_(payload_type),
      audio_level_id_(audio_level_id),
      sequence_(first_sequence) {}

size_t SendStream::NextHeader(uint32_t timestamp, uint32_t level, std::span<uint8_t> out) {
  RtpHeader header;
  header.payload_type = payload_type_;
  header.marker = packets_ == 0 || timestamp - timestamp_ != kFrameTicks;  // after a pause
  header.sequence = sequence_;
  header.timestamp = timestamp;
  header.ssrc = ssrc_;
  header.audio_level_id = audio_level_id_;
  header.audio_level = static_cast<uint8_t>(std::min<uint32_t>(level, 127));
  timestamp_ = timestamp;
  return WriteRtpHeader(header, out);
}

void SendStream::OnSent(Bytes sent, size_t payload_bytes, int64_t now_us) {
  const size_t index = sequence_ % kKept;
  Slot& slot = slots_[index];
  slot.sequence = sequence_;
  slot.size = sent.size() <= kKeptBytes ? static_cast<uint16_t>(sent.size()) : 0;
  if (slot.size > room_) MakeRoomFor(slot.size);
  if (slot.size > 0) std::memcpy(PacketOf(index), sent.data(), slot.size);
  ++sequence_;
  ++packets_;
  bytes_ += static_cast<uint32_t>(payload_bytes);
  sent_us_ = now_us;
}

void SendStream::MakeRoomFor(size_t packet_bytes) {
  const size_t room = std::min((packet_bytes + kKeptStep - 1) / kKeptStep * kKeptStep, kKeptBytes);
  std::vector<uint8_t> larger(kKept * room);
  for (size_t i = 0; i < kKept && room_ > 0; ++i) {
    std::memcpy(larger.data() + i * room, PacketOf(i), room_);
  }
  kept_ = std::move(larger);
  room_ = room;
}

Bytes SendStream::Kept(uint16_t sequence) const {
  const size_t index = sequence % kKept;
  const Slot& slot = slots_[index];
  if (slot.size == 0 || slot.sequence != sequence) return {};
  return {kept_.data() + index * room_, slot.size};
}

SenderReport SendStream::Report(int64_t now_us, int64_t now_unix_us) const {
  SenderReport report;
  report.ssrc = ssrc_;
  report.ntp = NtpTime(now_unix_us);
  report.rtp_timestamp = timestamp_ + static_cast<uint32_t>((now_us - sent_us_) * 48 / 1'000);
  report.packets = packets_;
  report.bytes = bytes_;
  return report;
}

void SendStream::OnReport(const ReportBlock& block, uint32_t now_ntp_middle) {
  fraction_lost_ = block.fraction_lost;
  if (block.last_sr != 0) round_trip_ = now_ntp_middle - block.last_sr - block.delay_since_sr;
}

}  // namespace parley::webrtc
