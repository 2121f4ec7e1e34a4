#include <absl/time/clock.h>

#include "base/status.h"
#include "job_redis/redis_job_store.h"
#include "job_redis/scripts.h"

namespace parley::job {
namespace {

constexpr int64_t kKeepSeconds = int64_t{7} * 24 * 3600;

void AppendSession(const SessionRecord& record, std::vector<std::string>& out) {
  const std::pair<std::string_view, std::string> fields[] = {
      {"project", record.project},
      {"room", record.room},
      {"dispatch", record.dispatch_id},
      {"agent", record.agent_name},
      {"agent_id", record.agent_id},
      {"agent_version", record.agent_version == 0 ? "" : std::to_string(record.agent_version)},
      {"create", TimeText(record.create_time)},
      {"start", record.start_time == absl::InfinitePast() ? "" : TimeText(record.start_time)},
      {"end", record.end_time == absl::InfinitePast() ? "" : TimeText(record.end_time)},
      {"report", record.report},
  };
  out.push_back(record.id);
  out.push_back(TimeText(record.create_time));
  const size_t count_at = out.size();
  int count = 0;
  out.emplace_back();
  for (const auto& [name, value] : fields) {
    if (value.empty()) continue;
    out.emplace_back(name);
    out.push_back(value);
    ++count;
  }
  out[count_at] = std::to_string(count);
}

}  // namespace

absl::Status RedisJobStore::SaveSessions(const std::vector<SessionRecord>& records) {
  std::map<std::string, std::vector<const SessionRecord*>> by_project;
  for (const SessionRecord& record : records) by_project[record.project].push_back(&record);
  for (const auto& [project, sessions] : by_project) {
    std::vector<std::string> keys = {keys::Sessions(project)};
    std::vector<std::string> arguments = {std::to_string(kKeepSeconds)};
    for (const SessionRecord* record : sessions) {
      keys.push_back(keys::Session(project, record->id));
      keys.push_back(keys::Erased(project, record->id));
      AppendSession(*record, arguments);
    }
    const auto reply = redis_.Eval(scripts::save_session, keys, arguments);
    PARLEY_RETURN_IF_ERROR(FromRedis(reply.status()));
  }
  return absl::OkStatus();
}

absl::Status RedisJobStore::SaveSession(const SessionRecord& record) {
  return SaveSessions({record});
}
absl::StatusOr<SessionRecord> RedisJobStore::GetSession(std::string_view project,
                                                        std::string_view session_id) {
  PARLEY_ASSIGN_OR_RETURN(const redis::Reply reply,
                          Command({"HGETALL", keys::Session(project, session_id)}));
  const Fields fields = ToFields(reply);
  if (fields.empty()) return NotFound("session {} does not exist", session_id);
  SessionRecord record;
  record.id = session_id;
  record.project = project;
  record.room = Get(fields, "room");
  record.dispatch_id = Get(fields, "dispatch");
  record.agent_name = Get(fields, "agent");
  record.agent_id = Get(fields, "agent_id");
  record.agent_version = static_cast<uint64_t>(GetInt(fields, "agent_version"));
  record.create_time = GetTime(fields, "create", absl::InfinitePast());
  record.start_time = GetTime(fields, "start", absl::InfinitePast());
  record.end_time = GetTime(fields, "end", absl::InfinitePast());
  record.report = Get(fields, "report");
  return record;
}

absl::Status RedisJobStore::EraseSession(std::string_view project, std::string_view session_id) {
  return Pipeline(
             {{"SET", keys::Erased(project, session_id), "1", "EX", std::to_string(kKeepSeconds)},
              {"DEL", keys::Session(project, session_id)},
              {"ZREM", keys::Sessions(project), std::string(session_id)}})
      .status();
}

absl::StatusOr<std::vector<bool>> RedisJobStore::SessionsGone(
    const std::vector<SessionEnd>& sessions) {
  std::vector<std::vector<std::string>> commands;
  for (const SessionEnd& one : sessions) {
    commands.push_back({"EXISTS", keys::Erased(one.project, one.session_id)});
    commands.push_back({"EXISTS", keys::Session(one.project, one.session_id)});
  }
  if (commands.empty()) return std::vector<bool>();
  PARLEY_ASSIGN_OR_RETURN(const std::vector<redis::Reply> replies, Pipeline(commands));
  const absl::Time oldest = absl::Now() - absl::Seconds(kKeepSeconds);
  std::vector<bool> gone;
  for (size_t i = 0; i < sessions.size(); ++i) {
    const bool erased = replies[2 * i].integer != 0;
    // A Redis that lost everything must not take the recordings with it.
    const bool expired = replies[2 * i + 1].integer == 0 && sessions[i].ended < oldest;
    gone.push_back(erased || expired);
  }
  return gone;
}

}  // namespace parley::job
