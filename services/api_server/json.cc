#include "api_server/json.h"

#include <google/protobuf/duration.pb.h>
#include <google/protobuf/timestamp.pb.h>
#include <google/protobuf/util/time_util.h>

#include "base/status.h"
#include "base/strings.h"

namespace parley::api_server {
namespace {

constexpr int kMaxNesting =
    32;  // writing JSON recurses; a body of brackets must not end the process

using google::protobuf::Timestamp;
using google::protobuf::util::TimeUtil;

Json TimeJson(const Timestamp& time, bool present) {
  return present ? Json(TimeUtil::ToString(time)) : Json(nullptr);
}

// "JOB_STATE_RUNNING" → "RUNNING"; unspecified → null.
Json EnumJson(const std::string& name, std::string_view prefix) {
  const std::string text = name.substr(prefix.size());
  return text == "UNSPECIFIED" ? Json(nullptr) : Json(text);
}

Json StateJson(dispatch::v1::JobState state) {
  return EnumJson(dispatch::v1::JobState_Name(state), "JOB_STATE_");
}
Json ReasonJson(dispatch::v1::JobReason reason) {
  return EnumJson(dispatch::v1::JobReason_Name(reason), "JOB_REASON_");
}

template <typename Map>
Json MapJson(const Map& map) {
  Json out = Json::object();
  for (const auto& [key, value] : map) out[key] = value;
  return out;
}

template <typename Messages>
Json ArrayJson(const Messages& messages) {
  Json out = Json::array();
  for (const auto& message : messages) out.push_back(ToJson(message));
  return out;
}

std::string_view CodeName(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
      return "invalid_argument";
    case absl::StatusCode::kUnauthenticated:
      return "unauthenticated";
    case absl::StatusCode::kPermissionDenied:
      return "permission_denied";
    case absl::StatusCode::kNotFound:
      return "not_found";
    case absl::StatusCode::kAlreadyExists:
      return "already_exists";
    case absl::StatusCode::kAborted:
      return "aborted";
    case absl::StatusCode::kFailedPrecondition:
      return "failed_precondition";
    case absl::StatusCode::kResourceExhausted:
      return "resource_exhausted";
    case absl::StatusCode::kCancelled:
      return "canceled";
    case absl::StatusCode::kDeadlineExceeded:
      return "deadline_exceeded";
    case absl::StatusCode::kUnimplemented:
      return "unimplemented";
    case absl::StatusCode::kUnavailable:
      return "unavailable";
    case absl::StatusCode::kOutOfRange:
      return "out_of_range";
    case absl::StatusCode::kDataLoss:
      return "dataloss";
    case absl::StatusCode::kInternal:
      return "internal";
    default:
      return "unknown";
  }
}

}  // namespace

int HttpStatusOf(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kOk:
      return 200;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return 400;
    case absl::StatusCode::kUnauthenticated:
      return 401;
    case absl::StatusCode::kPermissionDenied:
      return 403;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kDeadlineExceeded:
      return 408;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kAborted:
      return 409;
    case absl::StatusCode::kFailedPrecondition:
      return 412;
    case absl::StatusCode::kResourceExhausted:
      return 429;
    case absl::StatusCode::kUnimplemented:
      return 501;
    case absl::StatusCode::kUnavailable:
      return 503;
    default:
      return 500;
  }
}

http::Response JsonResponse(const Json& body, int status) {
  http::Response response;
  response.status = status;
  response.body = body.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  return response;
}

http::Response ErrorResponse(const absl::Status& status) {
  const ErrorReason reason = ReasonOf(status);
  Json meta = Json::object();
  for (const auto& [key, value] : reason.metadata) meta[key] = value;
  if (!reason.reason.empty()) meta["reason"] = reason.reason;
  http::Response response = JsonResponse(
      {{"code", CodeName(status.code())}, {"msg", Message(status)}, {"meta", std::move(meta)}},
      HttpStatusOf(status.code()));
  const auto retry = reason.metadata.find("retry_after_ms");
  if (retry != reason.metadata.end()) {
    const long ms = std::strtol(retry->second.c_str(), nullptr, 10);
    response.headers.emplace_back("Retry-After", std::to_string(std::max(1L, (ms + 999) / 1000)));
  }
  return response;
}

std::string ToCamel(std::string_view snake) {
  std::string camel;
  bool upper = false;
  for (const char c : snake) {
    if (c == '_') {
      upper = true;
    } else {
      camel += upper ? static_cast<char>(std::toupper(static_cast<unsigned char>(c))) : c;
      upper = false;
    }
  }
  return camel;
}

absl::StatusOr<Body> Body::Parse(std::string_view text, std::string what) {
  if (text.empty()) return Body(Json::object(), std::move(what));
  if (!JsonNestsWithin(text, kMaxNesting)) {
    return InvalidArgument("{} is nested more than {} levels deep", what, kMaxNesting);
  }
  try {
    Json json = Json::parse(text);
    if (!json.is_object()) return InvalidArgument("{} must be a JSON object", what);
    return Body(std::move(json), std::move(what));
  } catch (const Json::parse_error& error) {
    const auto at = text.substr(0, std::min(error.byte, text.size()));
    return InvalidArgument("{} is not JSON: line {}: {}", what,
                           1 + std::count(at.begin(), at.end(), '\n'),
                           "unexpected end or character");
  } catch (const Json::out_of_range&) {
    return InvalidArgument("{} holds a number out of range", what);
  }
}

Body::Body(Json object, std::string what) : object_(std::move(object)), what_(std::move(what)) {}

const Json* Body::Find(std::string_view name) {
  for (const std::string& spelling : {std::string(name), ToCamel(name)}) {
    const auto it = object_.find(spelling);
    if (it == object_.end()) continue;
    seen_.insert(spelling);
    if (!it->is_null()) return &*it;
  }
  return nullptr;
}

bool Body::Has(std::string_view name) const {
  return object_.contains(std::string(name)) || object_.contains(ToCamel(name));
}

void Body::Fail(std::string_view name, std::string_view what) {
  if (status_.ok())
    status_ = WithReason(InvalidArgument("{}: {} {}", what_, name, what), "FIELD_INVALID",
                         {{"field", std::string(name)}});
}

std::string Body::Text(std::string_view name, std::string fallback) {
  const Json* value = Find(name);
  if (value == nullptr) return fallback;
  if (value->is_string()) return value->get<std::string>();
  Fail(name, "must be text");
  return fallback;
}

int64_t Body::Integer(std::string_view name, int64_t fallback, int64_t min, int64_t max) {
  const Json* value = Find(name);
  if (value == nullptr) return fallback;
  if (value->is_number_integer()) {
    const auto number = value->get<int64_t>();
    if (number >= min && number <= max) return number;
  }
  Fail(name, fmt::format("must be a whole number from {} to {}", min, max));
  return fallback;
}

double Body::Number(std::string_view name, double fallback, double min, double max) {
  const Json* value = Find(name);
  if (value == nullptr) return fallback;
  if (value->is_number()) {
    const auto number = value->get<double>();
    if (number >= min && number <= max) return number;
  }
  Fail(name, fmt::format("must be a number from {} to {}", min, max));
  return fallback;
}

bool Body::Flag(std::string_view name, bool fallback) {
  const Json* value = Find(name);
  if (value == nullptr) return fallback;
  if (value->is_boolean()) return value->get<bool>();
  Fail(name, "must be true or false");
  return fallback;
}

std::map<std::string, std::string> Body::TextMap(std::string_view name) {
  std::map<std::string, std::string> out;
  const Json* value = Find(name);
  if (value == nullptr) return out;
  if (!value->is_object()) {
    Fail(name, "must be an object of texts");
    return out;
  }
  for (const auto& [key, item] : value->items()) {
    if (!item.is_string()) {
      Fail(name, "must be an object of texts");
      return {};
    }
    out[key] = item.get<std::string>();
  }
  return out;
}

Json Body::Any(std::string_view name) {
  const Json* value = Find(name);
  return value == nullptr ? Json(nullptr) : *value;
}

absl::Status Body::Finish(bool ignore_unknown) {
  if (!ignore_unknown) {
    for (const auto& [key, value] : object_.items()) {
      if (!seen_.contains(key)) Fail(key, "is not a field of this request");
    }
  }
  return status_;
}

Json ToJson(const registry::v1::Agent& agent, bool with_definition) {
  Json out = {{"id", agent.id()},
              {"name", agent.name()},
              {"agentName", agent.agent_name()},
              {"pool", agent.pool()},
              {"version", agent.version()},
              {"labels", MapJson(agent.labels())},
              {"contentHash", agent.content_hash()},
              {"createTime", TimeJson(agent.create_time(), agent.has_create_time())}};
  if (with_definition) out["definition"] = Json::parse(agent.definition_json(), nullptr, false);
  return out;
}

Json ToJson(const registry::v1::Deployment& deployment) {
  Json versions = Json::array();
  for (const auto& share : deployment.versions()) {
    versions.push_back({{"version", share.version()}, {"percent", share.percent()}});
  }
  return {{"agentId", deployment.agent_id()},
          {"versions", std::move(versions)},
          {"sticky", deployment.sticky()},
          {"revision", deployment.revision()},
          {"time", TimeJson(deployment.time(), deployment.has_time())}};
}

Json ToJson(const dispatch::v1::Job& job) {
  return {{"id", job.id()},
          {"dispatchId", job.dispatch_id()},
          {"sessionId", job.session_id()},
          {"agentName", job.agent_name()},
          {"room", job.room()},
          {"state", StateJson(job.state())},
          {"reason", ReasonJson(job.reason())},
          {"previousReason", ReasonJson(job.previous_reason())},
          {"attempt", job.attempt()},
          {"fencingToken", job.fencing_token()},
          {"workerId", job.worker_id()},
          {"nextWorkerId", job.next_worker_id()},
          {"pool", job.pool()},
          {"agentId", job.agent_id()},
          {"agentVersion", job.agent_version()},
          {"error", job.error()},
          {"createTime", TimeJson(job.create_time(), job.has_create_time())},
          {"deadline", TimeJson(job.deadline(), job.has_deadline())},
          {"startTime", TimeJson(job.start_time(), job.has_start_time())},
          {"endTime", TimeJson(job.end_time(), job.has_end_time())}};
}

Json ToJson(const dispatch::v1::Event& event) {
  return {{"position", event.position()},
          {"time", TimeJson(event.time(), event.has_time())},
          {"type", event.type()},
          {"project", event.project()},
          {"dispatchId", event.dispatch_id()},
          {"jobId", event.job_id()},
          {"workerId", event.worker_id()},
          {"room", event.room()},
          {"agentName", event.agent_name()},
          {"state", StateJson(event.state())},
          {"reason", ReasonJson(event.reason())},
          {"fencingToken", event.fencing_token()},
          {"attempt", event.attempt()},
          {"pool", event.pool()}};
}

Json ToJson(const dispatch::v1::Dispatch& dispatch) {
  return {
      {"id", dispatch.id()},
      {"agentName", dispatch.agent_name()},
      {"room", dispatch.room()},
      {"metadata", dispatch.metadata()},
      {"attributes", MapJson(dispatch.attributes())},
      {"restartPolicy",
       EnumJson(dispatch::v1::RestartPolicy_Name(dispatch.restart_policy()), "RESTART_POLICY_")},
      {"priority", dispatch.priority()},
      {"state", EnumJson(dispatch::v1::DispatchState_Name(dispatch.state()), "DISPATCH_STATE_")},
      {"pool", dispatch.pool()},
      {"agentId", dispatch.agent_id()},
      {"agentVersion", dispatch.agent_version()},
      {"jobType", EnumJson(dispatch::v1::JobType_Name(dispatch.job_type()), "JOB_TYPE_")},
      {"whilePresent", dispatch.while_present()},
      {"createTime", TimeJson(dispatch.create_time(), dispatch.has_create_time())},
      {"endTime", TimeJson(dispatch.end_time(), dispatch.has_end_time())},
      {"jobs", ArrayJson(dispatch.jobs())}};
}

Json ToJson(const dispatch::v1::JobLogLine& line) {
  return {{"seq", std::to_string(line.seq())},
          {"time", TimeUtil::ToString(TimeUtil::MicrosecondsToTimestamp(line.seq()))},
          {"attempt", line.attempt()},
          {"level", line.level()},
          {"source", line.source()},
          {"message", line.message()},
          {"fields", MapJson(line.fields())}};
}

Json ToJson(const dispatch::v1::Worker& worker) {
  return {{"id", worker.id()},
          {"pool", worker.pool()},
          {"agentNames", worker.agent_names()},
          {"servesConfigured", worker.serves_configured()},
          {"slots", worker.slots()},
          {"slotsUsed", worker.slots_used()},
          {"load", worker.load()},
          {"loadThreshold", worker.load_threshold()},
          {"state", worker.state()},
          {"draining", worker.draining()},
          {"accepting", worker.accepting()},
          {"version", worker.version()},
          {"region", worker.region()},
          {"labels", MapJson(worker.labels())},
          {"deployment", worker.deployment()},
          {"heartbeatAgeMs", TimeUtil::DurationToMilliseconds(worker.heartbeat_age())},
          {"jobs", worker.job_ids()},
          {"hostname", worker.hostname()},
          {"registerTime", TimeJson(worker.register_time(), worker.has_register_time())}};
}

Json ToJson(const dispatch::v1::Session& session) {
  Json transcript = Json::array();
  for (const auto& item : session.transcript()) {
    transcript.push_back({{"role", item.role()},
                          {"text", item.text()},
                          {"time", TimeJson(item.time(), item.has_time())},
                          {"interrupted", item.interrupted()}});
  }
  const auto& usage = session.usage();
  return {{"id", session.id()},
          {"room", session.room()},
          {"dispatchId", session.dispatch_id()},
          {"agentName", session.agent_name()},
          {"agentId", session.agent_id()},
          {"agentVersion", session.agent_version()},
          {"state", session.state()},
          {"jobs", ArrayJson(session.jobs())},
          {"createTime", TimeJson(session.create_time(), session.has_create_time())},
          {"startTime", TimeJson(session.start_time(), session.has_start_time())},
          {"endTime", TimeJson(session.end_time(), session.has_end_time())},
          {"usage",
           {{"turns", usage.turns()},
            {"sttAudioSeconds", usage.stt_audio_seconds()},
            {"ttsCharacters", usage.tts_characters()},
            {"llmInputTokens", usage.llm_input_tokens()},
            {"llmOutputTokens", usage.llm_output_tokens()},
            {"toolCalls", usage.tool_calls()},
            {"interruptions", usage.interruptions()}}},
          {"transcript", std::move(transcript)}};
}

Json ToJson(const room::v1::Room& room) {
  return {{"sid", room.sid()},
          {"name", room.name()},
          {"metadata", room.metadata()},
          {"numParticipants", room.num_participants()},
          {"numAgents", room.num_agents()},
          {"maxParticipants", room.max_participants()},
          {"emptyTimeoutMs", TimeUtil::DurationToMilliseconds(room.empty_timeout())},
          {"departureTimeoutMs", TimeUtil::DurationToMilliseconds(room.departure_timeout())},
          {"mediaUrl", room.media_url()},
          {"createTime", TimeJson(room.create_time(), room.has_create_time())}};
}

}  // namespace parley::api_server
