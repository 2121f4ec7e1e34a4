#pragma once
// LiveKit's RoomConfiguration in JSON: a token's claim roomConfig, and the presets of this server.
#include <absl/status/statusor.h>

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "auth/token.h"
#include "room/room.h"

namespace parley::room_server {

// Puts the settings that `json` names over `options`. What is no number or no text where one
// belongs counts as absent; what is out of range is refused by Room::Create.
void ApplyRoomConfig(std::string_view json, room::RoomOptions& options);

struct RoomPreset {
  std::string json;  // "" = says nothing
  std::vector<auth::RoomAgent> agents;
};

// Named room configurations (claim roomPreset, CreateRoomRequest.room_preset). Immutable.
class RoomPresets {
 public:
  // A JSON object: name → RoomConfiguration; at most 1 MiB, 32 agents each. "" = no presets.
  //   NotFound, InvalidArgument with the file's name: unknown fields, what no room may be
  static absl::StatusOr<RoomPresets> Load(const std::string& path);

  // One that says nothing for the empty name. It lives as long as this.
  //   InvalidArgument (ROOM_PRESET_UNKNOWN)  there is none of this name
  absl::StatusOr<const RoomPreset*> Find(std::string_view name) const;

 private:
  std::map<std::string, RoomPreset, std::less<>> presets_ = {{"", {}}};
};

// Is one of these wanted for each person who joins, not for the room? (attribute parley.each_join)
bool IsForEachJoin(const std::map<std::string, std::string>& attributes);

}  // namespace parley::room_server
