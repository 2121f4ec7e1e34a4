#include "room_server/room_config.h"

#include <algorithm>
#include <fstream>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "base/clock.h"
#include "base/status.h"
#include "base/strings.h"

namespace parley::room_server {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxFileBytes = 1 << 20;
constexpr int kMaxNesting = 32;
constexpr size_t kMaxAgents = 32;
constexpr auto kEachJoin = "parley.each_join";

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

// A preset's field of this value, or why not. What presets cannot do yet is refused by name.
absl::Status CheckField(const std::string& name, const Json& value) {
  const auto is = [&name](std::initializer_list<std::string_view> names) {
    return std::ranges::find(names, name) != names.end();
  };
  if (is({"name"})) return absl::OkStatus();  // LiveKit's own files repeat it
  if (is({"emptyTimeout", "empty_timeout", "departureTimeout", "departure_timeout",
          "maxParticipants", "max_participants"})) {
    const bool whole = value.is_number_unsigned() && value.get<uint64_t>() <= 1'000'000;
    return whole ? absl::OkStatus() : InvalidArgument("{} must be 0 to 1,000,000", name);
  }
  if (is({"metadata"})) {
    return value.is_string() ? absl::OkStatus() : InvalidArgument("metadata must be a text");
  }
  if (is({"agents"})) {
    const bool list = value.is_array() && value.size() <= kMaxAgents &&
                      std::ranges::all_of(value, [](const Json& one) { return one.is_object(); });
    return list ? absl::OkStatus() : InvalidArgument("agents must be at most {}", kMaxAgents);
  }
  return InvalidArgument("there is no field {}", name);
}

absl::StatusOr<RoomPreset> ReadPreset(const Json& config) {
  if (!config.is_object()) return InvalidArgument("must be a room configuration");
  for (const auto& [field, value] : config.items()) {
    PARLEY_RETURN_IF_ERROR(CheckField(field, value));
  }
  RoomPreset preset{.json = config.dump(), .agents = {}};
  preset.agents = auth::ReadRoomAgents(preset.json);
  room::RoomOptions options;
  options.name = "of the preset";
  ApplyRoomConfig(preset.json, options);
  PARLEY_RETURN_IF_ERROR(room::Room::Create(options, Clock::Real()).status());
  return preset;
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
    if (name.empty()) return InvalidArgument("{}: a preset without a name", path);
    absl::StatusOr<RoomPreset> preset = ReadPreset(config);
    if (!preset.ok()) return Annotate(preset.status(), fmt::format("{}: {}", path, name));
    presets.presets_[name] = *std::move(preset);
  }
  return presets;
}

absl::StatusOr<const RoomPreset*> RoomPresets::Find(std::string_view name) const {
  if (const auto found = presets_.find(name); found != presets_.end()) return &found->second;
  return WithReason(InvalidArgument("there is no room preset \"{}\"", name), "ROOM_PRESET_UNKNOWN",
                    {{"room_preset", std::string(name)}});
}

bool IsForEachJoin(const std::map<std::string, std::string>& attributes) {
  const auto found = attributes.find(kEachJoin);
  return found != attributes.end() && found->second == "true";
}

}  // namespace parley::room_server
