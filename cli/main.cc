// The command line. Commands that may run agents (dev, console) split off the zygote before
// anything else happens: jobs are forks of a process without threads.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string_view>

#include "agent/run_agent.h"
#include "agent/server/program.h"
#include "agent/server/serve.h"
#include "base/status.h"
#include "command.h"
#include "operation.h"
#include "registry/definition.h"
#include "service/service.h"

namespace {

using parley::cli::Command;

// Does the line name a command that runs agents in this process, and is it more than a question?
bool RunsAgents(int argc, char** argv) {
  bool runs = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "--help" || word == "-h") return false;
    if (word == "dev" || word == "console") runs = true;
  }
  return runs;
}

void AddAll(CLI::App& app, Command& command) {
  app.fallthrough();
  app.set_help_all_flag("--help-all", "Help of every command");
  app.add_flag("--json", command.output.json, "Print data as JSON");
  app.add_flag("-q,--quiet", command.output.quiet, "Print ids only, or nothing");
  app.add_option("--server", command.server,
                 "URL of api_server; default PARLEY_SERVER, else http://127.0.0.1:8080");
  AddTls(app, command.tls);
  app.footer(
      "Keys: PARLEY_API_KEY and PARLEY_API_SECRET, else LIVEKIT_API_KEY and LIVEKIT_API_SECRET;\n"
      "the development pair for servers on this machine. Exit codes: 1 failed, 2 usage,\n"
      "3 not found, 4 not authorised, 5 unavailable.");
  AddDev(app, command);
  AddCall(app, command);
  AddConsole(app, command);
  AddAgents(app, command);
  AddDispatch(app, command);
  AddSessions(app, command);
  AddRunning(app, command);
  AddDoctor(app, command);
  AddAutoscale(app, command);
  AddTest(app, command);
  AddToken(app, command);
  AddSpeech(app, command);
  AddCommand(app, command, "schema", "JSON schema of agent definitions", [] {
    fmt::print("{}\n", parley::registry::SchemaJson());
    return absl::OkStatus();
  });
  AddCommand(app, command, "version", "Version of this program", [&command] {
    if (command.output.json) {
      parley::cli::PrintJson({{"version", PARLEY_VERSION}});
    } else {
      fmt::print("parley {}\n", PARLEY_VERSION);
    }
    return absl::OkStatus();
  });
}

// A noun without a verb, or nothing at all: show what there is.
int PrintUsage(CLI::App& app) {
  CLI::App* deepest = &app;
  while (!deepest->get_subcommands().empty()) deepest = deepest->get_subcommands().front();
  fmt::print(stderr, "{}", deepest->help());
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  Command command;
  int exit_code = 0;
  if (parley::agent::HandledDeathReport(argc, argv, &exit_code)) return exit_code;
  if (RunsAgents(argc, argv)) {
    auto zygote = parley::agent::SplitProgram(parley::agent::ConfiguredAgents());
    if (!zygote.ok()) {
      parley::cli::PrintError(zygote.status());
      return 1;
    }
    command.zygote = *std::move(zygote);
    parley::service::BlockSignals();
  }
  CLI::App app("Parley: a self-hosted cluster for real-time voice agents", "parley");
  AddAll(app, command);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (!command.run) return PrintUsage(app);
  const absl::Status status = command.run();
  if (!status.ok()) parley::cli::PrintError(status);
  return parley::cli::ExitCodeOf(status);
}
