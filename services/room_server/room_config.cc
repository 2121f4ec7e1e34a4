#include "room_server/room_config.h"

#include <fstream>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "base/status.h"
#include "base/strings.h"

namespace parley::room_server {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxFileBytes = 1 << 20;
constexpr int kMaxNesting = 32;

// The first of `names` that the object has, as a number; protobuf-JSON may quote it.
std::optional<double> Number(const Json& object, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    const auto found = object.find(name);
    if (found == object.end()) continue;
    if (found->is_number()) return found->get<double>();
    if (!found->is_string()) continue;
    const auto quoted = Json::parse(found->get<std::string>(), nullptr, false);
    if (quoted.is_number()) return quoted.get<double>();
  }
  return std::nullopt;
}

}  // namespace

void ApplyRoomConfig(std::string_view json, room::RoomOptions& options) {
  if (json.empty()) return;
  const Json config = Json::parse(json, nullptr, false);
  if (!config.is_object()) return;
  if (const auto seconds = Number(config, {"emptyTimeout", "empty_timeout"}); seconds > 0) {
    options.empty_timeout = absl::Seconds(*seconds);
  }
  if (const auto seconds = Number(config, {"departureTimeout", "departure_timeout"}); seconds > 0) {
    options.departure_timeout = absl::Seconds(*seconds);
  }
  if (const auto people = Number(config, {"maxParticipants", "max_participants"});
      people >= 0 && people <= 1e6) {
    options.max_participants = static_cast<int>(*people);
  }
  if (const auto metadata = config.find("metadata");
      metadata != config.end() && metadata->is_string()) {
    options.metadata = metadata->get<std::string>();
  }
}

absl::StatusOr<RoomPresets> RoomPresets::Load(const std::string& path) {
  RoomPresets presets;
  if (path.empty()) return presets;
  std::ifstream file(path, std::ios::binary);
  if (!file) return NotFound("{}: cannot read the room presets", path);
  std::stringstream text;
  text << file.rdbuf();
  const std::string content = text.str();
  if (content.size() > kMaxFileBytes || !JsonNestsWithin(content, kMaxNesting)) {
    return InvalidArgument("{}: room presets have at most 1 MiB, nested at most {} deep", path,
                           kMaxNesting);
  }
  const Json json = Json::parse(content, nullptr, false);
  if (!json.is_object()) {
    return InvalidArgument("{}: must be a JSON object of room configurations by name", path);
  }
  for (const auto& [name, config] : json.items()) {
    if (!config.is_object()) {
      return InvalidArgument("{}: {}: must be a room configuration", path, name);
    }
    presets.presets_[name] = config.dump();
  }
  return presets;
}

absl::StatusOr<std::string_view> RoomPresets::Find(std::string_view name) const {
  if (name.empty()) return std::string_view();
  const auto found = presets_.find(name);
  if (found != presets_.end()) return std::string_view(found->second);
  return WithReason(InvalidArgument("there is no room preset \"{}\"", name), "ROOM_PRESET_UNKNOWN",
                    {{"room_preset", std::string(name)}});
}

}  // namespace parley::room_server
