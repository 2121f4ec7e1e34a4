#include "tools/http_tool.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/status.h"
#include "base/strings.h"

namespace parley::tools {
namespace {

using nlohmann::json;

constexpr int64_t kMaxAnswerBytes = 1 << 20;
constexpr size_t kMaxOutputBytes = 64 << 10;  // more is of no use to a model

constexpr int kMaxNesting = 64;  // writing and copying JSON recurses

// Discarded when it is no JSON, or nests too deep to be handled.
json ParseBounded(std::string_view text) {
  if (!JsonNestsWithin(text, kMaxNesting)) return json(json::value_t::discarded);
  return json::parse(text, nullptr, false);
}

constexpr std::string_view kMethods[] = {"GET", "POST", "PUT", "PATCH", "DELETE"};

std::string AsIs(std::string_view value) { return std::string(value); }

absl::StatusOr<Template> ParseTemplate(std::string_view field, const json& value) {
  if (!value.is_string()) return InvalidArgument("http.{} must be text", field);
  absl::StatusOr<Template> parsed = Template::Parse(value.get<std::string>());
  if (!parsed.ok()) return Annotate(parsed.status(), fmt::format("http.{}", field));
  return parsed;
}

// "https://rates.example/{room}": scheme and host stand in the definition, never in an argument.
absl::Status CheckUrl(std::string_view url) {
  const size_t scheme = url.find("://");
  if (scheme == std::string_view::npos ||
      (url.substr(0, scheme) != "http" && url.substr(0, scheme) != "https")) {
    return InvalidArgument("http.url must start with https:// or http://");
  }
  const std::string_view host =
      url.substr(scheme + 3, url.find_first_of("/?#", scheme + 3) - (scheme + 3));
  if (host.empty()) return InvalidArgument("http.url has no host");
  if (host.find('{') != std::string_view::npos) {
    return InvalidArgument("http.url: the host must not come from an argument");
  }
  return absl::OkStatus();
}

// A value of the wrong type makes the JSON library throw.
absl::StatusOr<HttpTool> ParseGuarded(const json& spec) {
  try {
    return HttpTool::Parse(spec);
  } catch (const json::exception& error) {
    return InvalidArgument("a field has the wrong type: {}", error.what());
  }
}

bool HasBody(std::string_view method) {
  return method == "POST" || method == "PUT" || method == "PATCH";
}

}  // namespace

absl::StatusOr<HttpTool> HttpTool::Parse(const json& spec) {
  HttpTool tool;
  tool.name_ = spec.value("name", "");
  const json& http = spec.at("http");
  tool.method_ = http.value("method", "GET");
  if (std::find(std::begin(kMethods), std::end(kMethods), tool.method_) == std::end(kMethods)) {
    return InvalidArgument("http.method \"{}\" is none of GET, POST, PUT, PATCH, DELETE",
                           tool.method_);
  }
  if (!http.contains("url")) return InvalidArgument("http.url is missing");
  PARLEY_ASSIGN_OR_RETURN(tool.url_, ParseTemplate("url", http["url"]));
  PARLEY_RETURN_IF_ERROR(CheckUrl(http["url"].get<std::string>()));
  const json headers = http.value("headers", json::object());
  for (const auto& [name, value] : headers.items()) {
    PARLEY_ASSIGN_OR_RETURN(Template parsed, ParseTemplate("headers." + name, value));
    tool.headers_.emplace_back(name, std::move(parsed));
  }
  if (http.contains("body") && !http["body"].is_null()) {
    PARLEY_ASSIGN_OR_RETURN(tool.body_, ParseTemplate("body", http["body"]));
  }
  if (http.contains("result") && !http["result"].is_null()) {
    PARLEY_ASSIGN_OR_RETURN(tool.result_, JsonPath::Parse(http.value("result", "")));
  }
  if (http.contains("timeout") && !http["timeout"].is_null()) {
    const auto timeout = ParseDuration(http.value("timeout", ""));
    if (!timeout.has_value() || *timeout <= absl::ZeroDuration()) {
      return InvalidArgument("http.timeout must be a duration such as 2s");
    }
    tool.timeout_ = *timeout;
  }
  return tool;
}

absl::StatusOr<http::Call> HttpTool::MakeCall(std::string_view arguments_json) const {
  const json arguments = ParseBounded(arguments_json.empty() ? "{}" : arguments_json);
  if (!arguments.is_object()) return InvalidArgument("the arguments are not a JSON object");
  http::Call call;
  call.method = method_;
  call.timeout = timeout_;
  call.max_response_bytes = kMaxAnswerBytes;
  PARLEY_ASSIGN_OR_RETURN(call.url, url_->Fill(arguments, http::UrlEncode));
  for (const auto& [name, value] : headers_) {
    PARLEY_ASSIGN_OR_RETURN(std::string filled, value.Fill(arguments, AsIs));
    if (filled.find_first_of("\r\n") != std::string::npos) {
      return InvalidArgument("an argument for header {} has a line break", name);
    }
    call.headers.emplace_back(name, std::move(filled));
  }
  if (body_.has_value()) {
    PARLEY_ASSIGN_OR_RETURN(call.body, body_->Fill(arguments, AsIs));
  } else if (HasBody(method_)) {
    call.body = arguments.dump();
  }
  const bool typed = std::any_of(call.headers.begin(), call.headers.end(), [](const auto& header) {
    return ToLower(header.first) == "content-type";
  });
  if (!call.body.empty() && !typed) call.headers.emplace_back("Content-Type", "application/json");
  return call;
}

absl::StatusOr<std::string> HttpTool::ReadReply(const http::Reply& reply) const {
  if (reply.status < 200 || reply.status > 299) {
    return FailedPrecondition("the service answered with status {}", reply.status);
  }
  if (!result_.has_value()) return reply.body.substr(0, kMaxOutputBytes);
  const json document = ParseBounded(reply.body);
  if (document.is_discarded()) return Internal("the service's answer is not JSON");
  const json* value = result_->Find(document);
  if (value == nullptr) return Internal("the service's answer has nothing at the tool's path");
  std::string text = value->is_string()
                         ? value->get<std::string>()
                         : value->dump(-1, ' ', false, json::error_handler_t::replace);
  return text.substr(0, kMaxOutputBytes);
}

absl::StatusOr<ToolSet> ToolSet::FromDefinition(std::string_view definition_json) {
  ToolSet set;
  if (definition_json.empty()) return set;
  const json definition = ParseBounded(definition_json);
  if (!definition.is_object()) return InvalidArgument("the definition is not a JSON object");
  const json tools = definition.value("tools", json::array());
  if (!tools.is_array()) return InvalidArgument("tools is not a list");
  for (const json& spec : tools) {
    if (!spec.is_object() || !spec.contains("http") || !spec["http"].is_object()) continue;
    if (!spec.contains("name") || !spec["name"].is_string()) {
      return InvalidArgument("a tool without a name");
    }
    const std::string name = spec["name"].get<std::string>();
    absl::StatusOr<HttpTool> tool = ParseGuarded(spec);
    if (!tool.ok()) return Annotate(tool.status(), fmt::format("tool \"{}\"", name));
    set.tools_.emplace(name, *std::move(tool));
  }
  return set;
}

absl::StatusOr<std::string> ToolSet::Run(http::Client& client, std::string_view name,
                                         std::string_view arguments_json, http::Reach reach,
                                         absl::Duration timeout,
                                         const std::function<bool()>& cancelled) const {
  const auto it = tools_.find(name);
  if (it == tools_.end()) return NotFound("the definition has no HTTP tool \"{}\"", name);
  PARLEY_ASSIGN_OR_RETURN(http::Call call, it->second.MakeCall(arguments_json));
  call.reach = reach;
  if (timeout > absl::ZeroDuration()) call.timeout = std::min(call.timeout, timeout);
  PARLEY_ASSIGN_OR_RETURN(const http::Reply reply, client.Fetch(call, cancelled));
  return it->second.ReadReply(reply);
}

}  // namespace parley::tools
