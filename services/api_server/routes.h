#pragma once
// The one table of routes: what is served and what openapi.json says.
#include <functional>
#include <string>
#include <vector>

#include "api_server/api_server.h"
#include "api_server/json.h"
#include "http/server.h"

namespace parley::api_server {

struct Route {
  std::string method;
  std::string pattern;
  std::string summary;
  std::string grant;  // what the token needs; "" = open
  Json request;       // JSON schema of the body; null = none
  int success = 200;
  http::Handler handler;
  bool inline_run = false;  // answers on the server's loop, also when all threads are busy
};

// Each adds its routes. `backend` must outlive the server.
void AddAgentRoutes(Backend& backend, std::vector<Route>& routes);
void AddChatRoutes(Backend& backend, std::vector<Route>& routes);
void AddConsoleRoutes(Backend& backend, std::vector<Route>& routes);
void AddDispatchRoutes(Backend& backend, std::vector<Route>& routes);
void AddEventRoutes(Backend& backend, std::vector<Route>& routes);
void AddLiveKitRoutes(Backend& backend, std::vector<Route>& routes);
void AddSessionRoutes(Backend& backend, std::vector<Route>& routes);
void AddSummaryRoutes(Backend& backend, std::vector<Route>& routes);
void AddTokenRoutes(Backend& backend, std::vector<Route>& routes);
void AddSignalRoutes(Backend& backend, std::vector<Route>& routes);
void AddSpeechRoutes(Backend& backend, std::vector<Route>& routes);
void AddUsageRoutes(Backend& backend, std::vector<Route>& routes);

// OpenAPI 3.0 of the table (without /openapi.json's own description being special: it is a route
// like the others).
Json OpenApi(const std::vector<Route>& routes);

// ---- for handlers ----

// Runs `work` and turns its status into the error answer.
http::Response Answer(const absl::StatusOr<http::Response>& result);
// The claims of the request's token (Authorization header, or ?access_token=).
absl::StatusOr<auth::Claims> Authenticate(const Backend& backend, const http::Request& request);
std::string BearerOf(const http::Request& request);
// A call to another service under `bearer`, with a deadline, for the trace of the request.
void Prepare(grpc::ClientContext& context, const std::string& bearer,
             absl::Duration timeout = absl::Seconds(5));
// The token of a person for a room, signed with the key that `claims` (the caller's) came from.
absl::StatusOr<std::string> PersonToken(const Backend& backend, const auth::Claims& caller,
                                        auth::Claims person);
std::string PublicUrl(const Backend& backend);
// ?page_size= within 1 to 500.
absl::StatusOr<int32_t> PageSize(const http::Request& request);

}  // namespace parley::api_server
