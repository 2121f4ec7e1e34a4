// /api/usage: what a project used of engines, and what it may.
#include "api_server/routes.h"
#include "base/status.h"
#include "rpc/status.h"

namespace parley::api_server {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(2);  // with each gateway

// {"UNIT": …, "engines": {"ENGINE": {"UNIT": …}}}: the units beside "engines" are of all remote
// ones together.
Json SpendJson(const google::protobuf::Map<std::string, int64_t>& spend) {
  Json out = {{"engines", Json::object()}};
  for (const auto& [unit, amount] : spend) {
    const size_t colon = unit.find(':');
    Json& where = colon == std::string::npos ? out : out["engines"][unit.substr(colon + 1)];
    where[ToCamel(unit.substr(0, colon))] = amount;
  }
  return out;
}

Json CapJson(const speech::v1::SpendCap& cap) {
  return {{"gateway", cap.gateway()}, {"project", cap.project()}, {"limit", cap.limit()},
          {"period", cap.period()},   {"most", cap.most()},       {"used", cap.used()}};
}

absl::StatusOr<http::Response> Usage(Backend& backend, const http::Request& request) {
  PARLEY_ASSIGN_OR_RETURN(const auth::Claims claims, Authenticate(backend, request));
  PARLEY_RETURN_IF_ERROR(auth::RequireAgentAdmin(claims));
  speech::v1::GetUsageRequest call;
  for (const auto& [name, value] : request.query) {
    if (name == "project") call.set_project(value);
    if (name == "session") call.set_session_id(value);
  }
  Json out;
  Json caps = Json::array();
  Json silent = Json::array();
  absl::Status first;
  for (const auto& [kind, stub] : backend.usage) {
    grpc::ClientContext context;
    Prepare(context, BearerOf(request), kPatience);
    speech::v1::GetUsageResponse usage;
    const absl::Status status = rpc::FromGrpcStatus(stub->GetUsage(&context, call, &usage));
    if (!status.ok()) {
      silent.push_back(kind);
      if (first.ok()) first = status;
      continue;
    }
    for (const speech::v1::SpendCap& cap : usage.caps()) caps.push_back(CapJson(cap));
    if (!out.is_null()) continue;  // all have added up the same
    out = {{"project", usage.project()}, {"day", SpendJson(usage.day())}};
    if (!call.session_id().empty()) out["session"] = SpendJson(usage.session());
  }
  if (out.is_null()) return first;
  out["caps"] = std::move(caps);
  out["silentGateways"] = std::move(silent);
  return JsonResponse(out);
}

}  // namespace

void AddUsageRoutes(Backend& backend, std::vector<Route>& routes) {
  routes.push_back({"GET", "/api/usage",
                    "What a project used of engines today, and a session (?session=, ?project=), "
                    "with the caps that hold for it; silentGateways could not say theirs",
                    "agent.admin", nullptr, 200, [&backend](const http::Request& request) {
                      return Answer(Usage(backend, request));
                    }});
}

}  // namespace parley::api_server
