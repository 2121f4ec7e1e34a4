// `parley test`: written conversations, run without a cluster.
#include <fmt/format.h>

#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "command.h"
#include "files.h"
#include "registry/definition.h"
#include "rehearsal/stage.h"

namespace parley::cli {
namespace {

struct TestOptions {
  std::vector<std::string> scenarios;
  std::string agent;
  bool log = false;
};

absl::StatusOr<rehearsal::Outcome> Rehearse(const std::string& path,
                                            const std::string& agent_json) {
  PARLEY_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  PARLEY_ASSIGN_OR_RETURN(const auto scenario, rehearsal::ParseScenario(text, path));
  PARLEY_ASSIGN_OR_RETURN(const auto agent, rehearsal::AgentOf(scenario, agent_json));
  PARLEY_ASSIGN_OR_RETURN(const auto cast, rehearsal::CastOf(agent));
  return rehearsal::Perform(scenario, cast);
}

void Show(const TestOptions& options, const std::string& path, const rehearsal::Outcome& outcome) {
  fmt::print("{} {} ({:.1f} s of conversation, {} turns)\n", outcome.passed() ? "PASS" : "FAIL",
             path, static_cast<double>(outcome.played_us) / 1e6, outcome.turns.size());
  for (const std::string& failure : outcome.failures) fmt::print("  {}\n", failure);
  if (options.log) fmt::print("{}", outcome.LogText());
}

Json ToJson(const std::string& path, const rehearsal::Outcome& outcome) {
  return {{"scenario", path},
          {"passed", outcome.passed()},
          {"failures", outcome.failures},
          {"turns", outcome.turns.size()},
          {"seconds", static_cast<double>(outcome.played_us) / 1e6},
          {"history", outcome.history}};
}

absl::Status RunTest(const TestOptions& options, const Output& output) {
  std::string agent_json;
  if (!options.agent.empty()) {
    PARLEY_ASSIGN_OR_RETURN(const std::string text, ReadFile(options.agent));
    PARLEY_ASSIGN_OR_RETURN(
        const auto agent, registry::ParseDefinition(text, options.agent, {.allow_loopback = true}));
    agent_json = registry::ToJson(agent);
  }
  size_t failed = 0;
  Json list = Json::array();
  for (const std::string& path : options.scenarios) {
    PARLEY_ASSIGN_OR_RETURN(const rehearsal::Outcome outcome, Rehearse(path, agent_json));
    if (!outcome.passed()) ++failed;
    if (output.json) {
      list.push_back(ToJson(path, outcome));
    } else if (!output.quiet || !outcome.passed()) {
      Show(options, path, outcome);
    }
  }
  if (output.json) PrintJson(list);
  if (failed == 0) return absl::OkStatus();
  return FailedPrecondition("{} of {} scenarios failed", failed, options.scenarios.size());
}

}  // namespace

void AddTest(CLI::App& root, Command& command) {
  auto options = std::make_shared<TestOptions>();
  CLI::App* app = AddCommand(root, command, "test", "Run written conversations, without a cluster",
                             [options, &command] { return RunTest(*options, command.output); });
  app->add_option("scenario", options->scenarios, "Scenario files; see docs/rehearsals.md")
      ->required();
  app->add_option("--agent", options->agent, "Agent definition; default: the scenario's own");
  app->add_flag("--log", options->log, "Print the decision log, too");
}

}  // namespace parley::cli
