#pragma once
// A cluster of real processes in which any one may be killed and is started again: several brokers,
// room servers and agent servers, one Redis that syncs every write, all with their evidence on.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "log/append_file.h"
#include "redis/redis.h"
#include "testing/process.h"

namespace parley::chaos {

struct FleetOptions {
  std::string bin_dir;
  std::string work_dir;  // exists; logs and evidence go here
  int brokers = 3;
  int room_servers = 2;
  int agent_servers = 6;
  int slots = 8;      // of each agent server
  int max_jobs = 12;  // at once, of all: below the slots, so that some wait
};

// Not thread-safe: one thread owns it.
class Fleet {
 public:
  // Blocks until everything serves.
  static absl::StatusOr<std::unique_ptr<Fleet>> Start(FleetOptions options);
  ~Fleet();

  // What can be killed. kNode: a whole agent server at once, jobs and parent included, so that
  // nobody is left to tell of its death.
  enum class Victim { kRedis, kBroker, kAgentServer, kZygote, kNode, kJob, kRoomServer };
  static constexpr int kVictims = 7;
  static const char* Name(Victim victim);
  // SIGKILL to a random one of these. False: none of them runs just now.
  bool Kill(Victim victim, std::minstd_rand& random);
  // Starts what has been dead for long enough. Call often. Internal: something ended that nobody
  // had killed.
  absl::Status Revive();
  // Starts everything that is dead and blocks until all of it serves again.
  absl::Status ReviveAll();
  // Ends the agent servers in good order; blocks until they are gone.
  absl::Status StopAgentServers();

  // gRPC target of all brokers.
  std::string brokers() const;
  redis::PrivateServer& redis() { return *redis_; }
  // Files of evidence, for the checker.
  std::vector<std::string> WorkerLogs() const;
  std::vector<std::string> RoomLogs() const;

 private:
  enum class Kind { kRegistry, kBroker, kRoomServer, kAgentServer };
  struct Member {
    Kind kind = Kind::kBroker;
    std::string name;
    int port = 0;
    int admin_port = 0;
    int runs = 0;
    std::unique_ptr<testing::Process> process;
    int64_t revive_at_us = 0;  // dead until then
    bool hurt = false;         // it, or a part of it, was killed
  };

  explicit Fleet(FleetOptions options) : options_(std::move(options)) {}
  absl::Status AddMember(Kind kind, const std::string& name);
  absl::Status Launch(Member& member);
  absl::Status WaitServing(Member& member);
  std::vector<std::string> Arguments(const Member& member) const;
  Member* Pick(Kind kind, std::minstd_rand& random);
  bool KillMember(Member* member, std::minstd_rand& random);
  bool KillPart(Victim victim, std::minstd_rand& random);
  std::string Targets(Kind kind) const;

  const FleetOptions options_;
  std::unique_ptr<redis::PrivateServer> redis_;
  int64_t redis_revive_at_us_ = 0;
  std::vector<std::unique_ptr<Member>> members_;
};

}  // namespace parley::chaos
