#include "cluster.h"

#include <absl/time/clock.h>
#include <fmt/format.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>

#include "agent/run_agent.h"
#include "agent/server/program.h"
#include "agent/server/serve.h"
#include "agent_registry/agent_registry.h"
#include "agents.h"
#include "api_server/api_server.h"
#include "base/ids.h"
#include "base/status.h"
#include "dispatch_broker/dispatch_broker.h"
#include "http/client.h"
#include "llm_gateway/llm_gateway.h"
#include "room_server/room_server.h"
#include "stt_gateway/stt_gateway.h"
#include "tts_gateway/tts_gateway.h"

namespace parley::cli {
namespace {

namespace fs = std::filesystem;

constexpr int kBroker = 7100;
constexpr int kRegistry = 7101;
constexpr int kStt = 7102;
constexpr int kTts = 7103;
constexpr int kLlm = 7104;
constexpr int kRooms = 7105;
constexpr int kRtcTcp = 7881;
constexpr int kHttp = 8080;
constexpr int kLiveKit = 7880;
constexpr int kApiGrpc = 7106;  // health
constexpr int kApiAdmin = 9080;
constexpr int kAgentHealth = 8081;
constexpr int kAdminAbove = 1000;  // a service's admin port is its gRPC port and this
constexpr auto kReadyWithin = absl::Seconds(20);
constexpr auto kAgentDrain = absl::Seconds(5);
constexpr auto kServiceDrain = absl::Seconds(2);
constexpr int kThreads = 4;  // of each service's executor: one person's cluster

// The definitions at `paths`, in order.
absl::StatusOr<std::vector<std::string>> DefinitionFiles(const std::vector<std::string>& paths) {
  std::vector<std::string> files;
  std::error_code error;
  for (const std::string& path : paths) {
    if (!fs::is_directory(path, error)) {
      files.push_back(path);
      continue;
    }
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(path, error))
      if (entry.path().extension() == ".yaml") found.push_back(entry.path());
    if (error) return NotFound("cannot read the folder {}", path);
    std::sort(found.begin(), found.end());
    files.insert(files.end(), found.begin(), found.end());
  }
  return files;
}

int RunBroker(const DispatchBrokerConfig& config, service::Context& context) {
  return dispatch_broker::Run(config, context);
}

// Remote engines, where the gateways' own variables name some: PARLEY_LLM_OPENAI_BASE_URL, ….
template <typename Config>
absl::Status FindProviders(std::string_view kind, Config& config) {
  config::Table table("parley", "");
  config.openai.Bind(table, kind);
  if constexpr (requires { config.wyoming; }) config.wyoming.Bind(table, kind);
  if constexpr (requires { config.deepgram; })
    config.deepgram.Bind(table, kind, gateway::kDeepgram);
  const char* const no_flags[] = {"parley"};
  return table.Parse(1, no_flags).status;
}

}  // namespace

std::string Cluster::At(int port) const { return fmt::format("127.0.0.1:{}", port + offset_); }
std::string Cluster::url() const { return "http://" + At(kHttp); }
std::string Cluster::livekit_url() const { return "ws://" + At(kLiveKit); }

absl::StatusOr<std::unique_ptr<Cluster>> Cluster::Start(const ClusterOptions& options,
                                                        supervise::ZygoteClient& zygote) {
  std::unique_ptr<Cluster> cluster(new Cluster);
  cluster->offset_ = options.port_offset;
  PARLEY_RETURN_IF_ERROR(cluster->StartRedis(options));
  PARLEY_RETURN_IF_ERROR(cluster->StartServices(options, zygote));
  PARLEY_RETURN_IF_ERROR(cluster->WaitReady());
  return cluster;
}

absl::Status Cluster::StartRedis(const ClusterOptions& options) {
  data_dir_ = options.data_dir;
  std::error_code error;
  if (data_dir_.empty()) {
    std::string pattern = fs::temp_directory_path(error) / "parley-XXXXXX";
    if (mkdtemp(pattern.data()) == nullptr)
      return InvalidArgument("cannot make a folder at {}; name one with --data-dir", pattern);
    data_dir_ = pattern;
    remove_data_ = true;
  } else if (fs::create_directories(data_dir_, error); error) {
    return InvalidArgument("cannot make the folder {}: {}", data_dir_, error.message());
  }
  PARLEY_ASSIGN_OR_RETURN(redis_, redis::PrivateServer::Start(data_dir_));
  return absl::OkStatus();
}

absl::Status Cluster::StartServices(const ClusterOptions& options,
                                    supervise::ZygoteClient& zygote) {
  service::CommonConfig common;
  common.dev = true;
  common.cluster_key = RandomHex(32);
  common.log_format = "text";
  common.log_level = options.log_level;
  common.trace_endpoint = options.trace_endpoint;
  common.threads = kThreads;
  common.drain = kServiceDrain;
  const auto on = [&common, this](int port) {
    service::CommonConfig own = common;
    own.grpc_port = port + offset_;
    own.admin_port = port + offset_ + kAdminAbove;
    return own;
  };
  const auto add = [this]<typename Config>(const std::string& name, const Config& config,
                                           int (*run)(const Config&, service::Context&)) {
    return Add(name, config.common, config.common.admin_port, "/readyz",
               [config, run](service::Context& context) { return run(config, context); });
  };

  AgentRegistryConfig registry;
  registry.common = on(kRegistry);
  registry.redis.address = redis_->address();
  registry.allow_loopback_tools = true;
  PARLEY_RETURN_IF_ERROR(add("agent-registry", registry, agent_registry::Run));

  DispatchBrokerConfig broker;
  broker.common = on(kBroker);
  broker.redis.address = redis_->address();
  PARLEY_RETURN_IF_ERROR(add("dispatch-broker", broker, RunBroker));

  RoomServerConfig rooms;
  rooms.common = on(kRooms);
  rooms.redis.address = redis_->address();
  rooms.dispatch_address = At(kBroker);
  rooms.rtc_udp_port += offset_;
  rooms.rtc_tcp_port = kRtcTcp + offset_;
  PARLEY_RETURN_IF_ERROR(add("room-server", rooms, room_server::Run));

  SttGatewayConfig stt;
  stt.common = on(kStt);
  stt.shared.redis.address = redis_->address();
  PARLEY_RETURN_IF_ERROR(FindProviders("stt", stt));
  PARLEY_RETURN_IF_ERROR(add("stt-gateway", stt, stt_gateway::Run));
  TtsGatewayConfig tts;
  tts.common = on(kTts);
  tts.shared.redis.address = redis_->address();
  tts.cache_dir = data_dir_ + "/speech";
  PARLEY_RETURN_IF_ERROR(FindProviders("tts", tts));
  PARLEY_RETURN_IF_ERROR(add("tts-gateway", tts, tts_gateway::Run));
  LlmGatewayConfig llm;
  llm.common = on(kLlm);
  llm.shared.redis.address = redis_->address();
  PARLEY_RETURN_IF_ERROR(FindProviders("llm", llm));
  PARLEY_RETURN_IF_ERROR(add("llm-gateway", llm, llm_gateway::Run));

  agent::AgentServerConfig agents = agent::ConfigFor(agent::ConfiguredAgents());
  agents.common = common;
  agents.common.drain = kAgentDrain;
  agents.hand_over_window = absl::Milliseconds(100);  // nobody else is there to take a call
  agents.broker_address = At(kBroker);
  agents.rooms_address = At(kRooms);
  agents.stt_address = At(kStt);
  agents.tts_address = At(kTts);
  agents.llm_address = At(kLlm);
  agents.health_port = kAgentHealth + offset_;
  agents.slots = options.slots;
  agents.recordings_folder = options.recordings_folder;
  agents.mcp_servers = options.mcp_servers;
  agents.tools_allow_loopback = true;
  agents.load_threshold = 1;  // a developer's machine compiles, too
  agents.no_death_notice = true;
  PARLEY_RETURN_IF_ERROR(Add("agent-server", agents.common, agents.health_port, "/",
                             [agents, &zygote](service::Context& context) {
                               return agent::ServeAgents(zygote, agents, context);
                             }));

  ApiServerConfig api;
  api.common = common;
  api.common.grpc_port = kApiGrpc + offset_;
  api.common.admin_port = kApiAdmin + offset_;
  api.http_ports = {std::to_string(kHttp + offset_), std::to_string(kLiveKit + offset_)};
  api.registry_address = At(kRegistry);
  api.dispatch_address = At(kBroker);
  api.rooms_address = At(kRooms);
  api.stt_address = At(kStt);
  api.tts_address = At(kTts);
  api.llm_address = At(kLlm);
  api.v1_requests = kThreads / 2;
  api.demo = true;
  api.attach_files = options.attach;
  return add("api-server", api, api_server::Run);
}

absl::Status Cluster::Add(std::string name, const service::CommonConfig& common, int ready_port,
                          std::string ready_path, std::function<int(service::Context&)> run) {
  auto part = std::make_unique<Part>();
  PARLEY_ASSIGN_OR_RETURN(part->context, service::Context::Create(name, common));
  part->name = std::move(name);
  part->ready_url = fmt::format("http://127.0.0.1:{}{}", ready_port, ready_path);
  part->thread = std::thread([p = part.get(), run = std::move(run)] {
    run(*p->context);
    p->ended.store(true);
  });
  parts_.push_back(std::move(part));
  return absl::OkStatus();
}

absl::Status Cluster::WaitReady() {
  http::Client client;
  const absl::Time until = absl::Now() + kReadyWithin;
  for (const auto& part : parts_) {
    http::Call call;
    call.url = part->ready_url;
    call.timeout = absl::Seconds(1);
    call.reach = http::Reach::kLoopbackToo;
    while (true) {
      if (const std::string ended = Ended(); !ended.empty())
        return FailedPrecondition("{} could not start; the line above says why", ended);
      const absl::StatusOr<http::Reply> reply = client.Fetch(call);
      if (reply.ok() && reply->status == 200) break;
      if (absl::Now() > until)
        return DeadlineExceeded("{} is not ready after {}", part->name,
                                absl::FormatDuration(kReadyWithin));
      absl::SleepFor(absl::Milliseconds(10));
    }
  }
  return absl::OkStatus();
}

std::string Cluster::Ended() const {
  for (const auto& part : parts_)
    if (part->ended.load()) return part->name;
  return "";
}

void Cluster::Stop() {
  const auto stop = [](Part& part) {
    part.context->RequestStop();
    if (part.thread.joinable()) part.thread.join();
  };
  // The agents first: their jobs still need everybody else to say how they ended.
  for (const auto& part : parts_)
    if (part->name == "agent-server") stop(*part);
  for (const auto& part : parts_) part->context->RequestStop();
  for (const auto& part : parts_) stop(*part);
  parts_.clear();
  redis_.reset();
  if (remove_data_) {
    std::error_code ignored;
    fs::remove_all(data_dir_, ignored);
    remove_data_ = false;
  }
}

Cluster::~Cluster() { Stop(); }

absl::StatusOr<std::vector<std::string>> RegisterExamples(const Cluster& cluster,
                                                          const std::vector<std::string>& paths) {
  std::vector<std::string> wanted = paths;
  std::error_code error;
  if (wanted.empty() && fs::is_directory("examples", error)) wanted = {"examples"};
  PARLEY_ASSIGN_OR_RETURN(const std::vector<std::string> files, DefinitionFiles(wanted));
  Api api(cluster.url());
  std::vector<std::string> ids;
  for (const std::string& file : files) {
    PARLEY_ASSIGN_OR_RETURN(const Json agent, RegisterFile(api, file));
    ids.push_back(Cell(agent, "id"));
  }
  return ids;
}

}  // namespace parley::cli
