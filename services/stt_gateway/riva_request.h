#pragma once
// What Riva's clients ask a recogniser for, in the gateway's own words. Pure.
#include <absl/status/statusor.h>

#include <string>
#include <vector>

#include "parley/riva/v1/asr.pb.h"
#include "parley/speech/v1/speech.pb.h"

namespace parley {

inline constexpr int kRivaHearsHz = 16'000;  // raw samples of clients that do not say
inline constexpr int kMaxRivaChannels = 8;

// The stream's first message. `engines`: the chain where `from` names no model.
//   InvalidArgument  an encoding other than LINEAR_PCM, more than kMaxRivaChannels, an empty engine
absl::StatusOr<speech::v1::RecognizeRequest> ReadRivaConfig(
    const nvidia::riva::asr::RecognitionConfig& from, const std::vector<std::string>& engines,
    bool interim);
// Of `config`, once ReadRivaConfig took it.
int RivaChannels(const nvidia::riva::asr::RecognitionConfig& config);
// PCM16 of the first channel, of a WAV file or raw; a file's rate goes into `config`.
//   InvalidArgument  a broken file, half a sample, nothing
absl::StatusOr<std::string> ReadRivaAudio(const nvidia::riva::asr::RecognizeRequest& request,
                                          speech::v1::RecognizeRequest& config);

}  // namespace parley
