#pragma once
// A whole cluster of real binaries on loopback, each service its own process on ports of its own,
// with a private redis-server. For end-to-end tests, chaos and benchmarks.
#include <absl/status/statusor.h>

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "redis/redis.h"
#include "testing/process.h"

namespace parley::testing {

struct ClusterOptions {
  std::string bin_dir;   // default: PARLEY_BIN_DIR, else the folder of the running program
  std::string work_dir;  // logs and Redis data; default: a new temporary folder, removed at the end
  std::string address = "127.0.0.1";  // that all listen on, and are found at
  int agent_servers = 1;
  std::string agent_binary = "parley-agent-server";  // in bin_dir
  std::vector<std::string> agent_arguments;          // e.g. {"--slots", "50"}
  // "room-server-2" is another replica of "room-server"; name it before those who ask there.
  std::vector<std::string> services = {"agent-registry", "dispatch-broker", "room-server",
                                       "stt-gateway",    "tts-gateway",     "llm-gateway",
                                       "api-server"};
  // By service name; a flag that the cluster sets itself is replaced.
  std::map<std::string, std::vector<std::string>> extra_arguments;
  std::vector<std::string> redis_arguments;
};

class Cluster {
 public:
  // Blocks until every service serves (agent servers: registered). Errors carry the end of the log
  // of what failed.
  static absl::StatusOr<std::unique_ptr<Cluster>> Start(ClusterOptions options);
  ~Cluster();
  Cluster(const Cluster&) = delete;
  Cluster& operator=(const Cluster&) = delete;

  // "address:port" of a service's gRPC (api-server: HTTP) port.
  std::string Address(std::string_view service) const;
  std::string GrpcAddress(std::string_view service) const;  // api-server too: health, reflection
  std::string AdminAddress(std::string_view service) const;
  Process& Service(std::string_view name);
  Process& AgentServer(size_t index);
  redis::PrivateServer& Redis() { return *redis_; }
  const std::string& work_dir() const { return options_.work_dir; }

  // Starts a service again after it was killed, on the same ports.
  absl::Status Restart(std::string_view service);
  // One more; returns once it is registered. `arguments` come after those of all.
  absl::Status StartAgentServer(const std::vector<std::string>& arguments = {});

 private:
  Cluster() = default;
  struct Running {
    std::unique_ptr<Process> process;
    int port = 0;
    int grpc_port = 0;
    int admin_port = 0;
  };
  absl::Status StartService(const std::string& name);
  std::vector<std::string> CommonArguments() const;
  // For each flag that has them, the addresses of all its replicas.
  void AddNeighbours(const std::vector<std::string>& flags, std::vector<std::string>& argv) const;

  ClusterOptions options_;
  bool own_dir_ = false;
  std::unique_ptr<redis::PrivateServer> redis_;
  std::map<std::string, Running, std::less<>> services_;
  std::vector<std::unique_ptr<Process>> agent_servers_;
};

}  // namespace parley::testing
