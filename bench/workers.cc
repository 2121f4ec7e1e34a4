// scripts/bench workers: idle LiveKit workers on one api_server. How fast they register, and what
// each costs while it does nothing but say every 2.5 s, as LiveKit's SDKs do, how loaded it is.
#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <thread>
#include <vector>

#include "base/status.h"
#include "options.h"
#include "procfs.h"
#include "report.h"
#include "testing/cluster.h"
#include "testing/scripted_worker.h"

namespace parley::bench {
namespace {

using testing::ScriptedWorker;

constexpr int kThreads = 8;  // of the workers' side
constexpr absl::Duration kStatus = absl::Milliseconds(2500);

// A part of the workers, on a thread of its own.
class Crowd {
 public:
  Crowd(std::string address, int count) : address_(std::move(address)), count_(count) {}

  // Registers all, one after another; how long each took, in ms.
  void Register() {
    for (int i = 0; i < count_; ++i) {
      const absl::Time start = absl::Now();
      auto worker = std::make_unique<ScriptedWorker>(address_);
      if (worker->Register("bench").empty()) return;
      took_ms.push_back(absl::ToDoubleMilliseconds(absl::Now() - start));
      workers_.push_back(std::move(worker));
    }
  }
  // Says and hears what an idle worker does.
  void Idle(absl::Time until) {
    absl::Time next = absl::Now();
    size_t at = 0;
    const absl::Duration step = kStatus / std::max<size_t>(workers_.size(), 1);
    while (next < until) {
      absl::SleepFor(next - absl::Now());
      next += step;
      ScriptedWorker& worker = *workers_[at++ % workers_.size()];
      worker.SayStatus(livekit::v1::WS_AVAILABLE, 0.1F);
      if (worker.AwaitClose(absl::ZeroDuration()) >= 0) ++lost;
    }
  }

  std::vector<double> took_ms;
  int lost = 0;

 private:
  const std::string address_;
  const int count_;
  std::vector<std::unique_ptr<ScriptedWorker>> workers_;
};

template <typename Work>
void OnAll(std::deque<Crowd>& crowds, const Work& work) {
  std::vector<std::thread> threads;
  threads.reserve(crowds.size());
  for (Crowd& crowd : crowds) threads.emplace_back([&crowd, &work] { work(crowd); });
  for (std::thread& thread : threads) thread.join();
}

double Kib(const Memory& memory) {
  return static_cast<double>(memory.pss_kib + memory.page_tables_kib + memory.kernel_stacks_kib);
}

absl::Status Run(const Options& options, int count, Report& report) {
  testing::ClusterOptions cluster_options;
  cluster_options.services = {"room-server", "dispatch-broker", "api-server"};
  cluster_options.agent_servers = 0;
  PARLEY_ASSIGN_OR_RETURN(const auto cluster, testing::Cluster::Start(cluster_options));
  const std::vector<pid_t> api = {cluster->Service("api-server").pid()};
  const std::vector<pid_t> broker = {cluster->Service("dispatch-broker").pid()};
  const std::vector<pid_t> redis = {cluster->Redis().pid()};
  std::deque<Crowd> crowds;
  for (int i = 0; i < kThreads; ++i)
    crowds.emplace_back(cluster->Address("api-server"), count / kThreads);
  // The first of all costs what is then there for the others.
  const double before = Kib(MemoryOf(api));
  const absl::Time start = absl::Now();
  OnAll(crowds, [](Crowd& crowd) { crowd.Register(); });
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
  std::vector<double> took_ms;
  for (const Crowd& crowd : crowds)
    took_ms.insert(took_ms.end(), crowd.took_ms.begin(), crowd.took_ms.end());
  const int registered = static_cast<int>(took_ms.size());
  if (registered < count / kThreads * kThreads) {
    return Internal("{} of {} workers registered", registered, count);
  }
  const absl::Duration settle = options.quick ? absl::Seconds(3) : absl::Seconds(10);
  const absl::Duration idle = options.quick ? absl::Seconds(5) : absl::Seconds(60);
  const absl::Time until = absl::Now() + settle + idle;
  double cpu[3] = {0, 0, 0};
  double measured = 0;
  std::thread meter([&] {
    absl::SleepFor(settle);
    const absl::Time from = absl::Now();
    const double was[3] = {CpuSeconds(api), CpuSeconds(broker), CpuSeconds(redis)};
    absl::SleepFor(until - absl::Now() - absl::Milliseconds(200));
    cpu[0] = CpuSeconds(api) - was[0];
    cpu[1] = CpuSeconds(broker) - was[1];
    cpu[2] = CpuSeconds(redis) - was[2];
    measured = absl::ToDoubleSeconds(absl::Now() - from);
  });
  OnAll(crowds, [until](Crowd& crowd) { crowd.Idle(until); });
  meter.join();
  int lost = 0;
  for (const Crowd& crowd : crowds) lost += crowd.lost;
  if (lost > 0) return Internal("{} workers were closed while they idled", lost);
  report.Value("workers.register_per_second", "1/s", registered / seconds, registered);
  report.Samples("workers.register_ms", "ms", took_ms);
  report.Value("workers.memory_kib_per_worker", "KiB", (Kib(MemoryOf(api)) - before) / registered,
               registered);
  report.Value("workers.api_server_cpu_percent", "%", cpu[0] / measured * 100, registered);
  report.Value("workers.broker_cpu_percent", "%", cpu[1] / measured * 100, registered);
  report.Value("workers.redis_cpu_percent", "%", cpu[2] / measured * 100, registered);
  return absl::OkStatus();
}

}  // namespace
}  // namespace parley::bench

int main(int argc, char** argv) {
  int count = 1000;
  const auto options = parley::bench::ParseOptions(argc, argv, [&](CLI::App& app) {
    app.add_option("--workers", count, "How many")->capture_default_str();
  });
  parley::bench::Report report("workers", options);
  const absl::Status status =
      parley::bench::Run(options, options.quick ? std::min(count, 80) : count, report);
  if (!status.ok()) {
    fmt::print(stderr, "workers: {}\n", parley::Message(status));
    return 1;
  }
  return report.Finish() ? 0 : 1;
}
