#include "room_redis/directory.h"

#include <algorithm>

#include "base/status.h"
#include "room_redis/keys.h"
#include "room_redis/scripts.h"

namespace parley::room_redis {
namespace {

std::vector<std::string> Keys(const std::string& project) {
  return {ReplicasKey(project), HoldersKey(project), SummariesKey(project)};
}

absl::Status Unexpected(const redis::Script& script) {
  return Internal("{} answered in an unknown form; are two versions sharing this Redis?",
                  script.name);
}

}  // namespace

Directory::Directory(redis::Pool& pool, Replica self, absl::Duration lease)
    : pool_(pool),
      self_(std::move(self)),
      lease_ms_(fmt::format("{}", absl::ToInt64Milliseconds(lease))) {}

absl::StatusOr<Claim> Directory::TakeRoom(const std::string& project, const std::string& room,
                                          const std::string& summary) {
  PARLEY_ASSIGN_OR_RETURN(
      redis::Reply reply,
      pool_.Eval(kTakeRoom, Keys(project), {self_.id, self_.media_url, lease_ms_, room, summary}));
  if (reply.elements.size() != 3) return Unexpected(kTakeRoom);
  return Claim{reply.elements[0].integer == 1, std::move(reply.elements[1].text),
               std::move(reply.elements[2].text)};
}

absl::StatusOr<std::optional<std::string>> Directory::HolderUrl(const std::string& project,
                                                                const std::string& room) {
  PARLEY_ASSIGN_OR_RETURN(redis::Reply reply, pool_.Eval(kHolder, Keys(project), {room}));
  if (reply.nil()) return std::optional<std::string>();
  return std::optional<std::string>(std::move(reply.text));
}

absl::Status Directory::FreeRooms(const std::string& project,
                                  const std::vector<std::string>& rooms) {
  if (rooms.empty()) return absl::OkStatus();
  std::vector<std::string> arguments = {self_.id};
  arguments.insert(arguments.end(), rooms.begin(), rooms.end());
  return pool_.Eval(kFreeRooms, Keys(project), arguments).status();
}

absl::StatusOr<std::vector<std::string>> Directory::Heartbeat(
    const std::string& project, const std::map<std::string, std::string>& rooms) {
  std::vector<std::string> arguments = {self_.id, self_.media_url, lease_ms_};
  for (const auto& [name, summary] : rooms) {
    arguments.push_back(name);
    arguments.push_back(summary);
  }
  PARLEY_ASSIGN_OR_RETURN(redis::Reply reply, pool_.Eval(kHeartbeat, Keys(project), arguments));
  std::vector<std::string> lost;
  for (redis::Reply& element : reply.elements) lost.push_back(std::move(element.text));
  return lost;
}

absl::StatusOr<std::vector<ListedRoom>> Directory::List(const std::string& project) {
  PARLEY_ASSIGN_OR_RETURN(redis::Reply reply, pool_.Eval(kList, Keys(project), {}));
  if (reply.elements.size() % 3 != 0) return Unexpected(kList);
  std::vector<ListedRoom> rooms;
  for (size_t i = 0; i < reply.elements.size(); i += 3) {
    rooms.push_back({std::move(reply.elements[i].text), std::move(reply.elements[i + 1].text),
                     std::move(reply.elements[i + 2].text)});
  }
  std::ranges::sort(rooms, {}, &ListedRoom::name);
  return rooms;
}

absl::Status Directory::Leave(const std::string& project,
                              const std::vector<std::string>& left_behind) {
  std::vector<std::string> arguments = {self_.id, self_.media_url};
  arguments.insert(arguments.end(), left_behind.begin(), left_behind.end());
  return pool_.Eval(kLeave, Keys(project), arguments).status();
}

}  // namespace parley::room_redis
