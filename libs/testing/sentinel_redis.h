#pragma once
// A Redis that fails over: two redis-servers, one of them replica of the other, and three sentinels
// that watch them, each a process on a TCP port of 127.0.0.1.
#include <absl/status/statusor.h>

#include <memory>
#include <string>
#include <vector>

#include "redis/redis.h"
#include "testing/process.h"

namespace parley::testing {

class SentinelRedis {
 public:
  static constexpr int kSentinels = 3;

  // Blocks until the replica has all data and the sentinels know each other (about 3 s), so that a
  // kill from then on is a fail-over. They call a master down after 500 ms of silence. Servers ack
  // writes only while a replica is there when `min_replicas` is 1.
  static absl::StatusOr<std::unique_ptr<SentinelRedis>> Start(const std::string& directory,
                                                              int min_replicas = 0);

  redis::Config config() const;  // with all sentinels
  std::vector<std::string> sentinel_addresses() const;
  // Address of the server that the sentinels call master. Unavailable: none of them answers.
  absl::StatusOr<std::string> Master() const;
  void KillMaster();               // SIGKILL; the sentinels take it from there
  void StallMaster(bool stalled);  // SIGSTOP, SIGCONT
  absl::Status RestartKilled();    // with its old data and its old idea that it is master
  absl::Status FailOver();         // by command: the old master lives on as a replica
  Process& sentinel(size_t index) { return *sentinels_[index]; }

 private:
  struct Node {
    int port = 0;
    std::unique_ptr<Process> process;
  };
  SentinelRedis() = default;
  absl::Status StartServer(Node& node, int replica_of);
  absl::Status StartSentinel(size_t index);
  Node* MasterNode();

  std::string directory_;
  int min_replicas_ = 0;
  std::vector<Node> servers_;
  std::vector<int> sentinel_ports_;
  std::vector<std::unique_ptr<Process>> sentinels_;
};

}  // namespace parley::testing
