#include "tts_gateway/riva_request.h"

#include "base/status.h"

namespace parley {
namespace {

constexpr int kDefaultRateHz = 22'050;

}  // namespace

namespace riva = nvidia::riva::tts;

absl::StatusOr<speech::v1::SynthesizeRequest> ReadRivaVoice(
    const riva::SynthesizeSpeechRequest& from, const std::vector<std::string>& engines) {
  if (from.encoding() != riva::ENCODING_UNSPECIFIED && from.encoding() != riva::LINEAR_PCM)
    return InvalidArgument("encoding {} is not spoken here: LINEAR_PCM",
                           static_cast<int>(from.encoding()));
  if (from.voice_name().starts_with('/')) return InvalidArgument("voice_name is ENGINE/VOICE");
  speech::v1::SynthesizeRequest request;
  speech::v1::SynthesizeConfig& config = *request.mutable_config();
  config.set_encoding(speech::v1::AUDIO_ENCODING_PCM16);
  config.set_sample_rate_hz(from.sample_rate_hz() == 0 ? kDefaultRateHz : from.sample_rate_hz());
  config.set_ssml(true);  // as there
  const auto add = [&](const std::string& engine, const std::string& voice) {
    speech::v1::VoiceConfig& one = *config.add_voices();
    one.set_engine(engine);
    one.set_voice(voice);
    one.set_language(from.language_code());
  };
  const size_t slash = from.voice_name().find('/');
  if (slash != std::string::npos) {
    add(from.voice_name().substr(0, slash), from.voice_name().substr(slash + 1));
  } else {
    // A voice is one engine's; the others of the chain speak with their own.
    for (const std::string& engine : engines)
      add(engine, &engine == &engines.front() ? from.voice_name() : std::string());
  }
  return request;
}

}  // namespace parley
