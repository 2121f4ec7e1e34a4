#include "service/service.h"

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <map>

#include "base/mutex.h"
#include "base/status.h"
#include "http/server.h"
#include "metrics/metrics.h"
#include "rpc/channel.h"
#include "service/trace_exporter.h"

namespace parley::service {
namespace {

bool IsLoopback(std::string_view address) {
  return address == "localhost" || address == "::1" || address.substr(0, 4) == "127." ||
         address.substr(0, 5) == "unix:";
}

log::Level LevelOf(std::string_view name) {
  if (name == "debug") return log::Level::kDebug;
  if (name == "warn") return log::Level::kWarn;
  if (name == "error") return log::Level::kError;
  return log::Level::kInfo;
}

constexpr absl::Duration kTokenLife = absl::Minutes(10);
constexpr int64_t kSameSignalUs = 200'000;

}  // namespace

void CommonConfig::Bind(config::Table& table, int default_grpc_port) {
  grpc_port = default_grpc_port;
  BindProcess(table);
  table.Int("grpc.port", &grpc_port, 0, 65535, "gRPC port; 0 picks a free one");
  table.Int("admin.port", &admin_port, -1, 65535,
            "Port of /metrics, /healthz and /readyz; -1 is the gRPC port + 1000");
}

void CommonConfig::BindProcess(config::Table& table) {
  table.Text("address", &address, "Address that all listeners bind to");
  table.Choice("log.level", &log_level, {"debug", "info", "warn", "error"},
               "Least severe lines to write");
  table.Choice("log.format", &log_format, {"json", "text"}, "Form of log lines");
  table.Text(
      "trace.endpoint", &trace_endpoint,
      "Collector that spans are sent to over OTLP/HTTP, such as http://collector:4318; none: "
      "nothing is traced");
  table.AlsoFromEnv("OTEL_EXPORTER_OTLP_ENDPOINT");
  table.Text("keys_file", &keys_file, "keys.yaml: API keys, projects and the cluster key");
  table.Text("api_key", &api_key, "API key, when there is no keys file");
  table.NotAFlag();
  table.AlsoFromEnv("LIVEKIT_API_KEY");
  table.Text("api_secret", &api_secret, "Secret of that API key");
  table.NotAFlag();
  table.AlsoFromEnv("LIVEKIT_API_SECRET");
  table.Text("cluster_key", &cluster_key,
             "Key that signs tokens between services, when there is no keys file");
  table.NotAFlag();
  table.Bool("dev", &dev, "Use the development key pair devkey/secret; loopback only");
  table.Int("threads", &threads, 1, 256, "Threads for work that may block");
  table.Int("queue", &queue, 16, 1'000'000,
            "Calls that may wait for a thread before new ones are refused");
  table.Duration("drain", &drain, absl::ZeroDuration(), absl::Hours(24),
                 "How long calls under way may take at the end");
  table.Text(
      "tls.certificate", &tls.certificate,
      "PEM file of the certificate chain that gRPC shows; none: gRPC is served plain. It and "
      "the other files are read again when they change");
  table.Text("tls.key", &tls.key, "PEM file of its key");
  table.Text("tls.authorities", &tls.authorities,
             "PEM file of the authorities that other services' certificates come from; none: they "
             "are called plain");
  table.Text("tls.server_name", &tls.server_name,
             "Name that the services' certificates carry; none: that of the address called");
  table.Bool("tls.mutual", &tls.mutual,
             "Let in only clients with a certificate of those authorities");
}

struct Context::Impl {
  std::unique_ptr<TraceExporter> traces;
  mutable Mutex mutex;
  CondVar stopped;
  std::shared_ptr<const auth::KeyRing> keys ABSL_GUARDED_BY(mutex);
  struct timespec keys_mtime ABSL_GUARDED_BY(mutex) = {};
  mutable std::map<std::string, std::pair<std::string, absl::Time>> tokens ABSL_GUARDED_BY(mutex);
};

absl::StatusOr<std::unique_ptr<Context>> Context::Create(std::string name, CommonConfig config) {
  std::unique_ptr<Context> context(new Context);
  context->name_ = std::move(name);
  context->config_ = std::move(config);
  const CommonConfig& c = context->config_;
  context->log_ =
      log::Logger::ToStderr(c.log_format == "text" ? log::Format::kText : log::Format::kJson,
                            LevelOf(c.log_level), context->name_);
  context->registry_ = std::make_shared<prometheus::Registry>();
  metrics::Gauge(*context->registry_, "parley_build_info", "Always 1; the label says what runs",
                 {{"version", PARLEY_VERSION}})
      .Set(1);
  context->executor_ =
      std::make_unique<Executor>(static_cast<size_t>(c.threads), static_cast<size_t>(c.queue));
  context->impl_ = std::make_unique<Impl>();
  context->impl_->traces = std::make_unique<TraceExporter>(c.trace_endpoint, context->name_,
                                                           *context->registry_, context->log_);
  PARLEY_RETURN_IF_ERROR(rpc::Check(c.tls));
  if (c.tls.dials()) rpc::UseTls(c.tls);
  std::shared_ptr<const auth::KeyRing> ring;
  if (!c.keys_file.empty()) {
    PARLEY_ASSIGN_OR_RETURN(ring, auth::KeyRing::Load(c.keys_file));
    struct stat info {};
    stat(c.keys_file.c_str(), &info);
    MutexLock lock(&context->impl_->mutex);
    context->impl_->keys_mtime = info.st_mtim;
  } else if (c.dev) {
    ring = auth::KeyRing::Development(
        c.cluster_key.empty() ? "development-cluster-key-loopback-only" : c.cluster_key);
  } else if (!c.api_key.empty() && !c.api_secret.empty()) {
    auth::ApiKey key;
    key.key = c.api_key;
    key.secret = c.api_secret;
    key.development = c.api_key == "devkey";
    // Services must agree on the cluster key; without one of its own it follows from the secret
    // they share anyway.
    ring =
        auth::KeyRing::Of({key}, c.cluster_key.empty() ? "cluster:" + c.api_secret : c.cluster_key);
  } else {
    return InvalidArgument(
        "no keys: name a file with --keys-file, set PARLEY_API_KEY and PARLEY_API_SECRET, or use "
        "--dev on loopback");
  }
  if (ring->has_development_key() && !IsLoopback(c.address)) {
    return InvalidArgument(
        "the development key pair is served on loopback only, not on {}: make keys of your own and "
        "name them with --keys-file",
        c.address);
  }
  MutexLock lock(&context->impl_->mutex);
  context->impl_->keys = std::move(ring);
  return context;
}

Context::~Context() {
  if (executor_) executor_->Stop();
}

const trace::Tracer& Context::tracer() const { return impl_->traces->tracer(); }

std::shared_ptr<const auth::KeyRing> Context::keys() const {
  MutexLock lock(&impl_->mutex);
  return impl_->keys;
}

absl::StatusOr<auth::Claims> Context::Authenticate(const grpc::ServerContextBase& call) const {
  return AuthenticateToken(rpc::BearerOf(call));
}

absl::StatusOr<auth::Claims> Context::AuthenticateToken(std::string_view token) const {
  return auth::Verify(token, *keys());
}

std::string Context::ServiceToken(const std::string& project) const {
  const absl::Time now = Clock::Real().Now();
  MutexLock lock(&impl_->mutex);
  auto& [token, expires] = impl_->tokens[project];
  if (token.empty() || expires - now < kTokenLife / 2) {
    auth::Claims claims;
    claims.service = name_;
    claims.identity = name_;
    claims.project = project;
    token = auth::SignService(claims, *impl_->keys, kTokenLife);
    expires = now + kTokenLife;
  }
  return token;
}

void Context::RequestStop() {
  stop_.store(true);
  MutexLock lock(&impl_->mutex);
  impl_->stopped.SignalAll();
}

bool Context::WaitForStop(absl::Duration timeout) {
  const absl::Time until = Clock::Real().Now() + timeout;
  MutexLock lock(&impl_->mutex);
  while (!stop_.load()) {
    const absl::Duration left = until - Clock::Real().Now();
    if (left <= absl::ZeroDuration()) return false;
    impl_->stopped.WaitFor(&impl_->mutex, left);
  }
  return true;
}

int Context::Serve(const std::vector<grpc::Service*>& services, const Hooks& hooks) {
  std::atomic<bool> ready{false};
  rpc::Server server;
  rpc::ServerOptions options;
  options.address = config_.address;
  options.port = config_.grpc_port;
  options.tls = config_.tls;
  if (config_.grpc_port >= 0) {
    if (absl::Status status = server.Start(options, services); !status.ok()) {
      return FailStart(name_, status);
    }
  }

  http::ServerOptions admin_options;
  admin_options.address = config_.address;
  const int admin_port = config_.admin_port >= 0
                             ? config_.admin_port
                             : (config_.grpc_port == 0 ? 0 : config_.grpc_port + 1000);
  admin_options.ports = {admin_port};
  http::Server admin(admin_options, *executor_, log_);
  admin.Handle("GET", "/metrics", [this](const http::Request&) {
    http::Response response;
    response.content_type = "text/plain; version=0.0.4";
    response.body = metrics::Render(*registry_);
    return response;
  });
  admin.HandleInline("GET", "/healthz", [](const http::Request&) {
    return http::Response{200, "text/plain", "ok\n", {}};
  });
  admin.HandleInline("GET", "/readyz", [&ready](const http::Request&) {
    const bool yes = ready.load();
    // With this process's clock, for `parley doctor`.
    return http::Response{yes ? 200 : 503,
                          "text/plain",
                          yes ? "ready\n" : "not ready\n",
                          {{"Date", absl::FormatTime("%a, %d %b %Y %H:%M:%S GMT",
                                                     Clock::Real().Now(), absl::UTCTimeZone())}}};
  });
  if (absl::Status status = admin.Start(); !status.ok()) return FailStart(name_, status);

  log_.Info(
      "serving",
      {{"address", config_.address}, {"grpc_port", server.port()}, {"admin_port", admin.port()}});
  if (hooks.started) hooks.started(server.port(), admin.port());
  struct stat info {};
  do {
    const bool now_ready = !stop_requested() && (!hooks.ready || hooks.ready());
    if (now_ready != ready.exchange(now_ready)) log_.Info(now_ready ? "ready" : "not ready");
    server.SetReady(now_ready);
    if (config_.keys_file.empty() || stat(config_.keys_file.c_str(), &info) != 0) continue;
    bool changed = false;
    {
      MutexLock lock(&impl_->mutex);
      changed = info.st_mtim.tv_sec != impl_->keys_mtime.tv_sec ||
                info.st_mtim.tv_nsec != impl_->keys_mtime.tv_nsec;
      impl_->keys_mtime = info.st_mtim;
    }
    if (!changed) continue;
    if (auto ring = auth::KeyRing::Load(config_.keys_file); ring.ok()) {
      MutexLock lock(&impl_->mutex);
      impl_->keys = *ring;
      impl_->tokens.clear();
      log_.Info("keys reloaded");
    } else {
      log_.Error("keys file not taken; the old keys stay", {{"error", Message(ring.status())}});
    }
  } while (!WaitForStop(absl::Seconds(1)));

  ready = false;
  server.SetReady(false);
  log_.Info("stopping");
  if (hooks.drain) hooks.drain(config_.drain);
  server.Stop(config_.drain);
  admin.Stop(absl::Seconds(1));
  log_.Info("stopped");
  return 0;
}

void BlockSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

void WatchSignals(Context& context) {
  std::thread([&context] {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    int signal_number = 0;
    sigwait(&set, &signal_number);
    context.RequestStop();
    // A service manager that signals the whole group and a parent that passes its signal on make
    // two of one.
    const int64_t first_us = Clock::Real().MonotonicMicros();
    do {
      sigwait(&set, &signal_number);
    } while (Clock::Real().MonotonicMicros() - first_us < kSameSignalUs);
    _exit(128 + signal_number);
  }).detach();
}

int FailStart(std::string_view name, const absl::Status& status) {
  fmt::print(stderr, "parley-{}: {}\n", name, Message(status));
  return status.code() == absl::StatusCode::kInvalidArgument ? 2 : 1;
}

}  // namespace parley::service
