// POST /api/connection-details: the token endpoint that LiveKit's TokenSource calls.
#include <algorithm>

#include "api_server/routes.h"
#include "base/ids.h"
#include "base/status.h"

namespace parley::api_server {
namespace {

constexpr size_t kMaxName = 256;

bool Listed(const std::vector<std::string>& list, std::string_view text) {
  return std::find(list.begin(), list.end(), text) != list.end();
}

// Lets pages of other origins read the answer: all of them in development, else those of the list.
http::Response WithCors(const Backend& backend, const http::Request& request,
                        http::Response response) {
  const std::string origin(request.Header("origin"));
  const bool listed = Listed(backend.config.open_origins, origin);
  if (!backend.config.common.dev && !listed) return response;
  response.headers.emplace_back("Access-Control-Allow-Origin",
                                backend.config.common.dev ? "*" : origin);
  response.headers.emplace_back("Vary", "Origin");
  return response;
}

// What a browser asks before it posts JSON to another origin.
http::Response Preflight(const Backend& backend, const http::Request& request) {
  http::Response response = WithCors(backend, request, http::Response{204, "", "", {}});
  response.headers.emplace_back("Allow", "OPTIONS, POST");
  response.headers.emplace_back("Access-Control-Allow-Methods", "POST");
  response.headers.emplace_back("Access-Control-Allow-Headers",
                                "authorization, content-type, x-sandbox-id");
  response.headers.emplace_back("Access-Control-Max-Age", "600");
  return response;
}

// May this caller have a token? With a bearer token: who may create rooms. Without: development, or
// the allow-list.
absl::StatusOr<auth::Claims> Admit(Backend& backend, const http::Request& request,
                                   const std::vector<auth::RoomAgent>& agents,
                                   const auth::Claims& person) {
  if (!BearerOf(request).empty()) {
    PARLEY_ASSIGN_OR_RETURN(auth::Claims claims, Authenticate(backend, request));
    PARLEY_RETURN_IF_ERROR(auth::RequireRoomCreate(claims));
    return claims;
  }
  auth::Claims open;
  if (backend.config.common.dev) return open;
  const auto& names = backend.config.open_agents;
  const auto& origins = backend.config.open_origins;
  if (names.empty() || (!origins.empty() && !Listed(origins, request.Header("origin")))) {
    return WithReason(Unauthenticated("this endpoint needs a bearer token"), "TOKEN_MISSING");
  }
  for (const auth::RoomAgent& agent : agents) {
    if (!Listed(names, agent.agent_name)) {
      return PermissionDenied("agent \"{}\" may not be asked for without a token",
                              agent.agent_name);
    }
  }
  // A stranger who may name a room or an identity may walk into somebody else's call.
  if (!person.video.room.empty() || !person.identity.empty()) {
    return PermissionDenied("room_name and participant_identity need a bearer token here");
  }
  if (agents.empty()) return PermissionDenied("name one of the agents that are open to everybody");
  return open;
}

absl::StatusOr<std::vector<auth::RoomAgent>> ReadAgents(const Json& config) {
  std::vector<auth::RoomAgent> agents;
  if (config.is_null()) return agents;
  if (!config.is_object()) return InvalidArgument("the body: room_config must be an object");
  const auto list = config.find("agents");
  if (list == config.end() || list->is_null()) return agents;
  if (!list->is_array()) return InvalidArgument("the body: room_config.agents must be an array");
  for (const Json& item : *list) {
    if (!item.is_object()) return InvalidArgument("the body: room_config.agents must hold objects");
    Body body(item, "room_config.agents");
    auth::RoomAgent agent;
    agent.agent_name = body.Text("agent_name");
    agent.metadata = body.Text("metadata");
    agent.attributes = body.TextMap("attributes");
    agent.deployment = body.Text("deployment");
    PARLEY_RETURN_IF_ERROR(body.Finish(/*ignore_unknown=*/true));
    agents.push_back(std::move(agent));
  }
  return agents;
}

absl::StatusOr<http::Response> Create(Backend& backend, const http::Request& request) {
  PARLEY_ASSIGN_OR_RETURN(Body body, Body::Parse(request.body));
  auth::Claims person;
  person.video.room_join = true;
  person.video.room = body.Text("room_name");
  person.identity = body.Text("participant_identity");
  person.name = body.Text("participant_name");
  person.metadata = body.Text("participant_metadata");
  person.attributes = body.TextMap("participant_attributes");
  const Json config = body.Any("room_config");
  PARLEY_RETURN_IF_ERROR(body.Finish(/*ignore_unknown=*/true));
  if (person.video.room.size() > kMaxName || person.identity.size() > kMaxName ||
      person.name.size() > kMaxName) {
    return InvalidArgument("the body: names are at most {} bytes", kMaxName);
  }
  PARLEY_ASSIGN_OR_RETURN(person.room_agents, ReadAgents(config));
  PARLEY_ASSIGN_OR_RETURN(const auth::Claims caller,
                          Admit(backend, request, person.room_agents, person));
  if (config.is_object()) person.room_config_json = config.dump();
  if (person.video.room.empty()) person.video.room = "room-" + RandomBase62(10);
  if (person.identity.empty()) person.identity = "user-" + RandomBase62(10);
  PARLEY_ASSIGN_OR_RETURN(const std::string token, PersonToken(backend, caller, std::move(person)));
  return JsonResponse({{"server_url", PublicUrl(backend)}, {"participant_token", token}}, 201);
}

const Json& CreateSchema() {
  static const Json schema = Json::parse(R"json({
    "type": "object", "description": "every field is optional; snake_case or camelCase",
    "properties": {
      "room_name": {"type": "string"}, "participant_name": {"type": "string"}, "participant_identity": {"type": "string"},
      "participant_metadata": {"type": "string"},
      "participant_attributes": {"type": "object", "additionalProperties": {"type": "string"}},
      "room_config": {"type": "object", "properties": {"agents": {"type": "array", "items": {"type": "object",
        "properties": {"agent_name": {"type": "string"}, "metadata": {"type": "string"}}}}}}}})json");
  return schema;
}

}  // namespace

void AddTokenRoutes(Backend& backend, std::vector<Route>& routes) {
  for (const char* path : {"/api/connection-details", "/api/v2/sandbox/connection-details"}) {
    routes.push_back(
        {"POST", path,
         "Server URL and a short-lived token for one participant; invents what is missing",
         "none in development; else video.roomCreate, or an agent of the allow-list",
         CreateSchema(), 201, [&backend](const http::Request& request) {
           return WithCors(backend, request, Answer(Create(backend, request)));
         }});
    routes.push_back(
        {"OPTIONS", path, "What browsers ask first", "", nullptr, 204,
         [&backend](const http::Request& request) { return Preflight(backend, request); }});
  }
}

}  // namespace parley::api_server
