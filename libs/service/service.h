#pragma once
// What every service has in common: configuration, logs, metrics, admin port, signals, readiness,
// drain.
#include <absl/time/time.h>
#include <grpcpp/grpcpp.h>
#include <prometheus/registry.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "auth/token.h"
#include "base/clock.h"
#include "base/executor.h"
#include "config/table.h"
#include "log/log.h"
#include "rpc/server.h"
#include "trace/tracer.h"

namespace parley::service {

// Settings that every service has. A service's own config struct holds one and calls Bind with its
// default port.
struct CommonConfig {
  std::string address = "127.0.0.1";  // of all listeners
  int grpc_port = 0;                  // 0 = any free one, -1 = none
  int admin_port = -1;                // -1 = grpc_port + 1000 (0 when grpc_port is 0)
  std::string log_level = "info";
  std::string log_format = "json";
  std::string trace_endpoint;  // OTLP/HTTP collector; "" = no spans
  std::string keys_file;       // keys.yaml
  std::string api_key;         // instead of a file: LIVEKIT_API_KEY / LIVEKIT_API_SECRET
  std::string api_secret;
  std::string cluster_key;
  bool dev = false;                          // development keys
  int threads = 8;                           // of the executor
  rpc::TlsFiles tls;                         // of gRPC, as server and as client
  int queue = 4096;                          // of the executor
  absl::Duration drain = absl::Seconds(10);  // for calls under way at the end

  void Bind(config::Table& table, int default_grpc_port);
  // Without grpc.port and admin.port, for a process that serves no gRPC.
  void BindProcess(config::Table& table);
};

// The surroundings of one running service. Made by Main() or by `parley dev`. Thread-safe.
class Context {
 public:
  // `name` as in logs, e.g. "dispatch-broker". Keys are loaded here; errors say what to do.
  static absl::StatusOr<std::unique_ptr<Context>> Create(std::string name, CommonConfig config);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  const log::Logger& log() const { return log_; }
  prometheus::Registry& registry() { return *registry_; }
  Executor& executor() { return *executor_; }
  // Where spans go; keeps nothing unless a collector is configured.
  const trace::Tracer& tracer() const;
  Clock& clock() { return Clock::Real(); }
  const CommonConfig& config() const { return config_; }
  // The ring as of now; keys.yaml is read again when it changes.
  std::shared_ptr<const auth::KeyRing> keys() const;

  // Who calls? The token's claims, or Unauthenticated naming the cause.
  absl::StatusOr<auth::Claims> Authenticate(const grpc::ServerContextBase& call) const;
  absl::StatusOr<auth::Claims> AuthenticateToken(std::string_view token) const;
  // A token of this service for calls to others (cached, renewed before it expires). `project` as
  // parley.project.
  std::string ServiceToken(const std::string& project = {}) const;

  struct Hooks {
    // May this replica take traffic? Asked once a second and at once by Refresh; default: always.
    std::function<bool()> ready;
    // After readiness turned false: finish or hand back work, at most until `drain` has passed.
    std::function<void(absl::Duration drain)> drain;
    // The listeners are open.
    std::function<void(int grpc_port, int admin_port)> started;
  };
  // Opens the gRPC port (with `services`) and the admin port (/metrics, /healthz, /readyz), turns
  // ready, and returns after a stop was asked for and the drain is over. The exit code of main.
  int Serve(const std::vector<grpc::Service*>& services, const Hooks& hooks = {});

  // As a first SIGTERM. Thread-safe, async-signal-unsafe.
  void RequestStop();
  bool stop_requested() const { return stop_.load(); }
  // True when a stop was asked for within `timeout`.
  bool WaitForStop(absl::Duration timeout);

 private:
  Context() = default;
  std::string name_;
  CommonConfig config_;
  log::Logger log_;
  std::shared_ptr<prometheus::Registry> registry_;
  std::unique_ptr<Executor> executor_;
  std::atomic<bool> stop_{false};
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Blocks SIGTERM and SIGINT in all threads and turns them into RequestStop() of `context`: first
// asks, second exits at once. Call before threads are made.
void BlockSignals();
void WatchSignals(Context& context);

// main() of a service: reads the table, makes the context, runs. Config needs
// `service::CommonConfig common` and `void Bind(config::Table&)`.
template <typename Config>
int Main(int argc, char** argv, std::string_view name, std::string_view about,
         const std::function<int(const Config&, Context&)>& run);

int FailStart(std::string_view name,
              const absl::Status& status);  // prints one line, returns 1 (2 for InvalidArgument)

template <typename Config>
int Main(int argc, char** argv, std::string_view name, std::string_view about,
         const std::function<int(const Config&, Context&)>& run) {
  BlockSignals();
  Config config;
  config::Table table("parley-" + std::string(name), std::string(about));
  config.Bind(table);
  const config::Table::Outcome outcome = table.Parse(argc, argv);
  if (!outcome.status.ok()) return FailStart(name, outcome.status);
  if (outcome.handled) return 0;
  auto context = Context::Create(std::string(name), config.common);
  if (!context.ok()) return FailStart(name, context.status());
  WatchSignals(**context);
  return run(config, **context);
}

}  // namespace parley::service
