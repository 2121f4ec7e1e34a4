#pragma once
// MCP servers that are programs: what an operator allows definitions to name. Never part of a
// definition, since whoever writes one does not choose what runs on a host.
#include <absl/status/statusor.h>

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace parley::registry {

struct McpProgram {
  std::vector<std::string> command;  // the program, in PATH or with its folder, and its arguments
  std::map<std::string, std::string> environment;  // beside PATH, HOME and LANG
};

// Reads YAML or JSON, names → programs:
//   files: {command: [mcp-server-filesystem, /srv/menus], environment: {TZ: UTC}}
// Errors are as ParseDefinition's.
absl::StatusOr<std::map<std::string, McpProgram>> ParseMcpPrograms(std::string_view text,
                                                                   std::string_view source_name);

}  // namespace parley::registry
