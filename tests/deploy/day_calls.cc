// A compressed day of calls on a cluster of real processes, without agent servers: whoever runs
// this starts and stops those. Every call tells its agent a word and asks for it at its end; it
// counts as uncut only if the answer names it, from the job's first attempt.
//
// Standard output, a line of JSON each: {"cluster": {service: {"grpc", "admin"}}}, then for each
// call {"call", "due_s", "wait_ms", "uncut", "error"}, {"live": n, "at_s"} twice a second,
// {"over"}. Standard input: "go" starts the day, the end of input ends the cluster.
#include <absl/time/clock.h>
#include <fmt/format.h>
#include <stdlib.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "autoscale/simulation.h"
#include "base/mutex.h"
#include "base/status.h"
#include "testing/calls.h"

namespace parley::testing {
namespace {

using nlohmann::json;

struct Options {
  double seconds = 600;
  int peak = 120;
  double mean_call_s = 15;
  uint64_t seed = 1;
  std::vector<std::string> broker_arguments;
};

// Lines from many threads, whole ones.
void Say(const json& line) {
  static Mutex mutex;
  MutexLock lock(&mutex);
  std::cout << line.dump() << std::endl;
}

class Day {
 public:
  Day(const Cluster& cluster, const Options& options)
      : cluster_(cluster),
        calls_(
            autoscale::MakeDay(options.seconds, options.peak, options.mean_call_s, options.seed)) {}

  void Run() {
    start_ = absl::Now();
    std::thread reporter([this] {
      while (!over_.load()) {
        Say({{"live", live_.load()}, {"at_s", At()}});
        absl::SleepFor(absl::Milliseconds(500));
      }
    });
    std::vector<std::thread> threads;
    threads.reserve(calls_.size());
    for (size_t i = 0; i < calls_.size(); ++i) {
      const double ahead_s = calls_[i].start_s - At();
      if (ahead_s > 0) absl::SleepFor(absl::Seconds(ahead_s));
      threads.emplace_back([this, i] { RunCall(i); });
    }
    for (std::thread& thread : threads) thread.join();
    over_ = true;
    reporter.join();
    Say({{"over", calls_.size()}});
  }

 private:
  double At() const { return absl::ToDoubleSeconds(absl::Now() - start_); }

  void RunCall(size_t i) {
    ++live_;
    Api api(cluster_);
    json line = {{"call", i}, {"due_s", calls_[i].start_s}};
    const absl::Status status = Converse(api, i, line);
    line["uncut"] = status.ok();
    if (!status.ok()) line["error"] = std::string(Message(status));
    --live_;
    Say(line);
  }

  absl::Status Converse(Api& api, size_t i, json& line) {
    PARLEY_ASSIGN_OR_RETURN(const auto call, MemoryCall::Place(api, fmt::format("w{}", i)));
    PARLEY_RETURN_IF_ERROR(call->Tell());
    const double left_s = calls_[i].start_s + calls_[i].duration_s - At();
    if (left_s > 0) absl::SleepFor(absl::Seconds(left_s));
    PARLEY_RETURN_IF_ERROR(call->Ask());
    PARLEY_ASSIGN_OR_RETURN(const json job, api.Job(call->dispatch_id()));
    const std::string state = job.value("state", "");
    const int attempt = job.value("attempt", 0);
    if (attempt != 1 || state != "RUNNING") return Internal("attempt {} is {}", attempt, state);
    line["wait_ms"] = Millis(job["startTime"]) - Millis(job["createTime"]);
    return absl::OkStatus();
  }

  static int64_t Millis(const json& time) {
    absl::Time parsed;
    std::string error;
    const std::string text = time.is_string() ? time.get<std::string>() : "";
    if (!absl::ParseTime(absl::RFC3339_full, text, &parsed, &error)) return 0;
    return absl::ToUnixMillis(parsed);
  }

  const Cluster& cluster_;
  const std::vector<autoscale::TraceCall> calls_;
  absl::Time start_;
  std::atomic<int> live_{0};
  std::atomic<bool> over_{false};
};

absl::Status Main(const Options& options) {
  std::string pattern = std::filesystem::temp_directory_path() / "parley-day-XXXXXX";
  if (::mkdtemp(pattern.data()) == nullptr) return Internal("no temporary folder");
  const std::unique_ptr<std::string, void (*)(std::string*)> folder(
      &pattern, [](std::string* path) {
        std::error_code ignored;
        std::filesystem::remove_all(*path, ignored);
      });
  ClusterOptions cluster_options;
  cluster_options.agent_servers = 0;
  cluster_options.work_dir = pattern;
  cluster_options.extra_arguments["dispatch-broker"] = options.broker_arguments;
  std::ofstream(pattern + "/script.json") << MemoryCall::kScript;
  for (const std::string kind : {"stt", "tts", "llm"})
    cluster_options.extra_arguments[kind + "-gateway"] = {"--" + kind + "-script",
                                                          pattern + "/script.json"};
  PARLEY_ASSIGN_OR_RETURN(const auto cluster, Cluster::Start(cluster_options));
  Api api(*cluster);
  PARLEY_RETURN_IF_ERROR(api.Register(MemoryCall::kAgent));
  json addresses;
  for (const std::string& service : cluster_options.services)
    addresses[service] = {{"grpc", cluster->GrpcAddress(service)},
                          {"admin", cluster->AdminAddress(service)}};
  Say({{"cluster", addresses}});
  std::string word;
  if (!(std::cin >> word) || word != "go") return absl::OkStatus();
  Day(*cluster, options).Run();
  while (std::cin >> word) {
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace parley::testing

int main(int argc, char** argv) {
  parley::testing::Options options;
  CLI::App app("A compressed day of calls");
  app.add_option("--seconds", options.seconds);
  app.add_option("--peak", options.peak);
  app.add_option("--mean-call", options.mean_call_s);
  app.add_option("--seed", options.seed);
  app.add_option("--broker-argument", options.broker_arguments)->allow_extra_args(false);
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = parley::testing::Main(options);
  if (!status.ok()) std::cerr << status << std::endl;
  return status.ok() ? 0 : 1;
}
