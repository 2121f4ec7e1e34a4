#include "tts_gateway/tts_gateway.h"

#include <memory>
#include <utility>

#include "base/status.h"
#include "engines/espeak/espeak.h"
#include "engines/flite/flite.h"
#include "engines/openai/text_to_speech.h"
#include "engines/scripted/scripted.h"
#include "gateway/gateway.h"
#include "parley/speech/v1/speech.grpc.pb.h"
#include "rpc/channel.h"
#include "tts_gateway/synthesize_session.h"

namespace parley {
namespace {

class Service final : public speech::v1::TextToSpeechService::CallbackService {
 public:
  explicit Service(TtsGatewayParts& parts) : parts_(parts) {}

  grpc::ServerBidiReactor<speech::v1::SynthesizeRequest, speech::v1::SynthesizeResponse>*
  Synthesize(grpc::CallbackServerContext* context) override {
    return SynthesizeSession::Start<SynthesizeSession>(parts_, rpc::BearerOf(*context));
  }

  grpc::ServerUnaryReactor* ListVoices(grpc::CallbackServerContext* context,
                                       const speech::v1::ListVoicesRequest* /*request*/,
                                       speech::v1::ListVoicesResponse* response) override {
    return rpc::Unary(parts_.context.executor(), context,
                      [this, bearer = rpc::BearerOf(*context), response]() -> absl::Status {
                        PARLEY_RETURN_IF_ERROR(gateway::RequireCaller(parts_.context, bearer));
                        for (const auto& [name, engine] : parts_.engines.all()) {
                          for (const speech::TtsVoiceInfo& info : engine->Voices()) {
                            speech::v1::VoiceInfo* out = response->add_voices();
                            out->set_engine(name);
                            out->set_voice(info.voice);
                            out->set_language(info.language);
                            out->set_native_sample_rate_hz(info.sample_rate_hz);
                            out->set_description(info.description);
                          }
                        }
                        return absl::OkStatus();
                      });
  }

 private:
  TtsGatewayParts& parts_;
};

}  // namespace

void TtsGatewayConfig::Bind(config::Table& table) {
  common.Bind(table, 7103);
  table.Int("tts.max_streams", &max_streams, 1, 100'000, "Streams that may be open at a time");
  table.Int("tts.voices", &voices, 1, 256, "Sentences that are made at a time");
  table.Text("tts.espeak", &espeak, "The espeak-ng program: a path, or a name in PATH");
  table.Duration("tts.idle_timeout", &idle_timeout, absl::Seconds(1), absl::Hours(24),
                 "Streams with nothing to speak for so long are closed");
  openai.Bind(table, "tts");
  table.Duration("tts.openai.first_audio_timeout", &openai_first_audio, absl::Milliseconds(100),
                 absl::Minutes(1), "How long its first audio may take before the chain goes on");
  table.Text("tts.openai.voice", &openai_voice, "Voice of requests that name none");
  table.Text("tts.script", &script,
             "JSON file of the scripted engine (tests and benchmarks); none: no such engine");
}

namespace tts_gateway {

int Run(const TtsGatewayConfig& config, service::Context& context) {
  return Run(config, context, {});
}

int Run(const TtsGatewayConfig& config, service::Context& context,
        std::function<void(int grpc_port, int admin_port)> started) {
  speech::EngineTable<speech::TtsEngine> engines("text-to-speech");
  engines.Add("flite", std::make_unique<engines::FliteEngine>());
  engines::EspeakOptions espeak;
  espeak.binary = config.espeak;
  engines.Add("espeak", std::make_unique<engines::EspeakEngine>(espeak));
  const auto provider = config.openai.Resolve("tts");
  if (!provider.ok()) return service::FailStart("tts-gateway", provider.status());
  if (!provider->base_url.empty()) {
    engines::OpenAiTtsOptions remote;
    remote.base_url = provider->base_url;
    remote.key = provider->key;
    remote.default_model = provider->model;
    remote.first_audio_timeout = config.openai_first_audio;
    remote.default_voice = config.openai_voice;
    engines.Add("openai", std::make_unique<engines::OpenAiTts>(std::move(remote)));
  }
  if (!config.script.empty()) {
    const auto script = engines::Script::Load(config.script);
    if (!script.ok()) return service::FailStart("tts-gateway", script.status());
    engines.Add("scripted", std::make_unique<engines::ScriptedTts>(script->tts));
  }
  TtsGatewayMetrics metrics(context.registry(), engines.names());
  gateway::Streams streams(static_cast<size_t>(config.max_streams));
  // Every stream has at most one sentence under way.
  Executor voices(static_cast<size_t>(config.voices), static_cast<size_t>(config.max_streams));
  speech::Breakers breakers(Clock::Real());
  TtsGatewayParts parts{config, context, engines, breakers, metrics, streams, voices};
  Service service(parts);
  service::Context::Hooks hooks;
  hooks.started = std::move(started);
  const int code = context.Serve({&service}, std::move(hooks));
  streams.WaitEmpty();
  return code;
}

}  // namespace tts_gateway
}  // namespace parley
