// /api/agents: what is registered. The registry checks the grant agent.admin.
#include "api_server/routes.h"
#include "base/status.h"
#include "base/strings.h"
#include "rpc/status.h"

namespace parley::api_server {
namespace {

using registry::v1::Agent;

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
  add("DELETE", "/api/agents/{id}",
      "Remove an agent; running jobs keep the version they are pinned to", Delete);
}

}  // namespace parley::api_server
