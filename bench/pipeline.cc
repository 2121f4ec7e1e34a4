// scripts/bench pipeline: from a caller's last word to the first sound of the answer, and where the
// time goes. Every service is a process of its own; callers are connections of their own at the
// pace of real time. Engines answer at once, so that all that is left beside the endpointing delay
// is ours: transport in, voice detection, the final transcript, the model's first words, the first
// sentence's first audio, playout, transport out.
//   -- --callers 4 --seconds 120   more or less of it
//   -- --engines embedded          real recognition, rules and synthesis: what a quickstart waits
//   for
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <sstream>
#include <thread>

#include "base/status.h"
#include "call_cluster.h"
#include "options.h"
#include "report.h"
#include "testing/calls.h"

namespace parley::bench {
namespace {

constexpr absl::Duration kCycle = absl::Seconds(6);
constexpr double kEndpointingMs = 500;

constexpr char kScript[] = R"({
  "stt": {"delay": "0ms", "utterances": ["how much is a single room"]},
  "llm": {"delay": "0ms", "answers": [{"text": "Eighty euros."}]},
  "tts": {"delay": "0ms", "per_character": "60ms"}})";

constexpr char kAgent[] = R"({
  "id": "front-desk",
  "stt": [{"engine": "scripted"}], "llm": [{"engine": "scripted"}], "tts": [{"engine": "scripted"}],
  "turn_detection": {"endpointing": {"min_delay": "500ms"}}, "session": {"away_after": "1h"}})";

struct Settings {
  int callers = 4;
  int seconds = 120;
  int warm_seconds = 8;
  bool embedded = false;
};

class Pipeline {
 public:
  explicit Pipeline(Settings settings) : settings_(settings) {}

  absl::Status Run(Report& report) {
    PARLEY_RETURN_IF_ERROR(Start());
    PARLEY_RETURN_IF_ERROR(Connect());
    std::this_thread::sleep_for(std::chrono::seconds(settings_.warm_seconds));
    const size_t before = cluster_->AgentServer(0).Log().size();
    crowd_->Begin();
    std::this_thread::sleep_for(std::chrono::seconds(settings_.seconds));
    const CrowdResult heard = crowd_->Take();
    crowd_.reset();
    if (heard.turn_ms.empty()) return Internal("no question was answered");
    std::vector<double> overhead;
    for (const double turn_ms : heard.turn_ms) overhead.push_back(turn_ms - kEndpointingMs);
    report.Samples("pipeline.answer_ms", "ms", heard.turn_ms);
    report.Samples("pipeline.overhead_ms", "ms", overhead,
                   settings_.embedded ? "" : "<= 5 p50, <= 20 p99");
    ReportParts(report, cluster_->AgentServer(0).Log().substr(before));
    report.Value("pipeline.unanswered", "turns", heard.unanswered,
                 static_cast<int>(heard.turn_ms.size()));
    return absl::OkStatus();
  }

 private:
  absl::Status Start() {
    testing::ClusterOptions options;
    options.agent_arguments = {"--slots", "20", "--log-level", "debug"};
    PARLEY_ASSIGN_OR_RETURN(cluster_, StartForCalls(options, kScript));
    api_ = std::make_unique<testing::Api>(*cluster_);
    return RegisterFrontDesk(*api_, settings_.embedded, kAgent);
  }

  absl::Status Connect() {
    Crowd::Options options;
    options.cycle = kCycle;
    PARLEY_ASSIGN_OR_RETURN(std::vector<int16_t> words, api_->Speech("how much is a single room"));
    // Up to the last sound: from there on the caller waits.
    constexpr int kAudible = 300;
    while (!words.empty() && std::abs(words.back()) < kAudible) words.pop_back();
    options.question = Encode(words, testing::kSpeechRateHz);
    options.silence = QuietRoom();
    crowd_ = std::make_unique<Crowd>(std::move(options));
    for (int i = 0; i < settings_.callers; ++i) {
      PARLEY_ASSIGN_OR_RETURN(const auto session,
                              api_->Call("POST", "/api/sessions", {{"agent", "front-desk"}}));
      crowd_->Add(session["mediaUrl"], session["participantToken"], kCycle * i / settings_.callers);
    }
    return crowd_->WaitConnected(absl::Seconds(30));
  }

  // What the jobs measured: from the end of speech, as they heard it, to the first frame.
  static void ReportParts(Report& report, const std::string& log) {
    static constexpr const char* kParts[] = {"endpointing_ms", "transcript_ms", "llm_ms",
                                             "tts_ms",         "output_ms",     "total_ms"};
    std::map<std::string, std::vector<double>> parts;
    std::istringstream lines(log);
    for (std::string text; std::getline(lines, text);) {
      if (text.find("\"turn answered\"") == text.npos) continue;
      const auto line = nlohmann::json::parse(text, nullptr, false);
      if (!line.is_object()) continue;
      for (const char* part : kParts) parts[part].push_back(line.value(part, 0.0));
    }
    for (const char* part : kParts) {
      if (!parts[part].empty()) report.Samples(fmt::format("job.{}", part), "ms", parts[part]);
    }
  }

  const Settings settings_;
  std::unique_ptr<testing::Cluster> cluster_;
  std::unique_ptr<testing::Api> api_;
  std::unique_ptr<Crowd> crowd_;  // before the cluster: it hangs up
};

absl::Status Run(const Options& options, const Settings& settings) {
  Report report("pipeline", options);
  PARLEY_RETURN_IF_ERROR(Pipeline(settings).Run(report));
  return report.Finish() ? absl::OkStatus()
                         : absl::InternalError("the result file could not be written");
}

}  // namespace
}  // namespace parley::bench

int main(int argc, char** argv) {
  parley::bench::Settings settings;
  std::string engines = "scripted";
  const parley::bench::Options options =
      parley::bench::ParseOptions(argc, argv, [&](CLI::App& app) {
        app.add_option("--callers", settings.callers, "Calls at the same time")
            ->check(CLI::Range(1, 16));
        app.add_option("--seconds", settings.seconds, "Measured")->check(CLI::Range(1, 3600));
        app.add_option("--engines", engines, "scripted or embedded")
            ->check(CLI::IsMember({"scripted", "embedded"}));
      });
  settings.embedded = engines == "embedded";
  if (options.quick) {
    settings.callers = 2;
    settings.seconds = 18;
  }
  const absl::Status status = parley::bench::Run(options, settings);
  if (!status.ok()) fmt::print(stderr, "bench pipeline: {}\n", parley::Message(status));
  return status.ok() ? 0 : 1;
}
