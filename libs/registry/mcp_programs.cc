#include "registry/mcp_programs.h"

#include "registry/checks.h"
#include "registry/definition.h"
#include "registry/reader.h"

namespace parley::registry {
namespace {

constexpr size_t kMaxPrograms = 64;

}  // namespace

absl::StatusOr<std::map<std::string, McpProgram>> ParseMcpPrograms(std::string_view text,
                                                                   std::string_view source_name) {
  if (text.size() > kMaxDefinitionBytes) {
    return DefinitionError(source_name, 0, "", "is longer than a definition may be");
  }
  PARLEY_ASSIGN_OR_RETURN(const Node root, ParseTree(text, source_name));
  Errors errors(source_name);
  std::map<std::string, McpProgram> programs;
  if (root.kind != Node::Kind::kMap || root.items.size() > kMaxPrograms) {
    errors.Fail(root.line, "", "must be a map of at most {} MCP servers", kMaxPrograms);
  }
  for (size_t i = 0; i < root.keys.size() && errors.ok(); ++i) {
    const std::string& name = root.keys[i];
    if (!IsId(name)) {
      errors.Fail(root.key_lines[i], name, "its name must be 1 to 63 of a to z, 0 to 9 and -");
      break;
    }
    if (root.items[i].kind != Node::Kind::kMap) {
      errors.Fail(root.key_lines[i], name, "must be a map");
      break;
    }
    McpProgram& program = programs[name];
    MapReader fields(root.items[i], name, errors);
    fields.Required("command");
    fields.TextList("command", &program.command, 64, {1, 4096});
    if (program.command.empty()) fields.Fail("command", "must name a program");
    fields.Texts("environment", &program.environment, 64, {1, 256}, {0, 4096});
    fields.Finish();
  }
  if (!errors.ok()) return errors.status();
  return programs;
}

}  // namespace parley::registry
