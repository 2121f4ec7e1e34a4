#pragma once
// Which room server holds a room. A replica holds rooms under one lease per project, which its
// heartbeats renew; when it ends its rooms are free for others.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "redis/redis.h"

namespace parley::room_redis {

struct Replica {
  std::string id;         // drawn at every start
  std::string media_url;  // "host:port", unique among live replicas
};

struct Claim {
  bool mine = false;
  std::string media_url;  // of the holder
  // Not empty: the room goes on, for its holder has died; what that one said of it last.
  std::string heritage;
};

struct ListedRoom {
  std::string name;
  std::string media_url;
  std::string summary;  // empty until the replica's first heartbeat after the room was made
};

// So long is a room of a dead replica nobody's. Longer than a cut of 5 s between a replica and its
// store, at a heartbeat a second.
inline constexpr absl::Duration kDefaultLease = absl::Seconds(6);

// Thread-safe. Calls block for one round trip: not on an event loop, a strand that carries audio,
// or a gRPC reaction. Unavailable: the store is out of reach; safe to retry.
class Directory {
 public:
  // `pool` must outlive it. A replica that misses heartbeats for `lease` has lost its rooms.
  Directory(redis::Pool& pool, Replica self, absl::Duration lease = kDefaultLease);

  // Takes the room for this replica unless a live one holds it. Idempotent. A former run of this
  // replica (same media_url) counts as gone. `summary`: what is said of the room until the next
  // heartbeat, if it is a new one: nobody held it, or its holder is gone for a minute.
  absl::StatusOr<Claim> TakeRoom(const std::string& project, const std::string& room,
                                 const std::string& summary = {});
  // Who holds the room? nullopt: nobody. For brokers and edges too.
  absl::StatusOr<std::optional<std::string>> HolderUrl(const std::string& project,
                                                       const std::string& room);
  // Frees rooms that this replica holds; others' are left alone.
  absl::Status FreeRooms(const std::string& project, const std::vector<std::string>& rooms);
  // Renews the lease and says what became of this replica's rooms (name → summary). Answers names
  // that another replica holds by now: close those. Rooms that nobody holds are taken again.
  // Rooms of replicas gone for a minute are forgotten.
  absl::StatusOr<std::vector<std::string>> Heartbeat(
      const std::string& project, const std::map<std::string, std::string>& rooms);
  // Rooms of all live replicas, by name.
  absl::StatusOr<std::vector<ListedRoom>> List(const std::string& project);
  // This replica ends: frees everything it holds in the project. Those named in `left_behind` go on
  // at whoever takes them within a minute, as if this replica had died just now.
  absl::Status Leave(const std::string& project, const std::vector<std::string>& left_behind = {});

  const Replica& self() const { return self_; }

 private:
  redis::Pool& pool_;
  const Replica self_;
  const std::string lease_ms_;
};

}  // namespace parley::room_redis
