#pragma once
// LiveKit's RoomConfiguration in JSON: a token's claim roomConfig, and the presets of this server.
#include <absl/status/statusor.h>

#include <map>
#include <string>
#include <string_view>

#include "room/room.h"

namespace parley::room_server {

// Puts the settings that `json` names over `options`. What is no number or no text where one
// belongs counts as absent; what is out of range is refused by Room::Create.
void ApplyRoomConfig(std::string_view json, room::RoomOptions& options);

// Named room configurations (claim roomPreset, CreateRoomRequest.room_preset). Immutable.
class RoomPresets {
 public:
  // A JSON object: name → RoomConfiguration; at most 1 MiB. "" = no presets.
  //   NotFound, InvalidArgument with the file's name
  static absl::StatusOr<RoomPresets> Load(const std::string& path);

  // The configuration as JSON; "" for the empty name.
  //   InvalidArgument  there is none of this name
  absl::StatusOr<std::string_view> Find(std::string_view name) const;

 private:
  std::map<std::string, std::string, std::less<>> presets_;
};

}  // namespace parley::room_server
