// parley agents apply|validate|list|get|delete; deployments.cc has the rest
#include "agents.h"

#include <fmt/format.h>

#include <memory>
#include <vector>

#include "base/status.h"
#include "command.h"
#include "files.h"
#include "registry/definition.h"

namespace parley::cli {
namespace {

// Every file is tried; the first failure is the command's result, the others are printed.
absl::Status ForEachFile(const std::vector<std::string>& files,
                         const std::function<absl::Status(const std::string&)>& one) {
  absl::Status first;
  for (const std::string& file : files) {
    absl::Status status = one(file);
    if (status.ok()) continue;
    if (status.code() == absl::StatusCode::kUnavailable) return status;
    if (!first.ok()) PrintError(first);
    first = status;
  }
  return first;
}

absl::Status Apply(const Command& command, const std::vector<std::string>& files) {
  Api api = command.MakeApi();
  Json results = Json::array();
  absl::Status status = ForEachFile(files, [&](const std::string& file) -> absl::Status {
    PARLEY_ASSIGN_OR_RETURN(const Json agent, RegisterFile(api, file));
    results.push_back(agent);
    if (command.output.json) return absl::OkStatus();
    if (command.output.quiet) {
      fmt::print("{}\n", Cell(agent, "id"));
    } else {
      fmt::print("{} version {}{}\n", Cell(agent, "id"), Cell(agent, "version"),
                 agent["created"] ? "" : " (unchanged)");
    }
    return absl::OkStatus();
  });
  if (command.output.json) PrintJson(results);
  return status;
}

// Needs no server: the registry checks with the same code.
absl::Status Validate(const Command& command, const std::vector<std::string>& files,
                      bool public_only) {
  const registry::ParseOptions options{.allow_loopback = !public_only};
  return ForEachFile(files, [&](const std::string& file) -> absl::Status {
    PARLEY_ASSIGN_OR_RETURN(const std::string text, ReadFile(file));
    PARLEY_ASSIGN_OR_RETURN(const registry::AgentDefinition agent,
                            registry::ParseDefinition(text, file, options));
    if (!command.output.quiet) fmt::print("{}: valid, agent {}\n", file, agent.id);
    return absl::OkStatus();
  });
}

absl::Status List(const Command& command, const std::string& label) {
  Api api = command.MakeApi();
  const std::string path =
      "/api/agents" + (label.empty() ? "" : "?label=" + http::UrlEncode(label));
  PARLEY_ASSIGN_OR_RETURN(const Json agents, api.List(path, "agents"));
  if (command.output.json) {
    PrintJson(agents);
    return absl::OkStatus();
  }
  Table table({"ID", "VERSION", "AGENT NAME", "POOL", "NAME", "AGE"});
  for (const Json& agent : agents) {
    if (command.output.quiet) fmt::print("{}\n", Cell(agent, "id"));
    table.Row({Cell(agent, "id"), Cell(agent, "version"), Cell(agent, "agentName"),
               Cell(agent, "pool"), Cell(agent, "name"), Age(agent, "createTime")});
  }
  if (!command.output.quiet) table.Print();
  return absl::OkStatus();
}

absl::Status Get(const Command& command, const std::string& id) {
  Api api = command.MakeApi();
  PARLEY_ASSIGN_OR_RETURN(const Json agent, api.Get("/api/agents/" + http::UrlEncode(id)));
  PrintJson(agent);
  return absl::OkStatus();
}

absl::Status Delete(const Command& command, const std::string& id) {
  Api api = command.MakeApi();
  PARLEY_ASSIGN_OR_RETURN(const Json ignored, api.Delete("/api/agents/" + http::UrlEncode(id)));
  if (!command.output.quiet && !command.output.json) fmt::print("{} is gone\n", id);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Json> RegisterFile(Api& api, const std::string& path) {
  PARLEY_ASSIGN_OR_RETURN(std::string text, ReadFile(path));
  int status = 0;
  const std::string target = "/api/agents/register?source=" + http::UrlEncode(path);
  PARLEY_ASSIGN_OR_RETURN(const std::string body,
                          api.Send("POST", target, "application/yaml", std::move(text), &status));
  Json agent = Json::parse(body, nullptr, false);
  if (!agent.is_object()) return Internal("{} did not answer with an agent", api.server());
  agent["created"] = status == 201;
  return agent;
}

void AddAgents(CLI::App& root, Command& command) {
  CLI::App& agents = *root.add_subcommand("agents", "Agent definitions in the registry");
  auto files = std::make_shared<std::vector<std::string>>();
  auto text = std::make_shared<std::string>();
  AddCommand(agents, command, "apply", "Register definitions; a changed one is a new version",
             [&command, files] { return Apply(command, *files); })
      ->add_option("FILE", *files, "Definitions, YAML or JSON")
      ->required();
  auto public_only = std::make_shared<bool>(false);
  CLI::App* validate = AddCommand(
      agents, command, "validate", "Check definitions; needs no server",
      [&command, files, public_only] { return Validate(command, *files, *public_only); });
  validate->add_option("FILE", *files, "Definitions, YAML or JSON")->required();
  validate->add_flag("--public-only", *public_only,
                     "Refuse tools on this machine, as servers do outside of `parley dev`");
  AddCommand(agents, command, "list", "Newest version of every agent", [&command, text] {
    return List(command, *text);
  })->add_option("--label", *text, "Only agents with this label, as name=value");
  AddCommand(agents, command, "get", "One agent with its definition, as JSON",
             [&command, text] { return Get(command, *text); })
      ->add_option("ID", *text, "Id of the agent")
      ->required();
  AddCommand(agents, command, "delete", "Remove an agent; running jobs keep their version",
             [&command, text] { return Delete(command, *text); })
      ->add_option("ID", *text, "Id of the agent")
      ->required();
  AddDeployments(agents, command);
}

}  // namespace parley::cli
