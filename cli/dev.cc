// parley dev: the whole cluster in one process, for a laptop.
#include <fmt/format.h>

#include <atomic>
#include <memory>

#include "base/status.h"
#include "base/strings.h"
#include "cluster.h"
#include "command.h"
#include "signals.h"

namespace parley::cli {
namespace {

void PrintWelcome(const Cluster& cluster, const std::vector<std::string>& agents) {
  std::string names;
  for (const std::string& id : agents) names += (names.empty() ? "" : ", ") + id;
  fmt::print(
      "\nParley is up: every service in this process, loopback only, development keys.\n"
      "  console       {}/   (in a browser; key devkey, secret \"secret\")\n"
      "  HTTP API      {}   (GET /openapi.json describes it)\n"
      "  LiveKit URL   {}     key devkey, secret \"secret\"\n"
      "  agents        {}\n"
      "  data          {}{}\n"
      "Ctrl-C stops it.\n\n",
      cluster.url(), cluster.url(), cluster.livekit_url(),
      names.empty() ? "none; register one with `parley agents apply FILE`" : names,
      cluster.data_dir(), cluster.keeps_data() ? "" : " (removed at the end; --data-dir keeps it)");
  std::fflush(stdout);
}

absl::Status Dev(const Command& command, const ClusterOptions& options) {
  if (command.zygote == nullptr) return Internal("the zygote is missing");
  const std::atomic<bool>& stop = WatchSignals();
  PARLEY_ASSIGN_OR_RETURN(const auto cluster, Cluster::Start(options, *command.zygote));
  PARLEY_ASSIGN_OR_RETURN(const std::vector<std::string> agents,
                          RegisterExamples(*cluster, options.agents));
  PrintWelcome(*cluster, agents);
  std::string ended;
  while (!stop.load() && ended.empty()) {
    absl::SleepFor(absl::Milliseconds(100));
    ended = cluster->Ended();
  }
  cluster->Stop();
  if (!ended.empty()) return Internal("{} ended by itself; the cluster was stopped", ended);
  return absl::OkStatus();
}

}  // namespace

void AddDev(CLI::App& root, Command& command) {
  auto options = std::make_shared<ClusterOptions>();
  CLI::App* dev = AddCommand(root, command, "dev",
                             "Run the whole cluster in one process, with a Redis of its own",
                             [&command, options] { return Dev(command, *options); });
  dev->add_option("--port-offset", options->port_offset, "Added to every default port")
      ->check(CLI::Range(0, 50'000));
  dev->add_option("--data-dir", options->data_dir,
                  "Where Redis keeps agents and history; default: a folder removed at the end");
  dev->add_option("--agents", options->agents,
                  "Definitions to register (files, or folders of *.yaml); default: ./examples");
  dev->add_option("--slots", options->slots, "How many calls at once; default: 50 for each core")
      ->check(CLI::Range(0, 10'000));
  dev->add_option("--recordings-folder", options->recordings_folder,
                  "Keep recordings of calls whose definition asks for one here");
  dev->add_option("--mcp-servers", options->mcp_servers,
                  "File with the MCP servers on this machine that definitions may name");
  dev->add_option("--attach", options->attach,
                  "Files that name other LiveKit servers whose jobs these agents take");
  dev->add_option("--log-level", options->log_level, "Least severe lines to write")
      ->check(CLI::IsMember({"debug", "info", "warn", "error"}))
      ->capture_default_str();
  dev->add_option("--trace-endpoint", options->trace_endpoint,
                  "Collector that spans are sent to over OTLP/HTTP, such as http://127.0.0.1:4318");
}

}  // namespace parley::cli
