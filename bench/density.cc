// scripts/bench density: how many calls two cores carry, and what one costs. Every service is a
// process of its own, every call a job process; callers are lines of their own, at the pace
// of real time, Opus in both directions. Each caller talks 40 % of the time and is answered for as
// long; its microphone sends silence between, as one without voice detection does.
//
// One cluster grows step by step. Each step: new callers arrive within a second, 10 s pass, then 60
// s are measured. With --quick less of everything.
//   -- --steps 1,50,100   other numbers of calls
//   -- --seconds 60       measured in each step
//   -- --callers stream   by gRPC's media streams, instead of WebRTC as browsers do
//   -- --recorded         what agents say comes from the speech gateway's cache, encoded already
//   -- --engines embedded real recognition and synthesis instead of scripted ones
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <sstream>
#include <thread>

#include "base/clock.h"
#include "base/status.h"
#include "call_cluster.h"
#include "options.h"
#include "procfs.h"
#include "report.h"
#include "testing/calls.h"

namespace parley::bench {
namespace {

constexpr absl::Duration kCycle = absl::Seconds(10);
constexpr double kTalk = 0.4;
constexpr double kMaxLate = 0.001;
constexpr double kMaxSlower = 1.2;

// What the scripted engines do: their delays are part of every turn, at any number of calls.
constexpr char kScript[] = R"({
  "stt": {"delay": "20ms", "utterances": ["how much is a single room with breakfast"]},
  "llm": {"delay": "50ms", "per_token": "5ms",
          "answers": [{"text": "A single room is eighty euros a night, and breakfast is free."}]},
  "tts": {"delay": "30ms", "per_character": "65ms"}})";

constexpr char kScriptedAgent[] = R"({
  "id": "front-desk", "instructions": "You are the front desk of a small hotel.",
  "stt": [{"engine": "scripted"}], "llm": [{"engine": "scripted"}], "tts": [{"engine": "scripted"}],
  "session": {"away_after": "1h"}})";

struct Settings {
  std::vector<int> steps = {1, 50, 100, 200, 250};
  int seconds = 60;
  int warm_seconds = 10;
  bool embedded = false;
  bool webrtc = true;
  bool recorded = false;
};

// Processes of the cluster by what they are.
using Parts = std::map<std::string, std::vector<pid_t>>;

Parts PartsOf(testing::Cluster& cluster, const std::vector<std::string>& services) {
  Parts parts;
  for (const std::string& name : services) parts[name] = Tree(cluster.Service(name).pid());
  parts["redis"] = {cluster.Redis().pid()};
  // The zygote's first child is the server, the others are jobs.
  std::vector<pid_t> worker = Tree(cluster.AgentServer(0).pid());
  const auto jobs_from =
      worker.begin() + std::min<std::ptrdiff_t>(2, worker.end() - worker.begin());
  parts["agent-server"] = {worker.begin(), jobs_from};
  parts["jobs"] = {jobs_from, worker.end()};
  return parts;
}

std::map<std::string, double> CpuOf(const Parts& parts) {
  std::map<std::string, double> seconds;
  for (const auto& [name, pids] : parts) seconds[name] = CpuSeconds(pids);
  return seconds;
}

double KibOf(const Memory& memory) {
  return static_cast<double>(memory.pss_kib + memory.page_tables_kib + memory.kernel_stacks_kib);
}

double OwnCpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

struct Step {
  int sessions = 0;
  CrowdResult heard;
  double dropped_inside = 0;                  // frames that services dropped as late
  std::map<std::string, double> cpu_percent;  // by part
  double load_cpu_percent = 0;                // of this program
  std::map<std::string, double> memory_kib;   // by part
  double turn_p99() const {
    std::vector<double> sorted = heard.turn_ms;
    if (sorted.empty()) return 0;
    std::sort(sorted.begin(), sorted.end());
    return sorted[std::min(sorted.size() - 1, sorted.size() * 99 / 100)];
  }
  double late() const {
    const auto frames = static_cast<double>(heard.frames() + heard.frames_sent);
    return (static_cast<double>(heard.frames_late + heard.frames_dropped) + dropped_inside) /
           std::max(frames, 1.0);
  }
  double Sum(const std::map<std::string, double>& parts) const {
    double sum = 0;
    for (const auto& [name, value] : parts) sum += value;
    return sum;
  }
};

class Density {
 public:
  explicit Density(Settings settings) : settings_(std::move(settings)) {}

  absl::Status Run(Report& report) {
    PARLEY_RETURN_IF_ERROR(Start());
    for (const int sessions : settings_.steps) {
      PARLEY_RETURN_IF_ERROR(Grow(sessions));
      PARLEY_ASSIGN_OR_RETURN(Step step, Measure(sessions));
      Print(step);
      steps_.push_back(std::move(step));
    }
    Summarise(report);
    crowd_.reset();
    cluster_.reset();
    if (!recordings_.empty()) std::filesystem::remove_all(recordings_);
    return absl::OkStatus();
  }

 private:
  absl::Status Start() {
    testing::ClusterOptions options;
    services_ = options.services;
    const int most = *std::max_element(settings_.steps.begin(), settings_.steps.end());
    options.agent_arguments = {"--slots", fmt::format("{}", most + 10)};
    if (settings_.recorded) {
      recordings_ = fmt::format("{}/parley-density-{}.speech",
                                std::filesystem::temp_directory_path().string(), getpid());
      std::filesystem::create_directory(recordings_);
      options.extra_arguments["tts-gateway"] = {"--tts-cache-dir", recordings_};
    }
    PARLEY_ASSIGN_OR_RETURN(cluster_, StartForCalls(options, kScript));
    api_ = std::make_unique<testing::Api>(*cluster_);
    PARLEY_RETURN_IF_ERROR(RegisterFrontDesk(*api_, settings_.embedded, kScriptedAgent));
    return MakeCrowd();
  }

  absl::Status MakeCrowd() {
    Crowd::Options options;
    options.cycle = kCycle;
    options.webrtc = settings_.webrtc;
    PARLEY_ASSIGN_OR_RETURN(std::vector<int16_t> words, Words());
    options.question = Encode(words, testing::kSpeechRateHz);
    options.silence = QuietRoom();
    crowd_ = std::make_unique<Crowd>(std::move(options));
    return absl::OkStatus();
  }

  // Four seconds of speech: 40 % of a cycle.
  absl::StatusOr<std::vector<int16_t>> Words() {
    if (settings_.embedded) return api_->Speech("how much is a single room");
    PARLEY_ASSIGN_OR_RETURN(
        std::vector<int16_t> words,
        api_->Speech("good morning I would like to know how much a single room with breakfast is "
                     "for two nights from friday to sunday and whether the garden is open"));
    const auto wanted =
        static_cast<size_t>(absl::ToDoubleSeconds(kCycle) * kTalk * testing::kSpeechRateHz);
    if (words.size() < wanted) return Internal("the question is shorter than 4 s");
    words.resize(wanted);
    return words;
  }

  absl::Status Grow(int sessions) {
    const int64_t start_us = Clock::Real().MonotonicMicros();
    const int arriving = sessions - sessions_;
    for (int i = 0; i < arriving; ++i) {
      const int64_t due_us = start_us + int64_t{1'000'000} * i / arriving;
      const int64_t wait_us = due_us - Clock::Real().MonotonicMicros();
      if (wait_us > 0) std::this_thread::sleep_for(std::chrono::microseconds(wait_us));
      PARLEY_ASSIGN_OR_RETURN(const auto session,
                              api_->Call("POST", "/api/sessions", {{"agent", "front-desk"}}));
      // People do not ask in step: each begins somewhere else in the cycle.
      const double phase = 0.618'033'988'75 * ++sessions_;
      crowd_->Add(session["mediaUrl"], session["participantToken"],
                  kCycle * (phase - std::floor(phase)));
    }
    PARLEY_RETURN_IF_ERROR(crowd_->WaitConnected(absl::Seconds(30)));
    std::this_thread::sleep_for(std::chrono::seconds(settings_.warm_seconds));
    return absl::OkStatus();
  }

  absl::StatusOr<Step> Measure(int sessions) {
    Step step;
    step.sessions = sessions;
    const Parts parts = PartsOf(*cluster_, services_);
    PARLEY_ASSIGN_OR_RETURN(const double dropped_before, DroppedInside());
    const auto cpu_before = CpuOf(parts);
    const double own_before = OwnCpuSeconds();
    const int64_t start_us = Clock::Real().MonotonicMicros();
    crowd_->Begin();
    std::this_thread::sleep_for(std::chrono::seconds(settings_.seconds));
    step.heard = crowd_->Take();
    const double seconds = static_cast<double>(Clock::Real().MonotonicMicros() - start_us) / 1e6;
    for (const auto& [name, used] : CpuOf(parts)) {
      step.cpu_percent[name] = 100 * (used - cpu_before.at(name)) / seconds;
    }
    step.load_cpu_percent = 100 * (OwnCpuSeconds() - own_before) / seconds;
    PARLEY_ASSIGN_OR_RETURN(const double dropped_after, DroppedInside());
    step.dropped_inside = dropped_after - dropped_before;
    for (const auto& [name, pids] : parts) step.memory_kib[name] = KibOf(MemoryOf(pids));
    return step;
  }

  // Frames that a service dropped because they were late, from the services' own counters.
  absl::StatusOr<double> DroppedInside() {
    PARLEY_ASSIGN_OR_RETURN(const std::string line, cluster_->AgentServer(0).WaitForLine(
                                                        "\"health_port\":", absl::Seconds(1)));
    const auto port = nlohmann::json::parse(line)["health_port"].get<int>();
    PARLEY_ASSIGN_OR_RETURN(const double worker, Metric(fmt::format("127.0.0.1:{}", port),
                                                        "parley_worker_media_late_frames_total"));
    PARLEY_ASSIGN_OR_RETURN(const double rooms, Metric(cluster_->AdminAddress("room-server"),
                                                       "parley_room_frames_dropped_total"));
    return worker + rooms;
  }
  // The sum over all labels.
  static absl::StatusOr<double> Metric(const std::string& address, const std::string& name) {
    http::Client client;
    http::Call call;
    call.url = "http://" + address + "/metrics";
    call.reach = http::Reach::kLoopbackToo;
    PARLEY_ASSIGN_OR_RETURN(const http::Reply reply, client.Fetch(call));
    double sum = 0;
    bool found = false;
    std::istringstream lines(reply.body);
    for (std::string line; std::getline(lines, line);) {
      if (line.compare(0, name.size(), name) != 0) continue;
      found = true;
      sum += std::stod(line.substr(line.rfind(' ') + 1));
    }
    return found ? absl::StatusOr<double>(sum) : NotFound("{} has no metric {}", address, name);
  }

  void Print(const Step& step) const {
    fmt::print(
        "{} sessions: CPU {:.1f} % ({:.3f} % each), load {:.1f} %, memory {:.0f} MiB, late {:.4f} "
        "%, turn p99 {:.0f} ms of {}, unanswered {}, lost {}, own late ticks {}\n",
        step.sessions, step.Sum(step.cpu_percent), step.Sum(step.cpu_percent) / step.sessions,
        step.load_cpu_percent, step.Sum(step.memory_kib) / 1024, 100 * step.late(), step.turn_p99(),
        step.heard.turn_ms.size(), step.heard.unanswered, step.heard.lost, step.heard.ticks_late);
    for (const auto& [name, percent] : step.cpu_percent) {
      fmt::print("    {:<16} {:>7.2f} % CPU {:>9.3f} % each {:>10.1f} MiB\n", name, percent,
                 percent / step.sessions, step.memory_kib.at(name) / 1024);
    }
    std::fflush(stdout);
  }

  bool Clean(const Step& step) const {
    return step.late() < kMaxLate && step.heard.unanswered == 0 && step.heard.lost == 0 &&
           !step.heard.turn_ms.empty() && step.turn_p99() <= kMaxSlower * steps_.front().turn_p99();
  }

  void Summarise(Report& report) const {
    int most = 0;
    for (const Step& step : steps_) {
      const std::string at = fmt::format("@{}", step.sessions);
      const int n = step.sessions;
      if (!step.heard.turn_ms.empty()) {
        report.Samples("session.turn_ms" + at, "ms", step.heard.turn_ms);
      }
      if (!step.heard.behind_ms.empty()) {
        report.Samples("session.frame_behind_ms" + at, "ms", step.heard.behind_ms);
      }
      report.Value("session.late_frames_percent" + at, "%", 100 * step.late(), n, "< 0.1");
      report.Value("session.cpu_percent" + at, "%", step.Sum(step.cpu_percent) / n, n, "<= 0.5");
      report.Value("load.cpu_percent" + at, "%", step.load_cpu_percent / n, n);
      report.Value("session.all_memory_mib" + at, "MiB", step.Sum(step.memory_kib) / 1024, n);
      if (Clean(step)) most = std::max(most, step.sessions);
    }
    // From the first step with enough of them to the last: what one more costs.
    const auto first = std::find_if(steps_.begin(), steps_.end(),
                                    [](const Step& step) { return step.sessions > 1; });
    if (first != steps_.end() && first + 1 != steps_.end()) {
      const Step& last = steps_.back();
      const int more = last.sessions - first->sessions;
      report.Value("session.memory_kib", "KiB",
                   (last.Sum(last.memory_kib) - first->Sum(first->memory_kib)) / more, more,
                   "<= 2048");
    }
    report.Value("session.max_on_two_cores", "calls", most, static_cast<int>(steps_.size()),
                 ">= 200");
  }

  const Settings settings_;
  std::vector<std::string> services_;
  std::string recordings_;  // "": none
  std::unique_ptr<testing::Cluster> cluster_;
  std::unique_ptr<testing::Api> api_;
  std::unique_ptr<Crowd> crowd_;  // before the cluster: it hangs up
  int sessions_ = 0;
  std::vector<Step> steps_;
};

absl::Status Run(const Options& options, const Settings& settings) {
  Report report("density", options);
  PARLEY_RETURN_IF_ERROR(Density(settings).Run(report));
  return report.Finish() ? absl::OkStatus()
                         : absl::InternalError("the result file could not be written");
}

}  // namespace
}  // namespace parley::bench

int main(int argc, char** argv) {
  parley::bench::Settings settings;
  std::string engines = "scripted";
  std::string callers = "webrtc";
  const parley::bench::Options options =
      parley::bench::ParseOptions(argc, argv, [&](CLI::App& app) {
        app.add_option("--steps", settings.steps, "Numbers of calls, rising")->delimiter(',');
        app.add_option("--seconds", settings.seconds, "Measured in each step")
            ->check(CLI::Range(1, 3600));
        app.add_option("--engines", engines, "scripted or embedded")
            ->check(CLI::IsMember({"scripted", "embedded"}));
        app.add_flag("--recorded", settings.recorded, "What agents say comes from the cache");
        app.add_option("--callers", callers, "webrtc or stream (gRPC)")
            ->check(CLI::IsMember({"stream", "webrtc"}));
      });
  settings.embedded = engines == "embedded";
  settings.webrtc = callers == "webrtc";
  if (options.quick) {
    settings.steps = {1, 4, 8};
    settings.seconds = 12;
    settings.warm_seconds = 3;
  }
  const absl::Status status = parley::bench::Run(options, settings);
  if (!status.ok()) fmt::print(stderr, "bench density: {}\n", parley::Message(status));
  return status.ok() ? 0 : 1;
}
