// /api/agents: what is registered. The registry checks the grant agent.admin.
#include "api_server/routes.h"
#include "base/status.h"
#include "base/strings.h"
#include "rpc/status.h"

namespace parley::api_server {
namespace {

using registry::v1::Agent;

constexpr int64_t kMaxVersion = int64_t{1} << 52;  // what every JSON reader takes whole

absl::StatusOr<http::Response> Register(Backend& backend, const http::Request& request) {
  registry::v1::RegisterAgentRequest call;
  call.set_definition(request.body);
  if (const auto it = request.query.find("source"); it != request.query.end())
    call.set_source_name(it->second);
  if (const auto it = request.query.find("validate"); it != request.query.end())
    call.set_validate_only(it->second == "true");
  grpc::ClientContext context;
  Prepare(context, BearerOf(request));
  registry::v1::RegisterAgentResponse response;
  PARLEY_RETURN_IF_ERROR(
      rpc::FromGrpcStatus(backend.registry->RegisterAgent(&context, call, &response)));
  const Agent& agent = response.agent();
  return JsonResponse({{"id", agent.id()}, {"name", agent.name()}, {"version", agent.version()}},
                      response.created() ? 201 : 200);
}

absl::StatusOr<http::Response> List(Backend& backend, const http::Request& request) {
  registry::v1::ListAgentsRequest call;
  PARLEY_ASSIGN_OR_RETURN(const int32_t page_size, PageSize(request));
  call.set_page_size(page_size);
  for (const auto& [name, value] : request.query) {
    if (name == "page_token") call.set_page_token(value);
    if (name == "pool") call.set_pool(value);
    if (name != "label") continue;
    const size_t equals = value.find('=');
    if (equals == std::string::npos) return InvalidArgument("label must be name=value");
    (*call.mutable_labels())[value.substr(0, equals)] = value.substr(equals + 1);
  }
  grpc::ClientContext context;
  Prepare(context, BearerOf(request));
  registry::v1::ListAgentsResponse response;
  PARLEY_RETURN_IF_ERROR(
      rpc::FromGrpcStatus(backend.registry->ListAgents(&context, call, &response)));
  Json agents = Json::array();
  for (const Agent& agent : response.agents()) agents.push_back(ToJson(agent, false));
  return JsonResponse(
      {{"agents", std::move(agents)}, {"nextPageToken", response.next_page_token()}});
}

absl::StatusOr<http::Response> Get(Backend& backend, const http::Request& request) {
  registry::v1::GetAgentRequest call;
  call.set_id(request.params.at("id"));
  if (const auto it = request.query.find("version"); it != request.query.end()) {
    char* end = nullptr;
    const unsigned long long version = std::strtoull(it->second.c_str(), &end, 10);
    if (it->second.empty() || *end != '\0')
      return InvalidArgument("version must be a whole number");
    call.set_version(version);
  }
  grpc::ClientContext context;
  Prepare(context, BearerOf(request));
  registry::v1::GetAgentResponse response;
  PARLEY_RETURN_IF_ERROR(
      rpc::FromGrpcStatus(backend.registry->GetAgent(&context, call, &response)));
  return JsonResponse(ToJson(response.agent(), true));
}

absl::StatusOr<http::Response> Versions(Backend& backend, const http::Request& request) {
  registry::v1::ListAgentVersionsRequest call;
  call.set_id(request.params.at("id"));
  grpc::ClientContext context;
  Prepare(context, BearerOf(request));
  registry::v1::ListAgentVersionsResponse response;
  PARLEY_RETURN_IF_ERROR(
      rpc::FromGrpcStatus(backend.registry->ListAgentVersions(&context, call, &response)));
  Json versions = Json::array();
  for (const Agent& agent : response.versions()) versions.push_back(ToJson(agent, false));
  return JsonResponse({{"versions", std::move(versions)}});
}

absl::StatusOr<http::Response> Delete(Backend& backend, const http::Request& request) {
  registry::v1::DeleteAgentRequest call;
  call.set_id(request.params.at("id"));
  grpc::ClientContext context;
  Prepare(context, BearerOf(request));
  registry::v1::DeleteAgentResponse response;
  PARLEY_RETURN_IF_ERROR(
      rpc::FromGrpcStatus(backend.registry->DeleteAgent(&context, call, &response)));
  return JsonResponse(Json::object());
}

absl::StatusOr<http::Response> GetDeployment(Backend& backend, const http::Request& request) {
  registry::v1::GetDeploymentRequest call;
  call.set_id(request.params.at("id"));
  grpc::ClientContext context;
  Prepare(context, BearerOf(request));
  registry::v1::GetDeploymentResponse response;
  PARLEY_RETURN_IF_ERROR(
      rpc::FromGrpcStatus(backend.registry->GetDeployment(&context, call, &response)));
  return JsonResponse(ToJson(response.deployment()));
}

absl::StatusOr<http::Response> SetDeployment(Backend& backend, const http::Request& request) {
  PARLEY_ASSIGN_OR_RETURN(Body body, Body::Parse(request.body));
  registry::v1::SetDeploymentRequest call;
  call.set_id(request.params.at("id"));
  call.set_sticky(body.Flag("sticky", false));
  const Json versions = body.Any("versions");
  PARLEY_RETURN_IF_ERROR(body.Finish());
  if (!versions.is_array()) return InvalidArgument("the body: versions must be an array");
  for (const Json& item : versions) {
    if (!item.is_object()) return InvalidArgument("the body: versions must hold objects");
    Body share(item, "versions");
    registry::v1::VersionShare& out = *call.add_versions();
    out.set_version(static_cast<uint64_t>(share.Integer("version", 0, 1, kMaxVersion)));
    out.set_percent(static_cast<int32_t>(share.Integer("percent", 0, 1, 100)));
    PARLEY_RETURN_IF_ERROR(share.Finish());
  }
  grpc::ClientContext context;
  Prepare(context, BearerOf(request));
  registry::v1::SetDeploymentResponse response;
  PARLEY_RETURN_IF_ERROR(
      rpc::FromGrpcStatus(backend.registry->SetDeployment(&context, call, &response)));
  return JsonResponse(ToJson(response.deployment()));
}

absl::StatusOr<http::Response> RollBack(Backend& backend, const http::Request& request) {
  registry::v1::RollbackDeploymentRequest call;
  call.set_id(request.params.at("id"));
  grpc::ClientContext context;
  Prepare(context, BearerOf(request));
  registry::v1::RollbackDeploymentResponse response;
  PARLEY_RETURN_IF_ERROR(
      rpc::FromGrpcStatus(backend.registry->RollbackDeployment(&context, call, &response)));
  return JsonResponse(ToJson(response.deployment()));
}

const Json& DeploymentSchema() {
  static const Json schema = Json::parse(R"json({
    "type": "object", "required": ["versions"], "additionalProperties": false,
    "properties": {
      "versions": {"type": "array", "maxItems": 8, "description": "100 percent in all; empty: whatever is newest serves",
        "items": {"type": "object", "required": ["version", "percent"], "additionalProperties": false,
          "properties": {"version": {"type": "integer", "minimum": 1}, "percent": {"type": "integer", "minimum": 1, "maximum": 100}}}},
      "sticky": {"type": "boolean", "description": "a room gets the same version as long as the shares stay"}}})json");
  return schema;
}

}  // namespace

void AddAgentRoutes(Backend& backend, std::vector<Route>& routes) {
  const auto add = [&](const char* method, const char* pattern, const char* summary, auto handler,
                       Json request = nullptr, int success = 200) {
    routes.push_back(
        {method, pattern, summary, "agent.admin", std::move(request), success,
         [&backend, handler](const http::Request& r) { return Answer(handler(backend, r)); }});
  };
  add("POST", "/api/agents/register",
      "Register a definition (JSON or YAML): 201 for a new version, 200 when this content is the "
      "newest already. "
      "?validate=true only checks it; ?source= names the file in errors",
      Register,
      Json{{"type", "object"}, {"description", "an agent definition; see `parley schema`"}}, 201);
  add("GET", "/api/agents",
      "Registered agents, newest versions; ?label=name=value, ?pool=, ?page_size=, ?page_token=",
      List);
  add("GET", "/api/agents/{id}", "One agent with its definition; ?version=", Get);
  add("GET", "/api/agents/{id}/versions", "All versions of an agent, newest first", Versions);
  add("GET", "/api/agents/{id}/deployment",
      "Which versions serve new dispatches; no versions: whatever is newest", GetDeployment);
  add("PUT", "/api/agents/{id}/deployment",
      "Other versions serve new dispatches; what runs keeps its version", SetDeployment,
      DeploymentSchema());
  add("POST", "/api/agents/{id}/rollback", "What served before serves again", RollBack);
  add("DELETE", "/api/agents/{id}",
      "Remove an agent; running jobs keep the version they are pinned to", Delete);
}

}  // namespace parley::api_server
