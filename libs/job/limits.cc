#include "job/limits.h"

#include "base/status.h"
#include "base/strings.h"
#include "job/ids.h"

namespace parley::job {
namespace {

absl::Status CheckAttributes(const std::map<std::string, std::string>& attributes) {
  size_t bytes = 0;
  for (const auto& [key, value] : attributes) {
    if (key.empty()) return InvalidArgument("attributes: a key is empty");
    if (!IsValidUtf8(key) || !IsValidUtf8(value)) {
      return InvalidArgument("attributes: keys and values must be UTF-8");
    }
    bytes += key.size() + value.size();
  }
  if (bytes > kMaxAttributesBytes) {
    return InvalidArgument("attributes have {} bytes in all; at most {} are allowed", bytes,
                           kMaxAttributesBytes);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckName(std::string_view what, std::string_view name, bool required) {
  if (required && name.empty()) return InvalidArgument("{} is missing", what);
  if (name.size() > kMaxNameBytes) {
    return InvalidArgument("{} has {} bytes; at most {} are allowed", what, name.size(),
                           kMaxNameBytes);
  }
  if (!IsValidUtf8(name)) return InvalidArgument("{} must be UTF-8", what);
  for (const char c : name) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      return InvalidArgument("{} holds a control character", what);
    }
  }
  return absl::OkStatus();
}

absl::Status Validate(const NewDispatch& d, absl::Time now) {
  PARLEY_RETURN_IF_ERROR(CheckName("project", d.project, false));
  PARLEY_RETURN_IF_ERROR(CheckName("room", d.room, true));
  PARLEY_RETURN_IF_ERROR(CheckName("agent_name", d.agent_name, false));
  PARLEY_RETURN_IF_ERROR(CheckName("idempotency_key", d.idempotency_key, false));
  PARLEY_RETURN_IF_ERROR(CheckName("participant_identity", d.participant_identity, false));
  if (d.while_present && d.type != Type::kRoom) {
    return InvalidArgument("while_present is for ROOM dispatches; others stay anyway");
  }
  if (d.stays() && d.not_before != absl::InfinitePast()) {
    return InvalidArgument("not_before is for dispatches of one job");
  }
  PARLEY_RETURN_IF_ERROR(CheckName("room_sid", d.room_sid, false));
  PARLEY_RETURN_IF_ERROR(CheckName("session_id", d.session_id, false));
  if (d.metadata.size() > kMaxMetadataBytes) {
    return InvalidArgument("metadata has {} bytes; at most {} are allowed", d.metadata.size(),
                           kMaxMetadataBytes);
  }
  if (!IsValidUtf8(d.metadata)) return InvalidArgument("metadata must be UTF-8");
  PARLEY_RETURN_IF_ERROR(CheckAttributes(d.attributes));
  if (d.priority < 0 || d.priority > 9) {
    return InvalidArgument("priority is 0 to 9, not {}", d.priority);
  }
  if (d.queue_deadline <= absl::ZeroDuration() || d.queue_deadline > kMaxQueueDeadline) {
    return InvalidArgument("queue_deadline is above 0 and at most 24 h");
  }
  if (d.not_before > now + absl::Hours(24)) {
    return InvalidArgument("not_before is at most 24 h ahead");
  }
  return SelectorText(d.selector).status();
}

absl::Status Validate(const RoomPresence& presence) {
  PARLEY_RETURN_IF_ERROR(CheckName("project", presence.project, true));
  PARLEY_RETURN_IF_ERROR(CheckName("room", presence.room, true));
  PARLEY_RETURN_IF_ERROR(CheckName("room_sid", presence.room_sid, true));
  if (presence.version == 0) return InvalidArgument("version counts from 1");
  if (presence.people.size() > kMaxPeople) {
    return InvalidArgument("people: at most {}, not {}", kMaxPeople, presence.people.size());
  }
  for (const RoomPresence::Person& person : presence.people) {
    PARLEY_RETURN_IF_ERROR(CheckName("identity", person.identity, true));
  }
  return absl::OkStatus();
}

absl::Status Validate(const Registration& r) {
  if (PoolTagOf(r.worker_id + "AAA", "AW_").empty()) {
    return InvalidArgument("worker_id: want AW_ and letters and digits, not \"{}\"", r.worker_id);
  }
  if (r.instance.size() < 32 || r.instance.size() > kMaxNameBytes) {
    return InvalidArgument("instance: want 32 to 256 hexadecimal digits (16 random bytes or more)");
  }
  if (r.connect_seq == 0) return InvalidArgument("connect_seq counts from 1");
  if (!(r.load_threshold > 0 && r.load_threshold <= 1)) {
    return InvalidArgument("load_threshold: above 0, at most 1");
  }
  if (r.slots < 1 || r.slots > kMaxSlots) {
    return InvalidArgument("slots: 1 to {}, not {}", kMaxSlots, r.slots);
  }
  if (!r.serves_configured && r.agent_names.empty()) {
    return InvalidArgument(
        "the worker serves nothing: set serves_configured or name at least one agent");
  }
  if (r.agent_names.size() > kMaxAgentNames) {
    return InvalidArgument("agent_names: at most {}, not {}", kMaxAgentNames, r.agent_names.size());
  }
  for (const std::string& name : r.agent_names) {
    PARLEY_RETURN_IF_ERROR(CheckName("agent_names", name, false));
  }
  PARLEY_RETURN_IF_ERROR(CheckName("project", r.project, false));
  PARLEY_RETURN_IF_ERROR(CheckName("pool", r.pool, true));
  PARLEY_RETURN_IF_ERROR(CheckName("region", r.region, false));
  PARLEY_RETURN_IF_ERROR(CheckName("deployment", r.deployment, false));
  PARLEY_RETURN_IF_ERROR(CheckName("version", r.version, false));
  PARLEY_RETURN_IF_ERROR(CheckName("hostname", r.hostname, false));
  size_t bytes = 0;
  for (const auto& [key, value] : r.labels) bytes += key.size() + value.size();
  if (bytes > kMaxSelectorBytes * 4) {
    return InvalidArgument("labels have {} bytes; at most {} are allowed", bytes,
                           kMaxSelectorBytes * 4);
  }
  return absl::OkStatus();
}

}  // namespace parley::job
