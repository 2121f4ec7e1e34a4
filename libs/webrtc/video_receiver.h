#pragma once
// One incoming layer of a video track: nothing waits here, packets go on as they come; those that
// are missing are asked for again. Keeps the figures of a receiver report. One thread.
#include <array>
#include <cstdint>
#include <optional>

#include "webrtc/reception.h"
#include "webrtc/rtp.h"

namespace parley::webrtc {

class VideoReceiver {
 public:
  static constexpr int64_t kClockHz = 90'000;
  static constexpr size_t kWindow = 512;           // packets that may still come
  static constexpr int64_t kNackEveryUs = 40'000;  // a missing packet is asked for again
  static constexpr int kMaxNacks = 10;

  explicit VideoReceiver(uint32_t ssrc) : reception_(ssrc, kClockHz) {}

  // The number under which the packet goes on: the sender's, without those of packets that carry
  // nothing (padding). nullopt: it goes nowhere, for it came before, is too late or carries
  // nothing.
  std::optional<uint16_t> Add(const RtpPacket& packet, int64_t now_us);
  // The sender's numbers to ask for now, in rising order.
  size_t Missing(int64_t now_us, std::array<uint16_t, kMaxNacked>* numbers);
  void OnSenderReport(const SenderReport& report, int64_t now_us) {
    reception_.OnSenderReport(report, now_us);
  }
  // For a report; begins the next interval. Its jitter is in units of 1/90000 s.
  ReportBlock Report(int64_t now_us);

 private:
  struct Slot {
    bool missing = false;
    uint8_t nacks = 0;
    uint16_t empty_before = 0;  // packets that carried nothing
    int64_t next_nack_us = 0;
  };

  void Begin(int64_t number);
  Slot& At(int64_t number) { return slots_[static_cast<size_t>(number) % kWindow]; }

  Reception reception_;
  bool started_ = false;
  int64_t first_ = 0;
  int64_t highest_ = 0;
  uint16_t empty_ = 0;
  std::array<Slot, kWindow> slots_{};
  size_t missing_ = 0;  // slots
};

}  // namespace parley::webrtc
