#include "tools/mcp_hub.h"

#include <absl/time/clock.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/status.h"
#include "base/strings.h"

namespace parley::tools {
namespace {

using nlohmann::json;

constexpr absl::Duration kKeepList = absl::Minutes(1);
constexpr absl::Duration kBetweenFailures = absl::Seconds(10);
constexpr size_t kMaxServers = 256;
constexpr int kMaxNesting = 64;

}  // namespace

absl::StatusOr<std::vector<McpUse>> McpUse::FromDefinition(std::string_view definition_json) {
  std::vector<McpUse> uses;
  if (definition_json.empty()) return uses;
  if (!JsonNestsWithin(definition_json, kMaxNesting)) return InvalidArgument("nests too deep");
  try {
    const json definition = json::parse(definition_json);
    for (const json& one : definition.value("mcp_servers", json::array())) {
      McpUse use;
      use.name = one.value("name", "");
      use.url = one.value("url", "");
      use.headers = one.value("headers", use.headers);
      use.allowed_tools = one.value("allowed_tools", use.allowed_tools);
      use.agents = one.value("agents", use.agents);
      use.timeout = ParseDuration(one.value("timeout", "")).value_or(use.timeout);
      uses.push_back(std::move(use));
    }
  } catch (const json::exception& error) {
    return InvalidArgument("mcp_servers: {}", error.what());
  }
  return uses;
}

McpHub::McpHub(std::map<std::string, McpCommand> programs, std::shared_ptr<http::Client> client,
               http::Reach reach)
    : programs_(std::move(programs)), client_(std::move(client)), reach_(reach) {}

McpHub::~McpHub() = default;

std::string McpHub::KeyOf(const std::string& project, const McpUse& use) {
  if (!use.name.empty()) return json({"program", use.name}).dump();
  // A server may remember a session's state, which is no other project's business.
  return json({"url", project, use.url, use.headers})
      .dump(-1, ' ', false, json::error_handler_t::replace);
}

absl::StatusOr<std::shared_ptr<McpServer>> McpHub::ServerOf(const std::string& key,
                                                            const McpUse& use) {
  std::shared_ptr<McpServer> dropped;  // its end may take a while: not under the lock
  MutexLock lock(&mutex_);
  if (const auto found = known_.find(key); found != known_.end()) {
    found->second.used = absl::Now();
    return found->second.server;
  }
  Known known{.used = absl::Now()};
  if (use.name.empty()) {
    known.server = NewHttpMcpServer(client_, {use.url, use.headers, reach_});
  } else {
    const auto program = programs_.find(use.name);
    if (program == programs_.end()) {
      return NotFound("this agent server has no MCP server \"{}\" (--mcp-servers)", use.name);
    }
    known.server = NewStdioMcpServer(program->second);
  }
  if (known_.size() >= kMaxServers) {
    const auto oldest = std::min_element(
        known_.begin(), known_.end(),
        [](const auto& a, const auto& b) { return a.second.used < b.second.used; });
    dropped = std::move(oldest->second.server);
    known_.erase(oldest);
  }
  return known_.emplace(key, std::move(known)).first->second.server;
}

std::optional<absl::StatusOr<std::vector<McpTool>>> McpHub::Remembered(const std::string& key) {
  MutexLock lock(&mutex_);
  const auto found = known_.find(key);
  if (found == known_.end()) return std::nullopt;
  const Known& known = found->second;
  const absl::Time now = absl::Now();
  const bool just_failed = now - known.failed_at < kBetweenFailures;
  if (now - known.listed < kKeepList) return known.tools;
  if (!just_failed) return std::nullopt;
  if (known.listed > absl::InfinitePast()) return known.tools;
  return known.failed;
}

void McpHub::Remember(const std::string& key, const absl::StatusOr<std::vector<McpTool>>& list) {
  MutexLock lock(&mutex_);
  const auto found = known_.find(key);
  if (found == known_.end()) return;
  if (list.ok()) {
    found->second.tools = *list;
    found->second.listed = absl::Now();
  } else {
    found->second.failed = list.status();
    found->second.failed_at = absl::Now();
  }
}

absl::StatusOr<std::vector<McpTool>> McpHub::Tools(const std::string& project, const McpUse& use) {
  const std::string key = KeyOf(project, use);
  PARLEY_ASSIGN_OR_RETURN(const std::shared_ptr<McpServer> server, ServerOf(key, use));
  auto list = Remembered(key);
  if (!list && use.timeout <= absl::ZeroDuration()) return DeadlineExceeded("no time is left");
  if (!list) {
    Remember(key, server->List(use.timeout));
    list = Remembered(key);
  }
  // Dropped meanwhile for others that are used more.
  if (!list) return Unavailable("the MCP server is not known any more; try again");
  PARLEY_ASSIGN_OR_RETURN(std::vector<McpTool> tools, *std::move(list));
  if (use.allowed_tools.empty()) return tools;
  std::erase_if(tools, [&](const McpTool& tool) {
    return std::find(use.allowed_tools.begin(), use.allowed_tools.end(), tool.name) ==
           use.allowed_tools.end();
  });
  return tools;
}

absl::StatusOr<std::string> McpHub::Call(const std::string& project, const McpUse& use,
                                         std::string_view tool, std::string_view arguments_json,
                                         absl::Duration timeout,
                                         const std::function<bool()>& cancelled) {
  PARLEY_ASSIGN_OR_RETURN(const std::shared_ptr<McpServer> server,
                          ServerOf(KeyOf(project, use), use));
  return server->Call(tool, arguments_json, timeout, cancelled);
}

}  // namespace parley::tools
