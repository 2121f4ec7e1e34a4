// Any text as an offer, twice: refused, or answered with a description that can be read, has as
// many sections, and no line that the offer smuggled in.
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "webrtc/negotiation.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace parley::webrtc;  // NOLINT
  const auto offer = ParseSdp({reinterpret_cast<const char*>(data), size});
  if (!offer.ok()) return 0;
  Negotiation negotiation("12:34", {*Endpoint::Parse("192.0.2.1", 7882)});
  negotiation.AddTrack(0, "TR_a", "PA_a|TR_a");
  for (int round = 0; round < 2; ++round) {
    const auto answer = negotiation.Accept(*offer);
    if (!answer.ok()) return 0;
    const auto read = ParseSdp(answer->sdp);
    PARLEY_CHECK(read.ok() && read->sections.size() == offer->sections.size());
    for (const SdpSection& section : read->sections) {
      PARLEY_CHECK(section.stopped() || section.setup == "passive");
    }
    PARLEY_CHECK(answer->plan.send.size() <= 1);
    negotiation.RemoveTrack(0);
  }
  return 0;
}
