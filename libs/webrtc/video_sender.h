#pragma once
// One video track on its way to one listener: of the layers that come in it passes one on, under
// numbers and times without a seam, and keeps the last packets as they went out so that they can be
// sent again. One thread.
#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "webrtc/layer_chooser.h"
#include "webrtc/plan.h"
#include "webrtc/rtp.h"
#include "webrtc/video_packet.h"

namespace parley::webrtc {

class VideoSender {
 public:
  static constexpr size_t kKept = 256;  // packets; allocated with the first
  static constexpr size_t kKeptBytes = 1'400;

  // `first_sequence` of what goes out.
  VideoSender(const SendPlan& plan, uint16_t first_sequence);

  // The header under which a packet goes to the listener. Its size; 0: it does not.
  size_t NextHeader(const VideoPacket& packet, int64_t now_us, std::span<uint8_t> out);
  // The packet made of that header as it was sent, encrypted.
  void OnSent(Bytes sent, size_t payload_bytes);
  // The packet as it was sent; empty when it is not kept (any more). What came before the layer
  // that is sent now is not: that began with a picture that needs no other.
  Bytes Kept(uint16_t sequence) const;
  // … for the listener, who asked for it; empty too when it went out again less than a round trip
  // ago and may be on its way. A narrow line is filled by nothing sooner than by what comes twice.
  Bytes Again(uint16_t sequence, int64_t now_us);

  // The listener's word.
  void OnReport(const ReportBlock& block, uint32_t now_ntp_middle, int64_t now_us);
  void OnEstimate(int64_t bps, int64_t now_us) { chooser_.OnEstimate(bps, now_us); }
  void SetWish(int highest_layer) { chooser_.SetWish(highest_layer); }

  // Looks which layer it should be; about ten times a second. The layer of which a key picture is
  // needed to go on; -1: none is.
  int Tick(int64_t now_us);
  // The layer of the pictures it is sent, or waits for; -1: none.
  int layer() const { return target_; }

  bool started() const { return packets_ > 0; }
  SenderReport Report(int64_t now_us, int64_t now_unix_us) const;
  uint32_t ssrc() const { return plan_.ssrc; }
  uint32_t track() const { return plan_.track; }
  uint8_t fraction_lost() const { return fraction_lost_; }
  uint32_t round_trip() const { return round_trip_; }  // 1/65536 s; 0 = unknown

 private:
  struct Slot {
    uint16_t sequence = 0;
    uint16_t size = 0;  // 0 = empty
    int64_t again_us = 0;
    std::array<uint8_t, kKeptBytes> packet{};
  };
  void SwitchTo(const VideoPacket& packet, int64_t now_us);

  const SendPlan plan_;
  LayerChooser chooser_;
  LayerChooser::Rates bytes_{};  // of each layer since the last look
  LayerChooser::Rates rates_{};
  std::array<int64_t, LayerChooser::kLayers> seen_us_{};
  int64_t looked_us_ = 0;
  int target_ = -1;
  int current_ = -1;
  uint16_t sequence_shift_ = 0;  // out = in + shift
  uint32_t timestamp_shift_ = 0;
  uint16_t first_in_ = 0;      // of the layer since it is sent
  uint32_t since_switch_ = 0;  // packets
  uint16_t highest_;           // that went out
  uint16_t going_out_ = 0;
  uint32_t timestamp_ = 0;  // of the newest picture that went out
  int64_t sent_us_ = 0;
  uint32_t packets_ = 0;
  uint32_t bytes_sent_ = 0;
  uint8_t fraction_lost_ = 0;
  uint32_t round_trip_ = 0;
  std::unique_ptr<std::array<Slot, kKept>> kept_;
};

}  // namespace parley::webrtc
