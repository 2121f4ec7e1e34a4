#pragma once
// Tools that run elsewhere: clients of MCP servers (Model Context Protocol, 2025-06-18; servers
// that answer with 2024-11-05 or 2025-03-26 are taken, too).
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "http/client.h"

namespace parley::tools {

struct McpTool {
  std::string name;
  std::string description;
  std::string parameters_json;  // JSON schema of an object
};

// One server. Thread-safe; calls block, several may run at the same time. The connection is made
// with the first call, and again after it was lost.
class McpServer {
 public:
  static constexpr size_t kMaxTools = 128;
  virtual ~McpServer() = default;

  // What it offers, at most kMaxTools; those whose names no model may use are left out.
  //   Unavailable, DeadlineExceeded, PermissionDenied, Internal (it does not speak MCP)
  virtual absl::StatusOr<std::vector<McpTool>> List(absl::Duration timeout) = 0;
  // Runs a tool: its texts, or what it gives instead as JSON.
  //   FailedPrecondition  the tool says that it failed, for the model to read
  //   InvalidArgument     the arguments are no JSON object
  //   Cancelled           `cancelled` returned true; the server was told; else as List
  virtual absl::StatusOr<std::string> Call(std::string_view tool, std::string_view arguments_json,
                                           absl::Duration timeout,
                                           const std::function<bool()>& cancelled) = 0;
};

// Over streamable HTTP.
struct McpAddress {
  std::string url;
  std::map<std::string, std::string> headers;
  http::Reach reach = http::Reach::kPublicOnly;
};
std::unique_ptr<McpServer> NewHttpMcpServer(std::shared_ptr<http::Client> client,
                                            McpAddress address);

// A program that speaks MCP on its standard input and output. It is started with the first call,
// with PATH, HOME and LANG of ours and what `environment` names, and again after it ended, once a
// second at most. Its standard error is dropped. It is killed with this object.
struct McpCommand {
  std::vector<std::string> command;  // program and arguments; no shell
  std::map<std::string, std::string> environment;
};
std::unique_ptr<McpServer> NewStdioMcpServer(McpCommand command);

// ---- the messages, for transports and tests ----

// One message of a server, as far as a client wants to know.
struct McpMessage {
  enum class Kind { kAnswer, kError, kRequest, kNotification };
  Kind kind = Kind::kNotification;
  int64_t id = 0;           // kAnswer, kError: ours
  std::string id_json;      // kRequest: the server's, as it wrote it
  std::string method;       // kRequest, kNotification
  std::string result_json;  // kAnswer: an object
  std::string error;        // kError: its text
};
// `text`: one JSON-RPC 2.0 message.  InvalidArgument: it is none.
absl::StatusOr<McpMessage> ReadMcpMessage(std::string_view text);
// Of the results of tools/list and tools/call. `next_cursor`: where the list goes on; empty: it is
// complete.
absl::StatusOr<std::vector<McpTool>> ReadMcpTools(std::string_view result_json,
                                                  std::string* next_cursor);
absl::StatusOr<std::string> ReadMcpResult(std::string_view result_json);

}  // namespace parley::tools
