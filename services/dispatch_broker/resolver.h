#pragma once
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "base/mutex.h"
#include "job/records.h"
#include "job/store.h"
#include "registry/store.h"

namespace parley::dispatch_broker {

// Who serves a dispatch: a definition of the registry, or workers of a name. Decided once, when the
// dispatch is created. Thread-safe; calls block for a few round trips.
class Resolver {
 public:
  Resolver(registry::AgentStore& agents, job::JobStore& jobs) : agents_(agents), jobs_(jobs) {}

  // Fills in pool, agent_id, agent_version and, when it was empty, agent_name.
  //   FailedPrecondition (UNSERVED)  no agent name, and nothing serves rooms without one
  absl::Status Resolve(job::DispatchSpec& spec);

  // The pinned definition of a job, as canonical JSON. Kept in memory: versions never change.
  // NotFound: deleted, and not asked for in a week.
  absl::StatusOr<std::string> Definition(const std::string& project, const std::string& agent_id,
                                         uint64_t version);

 private:
  absl::Status ResolveUnnamed(job::DispatchSpec& spec);
  // Of the definition found, the version that its deployment gives to this room.
  absl::StatusOr<bool> TakeDefinition(absl::StatusOr<registry::AgentRecord> found,
                                      job::DispatchSpec& spec);
  absl::Status ApplyDeployment(const std::string& project, const std::string& room,
                               registry::AgentRecord& found);
  absl::StatusOr<bool> ServesUnnamed(const std::string& pool, const std::string& project);

  registry::AgentStore& agents_;
  job::JobStore& jobs_;
  Mutex mutex_;
  // (project, name) → the pool of the programs that serve it. For a moment only, and only those
  // that are: a definition cannot take a name while a program of the project claims it.
  struct Program {
    std::string pool;
    absl::Time until;
  };
  std::map<std::pair<std::string, std::string>, Program> programs_ ABSL_GUARDED_BY(mutex_);
  // (pool, project) → until when it is taken for served; asking costs a look at every worker.
  std::map<std::pair<std::string, std::string>, absl::Time> served_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::string> definitions_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::string> definition_order_ ABSL_GUARDED_BY(mutex_);  // oldest first
};

}  // namespace parley::dispatch_broker
