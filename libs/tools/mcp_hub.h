#pragma once
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/mutex.h"
#include "tools/mcp.h"

namespace parley::tools {

// One of a definition's mcp_servers.
struct McpUse {
  std::string name;  // a program of the operator's; empty: a URL
  std::string url;
  std::map<std::string, std::string> headers;
  std::vector<std::string> allowed_tools;  // empty: all
  std::vector<std::string> agents;         // whose they are, by id; empty: everybody's
  absl::Duration timeout = absl::Seconds(5);

  // Of a whole definition, as registered; an empty text has none.
  //   InvalidArgument  not a definition
  static absl::StatusOr<std::vector<McpUse>> FromDefinition(std::string_view definition_json);
};

// The MCP servers that definitions use. Connections are shared: those over HTTP by the calls of one
// project, programs by all. A list of tools is kept for a minute, and stands in for one that cannot
// be had; a server that gave none is asked again after ten seconds. Thread-safe; calls block.
class McpHub {
 public:
  // `programs`: what the operator allows to be named.
  McpHub(std::map<std::string, McpCommand> programs, std::shared_ptr<http::Client> client,
         http::Reach reach);
  ~McpHub();

  // Without time left (`timeout` of 0 or less): what is known already.
  //   NotFound  no program of that name; else as McpServer
  absl::StatusOr<std::vector<McpTool>> Tools(const std::string& project, const McpUse& use);
  absl::StatusOr<std::string> Call(const std::string& project, const McpUse& use,
                                   std::string_view tool, std::string_view arguments_json,
                                   absl::Duration timeout, const std::function<bool()>& cancelled);

 private:
  struct Known {
    std::shared_ptr<McpServer> server;
    std::vector<McpTool> tools;
    absl::Time listed = absl::InfinitePast();
    absl::Status failed;  // why there was no list when it was last asked for …
    absl::Time failed_at = absl::InfinitePast();
    absl::Time used;
  };
  // What is known of the list; nothing: the server is to be asked.
  std::optional<absl::StatusOr<std::vector<McpTool>>> Remembered(const std::string& key);
  void Remember(const std::string& key, const absl::StatusOr<std::vector<McpTool>>& list);
  absl::StatusOr<std::shared_ptr<McpServer>> ServerOf(const std::string& key, const McpUse& use);
  static std::string KeyOf(const std::string& project, const McpUse& use);

  const std::map<std::string, McpCommand> programs_;
  const std::shared_ptr<http::Client> client_;
  const http::Reach reach_;
  Mutex mutex_;
  std::map<std::string, Known> known_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace parley::tools
