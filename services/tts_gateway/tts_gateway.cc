#include "tts_gateway/tts_gateway.h"

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "auth/token.h"
#include "base/ip.h"
#include "base/mutex.h"
#include "base/status.h"
#include "engines/espeak/espeak.h"
#include "engines/flite/flite.h"
#include "engines/openai/text_to_speech.h"
#include "engines/scripted/scripted.h"
#include "engines/wyoming/text_to_speech.h"
#include "gateway/gateway.h"
#include "gateway/usage.h"
#include "parley/speech/v1/cache.grpc.pb.h"
#include "parley/speech/v1/speech.grpc.pb.h"
#include "rpc/channel.h"
#include "tts_gateway/riva.h"
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

class CacheService final : public speech::v1::SpeechCacheService::CallbackService {
 public:
  explicit CacheService(TtsGatewayParts& parts) : parts_(parts) {}

  grpc::ServerUnaryReactor* Fetch(grpc::CallbackServerContext* context,
                                  const speech::v1::FetchRequest* request,
                                  speech::v1::FetchResponse* response) override {
    return rpc::Unary(
        parts_.context.executor(), context,
        [this, bearer = rpc::BearerOf(*context), request, response]() -> absl::Status {
          PARLEY_ASSIGN_OR_RETURN(const auth::Claims claims,
                                  parts_.context.AuthenticateToken(bearer));
          PARLEY_RETURN_IF_ERROR(auth::RequireService(claims));
          if (parts_.cache == nullptr) return NotFound("this replica has no cache");
          PARLEY_ASSIGN_OR_RETURN(
              *response->mutable_recording(),
              parts_.cache->Lend(request->project(), request->phrase(), request->id()));
          return absl::OkStatus();
        });
  }

  grpc::ServerUnaryReactor* Flush(grpc::CallbackServerContext* context,
                                  const speech::v1::FlushRequest* request,
                                  speech::v1::FlushResponse* /*response*/) override {
    return rpc::Unary(parts_.context.executor(), context,
                      [this, bearer = rpc::BearerOf(*context), request]() -> absl::Status {
                        PARLEY_ASSIGN_OR_RETURN(const auth::Claims claims,
                                                parts_.context.AuthenticateToken(bearer));
                        PARLEY_RETURN_IF_ERROR(auth::RequireAgentAdmin(claims));
                        if (parts_.cache == nullptr)
                          return FailedPrecondition("this gateway has no cache (--tts-cache-dir)");
                        std::string project = request->project();
                        if (!claims.project.empty()) {
                          if (!project.empty() && project != claims.project)
                            return PermissionDenied("the token is of project {}", claims.project);
                          project = claims.project;
                        }
                        return parts_.cache->Flush(project.empty() ? "default" : project);
                      });
  }

 private:
  TtsGatewayParts& parts_;
};

// The other replicas, as far as recordings are borrowed from them.
class Peers {
 public:
  explicit Peers(service::Context& context) : context_(context) {}

  absl::StatusOr<std::string> Fetch(const std::string& address, const std::string& project,
                                    const std::string& phrase, const std::string& id) {
    const auto stub = speech::v1::SpeechCacheService::NewStub(ChannelTo(address));
    grpc::ClientContext call;
    rpc::SetBearer(call, context_.ServiceToken());
    rpc::SetTimeout(call, absl::Seconds(1));
    rpc::SetTrace(call);
    speech::v1::FetchRequest request;
    request.set_project(project);
    request.set_phrase(phrase);
    request.set_id(id);
    speech::v1::FetchResponse response;
    PARLEY_RETURN_IF_ERROR(rpc::FromGrpcStatus(stub->Fetch(&call, request, &response)));
    return std::move(*response.mutable_recording());
  }

 private:
  std::shared_ptr<grpc::Channel> ChannelTo(const std::string& address) {
    constexpr size_t kMost = 64;  // channels; those of replicas that ended are among them
    MutexLock lock(&mutex_);
    if (channels_.size() >= kMost && !channels_.contains(address)) channels_.clear();
    std::shared_ptr<grpc::Channel>& channel = channels_[address];
    if (channel == nullptr) channel = rpc::MakeChannel(address);
    return channel;
  }

  service::Context& context_;
  Mutex mutex_;
  std::map<std::string, std::shared_ptr<grpc::Channel>> channels_ ABSL_GUARDED_BY(mutex_);
};

std::string PeerAddress(const TtsGatewayConfig& config, int grpc_port) {
  const std::string& address = config.common.address;
  if (config.peer_address.empty() && (address == "0.0.0.0" || address == "::")) return {};
  return ReachableAddress(config.peer_address, address, grpc_port);
}

// Null without a folder.
absl::StatusOr<std::unique_ptr<SpeechCache>> OpenCache(const TtsGatewayConfig& config,
                                                       gateway::Shared& shared, Peers& peers,
                                                       service::Context& context) {
  if (config.cache_dir.empty()) return std::unique_ptr<SpeechCache>();
  if (shared.redis() == nullptr)
    return InvalidArgument("tts.cache_dir needs redis.address: that is where recordings are found");
  SpeechCache::Options options;
  options.directory = config.cache_dir;
  options.max_bytes = config.cache_size;
  options.lifetime = config.cache_lifetime;
  return SpeechCache::Open(
      std::move(options), *shared.redis(),
      [&peers](const std::string& address, const std::string& project, const std::string& phrase,
               const std::string& id) { return peers.Fetch(address, project, phrase, id); },
      context.log());
}

}  // namespace

void TtsGatewayConfig::Bind(config::Table& table) {
  common.Bind(table, 7103);
  table.Int("tts.max_streams", &max_streams, 1, 100'000, "Streams that may be open at a time");
  table.Int("tts.voices", &voices, 1, 256, "Sentences that are made at a time");
  table.Int("tts.remote_voices", &remote_voices, 1, 4096,
            "The same where the first voice of a chain is remote: a thread each, that waits");
  table.Text("tts.espeak", &espeak, "The espeak-ng program: a path, or a name in PATH");
  table.Duration("tts.idle_timeout", &idle_timeout, absl::Seconds(1), absl::Hours(24),
                 "Streams with nothing to speak for so long are closed");
  table.Duration("tts.max_stream_time", &max_stream_time, absl::Seconds(1), absl::Hours(24 * 7),
                 "Streams that are open for so long are closed");
  shared.Bind(table, "tts");
  table.Text("tts.cache_dir", &cache_dir,
             "Folder for recorded speech, found by all replicas through redis.address; none: every "
             "sentence is made anew");
  table.Size("tts.cache_size", &cache_size, 1 << 20, int64_t{1} << 40,
             "Recorded speech that this replica keeps, at most");
  table.Duration("tts.cache_lifetime", &cache_lifetime, absl::Seconds(1), absl::Hours(24 * 365),
                 "How long recorded speech is kept");
  table.Text("tts.peer_address", &peer_address,
             "host:port of this replica's gRPC, or host with its port, as other replicas reach it; "
             "by default its address and port, unless it listens on all addresses");
  openai.Bind(table, "tts");
  table.Duration("tts.openai.first_audio_timeout", &openai_first_audio, absl::Milliseconds(100),
                 absl::Minutes(1), "How long its first audio may take before the chain goes on");
  table.Text("tts.openai.voice", &openai_voice, "Voice of requests that name none");
  wyoming.Bind(table, "tts");
  table.Text("tts.wyoming.voice", &wyoming_voice, "Voice of requests that name none");
  table.List("tts.riva.engines", &riva_engines,
             "Fallback chain of Riva clients whose voice names no engine");
  table.Text("tts.script", &script,
             "JSON file of the scripted engine (tests and benchmarks); none: no such engine");
}

namespace tts_gateway {

int Run(const TtsGatewayConfig& config, service::Context& context) {
  return Run(config, context, {});
}

int Run(const TtsGatewayConfig& config, service::Context& context,
        std::function<void(int grpc_port, int admin_port)> started) {
  using gateway::Metered;
  speech::Breakers breakers(Clock::Real());
  const auto shared = gateway::Shared::Create("tts", config.shared, context, breakers);
  if (!shared.ok()) return service::FailStart("tts-gateway", shared.status());
  const gateway::Meter counted = (*shared)->MeterOfEmbedded();
  speech::EngineTable<speech::TtsEngine> engines("text-to-speech");
  engines.Add("flite", Metered(std::make_unique<engines::FliteEngine>(), counted));
  engines::EspeakOptions espeak;
  espeak.binary = config.espeak;
  engines.Add("espeak", Metered(std::make_unique<engines::EspeakEngine>(espeak), counted));
  const auto provider = config.openai.Resolve("tts");
  if (!provider.ok()) return service::FailStart("tts-gateway", provider.status());
  if (!provider->base_url.empty()) {
    engines::OpenAiTtsOptions remote;
    remote.base_url = provider->base_url;
    remote.keys = provider->keys();
    remote.default_model = provider->model;
    remote.first_audio_timeout = config.openai_first_audio;
    remote.default_voice = config.openai_voice;
    const auto meter = (*shared)->MeterOf("openai", *provider);
    if (!meter.ok()) return service::FailStart("tts-gateway", meter.status());
    engines.Add("openai", Metered(std::make_unique<engines::OpenAiTts>(std::move(remote)), *meter));
  }
  if (!config.wyoming.address.empty()) {
    engines::WyomingTtsOptions remote;
    remote.address = config.wyoming.address;
    remote.default_voice = config.wyoming_voice;
    const auto meter = (*shared)->MeterOf("wyoming", config.wyoming);
    if (!meter.ok()) return service::FailStart("tts-gateway", meter.status());
    engines.Add("wyoming",
                Metered(std::make_unique<engines::WyomingTts>(std::move(remote)), *meter));
  }
  if (!config.script.empty()) {
    const auto script = engines::Script::Load(config.script);
    if (!script.ok()) return service::FailStart("tts-gateway", script.status());
    engines.Add("scripted", Metered(std::make_unique<engines::ScriptedTts>(script->tts), counted));
  }
  TtsGatewayMetrics metrics(context.registry(), engines.names());
  gateway::Streams streams(static_cast<size_t>(config.max_streams));
  // Every stream has at most one sentence under way.
  const auto most = static_cast<size_t>(config.max_streams);
  Executor voices(static_cast<size_t>(config.voices), most);
  Executor remote_voices(provider->base_url.empty() && config.wyoming.address.empty()
                             ? 1
                             : static_cast<size_t>(config.remote_voices),
                         most);
  Peers peers(context);
  const auto cache = OpenCache(config, **shared, peers, context);
  if (!cache.ok()) return service::FailStart("tts-gateway", cache.status());
  speech::Pace pace;
  engines::FliteEngine ruler;  // by itself: what it says for measuring is nobody's spend
  TtsGatewayParts parts{config,  context, engines,       breakers, pace,         metrics,
                        streams, voices,  remote_voices, **shared, cache->get(), ruler};
  Service service(parts);
  Service inner(parts);
  gateway::UsageService usage(context, **shared);
  CacheService cache_service(parts);
  service::Context::Hooks hooks;
  hooks.started = [&, started = std::move(started)](int grpc_port, int admin_port) {
    if (*cache != nullptr) (*cache)->SetAddress(PeerAddress(config, grpc_port));
    if (started) started(grpc_port, admin_port);
  };
  auto riva = std::make_unique<RivaSynthesis>(inner, config.riva_engines, context.executor());
  const int code = context.Serve({&service, &cache_service, &usage, riva.get()}, std::move(hooks));
  riva.reset();
  streams.WaitEmpty();
  return code;
}

}  // namespace tts_gateway
}  // namespace parley
