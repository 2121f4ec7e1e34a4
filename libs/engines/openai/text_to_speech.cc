#include "engines/openai/text_to_speech.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/clock.h"
#include "base/status.h"
#include "engines/openai/provider.h"

namespace parley::engines {
namespace {

constexpr int kRateHz = 24000;
constexpr int64_t kMaxAudioBytes = int64_t{kRateHz} * 2 * 600;  // ten minutes of one sentence

}  // namespace

class OpenAiTts::Stream : public speech::TtsStream {
 public:
  Stream(OpenAiTts& engine, std::string project, std::string model, std::string voice, double rate)
      : engine_(engine),
        project_(std::move(project)),
        model_(std::move(model)),
        voice_(std::move(voice)),
        rate_(rate) {}
  int sample_rate_hz() const override { return kRateHz; }

  absl::Status Speak(std::string_view sentence, const speech::TtsSink& sink,
                     const speech::Cancellation& cancel) override;

 private:
  OpenAiTts& engine_;
  const std::string project_;
  const std::string model_;
  const std::string voice_;
  const double rate_;
};

absl::Status OpenAiTts::Stream::Speak(std::string_view sentence, const speech::TtsSink& sink,
                                      const speech::Cancellation& cancel) {
  const OpenAiTtsOptions& options = engine_.options_;
  openai::Request request(options.base_url, options.keys, project_, "/audio/speech");
  http::Call& call = request.call;
  nlohmann::json body = {
      {"model", model_}, {"voice", voice_}, {"input", sentence}, {"response_format", "pcm"}};
  if (rate_ != 1) body["speed"] = rate_;
  call.body = body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  call.headers.emplace_back("content-type", "application/json");
  call.timeout = options.timeout;
  call.max_response_bytes = kMaxAudioBytes;

  std::vector<int16_t> samples;
  std::string pending;  // ends in half a sample when the provider cut there
  bool stopped = false;
  bool stalled = false;
  int64_t last_us = Clock::Real().MonotonicMicros();
  bool begun = false;
  const auto on_data = [&](std::string_view bytes) {
    last_us = Clock::Real().MonotonicMicros();
    begun = true;
    pending.append(bytes);
    samples.resize(pending.size() / sizeof(int16_t));
    if (samples.empty()) return true;
    std::memcpy(samples.data(), pending.data(), samples.size() * sizeof(int16_t));
    pending.erase(0, samples.size() * sizeof(int16_t));
    stopped = !sink(samples, {});
    return !stopped;
  };
  const auto reply = engine_.client_.Stream(call, on_data, [&] {
    const absl::Duration most = begun ? options.stall_timeout : options.first_audio_timeout;
    stalled = Clock::Real().MonotonicMicros() - last_us > absl::ToInt64Microseconds(most);
    if (!stopped) stopped = !sink({}, {});
    return stalled || stopped || cancel.cancelled();
  });
  if (cancel.cancelled()) return Cancelled("cancelled");
  if (stopped) return absl::OkStatus();
  if (stalled) {
    return request.Failed(Unavailable(
        "the provider was silent for {}",
        absl::FormatDuration(begun ? options.stall_timeout : options.first_audio_timeout)));
  }
  if (!reply.ok()) return request.Lost(reply.status(), "--tts-openai-base-url");
  if (reply->status != 200) return request.Refused(*reply);
  if (!begun) return request.Failed(Unavailable("the provider answered without audio"));
  return absl::OkStatus();
}

OpenAiTts::OpenAiTts(OpenAiTtsOptions options) : options_(std::move(options)) {}

std::vector<speech::TtsVoiceInfo> OpenAiTts::Voices() const {
  return {
      {options_.default_voice, "", kRateHz, "OpenAI-compatible server at " + options_.base_url}};
}

absl::StatusOr<std::unique_ptr<speech::TtsStream>> OpenAiTts::Open(
    const speech::TtsConfig& config) {
  PARLEY_RETURN_IF_ERROR(speech::CheckTtsConfig(config));
  if (config.pitch != 1) return InvalidArgument("the engine openai cannot change the pitch");
  std::string model = options_.default_model;
  for (const auto& [name, value] : config.options) {
    if (name != "model") return InvalidArgument("the engine openai has no option \"{}\"", name);
    model = value;
  }
  if (model.empty()) return InvalidArgument("the engine openai needs a model");
  std::string voice = config.voice.empty() ? options_.default_voice : config.voice;
  if (voice.empty()) return InvalidArgument("the engine openai needs a voice");
  return std::make_unique<Stream>(*this, config.caller.project, std::move(model), std::move(voice),
                                  config.rate);
}

}  // namespace parley::engines
