#include "webrtc/video_receiver.h"

#include <algorithm>
#include <cstdlib>

namespace parley::webrtc {

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
    reception_.Count(packet.timestamp, now_us);
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
  reception_.Count(packet.timestamp, now_us);
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

ReportBlock VideoReceiver::Report(int64_t now_us) {
  return reception_.Report(started_ ? highest_ - first_ + 1 : 0, static_cast<uint32_t>(highest_),
                           now_us);
}

}  // namespace parley::webrtc
