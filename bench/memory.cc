// scripts/bench memory: what a worker costs before its first job, and what each further job costs,
// idle (its entrypoint waits) and live (in a call with a silent caller): PSS and private memory of
// the worker's processes, as the slope over N jobs.
#include <fmt/format.h>

#include <thread>

#include "base/ids.h"
#include "base/status.h"
#include "checkout.h"
#include "options.h"
#include "procfs.h"
#include "report.h"
#include "testing/calls.h"

namespace parley::bench {
namespace {

Memory WorkerMemory(testing::Cluster& cluster, size_t server) {
  std::this_thread::sleep_for(
      std::chrono::seconds(2));  // what starting touched and freed has settled
  return MemoryOf(Tree(cluster.AgentServer(server).pid()));
}

// Adds rows for the cost of one more job: (after - before) / n.
void AddSlope(Report& report, const std::string& kind, const Memory& before, const Memory& after,
              int n) {
  const auto per_job = [n](int64_t a, int64_t b) { return static_cast<double>(a - b) / n; };
  report.Value("job." + kind + "_pss_kib", "KiB", per_job(after.pss_kib, before.pss_kib), n);
  report.Value("job." + kind + "_private_kib", "KiB",
               per_job(after.private_kib, before.private_kib), n);
  report.Value("job." + kind + "_page_tables_kib", "KiB",
               per_job(after.page_tables_kib, before.page_tables_kib), n);
}

absl::Status MeasureIdle(Report& report, int n) {
  testing::ClusterOptions options;
  options.agent_binary = "parley-bench-agent";
  options.agent_arguments = {"--warm", "0", "--slots", "200"};
  PARLEY_ASSIGN_OR_RETURN(auto cluster, testing::Cluster::Start(options));
  testing::Api api(*cluster);
  const Memory before = WorkerMemory(*cluster, 0);
  for (int i = 0; i < n; ++i) {
    PARLEY_RETURN_IF_ERROR(api.Call("POST", "/api/dispatches",
                                    {{"agentName", "bench"},
                                     {"room", "idle-" + RandomHex(6)},
                                     {"metadata", "{\"mode\":\"wait\"}"}})
                               .status());
  }
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (true) {
    PARLEY_ASSIGN_OR_RETURN(const auto jobs,
                            api.Call("GET", "/api/jobs?state=RUNNING&page_size=500"));
    if (static_cast<int>(jobs["jobs"].size()) >= n) break;
    if (std::chrono::steady_clock::now() > until)
      return DeadlineExceeded("only {} of {} jobs run", jobs["jobs"].size(), n);
  }
  AddSlope(report, "idle", before, WorkerMemory(*cluster, 0), n);
  return absl::OkStatus();
}

absl::Status MeasureLive(Report& report, int n) {
  PARLEY_ASSIGN_OR_RETURN(const std::string example, Example("front-desk.yaml"));
  testing::ClusterOptions options;
  options.agent_arguments = {"--warm", "0", "--slots", "200", "--tools-allow-loopback"};
  options.extra_arguments["api-server"] = {"--demo"};
  options.extra_arguments["agent-registry"] = {"--tools-allow-loopback"};
  PARLEY_ASSIGN_OR_RETURN(auto cluster, testing::Cluster::Start(options));
  testing::Api api(*cluster);
  PARLEY_RETURN_IF_ERROR(api.RegisterFile(example));
  const Memory base = WorkerMemory(*cluster, 0);
  report.Value("worker.base_pss_mib", "MiB", static_cast<double>(base.pss_kib) / 1024, 1, "<= 60");
  report.Value("worker.base_private_mib", "MiB", static_cast<double>(base.private_kib) / 1024, 1);
  std::vector<std::unique_ptr<testing::FrontDeskCall>> calls;
  for (int i = 0; i < n; ++i) {
    PARLEY_ASSIGN_OR_RETURN(auto call, testing::FrontDeskCall::Place(api));
    PARLEY_RETURN_IF_ERROR(call->Ask("single", "80"));
    calls.push_back(std::move(call));
  }
  AddSlope(report, "live", base, WorkerMemory(*cluster, 0), n);
  return absl::OkStatus();
}

absl::Status Run(const Options& options) {
  Report report("memory", options);
  PARLEY_RETURN_IF_ERROR(MeasureLive(report, options.quick ? 2 : 10));
  PARLEY_RETURN_IF_ERROR(MeasureIdle(report, options.quick ? 5 : 50));
  return report.Finish() ? absl::OkStatus()
                         : absl::InternalError("the result file could not be written");
}

}  // namespace
}  // namespace parley::bench

int main(int argc, char** argv) {
  const parley::bench::Options options = parley::bench::ParseOptions(argc, argv);
  const absl::Status status = parley::bench::Run(options);
  if (!status.ok()) fmt::print(stderr, "bench memory: {}\n", parley::Message(status));
  return status.ok() ? 0 : 1;
}
