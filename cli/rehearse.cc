// `parley test` and `parley replay`: conversations run without a cluster, as written or as
// recorded.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "command.h"
#include "files.h"
#include "registry/definition.h"
#include "rehearsal/stage.h"
#include "session/recording.h"

namespace parley::cli {
namespace {

struct TestOptions {
  std::vector<std::string> scenarios;
  std::string agent;
  std::string record;
  bool log = false;
};

struct ReplayOptions {
  std::string recording;
  std::vector<std::string> set;
  bool log = false;
};

// For its owner alone: recordings hold what was said.
absl::Status WriteRecording(const std::string& path, std::string_view text) {
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (file < 0) return NotFound("{} cannot be written: {}", path, std::strerror(errno));
  while (!text.empty()) {
    const ssize_t written = write(file, text.data(), text.size());
    if (written <= 0) {
      const int error = errno;
      close(file);
      return Unavailable("{}: {}", path, std::strerror(error));
    }
    text.remove_prefix(static_cast<size_t>(written));
  }
  close(file);
  return absl::OkStatus();
}

absl::StatusOr<rehearsal::Outcome> Rehearse(const std::string& path, const std::string& agent_json,
                                            const std::string& record) {
  PARLEY_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  PARLEY_ASSIGN_OR_RETURN(const auto scenario, rehearsal::ParseScenario(text, path));
  PARLEY_ASSIGN_OR_RETURN(const auto agent, rehearsal::AgentOf(scenario, agent_json));
  PARLEY_ASSIGN_OR_RETURN(const auto cast, rehearsal::CastOf(agent));
  if (record.empty()) return rehearsal::Perform(scenario, cast);
  std::string recording;
  session::Recorder recorder([&recording](std::string_view line) { recording += line; });
  rehearsal::Outcome outcome = rehearsal::Perform(scenario, cast, &recorder);
  PARLEY_RETURN_IF_ERROR(WriteRecording(record, recording));
  return outcome;
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
  if (!options.record.empty() && options.scenarios.size() != 1) {
    return UsageError("--record takes one scenario: a recording is one session");
  }
  size_t failed = 0;
  Json list = Json::array();
  for (const std::string& path : options.scenarios) {
    PARLEY_ASSIGN_OR_RETURN(const rehearsal::Outcome outcome,
                            Rehearse(path, agent_json, options.record));
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

// What was said and when: the lines that --set may change.
std::vector<std::string> Spoken(const session::Replayed& replayed) {
  std::vector<std::string> lines;
  for (const std::string& line : replayed.log) {
    const size_t at = line.find_first_not_of(' ');
    const size_t text = line.find(' ', at == std::string::npos ? 0 : at);
    if (text != std::string::npos && line.compare(text + 1, 5, "item ") == 0) lines.push_back(line);
  }
  return lines;
}

absl::Status RunReplay(const ReplayOptions& options, const Output& output) {
  std::map<std::string, std::string> changes;
  for (const std::string& one : options.set) {
    const size_t equals = one.find('=');
    if (equals == std::string::npos) return UsageError("--set takes NAME=VALUE, not " + one);
    changes[one.substr(0, equals)] = one.substr(equals + 1);
  }
  PARLEY_ASSIGN_OR_RETURN(const std::string text, ReadFile(options.recording));
  PARLEY_ASSIGN_OR_RETURN(const session::Replayed as_it_was, session::Replay(text));
  session::Replayed shown = as_it_was;
  if (!changes.empty()) {
    PARLEY_ASSIGN_OR_RETURN(shown, session::Replay(text, changes));
  }
  const double seconds = static_cast<double>(as_it_was.duration_us) / 1e6;
  const char* verdict = !as_it_was.complete   ? "cut off before its end"
                        : as_it_was.identical ? "identical"
                                              : "DIFFERS from what was decided then";
  if (output.json) {
    PrintJson({{"complete", as_it_was.complete},
               {"identical", as_it_was.identical},
               {"seconds", seconds},
               {"decisions", shown.log}});
  } else if (options.log) {
    for (const std::string& line : shown.log) fmt::print("{}\n", line);
  }
  if (!output.json && !output.quiet) {
    fmt::print("{}: {:.1f} s, {} decisions, {}\n", options.recording, seconds, as_it_was.log.size(),
               verdict);
    if (!changes.empty()) {
      // What callers and engines did is as it was: from the first difference on it is a guess.
      for (const std::string& line : Spoken(as_it_was)) fmt::print("- {}\n", line);
      for (const std::string& line : Spoken(shown)) fmt::print("+ {}\n", line);
    }
  }
  if (as_it_was.complete && !as_it_was.identical) {
    return FailedPrecondition("the replay decided otherwise than the recorded session");
  }
  return absl::OkStatus();
}

}  // namespace

void AddTest(CLI::App& root, Command& command) {
  auto options = std::make_shared<TestOptions>();
  CLI::App* app = AddCommand(root, command, "test", "Run written conversations, without a cluster",
                             [options, &command] { return RunTest(*options, command.output); });
  app->add_option("scenario", options->scenarios, "Scenario files; see docs/rehearsals.md")
      ->required();
  app->add_option("--agent", options->agent, "Agent definition; default: the scenario's own");
  app->add_option("--record", options->record, "Write a recording of the one scenario");
  app->add_flag("--log", options->log, "Print the decision log, too");

  auto replay = std::make_shared<ReplayOptions>();
  app = AddCommand(root, command, "replay", "Run a recorded session again, without services",
                   [replay, &command] { return RunReplay(*replay, command.output); });
  app->add_option("recording", replay->recording, "The recording")->required();
  app->add_option("--set", replay->set,
                  "Change an option, e.g. endpointing.min_delay=300ms; may be repeated");
  app->add_flag("--log", replay->log, "Print the decision log");
}

}  // namespace parley::cli
