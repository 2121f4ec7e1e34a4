#pragma once
// The command line's view of api_server: one URL, one key pair, JSON in and out.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <functional>
#include <string>
#include <string_view>

#include "auth/token.h"
#include "http/client.h"
#include "terminal.h"

namespace parley::cli {

inline constexpr std::string_view kDefaultServer = "http://127.0.0.1:8080";

// `given` (the flag), else PARLEY_SERVER, else LIVEKIT_URL with ws turned into http, else the
// default. Without a slash at the end.
std::string ServerUrl(const std::string& given);

// PARLEY_API_KEY/PARLEY_API_SECRET, else LIVEKIT_API_KEY/LIVEKIT_API_SECRET, else the development
// pair when `server` is on loopback. Unauthenticated: none of them.
absl::StatusOr<auth::ApiKey> Credentials(std::string_view server);

// Thread-safe. Calls block until the answer or the timeout.
class Api {
 public:
  explicit Api(std::string server) : server_(std::move(server)) {}

  const std::string& server() const { return server_; }

  // A body of the answer for 2xx; else a status with the server's own message. Unavailable when
  // nobody answers says how to start a server.
  absl::StatusOr<Json> Get(const std::string& path);
  absl::StatusOr<Json> Delete(const std::string& path);
  absl::StatusOr<Json> Post(const std::string& path, const Json& body,
                            const std::string& idempotency_key = {});
  absl::StatusOr<Json> Put(const std::string& path, const Json& body);
  // For bodies that are not JSON on either side. `status_code`, if given, gets the HTTP status.
  absl::StatusOr<std::string> Send(const std::string& method, const std::string& path,
                                   std::string content_type, std::string body,
                                   int* status_code = nullptr,
                                   absl::Duration timeout = absl::Seconds(60));
  // All pages of a list: GET `path`, field `field` of each answer, joined.
  absl::StatusOr<Json> List(const std::string& path, const std::string& field);
  // Server-sent events of `path`: each one's data goes to `on_event`, until that returns false (OK)
  // or the server ends the stream (Unavailable).
  absl::Status Follow(const std::string& path, const std::function<bool(const Json&)>& on_event);
  // Nothing but: does an api_server answer there within a second?
  bool Reachable();

 private:
  absl::StatusOr<http::Call> MakeCall(const std::string& method, const std::string& path) const;

  http::Client client_;
  std::string server_;
};

}  // namespace parley::cli
