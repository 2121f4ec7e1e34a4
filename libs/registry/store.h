#pragma once
// Where definitions live: versions, the claim on agent names, and the stream of changes.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "registry/definition.h"
#include "registry/deployment.h"

namespace parley::registry {

// One version of one agent, as stored.
struct AgentRecord {
  std::string project;
  std::string id;
  std::string name;
  std::string agent_name;
  std::string pool;
  uint64_t version = 0;  // from 1, rises by one; goes on rising after a delete
  std::map<std::string, std::string> labels;
  std::string definition_json;  // canonical
  std::string content_hash;     // SHA-256, hex
  absl::Time create_time;       // of this version
};

// Record of a definition about to be stored: version 0, no time.
AgentRecord MakeRecord(std::string_view project, const AgentDefinition& definition);

struct RegisterOutcome {
  AgentRecord record;
  bool created = false;  // false: this content already was the newest version
};

struct ListQuery {
  std::map<std::string, std::string> labels;  // all must match
  std::string pool;                           // "" = any
  int page_size = 100;                        // 1 to 500
  std::string page_token;                     // of the page before
};

struct ListPage {
  std::vector<AgentRecord> agents;  // newest versions, by id
  std::string next_page_token;      // "" = the last page
  uint64_t sequence = 0;            // watching from here misses nothing
};

struct Change {
  uint64_t sequence = 0;
  std::string id;
  bool deleted = false;
  AgentRecord record;  // the version registered; empty when deleted
};

// Implementations are safe for concurrent use. Calls block for a round trip or two (about 1 ms):
// never on an event loop or in a gRPC reaction. All may answer Unavailable (safe to retry, also
// Register: the same content twice is one version).
class AgentStore {
 public:
  virtual ~AgentStore() = default;

  // Stores `record` (of MakeRecord) as the newest version, unless its content already is.
  //   AlreadyExists (reason NAME_TAKEN)  agent_name belongs to another definition or to a program
  virtual absl::StatusOr<RegisterOutcome> Register(const AgentRecord& record) = 0;
  // Version 0 = newest. NotFound.
  virtual absl::StatusOr<AgentRecord> Get(std::string_view project, std::string_view id,
                                          uint64_t version) = 0;
  // The same for a job that is pinned to a version: also when that was deleted or pushed out by
  // newer ones since, for a week after it was last asked for.
  virtual absl::StatusOr<AgentRecord> GetPinned(std::string_view project, std::string_view id,
                                                uint64_t version) = 0;
  // The newest version of the definition with this dispatch name. NotFound.
  virtual absl::StatusOr<AgentRecord> GetByAgentName(std::string_view project,
                                                     std::string_view agent_name) = 0;
  // InvalidArgument (page token).
  virtual absl::StatusOr<ListPage> List(std::string_view project, const ListQuery& query) = 0;
  // Removes all versions and the deployment, and frees the name. NotFound.
  virtual absl::Status Delete(std::string_view project, std::string_view id) = 0;
  // Newest first. NotFound.
  virtual absl::StatusOr<std::vector<AgentRecord>> Versions(std::string_view project,
                                                            std::string_view id) = 0;
  // Which versions serve new dispatches; what runs keeps its version. One that was never set, of
  // an agent that is not there too, has revision 0.
  virtual absl::StatusOr<Deployment> GetDeployment(std::string_view project,
                                                   std::string_view id) = 0;
  // `deployment` is settled; its revision and time are not looked at. Saying the same again changes
  // nothing.
  //   NotFound  no such agent, or (reason VERSION_UNKNOWN) no such version of it
  virtual absl::StatusOr<Deployment> SetDeployment(std::string_view project, std::string_view id,
                                                   const Deployment& deployment) = 0;
  // What served before the last SetDeployment serves again, and so on, twenty steps back. Of an
  // agent that was never deployed: the version before the newest.
  //   NotFound            no such agent
  //   FailedPrecondition  nothing served before
  virtual absl::StatusOr<Deployment> RollBack(std::string_view project, std::string_view id) = 0;

  // Changes after `after_sequence`, oldest first; waits up to `wait` when there are none yet (then
  // an empty list). OutOfRange: older changes than that are no longer kept; list, and go on from
  // the sequence of the list.
  virtual absl::StatusOr<std::vector<Change>> ReadChanges(std::string_view project,
                                                          uint64_t after_sequence,
                                                          absl::Duration wait) = 0;

  // Claims `agent_name` for programs (agent servers that serve it by name), so that no definition
  // takes it. Idempotent; lasts for `ttl` and is renewed by claiming again.
  //   AlreadyExists (reason NAME_TAKEN)  a definition has it
  virtual absl::Status ClaimForProgram(std::string_view project, std::string_view agent_name,
                                       absl::Duration ttl) = 0;
};

}  // namespace parley::registry
