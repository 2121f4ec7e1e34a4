#pragma once
// Every key of rooms in Redis. All of a project share a hash tag, so that one script may touch them
// all.
#include <string>
#include <string_view>

namespace parley::room_redis {

// Hash: replica id → "<lease end, ms of Redis' clock> <media_url>".
inline std::string ReplicasKey(std::string_view project) {
  return "parley:{rooms:" + std::string(project) + "}:replicas";
}
// Hash: room name → replica id. Counts only while the replica's lease lives.
inline std::string HoldersKey(std::string_view project) {
  return "parley:{rooms:" + std::string(project) + "}:holders";
}
// Hash: room name → what its replica last said of it (opaque bytes), for lists over all replicas.
inline std::string SummariesKey(std::string_view project) {
  return "parley:{rooms:" + std::string(project) + "}:summaries";
}

}  // namespace parley::room_redis
