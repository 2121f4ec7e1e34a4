#include "testing/sentinel_redis.h"

#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "base/check.h"
#include "base/clock.h"
#include "base/status.h"
#include "testing/free_port.h"

namespace parley::testing {
namespace {

constexpr absl::Duration kStart = absl::Seconds(20);

std::string Local(int port) { return fmt::format("127.0.0.1:{}", port); }

absl::StatusOr<redis::Reply> Ask(const std::string& address,
                                 const std::vector<std::string>& command) {
  redis::Config config;
  config.address = address;
  config.connections = 1;
  return redis::Pool(config, log::Logger()).Command(command);
}

bool Eventually(const std::function<bool()>& condition) {
  const int64_t until = Clock::Real().MonotonicMicros() + absl::ToInt64Microseconds(kStart);
  while (!condition()) {
    if (Clock::Real().MonotonicMicros() > until) return false;
    usleep(10'000);
  }
  return true;
}

bool Says(const std::string& address, const std::vector<std::string>& command,
          std::string_view text) {
  const auto reply = Ask(address, command);
  return reply.ok() && reply->text.find(text) != std::string::npos;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SentinelRedis>> SentinelRedis::Start(const std::string& directory,
                                                                    int min_replicas) {
  std::unique_ptr<SentinelRedis> redis(new SentinelRedis);
  redis->directory_ = directory;
  redis->min_replicas_ = min_replicas;
  redis->servers_.resize(2);
  for (Node& node : redis->servers_) node.port = FreePort();
  PARLEY_RETURN_IF_ERROR(redis->StartServer(redis->servers_[0], 0));
  PARLEY_RETURN_IF_ERROR(redis->StartServer(redis->servers_[1], redis->servers_[0].port));
  const std::string replica = Local(redis->servers_[1].port);
  if (!Eventually([&] {
        return Says(replica, {"INFO", "replication"}, "master_link_status:up");
      })) {
    return Unavailable("the replica has not caught up");
  }
  for (size_t i = 0; i < kSentinels; ++i) PARLEY_RETURN_IF_ERROR(redis->StartSentinel(i));
  for (const std::string& sentinel : redis->sentinel_addresses()) {
    const bool knows_all = Eventually([&] {
      return Says(sentinel, {"INFO", "sentinel"}, "slaves=1,sentinels=3");
    });
    if (!knows_all) return Unavailable("the sentinels have not found each other");
  }
  return redis;
}

absl::Status SentinelRedis::StartServer(Node& node, int replica_of) {
  const std::string folder = fmt::format("{}/{}", directory_, node.port);
  std::filesystem::create_directories(folder);
  std::vector<std::string> argv = {"redis-server",
                                   "--port",
                                   std::to_string(node.port),
                                   "--bind",
                                   "127.0.0.1",
                                   "--dir",
                                   folder,
                                   "--appendonly",
                                   "yes",
                                   "--save",
                                   "",
                                   "--repl-diskless-sync-delay",
                                   "0",
                                   "--repl-ping-replica-period",
                                   "1",
                                   "--min-replicas-to-write",
                                   std::to_string(min_replicas_),
                                   "--min-replicas-max-lag",
                                   "2"};
  if (replica_of != 0) {
    argv.insert(argv.end(), {"--replicaof", fmt::format("127.0.0.1 {}", replica_of)});
  }
  PARLEY_ASSIGN_OR_RETURN(node.process, Process::Start(argv, folder + "/redis.log"));
  if (Eventually([&] { return Ask(Local(node.port), {"PING"}).ok(); })) {
    return absl::OkStatus();
  }
  return Unavailable("redis-server on port {} does not answer:\n{}", node.port,
                     node.process->Log());
}

absl::Status SentinelRedis::StartSentinel(size_t index) {
  const int port = FreePort();
  const std::string path = fmt::format("{}/sentinel-{}.conf", directory_, index);
  std::ofstream(path) << "port " << port << "\nbind 127.0.0.1\ndir " << directory_
                      << "\nsentinel monitor mymaster 127.0.0.1 " << servers_[0].port
                      << " 2\nsentinel down-after-milliseconds mymaster 500\n"
                         "sentinel failover-timeout mymaster 3000\n"
                         "sentinel parallel-syncs mymaster 1\n";
  PARLEY_ASSIGN_OR_RETURN(auto process,
                          Process::Start({"redis-server", path, "--sentinel"}, path + ".log"));
  sentinel_ports_.push_back(port);
  sentinels_.push_back(std::move(process));
  if (Eventually([&] { return Ask(Local(port), {"PING"}).ok(); })) return absl::OkStatus();
  return Unavailable("a sentinel does not answer:\n{}", sentinels_.back()->Log());
}

std::vector<std::string> SentinelRedis::sentinel_addresses() const {
  std::vector<std::string> addresses;
  for (const int port : sentinel_ports_) addresses.push_back(Local(port));
  return addresses;
}

redis::Config SentinelRedis::config() const {
  redis::Config config;
  config.sentinels = sentinel_addresses();
  return config;
}

absl::StatusOr<std::string> SentinelRedis::Master() const {
  absl::Status failure = Unavailable("no sentinel");
  for (const std::string& sentinel : sentinel_addresses()) {
    const auto reply = Ask(sentinel, {"SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"});
    if (reply.ok() && reply->elements.size() == 2) {
      return fmt::format("{}:{}", reply->elements[0].text, reply->elements[1].text);
    }
    failure = reply.status();
  }
  return failure;
}

SentinelRedis::Node* SentinelRedis::MasterNode() {
  const absl::StatusOr<std::string> master = Master();
  for (Node& node : servers_) {
    if (master.ok() && Local(node.port) == *master) return &node;
  }
  PARLEY_CHECK(false);  // a test asks only while sentinels live
  return nullptr;
}

void SentinelRedis::KillMaster() {
  Node* master = MasterNode();
  master->process.reset();
}

void SentinelRedis::StallMaster(bool stalled) {
  MasterNode()->process->Signal(stalled ? SIGSTOP : SIGCONT);
}

absl::Status SentinelRedis::RestartKilled() {
  for (Node& node : servers_) {
    if (node.process == nullptr) PARLEY_RETURN_IF_ERROR(StartServer(node, 0));
  }
  return absl::OkStatus();
}

absl::Status SentinelRedis::FailOver() {
  return Ask(sentinel_addresses()[0], {"SENTINEL", "FAILOVER", "mymaster"}).status();
}

}  // namespace parley::testing
