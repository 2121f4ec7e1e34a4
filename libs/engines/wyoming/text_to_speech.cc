#include "engines/wyoming/text_to_speech.h"

#include <optional>
#include <utility>

#include "audio/pcm.h"
#include "audio/resample.h"
#include "base/status.h"
#include "engines/wyoming/connection.h"

namespace parley::engines {
namespace {

constexpr size_t kMaxSamples = size_t{WyomingTts::kRateHz} * 600;  // ten minutes of one sentence

}  // namespace

class WyomingTts::Stream : public speech::TtsStream {
 public:
  Stream(const WyomingTtsOptions& options, std::string voice, std::string language)
      : options_(options), voice_(std::move(voice)), language_(std::move(language)) {}
  int sample_rate_hz() const override { return kRateHz; }

  absl::Status Speak(std::string_view sentence, const speech::TtsSink& sink,
                     const speech::Cancellation& cancel) override {
    bool enough = false;  // says the sink
    const absl::Status status = Say(sentence, sink, cancel, enough);
    return enough && !cancel.cancelled() ? absl::OkStatus() : status;
  }

 private:
  absl::Status Say(std::string_view sentence, const speech::TtsSink& sink,
                   const speech::Cancellation& cancel, bool& enough) {
    const auto stop = [&] {
      enough = enough || !sink({}, {});
      return enough || cancel.cancelled();
    };
    PARLEY_ASSIGN_OR_RETURN(
        wyoming::Connection server,
        wyoming::Connection::Open(options_.address, options_.connect_timeout, stop));
    PARLEY_RETURN_IF_ERROR(server.Write(wyoming::Synthesize(sentence, voice_, language_),
                                        options_.first_audio_timeout, stop));
    std::optional<audio::Resampler> resampler;
    wyoming::AudioFormat format;
    size_t said = 0;
    while (said <= kMaxSamples) {
      PARLEY_ASSIGN_OR_RETURN(
          const wyoming::Event event,
          server.Read(said == 0 ? options_.first_audio_timeout : options_.stall_timeout, stop));
      if (event.type == "error")
        return Unavailable("the server reports an error: {}", wyoming::ErrorName(event));
      if (event.type == "audio-stop") {
        if (said == 0) return Unavailable("the server answered without audio");
        return absl::OkStatus();
      }
      if (event.type != "audio-start" && event.type != "audio-chunk") continue;
      if (!resampler.has_value()) {
        PARLEY_ASSIGN_OR_RETURN(format, wyoming::FormatOf(event));
        PARLEY_ASSIGN_OR_RETURN(audio::Resampler made,
                                audio::Resampler::Create(format.rate_hz, kRateHz));
        resampler.emplace(std::move(made));
      }
      std::vector<int16_t> samples;
      audio::AppendSamples(event.payload, samples);
      if (format.channels > 1) samples = audio::MixDown(samples, format.channels);
      if (samples.empty()) continue;
      std::vector<int16_t> out;
      resampler->Append(samples, out);
      said += out.size();
      if (!out.empty() && !sink(out, {})) {
        enough = true;
        return absl::OkStatus();
      }
    }
    return Unavailable("the server does not come to an end");
  }

  const WyomingTtsOptions& options_;
  const std::string voice_;
  const std::string language_;
};

std::vector<speech::TtsVoiceInfo> WyomingTts::Voices() const {
  return {{options_.default_voice, "", kRateHz, "Wyoming server at " + options_.address}};
}

absl::StatusOr<std::unique_ptr<speech::TtsStream>> WyomingTts::Open(
    const speech::TtsConfig& config) {
  PARLEY_RETURN_IF_ERROR(speech::CheckTtsConfig(config));
  if (config.rate != 1 || config.pitch != 1)
    return InvalidArgument("the engine wyoming changes neither rate nor pitch");
  if (!config.options.empty())
    return InvalidArgument("the engine wyoming has no option \"{}\"",
                           config.options.begin()->first);
  return std::make_unique<Stream>(
      options_, config.voice.empty() ? options_.default_voice : config.voice, config.language);
}

}  // namespace parley::engines
