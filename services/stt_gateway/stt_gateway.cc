#include "stt_gateway/stt_gateway.h"

#include <memory>
#include <utility>

#include "base/status.h"
#include "engines/deepgram/deepgram.h"
#include "engines/openai/speech_to_text.h"
#include "engines/pocketsphinx/engine.h"
#include "engines/scripted/scripted.h"
#include "engines/wyoming/speech_to_text.h"
#include "gateway/gateway.h"
#include "gateway/usage.h"
#include "parley/speech/v1/speech.grpc.pb.h"
#include "rpc/channel.h"
#include "stt_gateway/recognize_session.h"
#include "stt_gateway/riva.h"

namespace parley {
namespace {

class Service final : public speech::v1::SpeechToTextService::CallbackService {
 public:
  explicit Service(SttGatewayParts& parts) : parts_(parts) {}

  grpc::ServerBidiReactor<speech::v1::RecognizeRequest, speech::v1::RecognizeResponse>* Recognize(
      grpc::CallbackServerContext* context) override {
    return RecognizeSession::Start<RecognizeSession>(parts_, rpc::BearerOf(*context));
  }

  grpc::ServerUnaryReactor* ListEngines(grpc::CallbackServerContext* context,
                                        const speech::v1::ListEnginesRequest* /*request*/,
                                        speech::v1::ListEnginesResponse* response) override {
    return rpc::Unary(parts_.context.executor(), context,
                      [this, bearer = rpc::BearerOf(*context), response]() -> absl::Status {
                        PARLEY_RETURN_IF_ERROR(gateway::RequireCaller(parts_.context, bearer));
                        for (const auto& [name, engine] : parts_.engines.all()) {
                          const speech::SttEngineInfo& info = engine->info();
                          speech::v1::EngineInfo* out = response->add_engines();
                          out->set_name(name);
                          out->set_description(info.description);
                          for (const std::string& language : info.languages)
                            out->add_languages(language);
                          out->set_streaming(info.streaming);
                          out->set_embedded(info.embedded);
                        }
                        return absl::OkStatus();
                      });
  }

 private:
  SttGatewayParts& parts_;
};

absl::Status AddDeepgram(const SttGatewayConfig& config, gateway::Shared& shared,
                         speech::EngineTable<speech::SttEngine>& engines) {
  PARLEY_ASSIGN_OR_RETURN(const gateway::ProviderConfig provider, config.deepgram.Resolve("stt"));
  if (provider.base_url.empty()) return absl::OkStatus();
  engines::DeepgramOptions remote;
  remote.base_url = provider.base_url;
  remote.keys = provider.keys();
  if (!provider.model.empty()) remote.default_model = provider.model;
  PARLEY_ASSIGN_OR_RETURN(const gateway::Meter meter, shared.MeterOf("deepgram", provider));
  PARLEY_ASSIGN_OR_RETURN(auto engine, engines::DeepgramStt::Create(std::move(remote)));
  engines.Add("deepgram", gateway::Metered(std::move(engine), meter));
  return absl::OkStatus();
}

}  // namespace

void SttGatewayConfig::Bind(config::Table& table) {
  common.Bind(table, 7102);
  table.Text("stt.decoder", &decoder,
             "Path of parley-stt-decoder; by default it is looked for beside this program");
  table.Text("stt.model_dir", &model_dir, "Folder of the pocketsphinx models");
  table.Int("stt.max_streams", &max_streams, 1, 100'000, "Streams that may be open at a time");
  table.Int(
      "stt.max_decoders", &max_decoders, 1, 10'000,
      "Of these, how many pocketsphinx may serve: a process each, 4 MiB with a grammar, 28 MiB "
      "with free speech");
  table.Size("stt.memory_limit", &memory_limit, 16 << 20, int64_t{4} << 30,
             "Memory of one decoder process beyond the models");
  table.Duration("stt.open_timeout", &open_timeout, absl::Seconds(1), absl::Minutes(1),
                 "How long a recogniser may take to be ready, its grammar's compilation included");
  table.Duration("stt.final_timeout", &final_timeout, absl::Seconds(1), absl::Minutes(1),
                 "How long a final may take once the utterance is over");
  table.Duration("stt.idle_timeout", &idle_timeout, absl::Seconds(1), absl::Hours(24),
                 "Streams without audio for so long are closed");
  table.Duration("stt.max_stream_time", &max_stream_time, absl::Seconds(1), absl::Hours(24 * 7),
                 "Streams that are open for so long are closed");
  table.Bool("stt.preload", &preload, "Load the embedded models at the start; ready once loaded");
  shared.Bind(table, "stt");
  openai.Bind(table, "stt");
  table.Duration("stt.openai.timeout", &openai_timeout, absl::Milliseconds(100), absl::Minutes(1),
                 "How long it may take over one utterance before the chain goes on");
  deepgram.Bind(table, "stt", gateway::kDeepgram);
  wyoming.Bind(table, "stt");
  table.Duration("stt.wyoming.timeout", &wyoming_timeout, absl::Milliseconds(100), absl::Minutes(1),
                 "How long it may take over one utterance before the chain goes on");
  table.List("stt.riva.engines", &riva_engines,
             "Fallback chain of Riva clients that name no model");
  table.Text("stt.script", &script,
             "JSON file of the scripted engine (tests and benchmarks); none: no such engine");
}

namespace stt_gateway {

int Run(const SttGatewayConfig& config, service::Context& context) {
  return Run(config, context, {});
}

int Run(const SttGatewayConfig& config, service::Context& context,
        std::function<void(int grpc_port, int admin_port)> started) {
  speech::Breakers breakers(Clock::Real());
  const auto shared = gateway::Shared::Create("stt", config.shared, context, breakers);
  if (!shared.ok()) return service::FailStart("stt-gateway", shared.status());
  const gateway::Meter counted = (*shared)->MeterOfEmbedded();
  speech::EngineTable<speech::SttEngine> engines("speech-to-text");
  engines::PocketsphinxOptions options;
  options.decoder = config.decoder;
  options.model_dir = config.model_dir;
  options.max_streams = config.max_decoders;
  options.memory_limit_bytes = config.memory_limit;
  options.open_timeout = config.open_timeout;
  auto pocketsphinx = std::make_unique<engines::PocketsphinxEngine>(options);
  engines::PocketsphinxEngine* embedded = pocketsphinx.get();
  engines.Add("pocketsphinx", gateway::Metered(std::move(pocketsphinx), counted));
  const auto provider = config.openai.Resolve("stt");
  if (!provider.ok()) return service::FailStart("stt-gateway", provider.status());
  if (!provider->base_url.empty()) {
    engines::OpenAiSttOptions remote;
    remote.base_url = provider->base_url;
    remote.keys = provider->keys();
    remote.default_model = provider->model;
    remote.timeout = config.openai_timeout;
    const auto meter = (*shared)->MeterOf("openai", *provider);
    if (!meter.ok()) return service::FailStart("stt-gateway", meter.status());
    engines.Add("openai",
                gateway::Metered(std::make_unique<engines::OpenAiStt>(std::move(remote)), *meter));
  }
  if (const absl::Status added = AddDeepgram(config, **shared, engines); !added.ok())
    return service::FailStart("stt-gateway", added);
  if (!config.wyoming.address.empty()) {
    engines::WyomingSttOptions remote;
    remote.address = config.wyoming.address;
    remote.timeout = config.wyoming_timeout;
    const auto meter = (*shared)->MeterOf("wyoming", config.wyoming);
    if (!meter.ok()) return service::FailStart("stt-gateway", meter.status());
    engines.Add("wyoming",
                gateway::Metered(std::make_unique<engines::WyomingStt>(std::move(remote)), *meter));
  }
  if (!config.script.empty()) {
    const auto script = engines::Script::Load(config.script);
    if (!script.ok()) return service::FailStart("stt-gateway", script.status());
    engines.Add("scripted",
                gateway::Metered(std::make_unique<engines::ScriptedStt>(script->stt), counted));
  }
  SttGatewayMetrics metrics(context.registry(), engines.names());
  gateway::Streams streams(static_cast<size_t>(config.max_streams));
  speech::Pace pace;
  SttGatewayParts parts{config, context, engines, breakers, pace, metrics, streams};
  Service service(parts);
  Service inner(parts);
  gateway::UsageService usage(context, **shared);
  service::Context::Hooks hooks;
  hooks.started = std::move(started);
  if (config.preload) {
    // A model that does not load stops the start with a line that says what to install.
    if (const absl::Status loaded = embedded->Load(); !loaded.ok())
      return service::FailStart("stt-gateway", loaded);
  }
  auto riva = std::make_unique<RivaRecognition>(inner, config.riva_engines, context.executor());
  const int code = context.Serve({&service, &usage, riva.get()}, std::move(hooks));
  riva.reset();
  streams.WaitEmpty();
  return code;
}

}  // namespace stt_gateway
}  // namespace parley
