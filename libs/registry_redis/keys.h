#pragma once
// Every key of the agent registry in Redis. All of a project share a hash tag, so that one script
// may touch them all.
#include <string>
#include <string_view>

namespace parley::registry_redis {

inline std::string Key(std::string_view project, std::string_view what) {
  return "parley:{reg:" + std::string(project) + "}:" + std::string(what);
}

// Hash: id → "<version> <record>", the newest version of each agent.
inline std::string HeadsKey(std::string_view project) { return Key(project, "heads"); }
// Sorted set, all scores 0: the ids, for lists in order.
inline std::string IndexKey(std::string_view project) { return Key(project, "index"); }
// Hash: agent_name → "d <id>" (a definition's) or "p <end, ms of Redis' clock>" (a program's).
inline std::string NamesKey(std::string_view project) { return Key(project, "names"); }
// Hash: id → last version given out; outlives the agent.
inline std::string CountersKey(std::string_view project) { return Key(project, "counters"); }
// Stream: changes, their ids "<sequence>-0"; fields id, version (0 = deleted).
inline std::string ChangesKey(std::string_view project) { return Key(project, "changes"); }
// Number: sequence of the newest change.
inline std::string SequenceKey(std::string_view project) { return Key(project, "sequence"); }
// Hash: version → record, of one agent.
inline std::string VersionsKey(std::string_view project, std::string_view id) {
  return Key(project, "versions:" + std::string(id));
}
// Hash: version → record, of versions of one agent that were deleted or pushed out: kept for jobs
// that are pinned to them, for kPinnedSeconds after the last of them was read or deleted.
inline std::string PinnedKey(std::string_view project, std::string_view id) {
  return Key(project, "pinned:" + std::string(id));
}
// Hash: id → "1 <revision> <time, ms> <shares>", what registry::SharesText makes.
inline std::string DeploymentsKey(std::string_view project) { return Key(project, "deployments"); }
// List: the shares that served before, latest first, of one agent.
inline std::string DeployedKey(std::string_view project, std::string_view id) {
  return Key(project, "deployed:" + std::string(id));
}
// A record is "1 <create time, ms> <content hash> <canonical definition>"; the leading number is
// the form of the record.

}  // namespace parley::registry_redis
