#include <algorithm>

#include "base/status.h"
#include "base/strings.h"
#include "job_redis/redis_job_store.h"

namespace parley::job {
namespace {

// Later versions may add parts; what has fewer is no event of this form (keys.h: kRecordForm).
std::optional<Event> ToEvent(const redis::Reply& entry, std::string_view pool) {
  Event event;
  event.position = entry.elements[0].text;
  event.pool = pool;
  constexpr size_t kParts = 12, kPartsOfRooms = 14;
  const std::vector<std::string> parts = Split(entry.elements[1].elements.at(1).text, '\n');
  if (parts.size() < kParts) return std::nullopt;
  event.time = absl::FromUnixMillis(static_cast<int64_t>(ToToken(parts[0])));
  event.type = parts[1];
  event.project = parts[2];
  event.dispatch_id = parts[3];
  event.job_id = parts[4];
  event.worker_id = parts[5];
  event.room = parts[6];
  event.agent_name = parts[7];
  event.state = StateFromText(parts[8]);
  event.reason = ReasonFromText(parts[9]);
  event.fencing_token = ToToken(parts[10]);
  event.attempt = static_cast<int>(ToToken(parts[11]));
  if (parts.size() >= kPartsOfRooms) {
    event.room_sid = parts[12];
    event.participant_identity = parts[13];
  }
  return event;
}

// What tell() of the prelude puts into an inbox, in the form of a script's message list.
redis::Reply ToMessages(const redis::Reply& entries) {
  redis::Reply messages;
  for (const redis::Reply& entry : entries.elements) {
    const Fields fields = ToFields(entry.elements[1]);
    for (const char* name : {"k", "w", "j", "t"}) {
      redis::Reply part;
      part.text = Get(fields, name);
      messages.elements.push_back(std::move(part));
    }
  }
  return messages;
}

}  // namespace

absl::StatusOr<JobStore::EventBatch> RedisJobStore::ReadEvents(std::string_view pool,
                                                               std::string_view position,
                                                               int limit) {
  const std::string start = position.empty() || position == "0" ? "-" : "(" + std::string(position);
  absl::StatusOr<redis::Reply> reply = Command(
      {"XRANGE", keys::PoolKeys(pool).events(), start, "+", "COUNT", std::to_string(limit)});
  if (!reply.ok()) {
    if (reply.status().code() != absl::StatusCode::kFailedPrecondition) return reply.status();
    return InvalidArgument("\"{}\" is not a position of an event", position.substr(0, 64));
  }
  EventBatch batch;
  batch.next = position;
  for (const redis::Reply& entry : reply->elements) {
    if (std::optional<Event> event = ToEvent(entry, pool))
      batch.events.push_back(*std::move(event));
    batch.next = entry.elements[0].text;
  }
  return batch;
}

absl::StatusOr<std::string> RedisJobStore::LastEvent(std::string_view pool) {
  PARLEY_ASSIGN_OR_RETURN(
      const redis::Reply reply,
      Command({"XREVRANGE", keys::PoolKeys(pool).events(), "+", "-", "COUNT", "1"}));
  return reply.elements.empty() ? std::string("0-0") : reply.elements[0].elements[0].text;
}

absl::StatusOr<std::vector<std::string>> RedisJobStore::WaitInbox(
    const std::vector<std::string>& pools, bool events, absl::Duration wait) {
  struct Source {
    std::string pool;
    bool is_events;
  };
  std::map<std::string, Source> sources;
  for (const std::string& pool : pools) {
    sources[keys::PoolKeys(pool).inbox(broker_id_)] = {pool, false};
    if (events) sources[keys::PoolKeys(pool).events()] = {pool, true};
  }
  sources[keys::Idle(broker_id_)] = {"", false};
  std::vector<std::string> names, ids;
  for (const auto& [key, source] : sources) {
    std::string position;
    {
      MutexLock lock(&positions_mutex_);
      position = positions_[key];
    }
    if (position.empty()) {
      position = "0-0";
      if (source.is_events) {
        PARLEY_ASSIGN_OR_RETURN(position, LastEvent(source.pool));
      }
      MutexLock lock(&positions_mutex_);
      positions_[key] = position;
    }
    names.push_back(key);
    ids.push_back(position);
  }
  const int64_t block_ms = std::max<int64_t>(1, absl::ToInt64Milliseconds(wait));
  std::vector<std::string> command = {"XREAD",  "COUNT", "256", "BLOCK", std::to_string(block_ms),
                                      "STREAMS"};
  command.insert(command.end(), names.begin(), names.end());
  command.insert(command.end(), ids.begin(), ids.end());
  absl::StatusOr<redis::Reply> reply =
      redis_.BlockingCommand(command, absl::Milliseconds(block_ms));
  if (!reply.ok()) return FromRedis(reply.status());
  std::vector<std::string> with_events;
  for (const redis::Reply& stream : reply->elements) {
    const Source& source = sources[stream.elements[0].text];
    const redis::Reply& entries = stream.elements[1];
    if (entries.elements.empty()) continue;
    {
      MutexLock lock(&positions_mutex_);
      positions_[stream.elements[0].text] = entries.elements.back().elements[0].text;
    }
    if (source.is_events) {
      with_events.push_back(source.pool);
    } else {
      Deliver(source.pool, ToMessages(entries));
    }
  }
  return with_events;
}

}  // namespace parley::job
