// POST /api/connection-details: the token endpoint that LiveKit's TokenSource calls.
#include <algorithm>
#include <memory>

#include "api_server/rate_limit.h"
#include "api_server/routes.h"
#include "base/ids.h"
#include "base/status.h"
#include "base/strings.h"

namespace parley::api_server {
namespace {

constexpr size_t kMaxName = 256;

// What a body asks for.
struct Wanted {
  auth::Claims person;
  Json config = Json::object();  // room_config
};

struct TokenLimits {
  TokenLimits(const ApiServerConfig& config, const Clock& clock)
      : by_address(config.token_rate_per_address, clock),
        by_key(config.token_rate_per_key, clock) {}
  RateLimit by_address;  // of callers without a token
  RateLimit by_key;      // of an API key, or a sandbox
};

bool Listed(const std::vector<std::string>& list, std::string_view text) {
  return std::find(list.begin(), list.end(), text) != list.end();
}

// An entry is a whole text, or a beginning with * behind it.
bool Fits(const std::vector<std::string>& patterns, std::string_view text) {
  return std::any_of(patterns.begin(), patterns.end(), [&](std::string_view pattern) {
    if (!pattern.ends_with('*')) return pattern == text;
    return text.starts_with(pattern.substr(0, pattern.size() - 1));
  });
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

// Which limit a caller without a token falls under.
std::string AddressOf(const Backend& backend, const http::Request& request) {
  const std::string_view forwarded = request.Header("x-forwarded-for");
  if (!backend.config.trust_forwarded_for || forwarded.empty()) return ClientKey(request.peer);
  // The last one is what our own proxy saw; those before it are the client's word.
  const size_t comma = forwarded.rfind(',');
  return ClientKey(Trim(comma == forwarded.npos ? forwarded : forwarded.substr(comma + 1)));
}

absl::Status Forbidden(std::string_view field) {
  return WithReason(PermissionDenied("{} may not be set like this without a token", field),
                    "FIELD_FORBIDDEN", {{"field", std::string(field)}});
}

// What a stranger may ask for. Who could name any room or identity might walk into somebody else's
// call: only what the lists name is taken.
absl::Status CheckStranger(const ApiServerConfig& config, const Wanted& wanted) {
  if (wanted.person.room_agents.empty()) {
    return PermissionDenied("name one of the agents that are open to everybody");
  }
  for (const auth::RoomAgent& agent : wanted.person.room_agents) {
    if (!Listed(config.open_agents, agent.agent_name)) {
      return PermissionDenied("agent \"{}\" may not be asked for without a token",
                              agent.agent_name);
    }
  }
  const std::string& room = wanted.person.video.room;
  if (!room.empty() && !Fits(config.open_rooms, room)) return Forbidden("room_name");
  const std::string& identity = wanted.person.identity;
  if (!identity.empty() && !Fits(config.open_identities, identity)) {
    return Forbidden("participant_identity");
  }
  for (const auto& [key, value] : wanted.person.attributes) {
    if (!Fits(config.open_attributes, key)) return Forbidden("participant_attributes." + key);
  }
  for (const auto& [key, value] : wanted.config.items()) {
    if (key != "agents") return Forbidden("room_config." + key);
  }
  return absl::OkStatus();
}

// May this caller have a token? With a bearer token: who may create rooms. Without: development, or
// the allow-lists.
absl::StatusOr<auth::Claims> Admit(Backend& backend, TokenLimits& limits,
                                   const http::Request& request, const Wanted& wanted) {
  if (!BearerOf(request).empty()) {
    PARLEY_ASSIGN_OR_RETURN(auth::Claims claims, Authenticate(backend, request));
    PARLEY_RETURN_IF_ERROR(auth::RequireRoomCreate(claims));
    PARLEY_RETURN_IF_ERROR(limits.by_key.Take("key " + claims.issuer));
    return claims;
  }
  PARLEY_RETURN_IF_ERROR(limits.by_address.Take(AddressOf(backend, request)));
  const ApiServerConfig& config = backend.config;
  auth::Claims open;
  if (config.common.dev) return open;
  const std::string sandbox(request.Header("x-sandbox-id"));
  if (config.open_agents.empty() ||
      (!config.open_origins.empty() && !Listed(config.open_origins, request.Header("origin")))) {
    return WithReason(Unauthenticated("this endpoint needs a bearer token"), "TOKEN_MISSING");
  }
  if (!config.open_sandboxes.empty() && !Listed(config.open_sandboxes, sandbox)) {
    return WithReason(Unauthenticated("X-Sandbox-ID names no sandbox of ours"), "SANDBOX_UNKNOWN");
  }
  PARLEY_RETURN_IF_ERROR(
      limits.by_key.Take("sandbox " + (config.open_sandboxes.empty() ? "" : sandbox)));
  PARLEY_RETURN_IF_ERROR(CheckStranger(config, wanted));
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
    const Json policy = body.Any("restart_policy");
    agent.never_restart = policy == "JRP_NEVER" || policy == 1;
    PARLEY_RETURN_IF_ERROR(body.Finish(/*ignore_unknown=*/true));
    agents.push_back(std::move(agent));
  }
  return agents;
}

absl::StatusOr<Wanted> ReadWanted(std::string_view text) {
  PARLEY_ASSIGN_OR_RETURN(Body body, Body::Parse(text));
  Wanted wanted;
  auth::Claims& person = wanted.person;
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
  if (config.is_object()) wanted.config = config;
  return wanted;
}

absl::StatusOr<http::Response> Create(Backend& backend, TokenLimits& limits,
                                      const http::Request& request) {
  PARLEY_ASSIGN_OR_RETURN(Wanted wanted, ReadWanted(request.body));
  PARLEY_ASSIGN_OR_RETURN(const auth::Claims caller, Admit(backend, limits, request, wanted));
  auth::Claims& person = wanted.person;
  if (!wanted.config.empty()) person.room_config_json = wanted.config.dump();
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
  const auto limits = std::make_shared<TokenLimits>(backend.config, backend.context.clock());
  for (const char* path : {"/api/connection-details", "/api/v2/sandbox/connection-details"}) {
    routes.push_back(
        {"POST", path,
         "Server URL and a short-lived token for one participant; invents what is missing",
         "none in development; else video.roomCreate, or what the allow-lists (open.*) take",
         CreateSchema(), 201, [&backend, limits](const http::Request& request) {
           return WithCors(backend, request, Answer(Create(backend, *limits, request)));
         }});
    routes.push_back(
        {"OPTIONS", path, "What browsers ask first", "", nullptr, 204,
         [&backend](const http::Request& request) { return Preflight(backend, request); }});
  }
}

}  // namespace parley::api_server
