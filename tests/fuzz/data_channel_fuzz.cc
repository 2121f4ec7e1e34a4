// Any bytes as the message that opens a data channel, and as packets of SCTP that an association
// hears before its peer was there.
#include <cstdint>

#include "base/check.h"
#include "webrtc/data_transport.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace parley::webrtc;  // NOLINT
  if (const auto channel = ParseChannelOpen({data, size})) {
    PARLEY_CHECK(channel->label.size() <= kMaxLabelBytes);
    const auto again = ParseChannelOpen(AsBytes(WriteChannelOpen(*channel)));
    PARLEY_CHECK(again && again->label == channel->label && again->ordered == channel->ordered &&
                 again->max_retransmits == channel->max_retransmits);
  }
  static auto* const kLoop = new parley::event::Loop;
  DataTransport transport(*kLoop, false,
                          {[](Bytes packet) { PARLEY_CHECK(packet.size() <= 1500); },
                           [](const DataChannel&) {}, [](const DataChannel&, Bytes) {}});
  PARLEY_CHECK(transport.Start(5000).ok());
  if (size > 0) transport.Take({data, size});
  return 0;
}
