#pragma once
// What Riva's clients ask a voice for, in the gateway's own words. Pure.
#include <absl/status/statusor.h>

#include <string>
#include <vector>

#include "parley/riva/v1/tts.pb.h"
#include "parley/speech/v1/speech.pb.h"

namespace parley {

// The stream's first message. `engines`, at least one: the chain where `from` names no engine.
//   InvalidArgument  an encoding other than LINEAR_PCM, an empty engine
absl::StatusOr<speech::v1::SynthesizeRequest> ReadRivaVoice(
    const nvidia::riva::tts::SynthesizeSpeechRequest& from,
    const std::vector<std::string>& engines);

}  // namespace parley
