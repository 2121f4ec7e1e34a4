#pragma once
// What the routes under /v1 share: whom they serve, how many at a time, OpenAI's names of models
// and its shape of errors.
#include <absl/status/statusor.h>

#include <functional>
#include <string>
#include <string_view>

#include "api_server/api_server.h"
#include "api_server/json.h"
#include "auth/token.h"

namespace parley::api_server {

// What the token must grant: agent.admin or video.roomCreate.
inline constexpr const char* kV1Grant = "agent.admin or video.roomCreate";
//   Unauthenticated, PermissionDenied
absl::StatusOr<auth::Claims> AuthenticateV1(const Backend& backend, const http::Request& request);

// Runs `work`, which may block. Errors are {"error": {"message", "type", "param", "code"}} beside
// our own members; ResourceExhausted (429, Retry-After) when as many as may wait for gateways.
http::Response AnswerV1(Backend& backend,
                        const std::function<absl::StatusOr<http::Response>()>& work);
// The member "error".
Json V1Error(const absl::Status& status);

struct V1Model {
  std::string engine;
  std::string model;  // "": what the engine has by default
};
// "ENGINE/MODEL", an engine, or a model of the engine openai, whose names may have slashes, too.
V1Model ReadV1Model(std::string_view name);

}  // namespace parley::api_server
