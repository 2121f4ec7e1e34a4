#pragma once
// Tools of agent definitions that are HTTP calls, run by the agent server on behalf of jobs.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "http/client.h"
#include "tools/json_path.h"
#include "tools/template.h"

namespace parley::tools {

// One tool: {name, http: {method, url, headers, body, timeout, result}}.
//   url      a template; values are percent-encoded. The host must not come from an argument.
//   headers  name → template; values with line breaks are refused
//   body     a template for the body as it is sent; without one, POST, PUT and PATCH send the
//            arguments as JSON
//   result   a JsonPath into the answer; without one, the whole body
// Immutable; thread-safe.
class HttpTool {
 public:
  // `json`: one element of the definition's `tools`. InvalidArgument naming the field.
  static absl::StatusOr<HttpTool> Parse(const nlohmann::json& json);

  const std::string& name() const { return name_; }
  absl::Duration timeout() const { return timeout_; }

  // The call for these arguments (a JSON object as text). InvalidArgument: for the model to read.
  absl::StatusOr<http::Call> MakeCall(std::string_view arguments_json) const;
  // What the model is told: the value at `result`, strings bare, everything else as JSON.
  //   FailedPrecondition  the status is not 2xx; Internal  no JSON, or nothing at the path
  absl::StatusOr<std::string> ReadReply(const http::Reply& reply) const;

 private:
  std::string name_;
  std::string method_ = "GET";
  std::optional<Template> url_;
  std::vector<std::pair<std::string, Template>> headers_;
  std::optional<Template> body_;
  std::optional<JsonPath> result_;
  absl::Duration timeout_ = absl::Seconds(10);
};

// The HTTP tools of one definition. Thread-safe.
class ToolSet {
 public:
  // `definition_json`: a whole agent definition; tools without `http` are not ours. An empty text
  // is an empty set.
  static absl::StatusOr<ToolSet> FromDefinition(std::string_view definition_json);

  bool Has(std::string_view name) const { return tools_.contains(name); }
  size_t size() const { return tools_.size(); }
  // Blocks until the answer, the tool's deadline (or `timeout`, if shorter and not zero), or
  // `cancelled`.
  //   NotFound  no such tool; else as http::Client::Fetch and HttpTool
  absl::StatusOr<std::string> Run(http::Client& client, std::string_view name,
                                  std::string_view arguments_json, http::Reach reach,
                                  absl::Duration timeout,
                                  const std::function<bool()>& cancelled) const;

 private:
  std::map<std::string, HttpTool, std::less<>> tools_;
};

}  // namespace parley::tools
