// Any bytes as payloads of video, and as the numbers, layers and times of its packets: what goes
// out can be read again, and is kept.
#include <cstdint>
#include <set>

#include "base/check.h"
#include "webrtc/video_receiver.h"
#include "webrtc/video_sender.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace parley::webrtc;  // NOLINT
  for (const VideoCodec codec : {VideoCodec::kVp8, VideoCodec::kVp9, VideoCodec::kH264}) {
    (void)BeginsKeyPicture(codec, {data, size});
  }
  VideoReceiver receivers[LayerChooser::kLayers] = {VideoReceiver(1), VideoReceiver(2),
                                                    VideoReceiver(3)};
  VideoSender sender({.track = 1, .ssrc = 9, .payload_type = 96, .video = true}, 1);
  std::set<uint16_t> sent;
  int64_t now_us = 1;
  for (size_t at = 0; at + 4 <= size && sent.size() < 10'000; at += 4) {
    const uint8_t layer = data[at] % LayerChooser::kLayers;
    RtpPacket packet;
    packet.sequence = Get16(data + at + 1);
    packet.timestamp = packet.sequence * 3'000u;
    packet.payload = {data + at, (data[at] & 0x80) != 0 ? size_t{0} : size_t{4}};
    const auto number = receivers[layer].Add(packet, now_us);
    std::array<uint16_t, kMaxNacked> missing;
    PARLEY_CHECK(receivers[layer].Missing(now_us, &missing) <= missing.size());
    (void)receivers[layer].Report(now_us);
    now_us += data[at + 3] * int64_t{1'000};
    (void)sender.Tick(now_us);
    if (!number) continue;
    std::array<uint8_t, kMaxRtpHeaderBytes> header;
    const size_t bytes = sender.NextHeader({.timestamp = packet.timestamp,
                                            .sequence = *number,
                                            .layer = layer,
                                            .key = (data[at] & 0x40) != 0,
                                            .payload = Text(packet.payload)},
                                           now_us, header);
    if (bytes == 0) continue;
    sender.OnSent(Bytes(header).first(bytes), packet.payload.size());
    const auto out = ParseRtp(Bytes(header).first(bytes), {});
    PARLEY_CHECK(out && out->ssrc == 9 && !sender.Kept(out->sequence).empty());
    sent.insert(out->sequence);
  }
  return 0;
}
