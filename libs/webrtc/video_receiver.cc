#include "webrtc/video_receiver.h"

#include <algorithm>
#include <cstdlib>

namespace parley::webrtc {
namespace {

constexpr int64_t kClockHz = 90'000;

}  // namespace

void VideoReceiver::Begin(int64_t number) {
  for (Slot& slot : slots_) slot.missing = false;
  missing_ = 0;
  if (started_) {
    first_ += number - highest_ - 1;  // a jump is no loss
  } else {
    first_ = number;
  }
  highest_ = number - 1;
  started_ = true;
}

void VideoReceiver::Count(const RtpPacket& packet, int64_t now_us) {
  ++received_;
  const int64_t transit = now_us * kClockHz / 1'000'000 - packet.timestamp;
  if (received_ > 1) {
    const auto difference = static_cast<int32_t>(transit - last_transit_);  // both wrap
    jitter_ += (std::abs(static_cast<double>(difference)) - jitter_) / 16;
  }
  last_transit_ = transit;
}

std::optional<uint16_t> VideoReceiver::Add(const RtpPacket& packet, int64_t now_us) {
  if (!started_) Begin(0x10000 + packet.sequence);  // room below, so that a wrap is not negative
  int64_t number =
      highest_ + static_cast<int16_t>(packet.sequence - static_cast<uint16_t>(highest_));
  if (std::abs(number - highest_) > static_cast<int64_t>(kWindow)) {
    number = std::max<int64_t>(number, static_cast<int64_t>(kWindow));
    Begin(number);
  }
  if (number <= highest_) {
    Slot& slot = At(number);
    if (highest_ - number >= static_cast<int64_t>(kWindow) || !slot.missing) return std::nullopt;
    slot.missing = false;
    --missing_;
    Count(packet, now_us);
    if (packet.payload.empty()) return std::nullopt;
    return static_cast<uint16_t>(packet.sequence - slot.empty_before);
  }
  for (int64_t lost = highest_ + 1; lost <= number; ++lost) {
    Slot& slot = At(lost);
    if (slot.missing) --missing_;  // it left the window
    slot = {lost < number, 0, empty_, now_us};
    if (slot.missing) ++missing_;
  }
  highest_ = number;
  Count(packet, now_us);
  if (packet.payload.empty()) {
    ++empty_;
    return std::nullopt;
  }
  return static_cast<uint16_t>(packet.sequence - empty_);
}

size_t VideoReceiver::Missing(int64_t now_us, std::array<uint16_t, kMaxNacked>* numbers) {
  size_t count = 0;
  if (missing_ == 0) return count;
  const int64_t oldest = std::max<int64_t>(highest_ - static_cast<int64_t>(kWindow) + 1, 0);
  for (int64_t number = oldest; number < highest_ && count < numbers->size(); ++number) {
    Slot& slot = At(number);
    if (!slot.missing || now_us < slot.next_nack_us) continue;
    if (slot.nacks >= kMaxNacks) {  // the listener will ask for a new picture
      slot.missing = false;
      --missing_;
      continue;
    }
    ++slot.nacks;
    slot.next_nack_us = now_us + kNackEveryUs;
    (*numbers)[count++] = static_cast<uint16_t>(number);
  }
  return count;
}

void VideoReceiver::OnSenderReport(const SenderReport& report, int64_t now_us) {
  last_sr_ = static_cast<uint32_t>(report.ntp >> 16);
  last_sr_us_ = now_us;
}

ReportBlock VideoReceiver::Report(int64_t now_us) {
  ReportBlock block;
  block.ssrc = ssrc_;
  const int64_t expected = started_ ? highest_ - first_ + 1 : 0;
  block.lost = static_cast<int32_t>(expected - received_);
  const int64_t interval = expected - expected_before_;
  const int64_t lost = interval - (received_ - received_before_);
  if (interval > 0 && lost > 0) {
    block.fraction_lost = static_cast<uint8_t>(std::min<int64_t>(lost * 256 / interval, 255));
  }
  expected_before_ = expected;
  received_before_ = received_;
  block.highest_sequence = static_cast<uint32_t>(highest_);
  block.jitter = static_cast<uint32_t>(jitter_);
  block.last_sr = last_sr_;
  if (last_sr_ != 0) {
    block.delay_since_sr = static_cast<uint32_t>((now_us - last_sr_us_) * 65'536 / 1'000'000);
  }
  return block;
}

}  // namespace parley::webrtc
