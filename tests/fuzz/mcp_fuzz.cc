// What MCP servers send: messages, lists of tools, results.
#include <cstdint>
#include <string>

#include "registry/mcp_programs.h"
#include "tools/mcp.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto message = parley::tools::ReadMcpMessage(text);
  if (message.ok() && message->kind == parley::tools::McpMessage::Kind::kAnswer) {
    std::string cursor;
    (void)parley::tools::ReadMcpTools(message->result_json, &cursor);
    (void)parley::tools::ReadMcpResult(message->result_json);
  }
  (void)parley::registry::ParseMcpPrograms(text, "programs");
  return 0;
}
