#pragma once
// One outgoing stream of audio packets: numbers them, keeps the last as they went out so that they
// can be sent again, and makes the figures of a sender report. One thread.
#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "webrtc/rtp.h"

namespace parley::webrtc {

class SendStream {
 public:
  static constexpr size_t kKept = 32;        // packets: 640 ms of audio
  static constexpr size_t kKeptBytes = 400;  // larger ones (over 140 kbit/s) are not kept
  static constexpr size_t kKeptStep = 64;    // room for each grows so, with the largest that came

  SendStream(uint32_t ssrc, uint8_t payload_type, uint8_t audio_level_id, uint16_t first_sequence);

  // The header of the next packet. Returns its size.
  size_t NextHeader(uint32_t timestamp, uint32_t level, std::span<uint8_t> out);
  // The packet made of that header as it was sent, encrypted.
  void OnSent(Bytes sent, size_t payload_bytes, int64_t now_us);
  // The packet as it was sent; empty when it is not kept (any more).
  Bytes Kept(uint16_t sequence) const;

  // `now` in microseconds since 1970.
  SenderReport Report(int64_t now_us, int64_t now_unix_us) const;
  // What the other side says of it.
  void OnReport(const ReportBlock& block, uint32_t now_ntp_middle);

  bool started() const { return packets_ > 0; }
  uint32_t ssrc() const { return ssrc_; }
  // Of the last report: packets of 256 lost, and the round trip in 1/65536 s (0 = unknown).
  uint8_t fraction_lost() const { return fraction_lost_; }
  uint32_t round_trip() const { return round_trip_; }

 private:
  struct Slot {
    uint16_t sequence = 0;
    uint16_t size = 0;  // 0 = empty
  };
  uint8_t* PacketOf(size_t slot) { return kept_.data() + slot * room_; }
  void MakeRoomFor(size_t packet_bytes);

  const uint32_t ssrc_;
  const uint8_t payload_type_;
  const uint8_t audio_level_id_;
  uint16_t sequence_;
  uint32_t timestamp_ = 0;
  int64_t sent_us_ = 0;
  uint32_t packets_ = 0;
  uint32_t bytes_ = 0;
  uint8_t fraction_lost_ = 0;
  uint32_t round_trip_ = 0;
  std::array<Slot, kKept> slots_{};
  size_t room_ = 0;            // bytes for each packet: voices need a quarter of the most
  std::vector<uint8_t> kept_;  // the packets of the slots, one after another
};

// The NTP time (32.32) of a Unix time.
uint64_t NtpTime(int64_t unix_us);

}  // namespace parley::webrtc
