// /api/dispatches, /api/jobs, /api/workers, /api/rooms: what runs.
#include <charconv>

#include "api_server/routes.h"
#include "base/status.h"
#include "base/strings.h"
#include "rpc/status.h"

namespace parley::api_server {
namespace {

// For whom, which workers, and when.
absl::Status ReadPlace(Body& body, dispatch::v1::CreateDispatchRequest& call) {
  const std::string type = body.Text("job_type", "ROOM");
  dispatch::v1::JobType value = dispatch::v1::JOB_TYPE_UNSPECIFIED;
  if (!dispatch::v1::JobType_Parse("JOB_TYPE_" + type, &value) || value == 0) {
    return InvalidArgument("the body: job_type must be ROOM, PUBLISHER or PARTICIPANT");
  }
  call.set_job_type(value);
  call.set_participant_identity(body.Text("participant_identity"));
  call.set_while_present(body.Flag("while_present", false));
  call.set_unique_in_room(body.Flag("unique_in_room", false));
  dispatch::v1::Selector& selector = *call.mutable_selector();
  selector.set_deployment(body.Text("deployment"));
  selector.set_preferred_region(body.Text("preferred_region"));
  for (const auto& [key, label] : body.TextMap("labels")) {
    (*selector.mutable_labels())[key] = label;
  }
  for (const auto& [key, label] : body.TextMap("preferred_labels")) {
    (*selector.mutable_preferred_labels())[key] = label;
  }
  const std::string not_before = body.Text("not_before");
  if (not_before.empty()) return absl::OkStatus();
  absl::Time time;
  std::string error;
  if (!absl::ParseTime(absl::RFC3339_full, not_before, &time, &error)) {
    return InvalidArgument("the body: not_before must be a time such as 2030-01-31T12:00:00Z");
  }
  call.mutable_not_before()->set_seconds(absl::ToUnixSeconds(time));
  return absl::OkStatus();
}

absl::StatusOr<dispatch::v1::CreateDispatchRequest> ReadCreate(const http::Request& request) {
  PARLEY_ASSIGN_OR_RETURN(Body body, Body::Parse(request.body));
  dispatch::v1::CreateDispatchRequest call;
  call.set_agent_name(body.Text("agent_name"));
  call.set_room(body.Text("room"));
  call.set_metadata(body.Text("metadata"));
  for (const auto& [key, value] : body.TextMap("attributes"))
    (*call.mutable_attributes())[key] = value;
  const std::string policy = body.Text("restart_policy", "ON_FAILURE");
  if (policy != "ON_FAILURE" && policy != "NEVER") {
    return InvalidArgument("the body: restart_policy must be ON_FAILURE or NEVER");
  }
  call.set_restart_policy(policy == "NEVER" ? dispatch::v1::RESTART_POLICY_NEVER
                                            : dispatch::v1::RESTART_POLICY_ON_FAILURE);
  if (body.Has("priority"))
    call.set_priority(static_cast<int32_t>(body.Integer("priority", 5, 0, 9)));
  call.set_idempotency_key(body.Text("idempotency_key"));
  PARLEY_RETURN_IF_ERROR(ReadPlace(body, call));
  const std::string wait = body.Text("queue_deadline");
  if (!wait.empty()) {
    const auto duration = ParseDuration(wait);
    if (!duration)
      return InvalidArgument("the body: queue_deadline must be a duration such as 30s");
    call.mutable_queue_deadline()->set_seconds(absl::ToInt64Seconds(*duration));
    call.mutable_queue_deadline()->set_nanos(static_cast<int32_t>(
        absl::ToInt64Nanoseconds(*duration - absl::Seconds(absl::ToInt64Seconds(*duration)))));
  }
  PARLEY_RETURN_IF_ERROR(body.Finish());
  return call;
}

absl::StatusOr<http::Response> Create(Backend& backend, const http::Request& request) {
  PARLEY_ASSIGN_OR_RETURN(const dispatch::v1::CreateDispatchRequest call, ReadCreate(request));
  grpc::ClientContext context;
  Prepare(context, BearerOf(request));
  dispatch::v1::CreateDispatchResponse response;
  PARLEY_RETURN_IF_ERROR(
      rpc::FromGrpcStatus(backend.dispatch->CreateDispatch(&context, call, &response)));
  return JsonResponse(ToJson(response.dispatch()), 201);
}

absl::StatusOr<http::Response> List(Backend& backend, const http::Request& request) {
  dispatch::v1::ListDispatchesRequest call;
  PARLEY_ASSIGN_OR_RETURN(const int32_t page_size, PageSize(request));
  call.set_page_size(page_size);
  for (const auto& [name, value] : request.query) {
    if (name == "room") call.set_room(value);
    if (name == "agent_name") call.set_agent_name(value);
    if (name == "page_token") call.set_page_token(value);
    if (name == "ended") call.set_include_ended(value == "true");
  }
  grpc::ClientContext context;
  Prepare(context, BearerOf(request));
  dispatch::v1::ListDispatchesResponse response;
  PARLEY_RETURN_IF_ERROR(
      rpc::FromGrpcStatus(backend.dispatch->ListDispatches(&context, call, &response)));
  Json dispatches = Json::array();
  for (const auto& dispatch : response.dispatches()) dispatches.push_back(ToJson(dispatch));
  return JsonResponse(
      {{"dispatches", std::move(dispatches)}, {"nextPageToken", response.next_page_token()}});
}

absl::StatusOr<http::Response> Get(Backend& backend, const http::Request& request) {
  dispatch::v1::GetDispatchRequest call;
  call.set_dispatch_id(request.params.at("id"));
  grpc::ClientContext context;
  Prepare(context, BearerOf(request));
  dispatch::v1::GetDispatchResponse response;
  PARLEY_RETURN_IF_ERROR(
      rpc::FromGrpcStatus(backend.dispatch->GetDispatch(&context, call, &response)));
  return JsonResponse(ToJson(response.dispatch()));
}

absl::StatusOr<http::Response> Delete(Backend& backend, const http::Request& request) {
  dispatch::v1::DeleteDispatchRequest call;
  call.set_dispatch_id(request.params.at("id"));
  grpc::ClientContext context;
  Prepare(context, BearerOf(request));
  dispatch::v1::DeleteDispatchResponse response;
  PARLEY_RETURN_IF_ERROR(
      rpc::FromGrpcStatus(backend.dispatch->DeleteDispatch(&context, call, &response)));
  return JsonResponse(ToJson(response.dispatch()));
}

absl::StatusOr<http::Response> ListJobs(Backend& backend, const http::Request& request) {
  dispatch::v1::ListJobsRequest call;
  PARLEY_ASSIGN_OR_RETURN(const int32_t page_size, PageSize(request));
  call.set_page_size(page_size);
  for (const auto& [name, value] : request.query) {
    if (name == "room") call.set_room(value);
    if (name == "worker") call.set_worker_id(value);
    if (name == "page_token") call.set_page_token(value);
    if (name != "state") continue;
    dispatch::v1::JobState state;
    if (!dispatch::v1::JobState_Parse("JOB_STATE_" + value, &state))
      return InvalidArgument("there is no job state {}", value);
    call.set_state(state);
  }
  grpc::ClientContext context;
  Prepare(context, BearerOf(request));
  dispatch::v1::ListJobsResponse response;
  PARLEY_RETURN_IF_ERROR(
      rpc::FromGrpcStatus(backend.dispatch->ListJobs(&context, call, &response)));
  Json jobs = Json::array();
  for (const auto& job : response.jobs()) jobs.push_back(ToJson(job));
  return JsonResponse({{"jobs", std::move(jobs)}, {"nextPageToken", response.next_page_token()}});
}

absl::StatusOr<http::Response> GetJob(Backend& backend, const http::Request& request) {
  dispatch::v1::GetJobRequest call;
  call.set_job_id(request.params.at("id"));
  grpc::ClientContext context;
  Prepare(context, BearerOf(request));
  dispatch::v1::GetJobResponse response;
  PARLEY_RETURN_IF_ERROR(rpc::FromGrpcStatus(backend.dispatch->GetJob(&context, call, &response)));
  return JsonResponse(ToJson(response.job()));
}

constexpr size_t kMaxLogBytes = 1 << 20;  // of one answer; the next one goes on from there

absl::StatusOr<http::Response> JobLogs(Backend& backend, const http::Request& request) {
  dispatch::v1::ReadJobLogsRequest call;
  call.set_job_id(request.params.at("id"));
  if (const auto it = request.query.find("after"); it != request.query.end()) {
    int64_t after = 0;
    const char* const end = it->second.data() + it->second.size();
    if (std::from_chars(it->second.data(), end, after).ptr != end || after < 0) {
      return InvalidArgument("after must be the `next` of an earlier answer");
    }
    call.set_after(after);
  }
  grpc::ClientContext context;
  Prepare(context, BearerOf(request));
  Json lines = Json::array();
  int64_t next = call.after();
  size_t bytes = 0;
  const auto reader = backend.dispatch->ReadJobLogs(&context, call);
  dispatch::v1::ReadJobLogsResponse response;
  while (bytes < kMaxLogBytes && reader->Read(&response)) {
    for (const auto& line : response.lines()) {
      lines.push_back(ToJson(line));
      next = line.seq();
    }
    bytes += response.ByteSizeLong();
  }
  if (bytes >= kMaxLogBytes) {
    context.TryCancel();
    reader->Finish();
  } else {
    PARLEY_RETURN_IF_ERROR(rpc::FromGrpcStatus(reader->Finish()));
  }
  return JsonResponse({{"lines", std::move(lines)}, {"next", std::to_string(next)}});
}

absl::StatusOr<http::Response> TerminateJob(Backend& backend, const http::Request& request) {
  dispatch::v1::TerminateJobRequest call;
  call.set_job_id(request.params.at("id"));
  grpc::ClientContext context;
  Prepare(context, BearerOf(request));
  dispatch::v1::TerminateJobResponse response;
  PARLEY_RETURN_IF_ERROR(
      rpc::FromGrpcStatus(backend.dispatch->TerminateJob(&context, call, &response)));
  return JsonResponse(ToJson(response.job()));
}

absl::StatusOr<http::Response> MigrateJob(Backend& backend, const http::Request& request) {
  PARLEY_ASSIGN_OR_RETURN(Body body, Body::Parse(request.body));
  dispatch::v1::MigrateJobRequest call;
  call.set_job_id(request.params.at("id"));
  call.set_to_worker_id(body.Text("worker_id"));
  PARLEY_RETURN_IF_ERROR(body.Finish());
  grpc::ClientContext context;
  Prepare(context, BearerOf(request));
  dispatch::v1::MigrateJobResponse response;
  PARLEY_RETURN_IF_ERROR(
      rpc::FromGrpcStatus(backend.dispatch->MigrateJob(&context, call, &response)));
  return JsonResponse(ToJson(response.job()), 202);
}

absl::StatusOr<http::Response> ListWorkers(Backend& backend, const http::Request& request) {
  dispatch::v1::ListWorkersRequest call;
  if (const auto it = request.query.find("pool"); it != request.query.end())
    call.set_pool(it->second);
  grpc::ClientContext context;
  Prepare(context, BearerOf(request));
  dispatch::v1::ListWorkersResponse response;
  PARLEY_RETURN_IF_ERROR(
      rpc::FromGrpcStatus(backend.dispatch->ListWorkers(&context, call, &response)));
  Json workers = Json::array();
  for (const auto& worker : response.workers()) workers.push_back(ToJson(worker));
  return JsonResponse({{"workers", std::move(workers)}});
}

absl::StatusOr<http::Response> ListRooms(Backend& backend, const http::Request& request) {
  grpc::ClientContext context;
  Prepare(context, BearerOf(request));
  room::v1::ListRoomsResponse response;
  PARLEY_RETURN_IF_ERROR(rpc::FromGrpcStatus(
      backend.rooms->ListRooms(&context, room::v1::ListRoomsRequest(), &response)));
  Json rooms = Json::array();
  for (const auto& room : response.rooms()) rooms.push_back(ToJson(room));
  return JsonResponse({{"rooms", std::move(rooms)}});
}

const Json& MigrateSchema() {
  static const Json schema = Json::parse(R"json({
    "type": "object", "additionalProperties": false,
    "properties": {"workerId": {"type": "string", "description": "AW_…; without it the least loaded that fits"}}})json");
  return schema;
}

const Json& CreateSchema() {
  static const Json schema = Json::parse(R"json({
    "type": "object", "required": ["room"], "additionalProperties": false,
    "properties": {
      "agentName": {"type": "string"}, "room": {"type": "string", "maxLength": 256},
      "metadata": {"type": "string"}, "attributes": {"type": "object", "additionalProperties": {"type": "string"}},
      "restartPolicy": {"enum": ["ON_FAILURE", "NEVER"]}, "priority": {"type": "integer", "minimum": 0, "maximum": 9},
      "queueDeadline": {"type": "string", "example": "60s"}, "idempotencyKey": {"type": "string", "maxLength": 256},
      "jobType": {"enum": ["ROOM", "PUBLISHER", "PARTICIPANT"]}, "participantIdentity": {"type": "string"},
      "whilePresent": {"type": "boolean"}, "uniqueInRoom": {"type": "boolean"},
      "deployment": {"type": "string"}, "preferredRegion": {"type": "string"},
      "labels": {"type": "object", "additionalProperties": {"type": "string"}},
      "preferredLabels": {"type": "object", "additionalProperties": {"type": "string"}},
      "notBefore": {"type": "string", "format": "date-time"}}})json");
  return schema;
}

}  // namespace

void AddDispatchRoutes(Backend& backend, std::vector<Route>& routes) {
  const auto add = [&](const char* method, const char* pattern, const char* summary,
                       const char* grant, auto handler, Json request = nullptr, int success = 200) {
    routes.push_back(
        {method, pattern, summary, grant, std::move(request), success,
         [&backend, handler](const http::Request& r) { return Answer(handler(backend, r)); }});
  };
  const char* kRoom = "video.roomAdmin for the room, or video.roomCreate";
  add("POST", "/api/dispatches", "Ask for an agent in a room", kRoom, Create, CreateSchema(), 201);
  add("GET", "/api/dispatches", "Dispatches, newest first; ?room=, ?agent_name=, ?ended=true",
      "video.roomList", List);
  add("GET", "/api/dispatches/{id}", "One dispatch with its jobs", kRoom, Get);
  add("DELETE", "/api/dispatches/{id}",
      "End a dispatch: its waiting job is cancelled, its running one stopped", kRoom, Delete);
  add("GET", "/api/jobs", "Jobs, newest first; ?room=, ?worker=, ?state=", "video.roomList",
      ListJobs);
  add("GET", "/api/jobs/{id}", "One job", kRoom, GetJob);
  add("DELETE", "/api/jobs/{id}", "Stop a job", kRoom, TerminateJob);
  add("GET", "/api/jobs/{id}/logs",
      "Newest lines of a job while its agent server lives; ?after= the last answer's next",
      "agent.admin", JobLogs);
  add("POST", "/api/jobs/{id}/migrate",
      "Hand a running job over to another agent server; done when nextWorkerId is empty again",
      kRoom, MigrateJob, MigrateSchema(), 202);
  add("GET", "/api/workers",
      "Agent servers with slots, load and heartbeat age; ?pool=", "video.roomList", ListWorkers);
  add("GET", "/api/rooms", "Rooms of the project, on all replicas", "video.roomList", ListRooms);
}

}  // namespace parley::api_server
