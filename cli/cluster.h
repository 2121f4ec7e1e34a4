#pragma once
// Every service of Parley in this process, each on threads and with a context of its own, and a
// private redis-server: what `parley dev` runs, and `parley console` when no server answers.
// Development keys, loopback only. Jobs are processes as everywhere: forks of the zygote.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "redis/redis.h"
#include "service/service.h"
#include "supervise/zygote.h"

namespace parley::cli {

struct ClusterOptions {
  int port_offset = 0;              // added to every default port
  std::string data_dir;             // "" = a temporary folder, removed at the end
  std::vector<std::string> agents;  // definitions to register; empty = ./examples, when present
  std::string log_level = "info";
  int slots = 0;                  // of the agent server; 0 = its default
  std::string recordings_folder;  // as the agent server's settings
  std::string mcp_servers;
  std::string trace_endpoint;       // OTLP/HTTP collector; "" = none
  std::vector<std::string> attach;  // files as of the API server's attach.files
};

class Cluster {
 public:
  // Blocks until every service takes traffic; about a second.
  //   FailedPrecondition  a service ended at the start; it has said why on standard error
  //   DeadlineExceeded    it did not become ready within 20 s
  static absl::StatusOr<std::unique_ptr<Cluster>> Start(const ClusterOptions& options,
                                                        supervise::ZygoteClient& zygote);
  ~Cluster();  // as Stop()
  Cluster(const Cluster&) = delete;
  Cluster& operator=(const Cluster&) = delete;

  std::string url() const;          // of the HTTP API
  std::string livekit_url() const;  // where LiveKit clients connect
  const std::string& data_dir() const { return data_dir_; }
  bool keeps_data() const { return !remove_data_; }

  // The name of a service that has ended by itself; "" while all run.
  std::string Ended() const;
  // Agents first, so that calls end in good order; then the rest. Blocks; idempotent.
  void Stop();

 private:
  struct Part {
    std::string name;
    std::unique_ptr<service::Context> context;
    std::string ready_url;
    std::atomic<bool> ended{false};
    std::thread thread;
  };
  Cluster() = default;
  absl::Status StartRedis(const ClusterOptions& options);
  absl::Status StartServices(const ClusterOptions& options, supervise::ZygoteClient& zygote);
  // `run` blocks until its context is stopped.
  absl::Status Add(std::string name, const service::CommonConfig& common, int ready_port,
                   std::string ready_path, std::function<int(service::Context&)> run);
  absl::Status WaitReady();
  std::string At(int port) const;  // "127.0.0.1:port", offset included

  int offset_ = 0;
  std::string data_dir_;
  bool remove_data_ = false;
  std::unique_ptr<redis::PrivateServer> redis_;
  std::vector<std::unique_ptr<Part>> parts_;
};

// Registers the definitions found at `paths` (files, or folders of *.yaml); ./examples when empty
// and present. Answers the ids.
absl::StatusOr<std::vector<std::string>> RegisterExamples(const Cluster& cluster,
                                                          const std::vector<std::string>& paths);

}  // namespace parley::cli
