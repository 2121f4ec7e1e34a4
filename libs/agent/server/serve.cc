#include "agent/server/serve.h"

#include <sys/prctl.h>
#include <sys/resource.h>

#include <atomic>
#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "agent/server/agent_server.h"
#include "agent/server/death_report.h"
#include "agent/server/worker_token.h"
#include "auth/token.h"
#include "base/ids.h"
#include "base/mutex.h"
#include "base/status.h"
#include "base/strings.h"
#include "http/server.h"
#include "metrics/metrics.h"
#include "registry/mcp_programs.h"
#include "rpc/server.h"

namespace parley::agent {
namespace {

constexpr absl::Duration kNoticeRenewal = absl::Hours(1);
// Each is held by one call of a tool, for as long as its timeout.
constexpr int kToolThreads = 32;
constexpr int kListThreads = 4;
constexpr int kToolQueue = 1024;

// One descriptor pair a job, and a stream per gateway: as many as the system lets us have.
void RaiseFileLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

// Jobs run under the same user: none of them may read our memory and the keys in it. On a
// developer's machine debuggers matter more.
void HideMemory(const AgentServerConfig& config) {
  if (!config.common.dev) prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

// The programs that definitions may name as MCP servers.
absl::StatusOr<std::map<std::string, tools::McpCommand>> McpPrograms(const std::string& path) {
  std::map<std::string, tools::McpCommand> commands;
  if (path.empty()) return commands;
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file.good() && text.empty()) return NotFound("mcp.servers: {} cannot be read", path);
  PARLEY_ASSIGN_OR_RETURN(auto programs, registry::ParseMcpPrograms(text, path));
  for (auto& [name, program] : programs) {
    commands[name] = {std::move(program.command), std::move(program.environment)};
  }
  return commands;
}

// The loop, its thread, and everything on it, in the order in which it is torn down.
class Serving {
 public:
  Serving(supervise::ZygoteClient& zygote, const AgentServerConfig& config,
          service::Context& context, AuditLog& audit, std::map<std::string, std::string> labels,
          std::map<std::string, tools::McpCommand> programs, std::function<void()> on_registered);
  ~Serving();

  absl::Status OpenLogs();
  absl::Status StartHealth();
  void Start();
  // Returns when asked to stop, or when the server failed; drains in between.
  absl::Status WaitAndDrain();

 private:
  AgentServer::Callbacks MakeCallbacks();
  void SetNotice(const AgentServer::Identity& identity, uint64_t connect_seq);
  http::Response WorkerInfo() const;
  bool WaitOver(absl::Duration timeout);
  void Over(const absl::Status& status);

  supervise::ZygoteClient& zygote_;
  const AgentServerConfig& config_;
  service::Context& context_;
  const std::function<void()> on_registered_;
  const AgentServer::Identity identity_;
  AgentServerMetrics metrics_;
  Executor tool_threads_;
  Executor list_threads_;
  std::shared_ptr<event::Loop> loop_;
  Gateways gateways_;
  std::unique_ptr<MediaHub> media_;
  std::unique_ptr<JobLogs> logs_;
  std::unique_ptr<Recordings> recordings_;
  const std::shared_ptr<http::Client> http_ = std::make_shared<http::Client>();
  std::unique_ptr<JobSurroundings> around_;
  std::unique_ptr<AgentServer> server_;
  std::unique_ptr<event::Timer> notice_timer_;
  std::unique_ptr<http::Server> health_;
  rpc::Server grpc_health_;
  std::thread thread_;
  const int64_t started_us_ = Clock::Real().MonotonicMicros();

  Mutex mutex_;
  CondVar changed_;
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

Serving::Serving(supervise::ZygoteClient& zygote, const AgentServerConfig& config,
                 service::Context& context, AuditLog& audit,
                 std::map<std::string, std::string> labels,
                 std::map<std::string, tools::McpCommand> programs,
                 std::function<void()> on_registered)
    : zygote_(zygote),
      config_(config),
      context_(context),
      on_registered_(std::move(on_registered)),
      identity_{NewId(kWorkerPrefix), RandomHex(16)},
      metrics_(context.registry()),
      tool_threads_(kToolThreads, kToolQueue),
      list_threads_(kListThreads, kToolQueue),
      loop_(std::make_shared<event::Loop>()),
      gateways_({config.stt_address, config.tts_address, config.llm_address},
                // A program has an API key, not the cluster's.
                [this](const std::string& project) {
                  return config_.serves_configured
                             ? context_.ServiceToken(project)
                             : WorkerToken(config_, context_, identity_.worker_id);
                }) {
  MediaHub::Options media;
  media.default_url = config.rooms_address;
  media.worker_id = identity_.worker_id;
  media.instance = identity_.instance;
  media.token = [this] { return WorkerToken(config_, context_, identity_.worker_id); };
  const log::Logger log = context.log().With({{"worker_id", identity_.worker_id}});
  media_ = std::make_unique<MediaHub>(loop_, std::move(media), metrics_, log);
  logs_ = std::make_unique<JobLogs>(loop_, config.logs_folder, metrics_, log);
  recordings_ = std::make_unique<Recordings>(loop_, config.recordings_folder,
                                             config.recordings_max_size, metrics_, log);
  around_ = std::make_unique<JobSurroundings>(JobSurroundings{
      loop_, zygote_, config_, metrics_, *media_, gateways_, tool_threads_, list_threads_, http_,
      std::make_shared<tools::McpHub>(
          std::move(programs), http_,
          config.tools_allow_loopback ? http::Reach::kLoopbackToo : http::Reach::kPublicOnly),
      audit, *logs_, *recordings_, log, context.tracer()});
  server_ = std::make_unique<AgentServer>(
      *around_, identity_, std::move(labels),
      [this] { return WorkerToken(config_, context_, identity_.worker_id); }, MakeCallbacks());
  notice_timer_ = std::make_unique<event::Timer>(*loop_);
}

// The loop has stopped: what is left of its world goes on this thread.
Serving::~Serving() {
  if (health_ != nullptr) health_->Stop(absl::Seconds(1));
  if (thread_.joinable()) {
    loop_->Stop();
    thread_.join();
  }
  grpc_health_.Stop(absl::ZeroDuration());  // streams of Watch never end by themselves
  tool_threads_.Stop();
  list_threads_.Stop();
  notice_timer_.reset();
  server_.reset();
  recordings_.reset();
  logs_.reset();
  media_.reset();
}

AgentServer::Callbacks Serving::MakeCallbacks() {
  AgentServer::Callbacks callbacks;
  callbacks.on_registered = [this] {
    const int64_t took_us = Clock::Real().MonotonicMicros() - started_us_;
    context_.log().Info("ready for jobs", {{"start_ms", took_us / 1000}});
    if (on_registered_) on_registered_();
  };
  callbacks.on_failed = [this](const absl::Status& status) { Over(status); };
  callbacks.on_ready = [this](bool ready) { grpc_health_.SetReady(ready); };
  callbacks.on_drained = [this] { Over(absl::OkStatus()); };
  callbacks.on_session = [this](const AgentServer::Identity& identity, uint64_t connect_seq) {
    if (config_.no_death_notice) return;
    SetNotice(identity, connect_seq);
    notice_timer_->StartRepeating(
        kNoticeRenewal, [this, identity, connect_seq] { SetNotice(identity, connect_seq); });
  };
  return callbacks;
}

void Serving::SetNotice(const AgentServer::Identity& identity, uint64_t connect_seq) {
  DeathNotice notice{config_.broker_address, WorkerToken(config_, context_, identity.worker_id),
                     identity.worker_id, identity.instance, connect_seq};
  notice.tls = config_.common.tls;
  const absl::Status status = zygote_.SetDeathNotice(kDeathReportFlag, notice.Serialize());
  if (!status.ok()) context_.log().Warn("no death notice", {{"error", Message(status)}});
}

absl::Status Serving::OpenLogs() {
  PARLEY_RETURN_IF_ERROR(recordings_->Open());
  return logs_->Open();
}

absl::Status Serving::StartHealth() {
  http::ServerOptions options;
  options.address = config_.common.address;
  options.ports = {config_.health_port};
  health_ = std::make_unique<http::Server>(options, context_.executor(), context_.log());
  health_->Handle("GET", "/", [this](const http::Request&) {
    return server_->Now().registered
               ? http::Response{200, "text/plain", "OK", {}}
               : http::Response{503, "text/plain", "not connected to the broker", {}};
  });
  health_->Handle("GET", "/worker", [this](const http::Request&) { return WorkerInfo(); });
  health_->Handle("GET", "/metrics", [this](const http::Request&) {
    return http::Response{
        200, "text/plain; version=0.0.4", metrics::Render(context_.registry()), {}};
  });
  health_->Handle("GET", "/healthz", [](const http::Request&) {
    return http::Response{200, "text/plain", "ok\n", {}};
  });
  health_->Handle("GET", "/readyz", [this](const http::Request&) {
    const AgentServer::Snapshot now = server_->Now();
    return now.registered && !now.draining ? http::Response{200, "text/plain", "ready\n", {}}
                                           : http::Response{503, "text/plain", "not ready\n", {}};
  });
  PARLEY_RETURN_IF_ERROR(health_->Start());
  rpc::ServerOptions grpc_options;
  grpc_options.address = config_.common.address;
  grpc_options.port = config_.EffectiveHealthGrpcPort();
  grpc_options.port_flag = "--health-grpc-port";
  PARLEY_RETURN_IF_ERROR(grpc_health_.Start(grpc_options, {}));
  context_.log().Info("serving health", {{"address", config_.common.address},
                                         {"health_port", health_->port()},
                                         {"health_grpc_port", grpc_health_.port()}});
  if (config_.health_port == 0) {
    fmt::print("health: http://{0}:{1}/ and gRPC {0}:{2}\n", config_.common.address,
               health_->port(), grpc_health_.port());
    std::fflush(stdout);
  }
  return absl::OkStatus();
}

http::Response Serving::WorkerInfo() const {
  const AgentServer::Snapshot now = server_->Now();
  const bool one_name = config_.agent_names.size() == 1;
  const nlohmann::json info = {{"agent_name", one_name ? config_.agent_names[0] : ""},
                               {"agent_names", config_.agent_names},
                               {"serves_configured", config_.serves_configured},
                               {"worker_type", "JT_ROOM"},
                               {"worker_load", now.load},
                               {"active_jobs", now.active_jobs},
                               {"sdk_version", config_.EffectiveVersion()},
                               {"project_type", "cpp"},
                               {"worker_id", now.worker_id},
                               {"pool", config_.EffectivePool()},
                               {"slots", config_.EffectiveSlots()},
                               {"job_limits", now.cgroups ? "cgroup" : "process"},
                               {"registered", now.registered},
                               {"draining", now.draining}};
  return http::Response{200, "application/json", info.dump(), {}};
}

void Serving::Start() {
  thread_ = std::thread([this] { loop_->Run(); });
  loop_->Post([this] { server_->Start(); });
}

void Serving::Over(const absl::Status& status) {
  MutexLock lock(&mutex_);
  if (!over_) status_ = status;
  over_ = true;
  changed_.SignalAll();
  context_.RequestStop();
}

bool Serving::WaitOver(absl::Duration timeout) {
  const absl::Time until = absl::Now() + timeout;
  MutexLock lock(&mutex_);
  while (!over_ && absl::Now() < until) changed_.WaitFor(&mutex_, until - absl::Now());
  return over_;
}

absl::Status Serving::WaitAndDrain() {
  while (!context_.WaitForStop(absl::Minutes(1))) {
  }
  if (!WaitOver(absl::ZeroDuration())) {
    loop_->Post([this] { server_->Drain(config_.common.drain); });
    // The server keeps to its own deadlines; this one only bounds what must not happen.
    WaitOver(config_.common.drain + 10 * config_.hand_over_window + config_.stop_grace +
             absl::Seconds(20));
  }
  MutexLock lock(&mutex_);
  if (status_.ok()) (void)zygote_.Leave();
  return status_;
}

}  // namespace

int ServeAgents(supervise::ZygoteClient& zygote, const AgentServerConfig& config,
                service::Context& context, std::function<void()> on_registered) {
  RaiseFileLimit();
  HideMemory(config);
  auto labels = config.LabelMap();
  if (!labels.ok()) return service::FailStart("agent-server", labels.status());
  auto audit = AuditLog::Open(config.audit_log, context.clock());
  if (!audit.ok()) return service::FailStart("agent-server", audit.status());
  auto programs = McpPrograms(config.mcp_servers);
  if (!programs.ok()) return service::FailStart("agent-server", programs.status());
  Serving serving(zygote, config, context, **audit, *std::move(labels), *std::move(programs),
                  std::move(on_registered));
  absl::Status opened = serving.OpenLogs();
  if (opened.ok()) opened = serving.StartHealth();
  if (!opened.ok()) return service::FailStart("agent-server", opened);
  serving.Start();
  const absl::Status status = serving.WaitAndDrain();
  if (!status.ok()) return service::FailStart("agent-server", status);
  context.log().Info("stopped");
  return 0;
}

}  // namespace parley::agent
