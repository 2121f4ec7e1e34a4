// /api/sessions: room, dispatch and token in one call; running and past sessions.
#include "api_server/ask_rooms.h"
#include "api_server/event_pump.h"
#include "api_server/routes.h"
#include "api_server/session_events.h"
#include "base/ids.h"
#include "base/status.h"
#include "base/strings.h"
#include "rpc/status.h"

namespace parley::api_server {
namespace {

struct NewSession {
  std::string agent;
  std::string room;
  std::string metadata;
  std::map<std::string, std::string> attributes;
  std::string idempotency_key;
  bool never_restart = false;
  auth::Claims person;
};

absl::StatusOr<NewSession> ReadCreate(const http::Request& request) {
  PARLEY_ASSIGN_OR_RETURN(Body body, Body::Parse(request.body));
  NewSession session;
  session.agent = body.Text("agent");
  session.room = body.Text("room");
  session.metadata = body.Text("metadata");
  session.attributes = body.TextMap("attributes");
  session.idempotency_key = body.Text("idempotency_key");
  const std::string policy = body.Text("restart_policy", "ON_FAILURE");
  session.never_restart = policy == "NEVER";
  const Json participant = body.Any("participant");
  PARLEY_RETURN_IF_ERROR(body.Finish());
  if (session.agent.empty())
    return InvalidArgument("the body: agent is missing: name the agent's id");
  if (policy != "ON_FAILURE" && policy != "NEVER") {
    return InvalidArgument("the body: restart_policy must be ON_FAILURE or NEVER");
  }
  if (participant.is_string()) {
    session.person.identity = participant.get<std::string>();
  } else if (participant.is_object()) {
    Body person(participant, "participant");
    session.person.identity = person.Text("identity");
    session.person.name = person.Text("name");
    session.person.metadata = person.Text("metadata");
    session.person.attributes = person.TextMap("attributes");
    PARLEY_RETURN_IF_ERROR(person.Finish());
  } else if (!participant.is_null()) {
    return InvalidArgument("the body: participant must be an identity or an object");
  }
  if (session.person.identity.empty()) session.person.identity = "caller-" + RandomBase62(8);
  return session;
}

// The dispatch name of a registered id; other names are programs' and stay as they are.
absl::StatusOr<std::string> DispatchName(Backend& backend, const std::string& project,
                                         const std::string& agent) {
  registry::v1::GetAgentRequest call;
  call.set_id(agent);
  grpc::ClientContext context;
  Prepare(context, backend.context.ServiceToken(project));
  registry::v1::GetAgentResponse response;
  const absl::Status status =
      rpc::FromGrpcStatus(backend.registry->GetAgent(&context, call, &response));
  if (status.ok()) return response.agent().agent_name();
  if (status.code() == absl::StatusCode::kNotFound ||
      status.code() == absl::StatusCode::kInvalidArgument)
    return agent;
  return Annotate(status, "agent registry");
}

// The session that the dispatch belongs to: another one than asked for when the same create came
// before.
absl::StatusOr<std::string> SessionOf(Backend& backend, const std::string& bearer,
                                      const std::string& dispatch_id) {
  dispatch::v1::GetDispatchRequest call;
  call.set_dispatch_id(dispatch_id);
  grpc::ClientContext context;
  Prepare(context, bearer);
  dispatch::v1::GetDispatchResponse response;
  PARLEY_RETURN_IF_ERROR(
      rpc::FromGrpcStatus(backend.dispatch->GetDispatch(&context, call, &response)));
  if (response.dispatch().jobs().empty()) return std::string();
  return response.dispatch().jobs(0).session_id();
}

absl::StatusOr<http::Response> Create(Backend& backend, const http::Request& request) {
  PARLEY_ASSIGN_OR_RETURN(const auth::Claims caller, Authenticate(backend, request));
  PARLEY_ASSIGN_OR_RETURN(NewSession session, ReadCreate(request));
  if (session.room.empty()) {
    // The same key means the same room, so that a repeated create finds the first one's dispatch.
    session.room =
        "session-" + (session.idempotency_key.empty() ? RandomBase62(12) : session.idempotency_key);
  }
  PARLEY_RETURN_IF_ERROR(auth::RequireRoomAdmin(caller, session.room));
  PARLEY_ASSIGN_OR_RETURN(const std::string agent_name,
                          DispatchName(backend, caller.project, session.agent));

  room::v1::CreateRoomRequest call;
  call.set_name(session.room);
  call.set_project(caller.project);
  call.set_session_id(NewId(kSessionPrefix));
  if (!session.idempotency_key.empty())
    call.set_idempotency_key("session/" + session.idempotency_key);
  room::v1::AgentDispatch& agent = *call.add_agents();
  agent.set_agent_name(agent_name);
  agent.set_metadata(session.metadata);
  agent.set_never_restart(session.never_restart);
  agent.mutable_attributes()->insert(session.attributes.begin(), session.attributes.end());
  const std::string bearer = backend.context.ServiceToken(caller.project);
  room::v1::CreateRoomResponse response;
  PARLEY_RETURN_IF_ERROR(AskRoomServers(
      backend, [&bearer](grpc::ClientContext& context) { Prepare(context, bearer); },
      &room::v1::RoomService::Stub::CreateRoom, call, response));

  std::string session_id = call.session_id();
  const std::string dispatch_id = response.dispatch_ids().empty() ? "" : response.dispatch_ids(0);
  if (!response.created() && !dispatch_id.empty()) {
    PARLEY_ASSIGN_OR_RETURN(const std::string known, SessionOf(backend, bearer, dispatch_id));
    if (!known.empty()) session_id = known;
  }
  auth::Claims person = std::move(session.person);
  person.video.room_join = true;
  person.video.room = session.room;
  person.session_id = session_id;
  PARLEY_ASSIGN_OR_RETURN(const std::string token, PersonToken(backend, caller, std::move(person)));
  return JsonResponse({{"sessionId", session_id},
                       {"roomName", session.room},
                       {"dispatchId", dispatch_id},
                       {"serverUrl", PublicUrl(backend)},
                       {"mediaUrl", response.room().media_url()},
                       {"participantToken", token}},
                      201);
}

absl::StatusOr<http::Response> List(Backend& backend, const http::Request& request) {
  dispatch::v1::ListSessionsRequest call;
  PARLEY_ASSIGN_OR_RETURN(const int32_t page_size, PageSize(request));
  call.set_page_size(page_size);
  for (const auto& [name, value] : request.query) {
    if (name == "page_token") call.set_page_token(value);
    if (name == "ended") call.set_include_ended(value == "true");
  }
  grpc::ClientContext context;
  Prepare(context, BearerOf(request));
  dispatch::v1::ListSessionsResponse response;
  PARLEY_RETURN_IF_ERROR(
      rpc::FromGrpcStatus(backend.dispatch->ListSessions(&context, call, &response)));
  Json sessions = Json::array();
  for (const auto& session : response.sessions()) sessions.push_back(ToJson(session));
  return JsonResponse(
      {{"sessions", std::move(sessions)}, {"nextPageToken", response.next_page_token()}});
}

absl::StatusOr<dispatch::v1::Session> Find(Backend& backend, const http::Request& request) {
  dispatch::v1::GetSessionRequest call;
  call.set_session_id(request.params.at("id"));
  grpc::ClientContext context;
  Prepare(context, BearerOf(request));
  dispatch::v1::GetSessionResponse response;
  PARLEY_RETURN_IF_ERROR(
      rpc::FromGrpcStatus(backend.dispatch->GetSession(&context, call, &response)));
  return std::move(*response.mutable_session());
}

absl::StatusOr<http::Response> Get(Backend& backend, const http::Request& request) {
  PARLEY_ASSIGN_OR_RETURN(const dispatch::v1::Session session, Find(backend, request));
  return JsonResponse(ToJson(session));
}

// What is said is for those who may see the room.
absl::StatusOr<http::Response> Events(Backend& backend, const http::Request& request) {
  PARLEY_ASSIGN_OR_RETURN(const auth::Claims caller, Authenticate(backend, request));
  PARLEY_ASSIGN_OR_RETURN(const dispatch::v1::Session session, Find(backend, request));
  PARLEY_RETURN_IF_ERROR(auth::RequireRoomAdmin(caller, session.room()));
  auto body = std::make_shared<http::BodyStream>();
  PARLEY_RETURN_IF_ERROR(WatchSession(backend, caller, BearerOf(request), session, body));
  return EventStream(std::move(body));
}

absl::StatusOr<http::Response> Delete(Backend& backend, const http::Request& request) {
  dispatch::v1::DeleteSessionRequest call;
  call.set_session_id(request.params.at("id"));
  grpc::ClientContext context;
  Prepare(context, BearerOf(request));
  dispatch::v1::DeleteSessionResponse response;
  PARLEY_RETURN_IF_ERROR(
      rpc::FromGrpcStatus(backend.dispatch->DeleteSession(&context, call, &response)));
  return JsonResponse(Json::object());
}

const Json& CreateSchema() {
  static const Json schema = Json::parse(R"json({
    "type": "object", "required": ["agent"], "additionalProperties": false,
    "properties": {
      "agent": {"type": "string", "description": "id of a registered agent, or the name of a program"},
      "room": {"type": "string", "maxLength": 256, "description": "default: a new one"},
      "participant": {"oneOf": [{"type": "string"}, {"type": "object", "properties": {
        "identity": {"type": "string"}, "name": {"type": "string"}, "metadata": {"type": "string"},
        "attributes": {"type": "object", "additionalProperties": {"type": "string"}}}}]},
      "metadata": {"type": "string"}, "attributes": {"type": "object", "additionalProperties": {"type": "string"}},
      "restartPolicy": {"enum": ["ON_FAILURE", "NEVER"]},
      "idempotencyKey": {"type": "string", "maxLength": 200}}})json");
  return schema;
}

}  // namespace

void AddSessionRoutes(Backend& backend, std::vector<Route>& routes) {
  const auto add = [&](const char* method, const char* pattern, const char* summary,
                       const char* grant, auto handler, Json request = nullptr, int success = 200) {
    routes.push_back(
        {method, pattern, summary, grant, std::move(request), success,
         [&backend, handler](const http::Request& r) { return Answer(handler(backend, r)); }});
  };
  add("POST", "/api/sessions", "A room with an agent in it and a token to join it, in one call",
      "video.roomCreate, or video.roomAdmin for the room", Create, CreateSchema(), 201);
  add("GET", "/api/sessions", "Running sessions, newest first; ?ended=true adds past ones",
      "video.roomList", List);
  add("GET", "/api/sessions/{id}", "One session: state, jobs, timings, usage, transcript if kept",
      "video.roomList", Get);
  add("GET", "/api/sessions/{id}/events",
      "What happens in it, as server-sent events until it has ended: jobs, agents' states, "
      "transcripts, turns",
      "video.roomList and video.roomAdmin for the room (or roomCreate)", Events);
  add("DELETE", "/api/sessions/{id}", "End a session and erase what is kept of it",
      "video.roomCreate", Delete);
}

}  // namespace parley::api_server
