#include "webrtc/receive_stream.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <span>
#include <utility>

namespace parley::webrtc {
namespace {

// A jump by more than this is a new beginning of the stream, not loss.
constexpr int64_t kMaxJump = 3'000;

}  // namespace

int64_t ReceiveStream::Unwrap(uint16_t sequence) const {
  return highest_ + static_cast<int16_t>(sequence - static_cast<uint16_t>(highest_));
}

void ReceiveStream::Add(const RtpPacket& packet, int64_t now_us, Sink& sink) {
  if (packet.payload.empty() || packet.payload.size() > kMaxPayload) return;
  if (!started_) {
    started_ = true;
    // Room below, so that a wrap never makes a number negative.
    first_ = next_ = highest_ = 0x10000 + packet.sequence;
  }
  const int64_t number = Unwrap(packet.sequence);
  if (std::abs(number - highest_) > kMaxJump) {
    MoveTo(highest_ + 1, sink);
    next_ = number;
    first_ += number - highest_ - 1;  // the jump is no loss
    highest_ = number;
  }
  if (number < next_) {
    ++figures_.duplicates;
    return Learn(number, now_us);
  }
  if (number == next_ && number >= highest_) {  // the usual case
    Count(packet, number, now_us);
    ++next_;
    return sink.OnPacket({packet.timestamp, packet.audio_level, Text(packet.payload)});
  }
  if (number - next_ >= static_cast<int64_t>(kHeld)) MoveTo(number - kHeld + 1, sink);
  Hold(packet, number, now_us);
  while (next_ <= highest_ && At(next_).used) HandOnNext(sink);
}

void ReceiveStream::Count(const RtpPacket& packet, int64_t number, int64_t now_us) {
  ++figures_.received;
  highest_ = std::max(highest_, number);
  reception_.Count(packet.timestamp, now_us);
}

void ReceiveStream::Hold(const RtpPacket& packet, int64_t number, int64_t now_us) {
  if (slots_ == nullptr) slots_ = std::make_unique<Slots>();
  held_us_ = now_us;
  for (int64_t missing = std::max(next_, highest_ + 1); missing < number; ++missing) {
    Slot& slot = At(missing);
    slot.used = false;
    slot.since_us = slot.next_nack_us = now_us;
    slot.number = missing;
    slot.asked_us = -1;
  }
  Slot& slot = At(number);
  if (number <= highest_) {
    if (slot.used) {
      ++figures_.duplicates;
      return;
    }
    ++figures_.recovered;
    Learn(number, now_us);
  }
  Count(packet, number, now_us);
  slot.used = true;
  slot.since_us = now_us;
  slot.timestamp = packet.timestamp;
  slot.level = packet.audio_level;
  slot.size = static_cast<uint32_t>(packet.payload.size());
  std::memcpy(slot.payload.data(), packet.payload.data(), packet.payload.size());
}

void ReceiveStream::Learn(int64_t number, int64_t now_us) {
  if (slots_ == nullptr || At(number).number != number || At(number).asked_us < 0) return;
  answers_us_[answers_++ % kAnswers] = now_us - std::exchange(At(number).asked_us, -1);
  const auto known = std::min(answers_, kAnswers);
  answer_us_ = *std::ranges::min_element(std::span(answers_us_).first(known));
}

void ReceiveStream::HandOnNext(Sink& sink) {
  Slot& slot = At(next_++);
  slot.used = false;
  sink.OnPacket({slot.timestamp, slot.level, {slot.payload.data(), slot.size}});
}

void ReceiveStream::MoveTo(int64_t number, Sink& sink) {
  while (next_ < number) {
    if (next_ > highest_) {  // nothing is held there
      figures_.skipped += static_cast<uint64_t>(number - next_);
      next_ = number;
    } else if (At(next_).used) {
      HandOnNext(sink);
    } else {
      ++figures_.skipped;
      ++next_;
    }
  }
}

void ReceiveStream::Tick(int64_t now_us, Sink& sink) {
  while (started_ && next_ <= highest_) {
    if (At(next_).used) {
      HandOnNext(sink);
    } else if (now_us - At(next_).since_us >= kHoldUs) {
      ++figures_.skipped;
      ++next_;
    } else {
      return;
    }
  }
}

size_t ReceiveStream::Missing(int64_t now_us, std::array<uint16_t, kMaxNacked>* numbers) {
  size_t count = 0;
  for (int64_t number = next_; number < highest_ && count < numbers->size(); ++number) {
    Slot& slot = At(number);
    if (slot.used || now_us < slot.next_nack_us) continue;
    const bool late = now_us - slot.since_us + answer_us_ > kHoldUs + kNackEveryUs;
    if (late && now_us < last_ask_us_ + kTryEveryUs) continue;
    slot.next_nack_us = now_us + kNackEveryUs;
    last_ask_us_ = now_us;
    if (slot.asked_us < 0) slot.asked_us = now_us;
    (*numbers)[count++] = static_cast<uint16_t>(number);
  }
  return count;
}

ReportBlock ReceiveStream::Report(int64_t now_us) {
  if (next_ > highest_ && now_us - held_us_ > kKeepRoomUs) slots_ = nullptr;
  return reception_.Report(started_ ? highest_ - first_ + 1 : 0, static_cast<uint32_t>(highest_),
                           now_us);
}

}  // namespace parley::webrtc
