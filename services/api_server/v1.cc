#include "api_server/v1.h"

#include <algorithm>
#include <array>

#include "api_server/routes.h"
#include "base/status.h"

namespace parley::api_server {
namespace {

// Of all gateways; which of them there are, they say themselves.
constexpr std::array<std::string_view, 8> kEngines = {
    "deepgram", "espeak", "flite", "openai", "pocketsphinx", "rules", "scripted", "wyoming"};

std::string_view TypeOf(int http_status) {
  if (http_status >= 500) return "server_error";
  if (http_status == 401) return "authentication_error";
  if (http_status == 429) return "rate_limit_error";
  return "invalid_request_error";
}

Json ErrorOf(const Json& ours, int http_status) {
  const Json& meta = ours["meta"];
  return {{"message", ours["msg"]},
          {"type", TypeOf(http_status)},
          {"param", nullptr},
          {"code", meta.contains("reason") ? meta["reason"] : ours["code"]}};
}

}  // namespace

absl::StatusOr<auth::Claims> AuthenticateV1(const Backend& backend, const http::Request& request) {
  PARLEY_ASSIGN_OR_RETURN(auth::Claims claims, Authenticate(backend, request));
  if (!claims.agent_admin) PARLEY_RETURN_IF_ERROR(auth::RequireRoomCreate(claims));
  return claims;
}

http::Response AnswerV1(Backend& backend,
                        const std::function<absl::StatusOr<http::Response>()>& work) {
  const int most = backend.config.v1_requests;
  absl::StatusOr<http::Response> result = WithReason(
      ResourceExhausted("{} requests wait for the gateways already; try again shortly", most),
      "API_BUSY", {{"retry_after_ms", "1000"}});
  if (++backend.v1_under_way <= most) result = work();
  --backend.v1_under_way;
  if (result.ok()) return *std::move(result);
  http::Response response = ErrorResponse(result.status());
  Json body = Json::parse(response.body);
  body["error"] = ErrorOf(body, response.status);
  response.body = body.dump() + "\n";
  return response;
}

Json V1Error(const absl::Status& status) {
  const http::Response response = ErrorResponse(status);
  return ErrorOf(Json::parse(response.body), response.status);
}

V1Model ReadV1Model(std::string_view name) {
  const size_t slash = name.find('/');
  const std::string_view first = name.substr(0, slash);
  if (std::find(kEngines.begin(), kEngines.end(), first) == kEngines.end())
    return {"openai", std::string(name)};
  return {
      std::string(first),
      std::string(slash == std::string_view::npos ? std::string_view() : name.substr(slash + 1))};
}

}  // namespace parley::api_server
