// Planned hand-over of live calls between real processes: by request, by a drain, by a rolling
// restart of everything that dispatches. A call counts as uncut only if its caller gets, after the
// hand-over and in the same room, an answer that depends on what it said before.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include "base/ids.h"
#include "base/status.h"
#include "testing/calls.h"

namespace parley::testing {
namespace {

using nlohmann::json;

#define ASSERT_OK(expression)                                                     \
  do {                                                                            \
    const absl::Status parley_test_status = (expression);                         \
    ASSERT_TRUE(parley_test_status.ok()) << parley_test_status << "\n" << Logs(); \
  } while (false)

double Percentile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const auto at = static_cast<size_t>(q * static_cast<double>(values.size()));
  return values[std::min(values.size() - 1, at)];
}

class HandOverTest : public ::testing::Test {
 protected:
  void Start(int agent_servers, const std::vector<std::string>& agent_arguments) {
    ClusterOptions options;
    options.agent_servers = 0;
    std::string pattern = ::testing::TempDir() + "handover-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    work_dir_ = options.work_dir = pattern;
    std::ofstream(pattern + "/script.json") << MemoryCall::kScript;
    for (const std::string kind : {"stt", "tts", "llm"}) {
      options.extra_arguments[kind + "-gateway"] = {"--" + kind + "-script",
                                                    pattern + "/script.json"};
    }
    options.agent_arguments = {"--slots", "100"};
    options.agent_arguments.insert(options.agent_arguments.end(), agent_arguments.begin(),
                                   agent_arguments.end());
    auto cluster = Cluster::Start(options);
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = *std::move(cluster);
    api_ = std::make_unique<Api>(*cluster_);
    ASSERT_OK(api_->Register(MemoryCall::kAgent));
    for (int i = 0; i < agent_servers; ++i) ASSERT_OK(AddServer());
  }
  void TearDown() override {
    calls_.clear();
    api_.reset();
    cluster_.reset();
    std::error_code ignored;
    if (!work_dir_.empty()) std::filesystem::remove_all(work_dir_, ignored);
  }
  absl::Status AddServer() {
    ++servers_;
    return cluster_->StartAgentServer(server_arguments_);
  }
  absl::Status Place() {
    std::string word = "w";
    for (size_t i = 0, number = calls_.size(); i < 3; ++i, number /= 26) {
      word += static_cast<char>('a' + number % 26);
    }
    PARLEY_ASSIGN_OR_RETURN(auto call, MemoryCall::Place(*api_, word));
    PARLEY_RETURN_IF_ERROR(call->Tell());
    calls_.push_back(std::move(call));
    return absl::OkStatus();
  }
  void PlaceMany(int count) {
    for (int i = 0; i < count; ++i) ASSERT_OK(Place());
  }
  json JobOf(const MemoryCall& call) {
    const auto job = api_->Job(call.dispatch_id());
    EXPECT_TRUE(job.ok()) << job.status();
    return job.value_or(json::object());
  }
  std::vector<double> PausesMs() {
    std::vector<double> pauses;
    for (size_t i = 0; i < servers_; ++i) {
      for (const double pause : HandOverPausesMs(cluster_->AgentServer(i).Log())) {
        pauses.push_back(pause);
      }
    }
    return pauses;
  }
  // No attempt was lost, and the agents remember.
  void ExpectAllUncut() {
    for (auto& call : calls_) {
      const json job = JobOf(*call);
      EXPECT_EQ(job["state"], "RUNNING");
      EXPECT_EQ(job["attempt"], 1) << job;
      const absl::Status asked = call->Ask();
      EXPECT_TRUE(asked.ok()) << asked << "\n" << Logs();
    }
  }
  void PrintGaps() {
    std::vector<double> heard;
    for (auto& call : calls_) {
      for (const double gap : call->GapsMs()) heard.push_back(gap);
    }
    const std::vector<double> pauses = PausesMs();
    std::printf(
        "%zu hand-overs; nobody listens: p50 %.0f ms, p99 %.0f ms; one agent out, the next "
        "audible: p50 %.0f ms, p99 %.0f ms\n",
        pauses.size(), Percentile(pauses, 0.5), Percentile(pauses, 0.99), Percentile(heard, 0.5),
        Percentile(heard, 0.99));
    // Generous: machines that run tests are busy. bench/handover holds it to its target.
    EXPECT_LT(Percentile(pauses, 0.99), 2000);
  }
  // A metric without labels; -1: the service does not have it.
  double Metric(const std::string& service, const std::string& name) {
    http::Client client;
    http::Call call;
    call.url = "http://" + cluster_->AdminAddress(service) + "/metrics";
    call.reach = http::Reach::kLoopbackToo;
    const auto reply = client.Fetch(call);
    const size_t at = reply.ok() ? reply->body.find("\n" + name + " ") : std::string::npos;
    return at == std::string::npos ? -1 : std::atof(reply->body.c_str() + at + name.size() + 2);
  }
  static bool WithinSeconds(int seconds, const std::function<bool()>& condition) {
    for (int i = 0; i < seconds * 50; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return condition();
  }
  static std::string Tail(const std::string& log, size_t size) {
    return log.substr(log.size() > size ? log.size() - size : 0);
  }
  std::string Logs() {
    if (!cluster_) return {};
    std::string text;
    for (size_t i = 0; i < servers_; ++i) {
      text += "--- agent server " + std::to_string(i) + "\n" +
              Tail(cluster_->AgentServer(i).Log(), 3000);
    }
    return text + "--- broker\n" + Tail(cluster_->Service("dispatch-broker").Log(), 2000);
  }

  std::string work_dir_;
  std::unique_ptr<Cluster> cluster_;
  std::unique_ptr<Api> api_;
  size_t servers_ = 0;
  std::vector<std::string> server_arguments_;  // of those started from now on
  std::vector<std::unique_ptr<MemoryCall>> calls_;
};

TEST_F(HandOverTest, CallMovesByRequestAndRemembers) {
  ASSERT_NO_FATAL_FAILURE(Start(2, {}));
  ASSERT_OK(Place());
  MemoryCall& call = *calls_[0];
  for (int i = 0; i < 10; ++i) {
    ASSERT_OK(api_->Migrate(call.dispatch_id(), absl::Seconds(15)));
    ASSERT_OK(call.Ask());
  }
  EXPECT_EQ(JobOf(call)["attempt"], 1);
  EXPECT_EQ(PausesMs().size(), 10U);
  EXPECT_EQ(call.GapsMs().size(), 10U);
  PrintGaps();
  // When it is over its room is told to let no copy in any more: eleven were about.
  ASSERT_OK(api_->Call("DELETE", "/api/dispatches/" + call.dispatch_id()).status());
  EXPECT_TRUE(WithinSeconds(10, [&] {
    return Metric("room-server", "parley_room_fences_total") == 1;
  })) << Logs();
}

TEST_F(HandOverTest, NobodyToTakeItIsRefusedAndTheCallGoesOn) {
  ASSERT_NO_FATAL_FAILURE(Start(1, {}));
  ASSERT_OK(Place());
  const std::string id = JobOf(*calls_[0])["id"];
  const auto refused = api_->Call("POST", "/api/jobs/" + id + "/migrate", json::object());
  EXPECT_NE(refused.status().message().find("NO_WORKER"), std::string::npos) << refused.status();
  EXPECT_EQ(calls_[0]->GapsMs().size(), 0U);
  ExpectAllUncut();
}

// SIGTERM under calls that outlast the drain's deadline: no new job, all are handed over, exit 0.
// (That a broker is told within 100 ms is for agent_server_component_test to show.)
TEST_F(HandOverTest, DrainingServerHandsItsCallsOverAtTheDeadline) {
  constexpr int kCalls = 16;
  ASSERT_NO_FATAL_FAILURE(Start(1, {"--drain", "2s"}));
  ASSERT_NO_FATAL_FAILURE(PlaceMany(kCalls));
  ASSERT_OK(AddServer());
  const std::string old_worker = JobOf(*calls_[0])["workerId"];
  cluster_->AgentServer(0).Signal(SIGTERM);
  ASSERT_OK(
      cluster_->AgentServer(0).WaitForLine("\"msg\":\"draining\"", absl::Seconds(30)).status());
  ASSERT_OK(Place());
  EXPECT_NE(JobOf(*calls_.back())["workerId"], old_worker);
  const auto left = cluster_->AgentServer(0).Wait(absl::Seconds(60));
  ASSERT_OK(left.status());
  EXPECT_EQ(*left, 0) << Logs();
  for (auto& call : calls_) EXPECT_NE(JobOf(*call)["workerId"], old_worker);
  ExpectAllUncut();
  EXPECT_EQ(PausesMs().size(), static_cast<size_t>(kCalls));
  PrintGaps();
}

// Three agent servers and both brokers are replaced, one after the other, under calls that outlast
// the drain's deadline.
class RollingRestartTest : public HandOverTest {
 protected:
  void Run(int calls, const std::string& drain) {
    ASSERT_NO_FATAL_FAILURE(Start(0, {"--drain", drain}));
    ASSERT_NO_FATAL_FAILURE(RestartSecondBroker());
    server_arguments_ = {"--dispatch-address", "ipv4:" + cluster_->Address("dispatch-broker") +
                                                   ",127.0.0.1:" + std::to_string(second_port_)};
    for (int i = 0; i < 3; ++i) ASSERT_OK(AddServer());
    ASSERT_NO_FATAL_FAILURE(PlaceMany(calls));
    for (size_t old = 0; old < 3; ++old) {
      ASSERT_OK(AddServer());
      cluster_->AgentServer(old).Signal(SIGTERM);
      const auto left = cluster_->AgentServer(old).Wait(absl::Seconds(120));
      ASSERT_OK(left.status());
      EXPECT_EQ(*left, 0) << Logs();
      if (old == 0) {
        ASSERT_OK(cluster_->Restart("dispatch-broker"));
      } else if (old == 1) {
        ASSERT_NO_FATAL_FAILURE(RestartSecondBroker());
      }
    }
    ExpectAllUncut();
    EXPECT_GE(PausesMs().size(), static_cast<size_t>(calls));  // each moved once at least
    PrintGaps();
  }
  void RestartSecondBroker() {
    if (second_) {
      second_->Signal(SIGTERM);
      ASSERT_OK(second_->Wait(absl::Seconds(20)).status());
    }
    const std::string bin = std::filesystem::read_symlink("/proc/self/exe").parent_path();
    auto started = Process::Start(
        {bin + "/parley-dispatch-broker", "--dev", "--grpc-port", std::to_string(second_port_),
         "--admin-port", "0", "--redis-address", cluster_->Redis().address()},
        work_dir_ + "/second-broker-" + RandomHex(4) + ".log");
    ASSERT_OK(started.status());
    second_ = *std::move(started);
    const auto line = second_->WaitForLine("\"msg\":\"serving\"", absl::Seconds(10));
    ASSERT_OK(line.status());
    second_port_ = json::parse(*line)["grpc_port"].get<int>();
  }
  void TearDown() override {
    second_.reset();
    HandOverTest::TearDown();
  }

  std::unique_ptr<Process> second_;
  int second_port_ = 0;
};

TEST_F(RollingRestartTest, ShortForm) { Run(12, "500ms"); }
// The full tier: see CMakeLists.txt.
TEST_F(RollingRestartTest, DISABLED_Full) { Run(60, "5s"); }

}  // namespace
}  // namespace parley::testing
