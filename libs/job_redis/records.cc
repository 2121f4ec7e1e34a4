#include "job_redis/records.h"

#include <charconv>

#include "base/strings.h"
#include "job/selector.h"
#include "job_redis/keys.h"

namespace parley::job {
namespace {

std::string_view PolicyText(RestartPolicy policy) {
  return policy == RestartPolicy::kNever ? "NEVER" : "";
}

std::string Other(std::string text, std::string_view than) {
  return text == than ? std::string() : text;
}

// Attributes first: their form has no line break.
std::string Payload(const DispatchSpec& spec) {
  if (spec.metadata.empty() && spec.attributes.empty()) return "";
  return MapText(spec.attributes) + "\n" + spec.metadata;
}

// The part of the records that dispatch and job share.
void FillSpec(const Fields& fields, std::string_view pool, DispatchSpec& spec) {
  spec.project = Get(fields, "project");
  spec.agent_name = Get(fields, "agent");
  spec.room = Get(fields, "room");
  spec.room_sid = Get(fields, "room_sid");
  spec.restart_policy =
      Get(fields, "policy") == "NEVER" ? RestartPolicy::kNever : RestartPolicy::kOnFailure;
  spec.priority = static_cast<int>(GetInt(fields, "priority"));
  spec.type = static_cast<Type>(GetInt(fields, "type"));
  spec.participant_identity = Get(fields, "identity");
  if (auto selector = ParseSelector(Get(fields, "selector")); selector.ok()) {
    spec.selector = *std::move(selector);
  }
  spec.idempotency_key = Get(fields, "key");
  spec.while_present = Get(fields, "present") == "1";
  spec.unique_in_room = Get(fields, "unique") == "1";
  spec.pool = pool;
  spec.agent_id = Get(fields, "agent_id");
  spec.agent_version = static_cast<uint64_t>(GetInt(fields, "agent_version"));
  spec.session_id = Get(fields, "session");
  spec.traceparent = Get(fields, "trace");
}

}  // namespace

Fields ToFields(const redis::Reply& reply) {
  Fields fields;
  for (size_t i = 0; i + 1 < reply.elements.size(); i += 2) {
    fields.emplace(reply.elements[i].text, reply.elements[i + 1].text);
  }
  return fields;
}

std::string_view Get(const Fields& fields, std::string_view name) {
  const auto it = fields.find(name);
  return it == fields.end() ? std::string_view() : it->second;
}

int64_t GetInt(const Fields& fields, std::string_view name) {
  const std::string_view text = Get(fields, name);
  int64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

absl::Time GetTime(const Fields& fields, std::string_view name, absl::Time missing) {
  const int64_t ms = GetInt(fields, name);
  return ms == 0 ? missing : absl::FromUnixMillis(ms);
}

absl::Time ToTime(std::string_view ms) {
  const uint64_t value = ToToken(ms);
  return value == 0 ? absl::InfinitePast() : absl::FromUnixMillis(static_cast<int64_t>(value));
}

uint64_t ToToken(std::string_view text) {
  uint64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

std::string TimeText(absl::Time time) {
  return time == absl::InfinitePast() ? "0" : std::to_string(absl::ToUnixMillis(time));
}

std::string MapText(const std::map<std::string, std::string>& map) {
  std::string text;
  for (const auto& [key, value] : map) {
    if (!text.empty()) text += '&';
    text += Escape(key) + "=" + Escape(value);
  }
  return text;
}

std::map<std::string, std::string> ToMap(std::string_view text) {
  std::map<std::string, std::string> map;
  if (text.empty()) return map;
  for (const std::string& part : Split(text, '&')) {
    const size_t equals = part.find('=');
    if (equals == part.npos) continue;
    auto key = Unescape(part.substr(0, equals));
    auto value = Unescape(part.substr(equals + 1));
    if (key.ok() && value.ok()) map[*key] = *std::move(value);
  }
  return map;
}

// What says nothing is left out: empty, '-' (no selector), 0 (no version), what the plain name
// says. The scripts know (RECORD in prelude.lua).
void AppendRecord(const DispatchSpec& spec, const Fields& extra, std::vector<std::string>& out) {
  const std::string selector = SelectorText(spec.selector).value_or("-");
  const std::pair<std::string_view, std::string> fields[] = {
      {"project", spec.project},
      {"agent", spec.agent_name},
      {"room", spec.room},
      {"room_sid", spec.room_sid},
      {"policy", std::string(PolicyText(spec.restart_policy))},
      {"priority", std::to_string(spec.priority)},
      {"type", std::to_string(static_cast<int>(spec.type))},
      {"identity", spec.participant_identity},
      {"selector", Other(selector, "-")},
      {"relaxed", Other(RelaxedSelectorText(selector), "-")},
      {"key", spec.idempotency_key},
      {"present", spec.while_present ? "1" : ""},
      {"unique", spec.unique_in_room ? "1" : ""},
      {"agent_id", spec.agent_id},
      {"agent_version", spec.agent_version == 0 ? "" : std::to_string(spec.agent_version)},
      {"session", spec.session_id},
      {"trace", spec.traceparent},
      {"payload", Payload(spec)},
      {"qagent", Other(keys::AgentPart(spec.agent_name, spec.configured()), spec.agent_name)},
      {"qproject", Other(Escape(spec.project), spec.project)},
      {"qroom", Other(Escape(spec.room), spec.room)},
  };
  const size_t count_at = out.size();
  size_t count = extra.size();
  out.emplace_back();
  for (const auto& [name, value] : fields) {
    if (value.empty()) continue;
    out.emplace_back(name);
    out.push_back(value);
    ++count;
  }
  out[count_at] = std::to_string(count);
  for (const auto& [name, value] : extra) {
    out.push_back(name);
    out.push_back(value);
  }
}

Dispatch ToDispatch(const Fields& d, std::string_view id, std::string_view payload,
                    std::string_view pool) {
  Dispatch dispatch;
  FillSpec(d, pool, dispatch);
  const size_t line = payload.find('\n');
  if (line != payload.npos) {
    dispatch.attributes = ToMap(payload.substr(0, line));
    dispatch.metadata = payload.substr(line + 1);
  }
  dispatch.id = id;
  dispatch.ended = Get(d, "state") == "ENDED";
  dispatch.create_time = GetTime(d, "create", absl::InfinitePast());
  dispatch.end_time = GetTime(d, "end", absl::InfinitePast());
  return dispatch;
}

Job ToJob(const Fields& j, std::string_view id, std::string_view pool) {
  Job job;
  job.id = id;
  job.dispatch_id = Get(j, "dispatch");
  job.project = Get(j, "project");
  job.agent_name = Get(j, "agent");
  job.room = Get(j, "room");
  job.state = StateFromText(Get(j, "state"));
  job.reason = ReasonFromText(Get(j, "reason"));
  job.previous_reason = ReasonFromText(Get(j, "previous"));
  job.attempt = static_cast<int>(GetInt(j, "attempt"));
  job.fencing_token = ToToken(Get(j, "token"));
  job.worker_id = Get(j, "worker");
  job.type = static_cast<Type>(GetInt(j, "type"));
  job.participant_identity = Get(j, "identity");
  job.pool = pool;
  job.agent_id = Get(j, "agent_id");
  job.agent_version = static_cast<uint64_t>(GetInt(j, "agent_version"));
  job.session_id = Get(j, "session");
  job.error = Get(j, "error");
  job.stop_requested = Get(j, "stop") == "1";
  job.next_worker_id = Get(j, "next_worker");
  job.next_token = ToToken(Get(j, "next_token"));
  job.handed_over = Get(j, "handed") == "1";
  job.paused_at = GetTime(j, "paused", absl::InfinitePast());
  job.create_time = GetTime(j, "create", absl::InfinitePast());
  job.deadline = GetTime(j, "deadline", absl::InfiniteFuture());
  job.start_time = GetTime(j, "start", absl::InfinitePast());
  job.end_time = GetTime(j, "end", absl::InfinitePast());
  job.update_time = GetTime(j, "update", absl::InfinitePast());
  return job;
}

Worker ToWorker(const Fields& w, std::string_view id, std::string_view pool) {
  Worker worker;
  worker.id = id;
  worker.project = Get(w, "project");
  worker.pool = pool;
  for (const std::string& agent : Split(Get(w, "agents"), ' ')) {
    if (agent == "*") {
      worker.serves_configured = true;
    } else if (!agent.empty()) {
      worker.agent_names.push_back(agent == "%" ? "" : Unescape(agent).value_or(agent));
    }
  }
  worker.slots = static_cast<int>(GetInt(w, "slots"));
  const std::string load(Get(w, "load"));
  worker.load = std::strtod(load.c_str(), nullptr);
  worker.load_threshold = std::strtod(std::string(Get(w, "threshold")).c_str(), nullptr);
  worker.draining = Get(w, "draining") == "1";
  worker.accepting = Get(w, "accepting") != "0";
  worker.version = Get(w, "version");
  worker.region = Get(w, "region");
  worker.labels = ToMap(Get(w, "labels"));
  worker.deployment = Get(w, "deployment");
  worker.hostname = Get(w, "hostname");
  worker.state = worker.draining ? "DRAINING" : Get(w, "quiet") == "1" ? "QUIET" : "LIVE";
  worker.register_time = GetTime(w, "register", absl::InfinitePast());
  return worker;
}

std::string WorkerFacts(const Registration& r) {
  std::string facts = "&";
  if (!r.deployment.empty()) facts += "d=" + Escape(r.deployment) + "&";
  if (!r.region.empty()) facts += "r=" + Escape(r.region) + "&";
  for (const auto& [key, value] : r.labels) facts += "l." + Escape(key) + "=" + Escape(value) + "&";
  return facts;
}

}  // namespace parley::job
