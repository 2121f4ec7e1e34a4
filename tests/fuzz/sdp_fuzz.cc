// Any text as an offer and as an answer, twice: refused, or answered with a description that can be
// read, has as many sections, and no line that the offer smuggled in.
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "webrtc/negotiation.h"
#include "webrtc/offering.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace parley::webrtc;  // NOLINT
  const auto offer = ParseSdp({reinterpret_cast<const char*>(data), size});
  if (!offer.ok()) return 0;
  Negotiation negotiation("12:34", {*Endpoint::Parse("192.0.2.1", 7882)});
  negotiation.AddTrack(0, "TR_a", "PA_a|TR_a");
  negotiation.AddTrack(1, "TR_v", "PA_a|TR_v", "h264");
  for (int round = 0; round < 2; ++round) {
    const auto answer = negotiation.Accept(*offer);
    if (!answer.ok()) break;
    const auto read = ParseSdp(answer->sdp);
    PARLEY_CHECK(read.ok() && read->sections.size() == offer->sections.size());
    for (const SdpSection& section : read->sections) {
      PARLEY_CHECK(section.stopped() || section.setup == "passive");
    }
    PARLEY_CHECK(answer->plan.send.size() <= 2);
    negotiation.RemoveTrack(0);
  }
  // The same with full ICE, where we are the DTLS client.
  Negotiation full("12:34", IceCredentials{"ufrag", "password-of-22-letters"});
  if (const auto answer = full.Accept(*offer); answer.ok()) {
    const auto read = ParseSdp(answer->sdp);
    PARLEY_CHECK(read.ok() && !read->ice_lite && answer->plan.dtls_client);
    for (const SdpSection& section : read->sections) {
      PARLEY_CHECK(section.stopped() || section.setup == "active");
    }
  }
  for (const SdpSection& section : offer->sections) {
    PARLEY_CHECK(section.candidates.size() <= kMaxCandidates);
  }
  // The same text as an answer.
  Offering offering("12:34", {*Endpoint::Parse("192.0.2.1", 7882)}, {});
  offering.AddTrack(0, "TR_a", "PA_a|TR_a");
  for (int round = 0; round < 2; ++round) {
    const auto made = offering.Next();
    PARLEY_CHECK(made && ParseSdp(made->sdp).ok());
    const auto plan = offering.Accept(*offer, 0);
    if (!plan.ok()) break;
    PARLEY_CHECK(plan->send.size() <= 1 && !plan->fingerprint.empty());
    offering.RestartIce();
  }
  return 0;
}
