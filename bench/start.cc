// scripts/bench start: from the start of an agent server's process to its registration at the
// broker, and what an idle one costs.
#include <fmt/format.h>
#include <signal.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "base/clock.h"
#include "base/status.h"
#include "options.h"
#include "procfs.h"
#include "report.h"
#include "testing/cluster.h"

namespace parley::bench {
namespace {

absl::Status Run(const Options& options) {
  const int n = options.quick ? 3 : 30;
  const auto idle = std::chrono::seconds(options.quick ? 3 : 60);
  testing::ClusterOptions cluster_options;
  cluster_options.services = {"agent-registry", "dispatch-broker"};
  cluster_options.agent_servers = 0;
  PARLEY_ASSIGN_OR_RETURN(auto cluster, testing::Cluster::Start(cluster_options));

  std::vector<double> registered_ms;
  for (int i = 0; i < n; ++i) {
    const absl::Time start = Clock::Real().Now();
    PARLEY_RETURN_IF_ERROR(cluster->StartAgentServer());
    // The worker's own stamp of the moment (milliseconds), not when this program noticed.
    testing::Process& server = cluster->AgentServer(static_cast<size_t>(i));
    PARLEY_ASSIGN_OR_RETURN(const std::string line,
                            server.WaitForLine("\"msg\":\"registered\"", absl::Seconds(1)));
    absl::Time at;
    std::string error;
    if (!absl::ParseTime(absl::RFC3339_full, nlohmann::json::parse(line)["time"].get<std::string>(),
                         &at, &error)) {
      return absl::InternalError("a log line without a time: " + line);
    }
    registered_ms.push_back(absl::ToDoubleMilliseconds(at - start));
    if (i + 1 == n) break;
    server.Signal(SIGTERM);
    PARLEY_RETURN_IF_ERROR(server.Wait(absl::Seconds(20)).status());
  }

  const std::vector<pid_t> worker = Tree(cluster->AgentServer(static_cast<size_t>(n - 1)).pid());
  std::this_thread::sleep_for(std::chrono::seconds(2));  // what belongs to the start is over
  const double before = CpuSeconds(worker);
  std::this_thread::sleep_for(idle);
  const double percent =
      100 * (CpuSeconds(worker) - before) / std::chrono::duration<double>(idle).count();

  Report report("start", options);
  report.Samples("worker.start_to_registered_ms", "ms", registered_ms, "<= 300");
  report.Value("worker.idle_cpu_percent", "%", percent, 1, "<= 0.2");
  return report.Finish() ? absl::OkStatus()
                         : absl::InternalError("the result file could not be written");
}

}  // namespace
}  // namespace parley::bench

int main(int argc, char** argv) {
  const parley::bench::Options options = parley::bench::ParseOptions(argc, argv);
  const absl::Status status = parley::bench::Run(options);
  if (!status.ok()) fmt::print(stderr, "bench start: {}\n", parley::Message(status));
  return status.ok() ? 0 : 1;
}
