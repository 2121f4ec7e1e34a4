// parley autoscale simulate: a day of calls against the autoscaler that is shipped.
#include <fmt/format.h>

#include <memory>

#include "autoscale/simulation.h"
#include "base/status.h"
#include "base/strings.h"
#include "files.h"
#include "operation.h"

namespace parley::cli {
namespace {

struct Simulation {
  std::string manifest;
  std::string name = "agent-server";
  std::string trace;
  autoscale::SimulationOptions options;
  std::string day = "24h";
  std::string mean_call = "5m";
  int peak = 2000;
  uint64_t seed = 1;
};

absl::StatusOr<double> Seconds(const std::string& text, const char* flag) {
  const auto duration = ParseDuration(text);
  if (!duration || *duration <= absl::ZeroDuration())
    return UsageError(fmt::format("{} must be a duration such as 5m, not {}", flag, text));
  return absl::ToDoubleSeconds(*duration);
}

absl::StatusOr<autoscale::Manifest> ReadManifest(const Simulation& simulation) {
  PARLEY_ASSIGN_OR_RETURN(const std::string text, ReadFile(simulation.manifest));
  auto manifests = autoscale::ParseManifests(text);
  if (!manifests.ok()) return Annotate(manifests.status(), simulation.manifest);
  for (autoscale::Manifest& manifest : *manifests)
    if (manifest.name == simulation.name) return std::move(manifest);
  return NotFound("{}: no HorizontalPodAutoscaler is called {}", simulation.manifest,
                  simulation.name);
}

absl::StatusOr<std::vector<autoscale::TraceCall>> ReadCalls(const Simulation& simulation) {
  if (!simulation.trace.empty()) {
    PARLEY_ASSIGN_OR_RETURN(const std::string text, ReadFile(simulation.trace));
    auto calls = autoscale::ParseTrace(text);
    if (!calls.ok()) return Annotate(calls.status(), simulation.trace);
    return calls;
  }
  PARLEY_ASSIGN_OR_RETURN(const double day_s, Seconds(simulation.day, "--day"));
  PARLEY_ASSIGN_OR_RETURN(const double mean_s, Seconds(simulation.mean_call, "--mean-call"));
  return autoscale::MakeDay(day_s, simulation.peak, mean_s, simulation.seed);
}

absl::Status Simulate(const Command& command, const Simulation& simulation) {
  PARLEY_ASSIGN_OR_RETURN(const autoscale::Manifest manifest, ReadManifest(simulation));
  PARLEY_ASSIGN_OR_RETURN(const auto calls, ReadCalls(simulation));
  PARLEY_ASSIGN_OR_RETURN(const autoscale::SimulationResult r,
                          autoscale::Simulate(manifest, calls, simulation.options));
  const double ratio = r.oracle_hours > 0 ? r.worker_hours / r.oracle_hours : 0;
  if (command.output.json) {
    PrintJson(
        {{"calls", r.calls},
         {"waitSeconds", {{"p50", r.wait_p50_s}, {"p99", r.wait_p99_s}, {"max", r.wait_max_s}}},
         {"cutCalls", r.cut},
         {"workerHours", r.worker_hours},
         {"oracleWorkerHours", r.oracle_hours},
         {"ratio", ratio},
         {"peakServers", r.peak_servers},
         {"scaleUps", r.scale_ups},
         {"scaleDowns", r.scale_downs}});
    return absl::OkStatus();
  }
  fmt::print("{} calls, {} cut\n", r.calls, r.cut);
  fmt::print("wait for a server: p50 {:.2f} s, p99 {:.2f} s, longest {:.2f} s\n", r.wait_p50_s,
             r.wait_p99_s, r.wait_max_s);
  fmt::print("worker-hours: {:.1f}; an oracle would need {:.1f}: {:.2f} times that\n",
             r.worker_hours, r.oracle_hours, ratio);
  fmt::print("at most {} servers; {} times up, {} times down\n", r.peak_servers, r.scale_ups,
             r.scale_downs);
  if (manifest.others > 0)
    fmt::print("{} metrics of other kinds (such as CPU) are not simulated\n", manifest.others);
  return absl::OkStatus();
}

}  // namespace

void AddAutoscale(CLI::App& root, Command& command) {
  CLI::App& noun = *root.add_subcommand("autoscale", "What an autoscaler would do");
  auto simulation = std::make_shared<Simulation>();
  CLI::App* simulate = AddCommand(
      noun, command, "simulate", "Replay a day of calls against an autoscaler's manifest",
      [&command, simulation] { return Simulate(command, *simulation); });
  autoscale::SimulationOptions& options = simulation->options;
  simulate->add_option("manifest", simulation->manifest, "File with the HorizontalPodAutoscaler")
      ->required();
  simulate->add_option("--name", simulation->name, "Which one of it")->capture_default_str();
  simulate->add_option("--trace", simulation->trace,
                       "CSV of calls: start_s,duration_s; default: a day made up, with two spikes");
  simulate->add_option("--day", simulation->day, "Length of the day made up")
      ->capture_default_str();
  simulate->add_option("--peak", simulation->peak, "Its calls at once")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  simulate->add_option("--mean-call", simulation->mean_call, "Their mean length")
      ->capture_default_str();
  simulate->add_option("--seed", simulation->seed, "Of the day made up")->capture_default_str();
  simulate->add_option("--slots", options.slots, "Slots of an agent server")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  simulate->add_option("--start-seconds", options.start_s, "From wanted to registered")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  simulate->add_option("--metrics-lag-seconds", options.metrics_lag_s, "Age of what it sees")
      ->check(CLI::Range(0.0, 600.0))
      ->capture_default_str();
  simulate->add_option("--sync-seconds", options.sync_s, "How often it decides")
      ->check(CLI::Range(0.05, 600.0))
      ->capture_default_str();
  simulate->add_option("--drain-seconds", options.drain_s, "Drain of an agent server")
      ->check(CLI::Range(0.0, 86400.0))
      ->capture_default_str();
  simulate->add_option("--step-seconds", options.step_s, "Step of the simulation")
      ->check(CLI::Range(0.001, 60.0))
      ->capture_default_str();
  simulate->add_flag("--pack", options.pack, "Fuller servers first (--broker-placement pack)");
}

}  // namespace parley::cli
