// scripts/bench handover: how long a caller has no agent while its call is handed over from one
// agent server to another. Calls on two agent servers, moved by request, one after the other.
#include <fmt/format.h>

#include <filesystem>
#include <fstream>

#include "base/check.h"
#include "base/ids.h"
#include "base/status.h"
#include "options.h"
#include "report.h"
#include "testing/calls.h"

namespace parley::bench {
namespace {

absl::Status Run(const Options& options, int calls, int moves) {
  const std::string script =
      std::filesystem::temp_directory_path() / fmt::format("parley-{}.json", RandomHex(6));
  std::ofstream(script) << testing::MemoryCall::kScript;
  testing::ClusterOptions cluster_options;
  cluster_options.agent_servers = 2;
  cluster_options.agent_arguments = {"--slots", "50"};
  for (const char* kind : {"stt", "tts", "llm"}) {
    cluster_options.extra_arguments[fmt::format("{}-gateway", kind)] = {
        fmt::format("--{}-script", kind), script};
  }
  PARLEY_ASSIGN_OR_RETURN(const auto cluster, testing::Cluster::Start(cluster_options));
  std::filesystem::remove(script);
  testing::Api api(*cluster);
  PARLEY_RETURN_IF_ERROR(api.Register(testing::MemoryCall::kAgent));
  std::vector<std::unique_ptr<testing::MemoryCall>> placed;
  for (int i = 0; i < calls; ++i) {
    PARLEY_ASSIGN_OR_RETURN(auto call, testing::MemoryCall::Place(api, fmt::format("w{}x", i)));
    PARLEY_RETURN_IF_ERROR(call->Tell());
    placed.push_back(std::move(call));
  }
  for (int i = 0; i < moves; ++i) {
    PARLEY_RETURN_IF_ERROR(api.Migrate(
        placed[static_cast<size_t>(i) % placed.size()]->dispatch_id(), absl::Seconds(20)));
  }
  std::vector<double> silent;
  for (const auto& call : placed) {
    PARLEY_RETURN_IF_ERROR(call->Ask());  // a figure counts only if the calls are uncut
    for (const double gap : call->GapsMs()) silent.push_back(gap);
  }
  std::vector<double> paused;
  for (size_t i = 0; i < 2; ++i) {
    for (const double pause : testing::HandOverPausesMs(cluster->AgentServer(i).Log())) {
      paused.push_back(pause);
    }
  }
  if (paused.size() != static_cast<size_t>(moves)) {
    return Internal("{} hand-overs asked for, {} seen", moves, paused.size());
  }
  Report report("handover", options);
  report.Samples("handover.not_listening_ms", "ms", paused, "<= 500 p99");
  report.Samples("handover.agent_away_ms", "ms", silent);
  return report.Finish() ? absl::OkStatus() : Internal("the result could not be written");
}

}  // namespace
}  // namespace parley::bench

int main(int argc, char** argv) {
  int calls = 10;
  int moves = 300;
  const auto options = parley::bench::ParseOptions(argc, argv, [&](CLI::App& app) {
    app.add_option("--calls", calls, "Live calls");
    app.add_option("--moves", moves, "Hand-overs");
  });
  if (options.quick) moves = 20;
  const absl::Status status = parley::bench::Run(options, calls, moves);
  if (!status.ok()) fmt::print(stderr, "{}\n", parley::Message(status));
  return status.ok() ? 0 : 1;
}
