#include "llm_gateway/llm_gateway.h"

#include <memory>
#include <utility>

#include "base/status.h"
#include "engines/openai/openai.h"
#include "engines/openai/realtime.h"
#include "engines/rules/engine.h"
#include "engines/scripted/scripted.h"
#include "gateway/gateway.h"
#include "gateway/usage.h"
#include "llm_gateway/chat_call.h"
#include "llm_gateway/realtime_call.h"
#include "parley/llm/v1/llm.grpc.pb.h"
#include "rpc/bidi.h"
#include "rpc/channel.h"

namespace parley {
namespace {

class Service final : public llm::v1::LanguageModelService::CallbackService {
 public:
  explicit Service(LlmGatewayParts& parts) : parts_(parts) {}

  grpc::ServerWriteReactor<llm::v1::ChatResponse>* Chat(
      grpc::CallbackServerContext* context, const llm::v1::ChatRequest* request) override {
    return ChatCall::Start(parts_, rpc::BearerOf(*context), *request);
  }

  grpc::ServerBidiReactor<llm::v1::RealtimeRequest, llm::v1::RealtimeResponse>* Realtime(
      grpc::CallbackServerContext* context) override {
    return RealtimeCall::Start<RealtimeCall>(parts_, rpc::BearerOf(*context));
  }

  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const llm::v1::ListModelsRequest* /*request*/,
                                       llm::v1::ListModelsResponse* response) override {
    return rpc::Unary(parts_.context.executor(), context,
                      [this, bearer = rpc::BearerOf(*context), response]() -> absl::Status {
                        PARLEY_RETURN_IF_ERROR(gateway::RequireCaller(parts_.context, bearer));
                        for (const auto& [name, engine] : parts_.engines.all()) {
                          for (const speech::LlmModelInfo& info : engine->Models()) {
                            llm::v1::ModelInfo* out = response->add_models();
                            out->set_engine(name);
                            out->set_model(info.model);
                            out->set_description(info.description);
                            out->set_embedded(engine->embedded());
                          }
                        }
                        return absl::OkStatus();
                      });
  }

 private:
  LlmGatewayParts& parts_;
};

absl::Status AddEngines(const LlmGatewayConfig& config, gateway::Shared& shared,
                        speech::EngineTable<speech::LlmEngine>& engines,
                        speech::EngineTable<speech::RealtimeEngine>& realtime) {
  using gateway::Metered;
  engines.Add("rules", Metered(std::make_unique<engines::RulesEngine>(), shared.MeterOfEmbedded()));
  PARLEY_ASSIGN_OR_RETURN(const gateway::ProviderConfig provider, config.openai.Resolve("llm"));
  if (!provider.base_url.empty()) {
    engines::OpenAiOptions options;
    options.base_url = provider.base_url;
    options.keys = provider.keys();
    options.default_model = provider.model;
    options.timeout = config.timeout;
    PARLEY_ASSIGN_OR_RETURN(const gateway::Meter meter, shared.MeterOf("openai", provider));
    engines.Add("openai", Metered(std::make_unique<engines::OpenAiEngine>(options), meter));
    PARLEY_ASSIGN_OR_RETURN(auto sockets, http::WebSocketClient::Start());
    realtime.Add("openai-realtime", Metered(std::make_unique<engines::OpenAiRealtimeEngine>(
                                                std::move(options), std::move(sockets)),
                                            meter));
  }
  if (!config.script.empty()) {
    PARLEY_ASSIGN_OR_RETURN(const engines::Script script, engines::Script::Load(config.script));
    engines.Add("scripted", Metered(std::make_unique<engines::ScriptedLlm>(script.llm),
                                    shared.MeterOfEmbedded()));
  }
  return absl::OkStatus();
}

}  // namespace

void LlmGatewayConfig::Bind(config::Table& table) {
  common.Bind(table, 7104);
  table.Int("llm.max_chats", &max_chats, 1, 1024, "Answers that are made at a time");
  table.Duration("llm.timeout", &timeout, absl::Seconds(1), absl::Minutes(30),
                 "Longest time for one answer");
  shared.Bind(table, "llm");
  openai.Bind(table, "llm");
  table.Text("llm.script", &script,
             "JSON file of the scripted engine (tests and benchmarks); none: no such engine");
}

namespace llm_gateway {

int Run(const LlmGatewayConfig& config, service::Context& context) {
  return Run(config, context, {});
}

int Run(const LlmGatewayConfig& config, service::Context& context,
        std::function<void(int grpc_port, int admin_port)> started) {
  speech::Breakers breakers(Clock::Real());
  const auto shared = gateway::Shared::Create("llm", config.shared, context, breakers);
  if (!shared.ok()) return service::FailStart("llm-gateway", shared.status());
  speech::EngineTable<speech::LlmEngine> engines("language model");
  speech::EngineTable<speech::RealtimeEngine> realtime("realtime model");
  if (const absl::Status added = AddEngines(config, **shared, engines, realtime); !added.ok())
    return service::FailStart("llm-gateway", added);
  LlmGatewayMetrics metrics(context.registry(), engines.names());
  const auto limit = static_cast<size_t>(config.max_chats);
  gateway::Streams streams(limit);
  Executor models(limit, limit);
  LlmGatewayParts parts{config, context, engines, breakers, metrics, realtime, streams, models};
  Service service(parts);
  service::Context::Hooks hooks;
  hooks.started = std::move(started);
  gateway::UsageService usage(context, **shared);
  const int code = context.Serve({&service, &usage}, std::move(hooks));
  streams.WaitEmpty();
  return code;
}

}  // namespace llm_gateway
}  // namespace parley
