// Who is in a room, for the dispatches that stay there.
#include "base/status.h"
#include "base/strings.h"
#include "job_redis/redis_job_store.h"
#include "job_redis/scripts.h"

namespace parley::job {
namespace {

// A dispatch that is made later finds the last report here. Room servers repeat theirs only for
// rooms that somebody waits for; a room that is silent for longer has had no change.
constexpr int kKeptSeconds = 24 * 3600;

// "<version> <sid> <identity>=<1 or 2>&…", escaped.
std::string ToText(const RoomPresence& presence) {
  std::map<std::string, std::string> people;
  for (const RoomPresence::Person& person : presence.people) {
    people.emplace(person.identity, std::string(1, person.publishing ? '2' : '1'));
  }
  return fmt::format("{} {} {}", presence.version, Escape(presence.room_sid), MapText(people));
}

absl::StatusOr<RoomPresence> FromText(std::string_view text) {
  const std::vector<std::string> parts = Split(text, ' ');
  if (parts.size() != 3) return Internal("a report of who is in a room is damaged");
  RoomPresence presence;
  presence.version = ToToken(parts[0]);
  PARLEY_ASSIGN_OR_RETURN(presence.room_sid, Unescape(parts[1]));
  for (const auto& [identity, what] : ToMap(parts[2])) {
    presence.people.push_back({identity, what == "2"});
  }
  return presence;
}

}  // namespace

absl::StatusOr<bool> RedisJobStore::TellPresence(const std::string& pool,
                                                 const RoomPresence& presence) {
  std::vector<std::string> arguments = {Escape(presence.project), Escape(presence.room),
                                        presence.room_sid, std::to_string(presence.version),
                                        presence.closed ? "1" : "0"};
  for (const RoomPresence::Person& person : presence.people) {
    arguments.push_back(person.identity);
    arguments.emplace_back(1, person.publishing ? '2' : '1');
  }
  PARLEY_ASSIGN_OR_RETURN(const redis::Reply reply, Run(scripts::presence, pool, arguments, 0, 2));
  if (reply.elements[1].integer < 0) return Recovering();
  return reply.elements[1].integer > 0;
}

absl::Status RedisJobStore::NotePresence(const RoomPresence& room) {
  const std::vector<std::string> parts = Split(ToText(room), ' ');
  return FromRedis(redis_
                       .Eval(scripts::note_presence,
                             {keys::Presence(room.project, room.room),
                              keys::PoolKeys(keys::RoomsPool(room.project)).events()},
                             {parts[0], parts[1], parts[2], room.closed ? "1" : "0", room.project,
                              room.room, std::to_string(kKeptSeconds)})
                       .status());
}

absl::StatusOr<std::vector<bool>> RedisJobStore::SetPresence(
    const std::vector<RoomPresence>& rooms) {
  PARLEY_ASSIGN_OR_RETURN(const std::vector<std::string> pools, Pools());
  // The report is stored before anybody looks for dispatches, and a dispatch is stored before
  // anybody looks for a report: one of the two sees the other.
  std::vector<std::vector<std::string>> commands;
  for (const RoomPresence& room : rooms) {
    PARLEY_RETURN_IF_ERROR(NotePresence(room));
    for (const std::string& pool : pools) {
      commands.push_back({"EXISTS", keys::PoolKeys(pool).staying(room.project, room.room)});
    }
  }
  PARLEY_ASSIGN_OR_RETURN(const std::vector<redis::Reply> replies, Pipeline(commands));
  std::vector<bool> watched(rooms.size(), false);
  for (size_t i = 0; i < rooms.size(); ++i) {
    for (size_t p = 0; p < pools.size(); ++p) {
      if (replies[i * pools.size() + p].integer == 0) continue;
      PARLEY_ASSIGN_OR_RETURN(const bool stays, TellPresence(pools[p], rooms[i]));
      watched[i] = watched[i] || stays;
    }
  }
  return watched;
}

// A dispatch that stays was made: whoever is in its room already wants jobs now.
absl::Status RedisJobStore::CatchUpPresence(const NewDispatch& dispatch) {
  PARLEY_ASSIGN_OR_RETURN(const redis::Reply reply,
                          Command({"GET", keys::Presence(dispatch.project, dispatch.room)}));
  if (reply.nil()) return absl::OkStatus();
  PARLEY_ASSIGN_OR_RETURN(RoomPresence presence, FromText(reply.text));
  presence.project = dispatch.project;
  presence.room = dispatch.room;
  return TellPresence(dispatch.pool, presence).status();
}

}  // namespace parley::job
