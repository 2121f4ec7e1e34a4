#pragma once
// One incoming stream of audio packets: puts them in order, asks for those that are missing, and
// keeps the figures of a receiver report. In order, nothing waits: a packet is held only while an
// earlier one is missing. One thread.
#include <array>
#include <cstdint>
#include <memory>
#include <string_view>

#include "webrtc/reception.h"
#include "webrtc/rtp.h"

namespace parley::webrtc {

struct AudioPacket {
  uint32_t timestamp = 0;    // 48 kHz media clock, wraps
  uint32_t level = 127;      // -dBov; 127 when unknown
  std::string_view payload;  // valid during the call only
};

class ReceiveStream {
 public:
  static constexpr int64_t kClockHz = 48'000;
  static constexpr size_t kHeld = 32;              // packets: 640 ms of audio
  static constexpr int64_t kHoldUs = 80'000;       // how long a missing packet is waited for
  static constexpr int64_t kNackEveryUs = 20'000;  // a missing packet is asked for again …
  // … while it can still come in time, as what was asked for before did. Else once in this time:
  // the network may be quicker again, but what comes too late only fills it.
  static constexpr int64_t kTryEveryUs = 1'000'000;
  static constexpr size_t kAnswers = 8;               // the quickest of so many counts
  static constexpr size_t kMaxPayload = 1280;         // the largest packet that Opus makes is 1275
  static constexpr int64_t kKeepRoomUs = 10'000'000;  // for packets that wait (42 KiB), unused

  class Sink {
   public:
    virtual ~Sink() = default;
    virtual void OnPacket(const AudioPacket& packet) = 0;
  };

  explicit ReceiveStream(uint32_t ssrc) : ssrc_(ssrc), reception_(ssrc, kClockHz) {}

  // Takes a packet, and hands on what is in order now.
  void Add(const RtpPacket& packet, int64_t now_us, Sink& sink);
  // Gives up on packets that are missing for too long.
  void Tick(int64_t now_us, Sink& sink);
  // The numbers to ask for now, in rising order.
  size_t Missing(int64_t now_us, std::array<uint16_t, kMaxNacked>* numbers);
  void OnSenderReport(const SenderReport& report, int64_t now_us) {
    reception_.OnSenderReport(report, now_us);
  }
  // For a report; begins the next interval. About once a second.
  ReportBlock Report(int64_t now_us);

  struct Figures {
    uint64_t received = 0;
    uint64_t duplicates = 0;  // and too late
    uint64_t skipped = 0;     // never came: gaps in what was handed on
    uint64_t recovered = 0;   // came although they had been missing
  };
  const Figures& figures() const { return figures_; }
  uint32_t ssrc() const { return ssrc_; }
  // Is there room for packets that wait? Made when one is missing, given back by Report() when
  // none was for a while.
  bool has_room() const { return slots_ != nullptr; }

 private:
  struct Slot {
    bool used = false;
    uint32_t timestamp = 0;
    uint32_t level = 0;
    uint32_t size = 0;
    int64_t since_us = 0;      // missing: when that showed; used: when it came
    int64_t next_nack_us = 0;  // missing
    int64_t number = -1;       // that was missing here
    int64_t asked_us = -1;     // first time; -1: not, or it has come
    std::array<char, kMaxPayload> payload{};
  };
  using Slots = std::array<Slot, kHeld>;

  int64_t Unwrap(uint16_t sequence) const;
  void Count(const RtpPacket& packet, int64_t number, int64_t now_us);
  void Hold(const RtpPacket& packet, int64_t number, int64_t now_us);
  void Learn(int64_t number, int64_t now_us);  // `number` came: how long after it was asked for?
  void MoveTo(int64_t number, Sink& sink);     // hands on or skips all before it
  void HandOnNext(Sink& sink);
  Slot& At(int64_t number) { return (*slots_)[static_cast<size_t>(number) % kHeld]; }

  const uint32_t ssrc_;
  Reception reception_;
  bool started_ = false;
  int64_t next_ = 0;              // number of the packet to hand on next
  int64_t highest_ = 0;           // that came
  std::unique_ptr<Slots> slots_;  // null: see has_room()
  int64_t held_us_ = 0;           // when a packet was put there last
  std::array<int64_t, kAnswers> answers_us_{};
  size_t answers_ = 0;     // ever
  int64_t answer_us_ = 0;  // the quickest of the last; 0: nothing is known
  int64_t last_ask_us_ = 0;
  Figures figures_;
  int64_t first_ = 0;
};

}  // namespace parley::webrtc
