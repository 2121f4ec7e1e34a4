// Any bytes as RTP and as RTCP, and as the numbers and times of a stream of packets: what is handed
// on is in order and nothing comes twice.
#include <algorithm>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "webrtc/receive_stream.h"

namespace {

using namespace parley::webrtc;  // NOLINT: a fuzz target is one small program

struct Ignore final : RtcpReader {
  void OnSenderReport(const SenderReport&) override {}
  void OnReportBlock(const ReportBlock&) override {}
  void OnNack(uint32_t, uint16_t) override { ++nacks; }
  size_t nacks = 0;
};

struct InOrder final : ReceiveStream::Sink {
  void OnPacket(const AudioPacket& packet) override {
    PARLEY_CHECK(!packet.payload.empty() && packet.payload.size() <= ReceiveStream::kMaxPayload);
    ++packets;
  }
  size_t packets = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const RtpExtensions extensions{.audio_level = 1, .mid = 4, .transport_sequence = 3};
  if (const auto packet = ParseRtp({data, size}, extensions)) {
    PARLEY_CHECK(packet->payload.size() <= size && packet->audio_level <= 127);
  }
  Ignore ignore;
  (void)ReadRtcp({data, size}, ignore);

  ReceiveStream stream(1);
  InOrder sink;
  int64_t now_us = 0;
  size_t added = 0;
  for (size_t at = 0; at + 3 <= size; at += 3, ++added) {
    RtpPacket packet;
    packet.sequence = Get16(data + at);
    packet.timestamp = packet.sequence * 960u;
    packet.payload = {data + at, 1 + size_t{data[at + 2]} % 3};
    if (at + 3 > size - packet.payload.size()) break;
    stream.Add(packet, now_us, sink);
    now_us += data[at + 2] * int64_t{500};
    stream.Tick(now_us, sink);
    std::array<uint16_t, kMaxNacked> missing;
    PARLEY_CHECK(stream.Missing(now_us, &missing) <= ReceiveStream::kHeld);
    (void)stream.Report(now_us);
  }
  stream.Tick(now_us + ReceiveStream::kHoldUs, sink);
  PARLEY_CHECK(sink.packets == stream.figures().received);
  PARLEY_CHECK(stream.figures().received + stream.figures().duplicates <= added);
  return 0;
}
