#include "tools/mcp.h"

#include <absl/time/clock.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/status.h"
#include "base/strings.h"
#include "tools/mcp_session.h"

namespace parley::tools {
namespace {

using nlohmann::json;

constexpr char kVersion[] = "2025-06-18";
constexpr std::array<std::string_view, 3> kVersions = {"2025-06-18", "2025-03-26", "2024-11-05"};
constexpr int kMaxNesting = 64;  // writing and copying JSON recurses
constexpr int kMaxPages = 16;
constexpr size_t kMaxOutputBytes = 64 << 10;  // more is of no use to a model
constexpr absl::Duration kNotifyTimeout = absl::Seconds(2);

json ParseBounded(std::string_view text) {
  if (!JsonNestsWithin(text, kMaxNesting)) return json(json::value_t::discarded);
  return json::parse(text, nullptr, false);
}

std::string Dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string TextAt(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

// What models take as a tool's name.
bool IsToolName(std::string_view name) {
  return !name.empty() && name.size() <= 64 &&
         name.find_first_not_of(
             "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") ==
             std::string_view::npos;
}

}  // namespace

absl::StatusOr<McpMessage> ReadMcpMessage(std::string_view text) {
  const json in = ParseBounded(text);
  if (!in.is_object() || TextAt(in, "jsonrpc") != "2.0") {
    return InvalidArgument("not a JSON-RPC 2.0 message");
  }
  McpMessage message;
  const auto id = in.find("id");
  message.method = TextAt(in, "method");
  if (!message.method.empty()) {
    if (id == in.end() || id->is_null()) return message;
    message.kind = McpMessage::Kind::kRequest;
    message.id_json = Dump(*id);
    return message;
  }
  if (id == in.end() || !id->is_number_integer()) {
    return InvalidArgument("an answer to nothing that was asked");
  }
  message.id = id->get<int64_t>();
  if (const auto error = in.find("error"); error != in.end() && error->is_object()) {
    message.kind = McpMessage::Kind::kError;
    message.error = TextAt(*error, "message");
    return message;
  }
  const auto result = in.find("result");
  if (result == in.end() || !result->is_object()) {
    return InvalidArgument("an answer without a result");
  }
  message.kind = McpMessage::Kind::kAnswer;
  message.result_json = Dump(*result);
  return message;
}

absl::StatusOr<std::vector<McpTool>> ReadMcpTools(std::string_view result_json,
                                                  std::string* next_cursor) {
  const json result = ParseBounded(result_json);
  if (!result.is_object() || !result.contains("tools") || !result["tools"].is_array()) {
    return Internal("the MCP server's list of tools is none");
  }
  *next_cursor = TextAt(result, "nextCursor");
  std::vector<McpTool> tools;
  for (const json& one : result["tools"]) {
    if (!one.is_object() || !IsToolName(TextAt(one, "name"))) continue;
    if (tools.size() == McpServer::kMaxTools) break;
    McpTool tool{.name = TextAt(one, "name"), .description = TextAt(one, "description")};
    const auto schema = one.find("inputSchema");
    const bool usable = schema != one.end() && schema->is_object();
    tool.parameters_json = usable ? Dump(*schema) : R"({"type":"object","properties":{}})";
    tools.push_back(std::move(tool));
  }
  return tools;
}

absl::StatusOr<std::string> ReadMcpResult(std::string_view result_json) {
  const json result = ParseBounded(result_json);
  if (!result.is_object()) return Internal("the MCP server's answer is no object");
  std::string text;
  const auto content = result.find("content");
  if (content != result.end() && content->is_array()) {
    for (const json& part : *content) {
      if (!part.is_object()) continue;
      const std::string type = TextAt(part, "type");
      if (!text.empty()) text += "\n";
      text += type == "text" ? TextAt(part, "text") : "[" + type + "]";
      if (text.size() > kMaxOutputBytes) break;
    }
  }
  if (const auto data = result.find("structuredContent"); text.empty() && data != result.end()) {
    text = Dump(*data);
  }
  text.resize(std::min(text.size(), kMaxOutputBytes));
  const auto failed = result.find("isError");
  if (failed != result.end() && failed->is_boolean() && failed->get<bool>()) {
    return FailedPrecondition("{}", text.empty() ? "the tool failed" : text);
  }
  return text;
}

// ---- a session ----

std::string McpSession::protocol_version() const {
  MutexLock lock(&mutex_);
  return version_;
}

absl::Status McpSession::Initialize(absl::Duration timeout,
                                    const std::function<bool()>& cancelled) {
  MutexLock lock(&initializing_);
  if (initialized_ && Connected()) return absl::OkStatus();
  initialized_ = false;
  Reset();
  const int64_t id = ++ids_;
  const json request = {{"jsonrpc", "2.0"},
                        {"id", id},
                        {"method", "initialize"},
                        {"params",
                         {{"protocolVersion", kVersion},
                          {"capabilities", json::object()},
                          {"clientInfo", {{"name", "parley"}, {"version", "1"}}}}}};
  PARLEY_ASSIGN_OR_RETURN(const std::string answer,
                          Exchange(id, Dump(request), true, timeout, cancelled));
  const json result = ParseBounded(answer);
  const std::string version = result.is_object() ? TextAt(result, "protocolVersion") : "";
  if (std::find(kVersions.begin(), kVersions.end(), version) == kVersions.end()) {
    return Internal("the MCP server speaks version \"{}\"; {} is wanted", version.substr(0, 32),
                    kVersion);
  }
  {
    MutexLock version_lock(&mutex_);
    version_ = version;
  }
  Notify(Dump({{"jsonrpc", "2.0"}, {"method", "notifications/initialized"}}), timeout);
  initialized_ = true;
  return absl::OkStatus();
}

absl::StatusOr<std::string> McpSession::Request(const std::string& method, const json& params,
                                                absl::Duration timeout,
                                                const std::function<bool()>& cancelled) {
  const absl::Time end = absl::Now() + timeout;
  for (int attempt = 0;; ++attempt) {
    PARLEY_RETURN_IF_ERROR(Initialize(end - absl::Now(), cancelled));
    const int64_t id = ++ids_;
    const json request = {{"jsonrpc", "2.0"}, {"id", id}, {"method", method}, {"params", params}};
    absl::StatusOr<std::string> answer =
        Exchange(id, Dump(request), false, end - absl::Now(), cancelled);
    if (absl::IsAborted(answer.status()) && attempt == 0) continue;  // Connected() says no
    if (absl::IsCancelled(answer.status()) || absl::IsDeadlineExceeded(answer.status())) {
      Notify(Dump({{"jsonrpc", "2.0"},
                   {"method", "notifications/cancelled"},
                   {"params", {{"requestId", id}, {"reason", "nobody waits any more"}}}}),
             kNotifyTimeout);
    }
    return answer;
  }
}

absl::StatusOr<std::vector<McpTool>> McpSession::List(absl::Duration timeout) {
  const absl::Time end = absl::Now() + timeout;
  std::vector<McpTool> tools;
  std::string cursor;
  for (int page = 0; page < kMaxPages; ++page) {
    json params = json::object();
    if (!cursor.empty()) params["cursor"] = cursor;
    PARLEY_ASSIGN_OR_RETURN(const std::string answer,
                            Request("tools/list", params, end - absl::Now(), {}));
    PARLEY_ASSIGN_OR_RETURN(std::vector<McpTool> some, ReadMcpTools(answer, &cursor));
    std::move(some.begin(), some.end(), std::back_inserter(tools));
    if (cursor.empty() || tools.size() >= kMaxTools) break;
  }
  if (tools.size() > kMaxTools) tools.resize(kMaxTools);
  return tools;
}

absl::StatusOr<std::string> McpSession::Call(std::string_view tool, std::string_view arguments_json,
                                             absl::Duration timeout,
                                             const std::function<bool()>& cancelled) {
  const json arguments = ParseBounded(arguments_json.empty() ? "{}" : arguments_json);
  if (!arguments.is_object()) return InvalidArgument("the arguments are not a JSON object");
  PARLEY_ASSIGN_OR_RETURN(
      const std::string answer,
      Request("tools/call", {{"name", std::string(tool)}, {"arguments", arguments}}, timeout,
              cancelled));
  return ReadMcpResult(answer);
}

}  // namespace parley::tools
