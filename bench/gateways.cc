// scripts/bench gateways: what a gateway adds to its engines. Each gateway is a process on one core
// of its own (the generator has the other), its engines answer at once, and 200 streams are open at
// a time: ears get 20 ms of sound every 20 ms and are asked for a final every 4 s; voices say a
// sentence and models answer every 4 s. What is measured is therefore all added:
//   stt.final        from end_utterance to the final
//   tts.first_audio  from flush to the first audio
//   llm.first_token  from the call to the first piece
//   -- --streams 200 --seconds 30
#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <memory>
#include <thread>

#include "auth/token.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/status.h"
#include "options.h"
#include "parley/llm/v1/llm.grpc.pb.h"
#include "parley/speech/v1/speech.grpc.pb.h"
#include "procfs.h"
#include "report.h"
#include "rpc/bidi.h"
#include "rpc/channel.h"
#include "testing/cluster.h"

namespace parley::bench {
namespace {

constexpr char kScript[] = R"({
  "stt": {"delay": "0ms", "utterances": ["how much is a single room with breakfast"]},
  "llm": {"delay": "0ms", "answers": [{"text": "A single room is eighty euros a night."}]},
  "tts": {"delay": "0ms", "per_character": "65ms"}})";
constexpr int kFramesPerRound = 200;  // of 20 ms
constexpr int kRateHz = 16'000;

int64_t NowUs() { return Clock::Real().MonotonicMicros(); }

void Pin(pid_t pid, int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  for (const auto& task :
       std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task"))
    sched_setaffinity(std::atoi(task.path().filename().c_str()), sizeof(set), &set);
}

// Latencies of all streams.
class Samples {
 public:
  void Add(int64_t since_us) {
    MutexLock lock(&mutex_);
    ms_.push_back(static_cast<double>(NowUs() - since_us) / 1000);
  }
  std::vector<double> Take() {
    MutexLock lock(&mutex_);
    return std::exchange(ms_, {});
  }

 private:
  Mutex mutex_;
  std::vector<double> ms_ ABSL_GUARDED_BY(mutex_);
};

// One stream of the load: Tick() every 20 ms.
class Stream {
 public:
  virtual ~Stream() = default;
  virtual void Tick() = 0;
};

class Ear : public Stream {
 public:
  using Call = rpc::ClientBidi<speech::v1::RecognizeRequest, speech::v1::RecognizeResponse>;
  Ear(speech::v1::SpeechToTextService::Stub& stub, const std::string& bearer, int phase,
      Samples& samples, std::atomic<int>& failed)
      : frame_(phase), samples_(samples), asked_us_(std::make_shared<std::atomic<int64_t>>(0)) {
    Call::Options options;
    options.bearer = bearer;
    options.on_message = [&samples = samples_,
                          asked = asked_us_](speech::v1::RecognizeResponse& response) {
      const int64_t since = response.has_final() ? asked->exchange(0) : 0;
      if (since != 0) samples.Add(since);
    };
    options.on_done = [&failed](const absl::Status& status) {
      if (!absl::IsCancelled(status)) ++failed;
    };
    call_ = Call::Open([&](auto* context, auto* r) { stub.async()->Recognize(context, r); },
                       std::move(options));
    speech::v1::RecognizeRequest request;
    request.mutable_config()->set_sample_rate_hz(kRateHz);
    request.mutable_config()->add_engines()->set_engine("scripted");
    static_cast<void>(call_->Send(request));
  }
  ~Ear() override { call_->Cancel(); }
  void Tick() override {
    speech::v1::RecognizeRequest request;
    request.set_audio(std::string(kRateHz / 50 * 2, '\1'));
    static_cast<void>(call_->Send(std::move(request)));
    if (++frame_ % kFramesPerRound != 0) return;
    speech::v1::RecognizeRequest end;
    end.mutable_end_utterance()->set_utterance(1);
    asked_us_->store(NowUs());
    static_cast<void>(call_->Send(std::move(end)));
  }

 private:
  int frame_;
  Samples& samples_;
  const std::shared_ptr<std::atomic<int64_t>> asked_us_;
  std::shared_ptr<Call> call_;
};

class Voice : public Stream {
 public:
  using Call = rpc::ClientBidi<speech::v1::SynthesizeRequest, speech::v1::SynthesizeResponse>;
  Voice(speech::v1::TextToSpeechService::Stub& stub, const std::string& bearer, int phase,
        Samples& samples, std::atomic<int>& failed)
      : frame_(phase), samples_(samples), asked_us_(std::make_shared<std::atomic<int64_t>>(0)) {
    Call::Options options;
    options.bearer = bearer;
    options.on_message = [&samples = samples_,
                          asked = asked_us_](speech::v1::SynthesizeResponse& response) {
      const int64_t since = response.has_audio() ? asked->exchange(0) : 0;
      if (since != 0) samples.Add(since);
    };
    options.on_done = [&failed](const absl::Status& status) {
      if (!absl::IsCancelled(status)) ++failed;
    };
    call_ = Call::Open([&](auto* context, auto* r) { stub.async()->Synthesize(context, r); },
                       std::move(options));
    speech::v1::SynthesizeRequest request;
    request.mutable_config()->set_sample_rate_hz(24'000);
    request.mutable_config()->add_voices()->set_engine("scripted");
    static_cast<void>(call_->Send(request));
  }
  ~Voice() override { call_->Cancel(); }
  void Tick() override {
    if (++frame_ % kFramesPerRound != 0) return;
    speech::v1::SynthesizeRequest text;
    text.set_text("A single room is eighty euros a night.");
    speech::v1::SynthesizeRequest flush;
    flush.mutable_flush()->set_segment(1);
    asked_us_->store(NowUs());
    static_cast<void>(call_->Send(std::move(text)));
    static_cast<void>(call_->Send(std::move(flush)));
  }

 private:
  int frame_;
  Samples& samples_;
  const std::shared_ptr<std::atomic<int64_t>> asked_us_;
  std::shared_ptr<Call> call_;
};

class Model : public Stream {
 public:
  Model(llm::v1::LanguageModelService::Stub& stub, const std::string& bearer, int phase,
        Samples& samples, std::atomic<int>& failed)
      : stub_(stub), bearer_(bearer), frame_(phase), samples_(samples), failed_(failed) {}
  void Tick() override {
    if (++frame_ % kFramesPerRound == 0) new Answer(*this);
  }

 private:
  // Deletes itself.
  class Answer : public grpc::ClientReadReactor<llm::v1::ChatResponse> {
   public:
    explicit Answer(Model& model)
        : samples_(model.samples_), failed_(model.failed_), start_us_(NowUs()) {
      rpc::SetBearer(context_, model.bearer_);
      rpc::SetTimeout(context_, absl::Seconds(30));
      request_.add_models()->set_engine("scripted");
      auto* message = request_.add_items()->mutable_message();
      message->set_role("user");
      message->set_text("how much is a single room");
      model.stub_.async()->Chat(&context_, &request_, this);
      StartRead(&response_);
      StartCall();
    }

   private:
    void OnReadDone(bool ok) override {
      if (!ok) return;
      if (const int64_t since = std::exchange(start_us_, 0); since != 0) samples_.Add(since);
      StartRead(&response_);
    }
    void OnDone(const grpc::Status& status) override {
      if (!status.ok()) ++failed_;
      delete this;
    }
    Samples& samples_;
    std::atomic<int>& failed_;
    int64_t start_us_;
    grpc::ClientContext context_;
    llm::v1::ChatRequest request_;
    llm::v1::ChatResponse response_;
  };

  llm::v1::LanguageModelService::Stub& stub_;
  const std::string bearer_;
  int frame_;
  Samples& samples_;
  std::atomic<int>& failed_;
};

// Opens `count` streams on the gateway `service` and measures for `seconds`.
template <typename S, typename Stub>
void Measure(Report& report, testing::Cluster& cluster, const std::string& service,
             std::unique_ptr<Stub> stub, const std::string& bearer, int count, int seconds,
             const std::string& metric) {
  const pid_t pid = cluster.Service(service).pid();
  Pin(pid, 1);
  Samples samples;
  std::atomic<int> failed = 0;
  std::vector<std::unique_ptr<Stream>> streams;
  for (int i = 0; i < count; ++i)
    streams.push_back(std::make_unique<S>(*stub, bearer, i, samples, failed));
  const int64_t start = NowUs();
  // In the first round connections and threads come to be.
  const int warm = kFramesPerRound + 50;
  double cpu = 0;
  for (int frame = 0; frame < warm + seconds * 50; ++frame) {
    if (frame == warm) {
      samples.Take();
      Pin(pid, 1);
      cpu = CpuSeconds({pid});
    }
    // Spread over the 20 ms, as streams of calls are.
    for (int i = 0; i < count; ++i) {
      const int64_t due = start + frame * int64_t{20'000} + i * int64_t{20'000} / count;
      const int64_t wait = due - NowUs();
      if (wait > 200) usleep(static_cast<useconds_t>(wait));
      streams[static_cast<size_t>(i)]->Tick();
    }
  }
  cpu = CpuSeconds({pid}) - cpu;
  const std::vector<double> ms = samples.Take();
  usleep(500'000);  // answers under way still name `samples`
  streams.clear();
  usleep(500'000);
  if (ms.empty() || failed > 0) {
    fmt::print(stderr, "bench-gateways: {}: {} streams failed, {} answers\n", service,
               failed.load(), ms.size());
    std::exit(1);
  }
  report.Samples(metric, "ms", ms, "<= 5 p99");
  report.Value(metric + ".cpu", "% of a core", 100 * cpu / seconds, count);
}

}  // namespace
}  // namespace parley::bench

int main(int argc, char** argv) {
  using namespace parley;
  using namespace parley::bench;
  int count = 200;
  int seconds = 30;
  const Options options = ParseOptions(argc, argv, [&](CLI::App& app) {
    app.add_option("--streams", count, "Open at a time on each gateway");
    app.add_option("--seconds", seconds, "Measured for each gateway");
  });
  if (options.quick) seconds = 5;
  const std::string script =
      (std::filesystem::temp_directory_path() / fmt::format("bench-gateways-{}.json", getpid()))
          .string();
  std::ofstream(script) << kScript;
  testing::ClusterOptions wanted;
  wanted.services = {"stt-gateway", "tts-gateway", "llm-gateway"};
  wanted.agent_servers = 0;
  for (const char* kind : {"stt", "tts", "llm"}) {
    wanted.extra_arguments[std::string(kind) + "-gateway"] = {"--" + std::string(kind) + "-script",
                                                              script};
  }
  wanted.extra_arguments["stt-gateway"].insert(wanted.extra_arguments["stt-gateway"].end(),
                                               {"--stt-preload", "false"});
  const auto cluster = testing::Cluster::Start(wanted);
  std::filesystem::remove(script);
  if (!cluster.ok()) {
    fmt::print(stderr, "bench-gateways: {}\n", Message(cluster.status()));
    return 1;
  }
  Pin(getpid(), 0);
  auth::Claims claims;
  claims.identity = "bench";
  claims.video.agent = true;
  const std::string bearer =
      auth::Sign(claims, auth::KeyRing::Development()->keys()[0], absl::Hours(1));
  const auto channel = [&](const std::string& service) {
    return rpc::MakeChannel((*cluster)->Address(service));
  };
  Report report("gateways", options);
  Measure<Ear>(report, **cluster, "stt-gateway",
               speech::v1::SpeechToTextService::NewStub(channel("stt-gateway")), bearer, count,
               seconds, "stt.final");
  Measure<Voice>(report, **cluster, "tts-gateway",
                 speech::v1::TextToSpeechService::NewStub(channel("tts-gateway")), bearer, count,
                 seconds, "tts.first_audio");
  Measure<Model>(report, **cluster, "llm-gateway",
                 llm::v1::LanguageModelService::NewStub(channel("llm-gateway")), bearer, count,
                 seconds, "llm.first_token");
  return report.Finish() ? 0 : 1;
}
