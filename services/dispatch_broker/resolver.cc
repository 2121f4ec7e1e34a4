#include "dispatch_broker/resolver.h"

#include <absl/time/clock.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/ids.h"
#include "base/status.h"
#include "base/strings.h"

namespace parley::dispatch_broker {
namespace {

constexpr size_t kMaxDefinitions = 256;  // of at most 1 MiB
constexpr size_t kMaxServed = 10'000;
constexpr absl::Duration kServedFor = absl::Seconds(1);  // only "yes" is remembered

// `agentId` of metadata that is a JSON object; "" otherwise.
std::string AgentIdIn(const std::string& metadata) {
  if (metadata.empty() || metadata.front() != '{' || !JsonNestsWithin(metadata, 32)) return "";
  const nlohmann::json json = nlohmann::json::parse(metadata, nullptr, false);
  if (!json.is_object()) return "";
  const auto it = json.find("agentId");
  return it != json.end() && it->is_string() ? it->get<std::string>() : "";
}

// `x` of "agent-x-room"; "" otherwise.
std::string AgentIdOfRoom(std::string_view room) {
  constexpr std::string_view kHead = "agent-", kTail = "-room";
  if (!room.starts_with(kHead) || !room.ends_with(kTail)) return "";
  if (room.size() <= kHead.size() + kTail.size()) return "";
  return std::string(room.substr(kHead.size(), room.size() - kHead.size() - kTail.size()));
}

}  // namespace

absl::StatusOr<bool> Resolver::TakeDefinition(absl::StatusOr<registry::AgentRecord> found,
                                              job::DispatchSpec& spec) {
  if (absl::IsNotFound(found.status()) || absl::IsInvalidArgument(found.status())) return false;
  if (!found.ok()) return found.status();
  PARLEY_RETURN_IF_ERROR(ApplyDeployment(spec.project, spec.room, *found));
  // Another version may have another name; a dispatch keeps the one it was asked for by.
  if (spec.agent_name.empty()) spec.agent_name = found->agent_name;
  spec.pool = found->pool;
  spec.agent_id = found->id;
  spec.agent_version = found->version;
  return true;
}

absl::Status Resolver::ApplyDeployment(const std::string& project, const std::string& room,
                                       registry::AgentRecord& found) {
  PARLEY_ASSIGN_OR_RETURN(const registry::Deployment deployment,
                          agents_.GetDeployment(project, found.id));
  const uint64_t version = registry::Choose(deployment, found.id, room, RandomBase62(12));
  if (version == 0 || version == found.version) return absl::OkStatus();
  absl::StatusOr<registry::AgentRecord> chosen = agents_.GetPinned(project, found.id, version);
  // Pushed out by two hundred newer ones and not asked for in a week: the newest serves.
  if (absl::IsNotFound(chosen.status())) return absl::OkStatus();
  PARLEY_RETURN_IF_ERROR(chosen.status());
  found = *std::move(chosen);
  return absl::OkStatus();
}

absl::Status Resolver::Resolve(job::DispatchSpec& spec) {
  if (spec.agent_name.empty()) return ResolveUnnamed(spec);
  const std::pair<std::string, std::string> name(spec.project, spec.agent_name);
  const absl::Time now = absl::Now();
  {
    MutexLock lock(&mutex_);
    if (const auto it = programs_.find(name); it != programs_.end() && now < it->second.until) {
      spec.pool = it->second.pool;
      return absl::OkStatus();
    }
  }
  PARLEY_ASSIGN_OR_RETURN(
      const bool defined,
      TakeDefinition(agents_.GetByAgentName(spec.project, spec.agent_name), spec));
  if (defined) return absl::OkStatus();
  PARLEY_ASSIGN_OR_RETURN(const std::optional<std::string> pool,
                          jobs_.PoolOfName(spec.project, spec.agent_name));
  spec.pool = pool.value_or(spec.agent_name);
  if (!pool) return absl::OkStatus();
  MutexLock lock(&mutex_);
  if (programs_.size() >= kMaxServed) programs_.clear();
  programs_[name] = {spec.pool, now + kServedFor};
  return absl::OkStatus();
}

absl::Status Resolver::ResolveUnnamed(job::DispatchSpec& spec) {
  for (const std::string& id : {AgentIdIn(spec.metadata), AgentIdOfRoom(spec.room)}) {
    if (id.empty()) continue;
    PARLEY_ASSIGN_OR_RETURN(const bool defined,
                            TakeDefinition(agents_.Get(spec.project, id, 0), spec));
    if (defined) return absl::OkStatus();
  }
  PARLEY_ASSIGN_OR_RETURN(const std::optional<std::string> pool,
                          jobs_.PoolOfName(spec.project, ""));
  if (pool) {
    PARLEY_ASSIGN_OR_RETURN(const bool served, ServesUnnamed(*pool, spec.project));
    if (served) {
      spec.pool = *pool;
      return absl::OkStatus();
    }
  }
  return WithReason(FailedPrecondition("room \"{}\" names no agent, and no agent server serves "
                                       "rooms without a name",
                                       spec.room),
                    "UNSERVED");
}

absl::StatusOr<bool> Resolver::ServesUnnamed(const std::string& pool, const std::string& project) {
  const absl::Time now = absl::Now();
  {
    MutexLock lock(&mutex_);
    if (const auto it = served_.find({pool, project}); it != served_.end() && now < it->second) {
      return true;
    }
  }
  PARLEY_ASSIGN_OR_RETURN(const std::vector<job::Worker> workers, jobs_.ListWorkers(pool));
  const bool served = std::any_of(workers.begin(), workers.end(), [&](const job::Worker& worker) {
    return (worker.project.empty() || worker.project == project) &&
           std::find(worker.agent_names.begin(), worker.agent_names.end(), "") !=
               worker.agent_names.end();
  });
  MutexLock lock(&mutex_);
  if (served_.size() >= kMaxServed) served_.clear();
  if (served) served_[{pool, project}] = now + kServedFor;
  return served;
}

absl::StatusOr<std::string> Resolver::Definition(const std::string& project,
                                                 const std::string& agent_id, uint64_t version) {
  const std::string key = fmt::format("{}\n{}\n{}", project, agent_id, version);
  {
    MutexLock lock(&mutex_);
    if (const auto it = definitions_.find(key); it != definitions_.end()) return it->second;
  }
  PARLEY_ASSIGN_OR_RETURN(registry::AgentRecord record,
                          agents_.GetPinned(project, agent_id, version));
  MutexLock lock(&mutex_);
  if (definitions_.emplace(key, record.definition_json).second) definition_order_.push_back(key);
  if (definition_order_.size() > kMaxDefinitions) {
    definitions_.erase(definition_order_.front());
    definition_order_.pop_front();
  }
  return std::move(record.definition_json);
}

}  // namespace parley::dispatch_broker
