#pragma once
// How well a connection carries speech.
#include <absl/time/time.h>

namespace parley::webrtc {

// Of the last second.
struct LinkFigures {
  double loss = 0;  // share of audio packets, of the worse direction
  absl::Duration round_trip = absl::ZeroDuration();  // zero: not known
  absl::Duration jitter = absl::ZeroDuration();      // of what comes in
  absl::Duration silence = absl::ZeroDuration();     // since anything was heard of the other side
};

// What listeners would say of speech that came this way: a mean opinion score, 1 (useless) to 4.4
// (no flaw), after the E-model (ITU-T G.107) with the figures of a codec that hides loss well.
float MeanOpinion(const LinkFigures& figures);

}  // namespace parley::webrtc
