#pragma once
// JSON of the public API: bodies in (camelCase or snake_case, unknown fields refused), records out
// (camelCase), errors
// {"code", "msg", "meta"}.
#include <absl/status/statusor.h>
#include <parley/dispatch/v1/dispatch.pb.h>
#include <parley/registry/v1/registry.pb.h>
#include <parley/room/v1/room.pb.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>

#include "http/server.h"

namespace parley::api_server {

using Json = nlohmann::json;

http::Response JsonResponse(const Json& body, int status = 200);
// The status decides code and HTTP status; its reason and metadata become `meta`.
http::Response ErrorResponse(const absl::Status& status);
int HttpStatusOf(absl::StatusCode code);

// Reads the members of a JSON object by their snake_case names; either spelling is accepted. Errors
// are kept: the first one is what Finish() returns.
class Body {
 public:
  // `what` names the object in errors. An absent body counts as {}.
  static absl::StatusOr<Body> Parse(std::string_view text, std::string what = "the body");
  Body(Json object, std::string what);

  std::string Text(std::string_view name, std::string fallback = {});
  bool Has(std::string_view name) const;
  int64_t Integer(std::string_view name, int64_t fallback, int64_t min, int64_t max);
  double Number(std::string_view name, double fallback, double min, double max);
  bool Flag(std::string_view name, bool fallback);
  std::map<std::string, std::string> TextMap(std::string_view name);
  Json Any(std::string_view name);  // null when absent
  // Fields nobody asked for are errors, unless `ignore_unknown`.
  absl::Status Finish(bool ignore_unknown = false);

 private:
  const Json* Find(std::string_view name);
  void Fail(std::string_view name, std::string_view what);

  Json object_;
  std::string what_;
  std::set<std::string> seen_;
  absl::Status status_;
};

std::string ToCamel(std::string_view snake);

Json ToJson(const registry::v1::Agent& agent, bool with_definition);
Json ToJson(const registry::v1::Deployment& deployment);
Json ToJson(const dispatch::v1::Dispatch& dispatch);
Json ToJson(const dispatch::v1::Job& job);
Json ToJson(const dispatch::v1::Event& event);
Json ToJson(const dispatch::v1::JobLogLine& line);
Json ToJson(const dispatch::v1::Worker& worker);
Json ToJson(const dispatch::v1::Session& session);
Json ToJson(const room::v1::Room& room);

}  // namespace parley::api_server
