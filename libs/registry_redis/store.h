#pragma once
// The agent store on Redis. Keys and records: keys.h; decisions: scripts.h.
#include <string>
#include <string_view>
#include <vector>

#include "redis/redis.h"
#include "registry/store.h"

namespace parley::registry_redis {

inline constexpr int kVersionsKept = 200;    // per agent
inline constexpr int kDeploymentsKept = 20;  // per agent, to go back to
inline constexpr int kChangesKept = 10'000;  // per project, about
// A job may wait 24 h and run for days before its next attempt asks for its definition again.
inline constexpr int kPinnedSeconds = 7 * 24 * 3600;

// `pool` must outlive the store.
class RedisAgentStore : public registry::AgentStore {
 public:
  explicit RedisAgentStore(redis::Pool& pool) : pool_(pool) {}

  absl::StatusOr<registry::RegisterOutcome> Register(const registry::AgentRecord& record) override;
  absl::StatusOr<registry::AgentRecord> Get(std::string_view project, std::string_view id,
                                            uint64_t version) override;
  absl::StatusOr<registry::AgentRecord> GetPinned(std::string_view project, std::string_view id,
                                                  uint64_t version) override;
  absl::StatusOr<registry::AgentRecord> GetByAgentName(std::string_view project,
                                                       std::string_view agent_name) override;
  absl::StatusOr<registry::ListPage> List(std::string_view project,
                                          const registry::ListQuery& query) override;
  absl::Status Delete(std::string_view project, std::string_view id) override;
  absl::StatusOr<std::vector<registry::AgentRecord>> Versions(std::string_view project,
                                                              std::string_view id) override;
  absl::StatusOr<registry::Deployment> GetDeployment(std::string_view project,
                                                     std::string_view id) override;
  absl::StatusOr<registry::Deployment> SetDeployment(
      std::string_view project, std::string_view id,
      const registry::Deployment& deployment) override;
  absl::StatusOr<registry::Deployment> RollBack(std::string_view project,
                                                std::string_view id) override;
  absl::StatusOr<std::vector<registry::Change>> ReadChanges(std::string_view project,
                                                            uint64_t after_sequence,
                                                            absl::Duration wait) override;
  absl::Status ClaimForProgram(std::string_view project, std::string_view agent_name,
                               absl::Duration ttl) override;

 private:
  redis::Pool& pool_;
};

}  // namespace parley::registry_redis
