#include "stt_gateway/riva_request.h"

#include <algorithm>

#include "audio/pcm.h"
#include "audio/pcm_stream.h"
#include "audio/wav.h"
#include "base/status.h"

namespace parley {

namespace riva = nvidia::riva::asr;

absl::StatusOr<speech::v1::RecognizeRequest> ReadRivaConfig(const riva::RecognitionConfig& from,
                                                            const std::vector<std::string>& engines,
                                                            bool interim) {
  if (from.encoding() != riva::ENCODING_UNSPECIFIED && from.encoding() != riva::LINEAR_PCM)
    return InvalidArgument("encoding {} is not heard here: LINEAR_PCM, or a WAV file",
                           static_cast<int>(from.encoding()));
  if (from.audio_channel_count() < 0 || from.audio_channel_count() > kMaxRivaChannels)
    return InvalidArgument("audio_channel_count {} is out of range: 1 to {}",
                           from.audio_channel_count(), kMaxRivaChannels);
  if (from.model().starts_with('/')) return InvalidArgument("model is ENGINE or ENGINE/MODEL");
  speech::v1::RecognizeRequest request;
  speech::v1::RecognizeConfig& config = *request.mutable_config();
  config.set_sample_rate_hz(from.sample_rate_hertz() == 0 ? kRivaHearsHz
                                                          : from.sample_rate_hertz());
  config.set_interim_results(interim);
  const auto add = [&](const std::string& engine, const std::string& model) {
    speech::v1::EngineConfig& one = *config.add_engines();
    one.set_engine(engine);
    one.set_model(model);
    one.set_language(from.language_code());
    for (const riva::SpeechContext& context : from.speech_contexts()) {
      for (const std::string& phrase : context.phrases()) one.add_phrases(phrase);
    }
    const auto grammar = from.custom_configuration().find("grammar");
    if (grammar != from.custom_configuration().end()) one.set_grammar(grammar->second);
  };
  const size_t slash = from.model().find('/');
  if (!from.model().empty()) {
    add(from.model().substr(0, slash),
        slash == std::string::npos ? std::string() : from.model().substr(slash + 1));
  } else {
    for (const std::string& engine : engines) add(engine, "");
  }
  return request;
}

int RivaChannels(const riva::RecognitionConfig& config) {
  return std::max(config.audio_channel_count(), 1);
}

absl::StatusOr<std::string> ReadRivaAudio(const riva::RecognizeRequest& request,
                                          speech::v1::RecognizeRequest& config) {
  std::string pcm;
  if (request.audio().starts_with("RIFF")) {
    PARLEY_ASSIGN_OR_RETURN(const audio::Wav wav, audio::ParseWav(request.audio()));
    config.mutable_config()->set_sample_rate_hz(wav.rate_hz);
    pcm = audio::AsBytes(audio::Channel(wav.samples, wav.channels, 0));
  } else {
    PARLEY_ASSIGN_OR_RETURN(
        pcm, audio::PcmStream(RivaChannels(request.config())).Append(request.audio()));
  }
  if (pcm.empty()) return InvalidArgument("there is no audio");
  return pcm;
}

}  // namespace parley
