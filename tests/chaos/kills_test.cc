// Separate processes, a real redis-server, two agent servers; processes are killed with SIGKILL in
// the middle of calls. Each test names the promise it defends.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#include "base/status.h"
#include "testing/calls.h"

namespace parley::testing {
namespace {

using nlohmann::json;

constexpr absl::Duration kLong = absl::Seconds(30);

#define ASSERT_OK(expression)                                                     \
  do {                                                                            \
    const absl::Status parley_test_status = (expression);                         \
    ASSERT_TRUE(parley_test_status.ok()) << parley_test_status << "\n" << Logs(); \
  } while (false)

class KillsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ClusterOptions options;
    options.agent_servers = 2;
    options.agent_arguments = {"--tools-allow-loopback", "--slots", "4"};
    options.extra_arguments["api-server"] = {"--demo"};
    options.extra_arguments["agent-registry"] = {"--tools-allow-loopback"};
    auto cluster = Cluster::Start(options);
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = *std::move(cluster);
    api_ = std::make_unique<Api>(*cluster_);
    ASSERT_OK(api_->RegisterFile(std::string(std::getenv("PARLEY_SOURCE_DIR")) +
                                 "/examples/front-desk.yaml"));
  }

  std::unique_ptr<FrontDeskCall> Place(const std::string& policy = "ON_FAILURE") {
    auto call = FrontDeskCall::Place(*api_, policy);
    EXPECT_TRUE(call.ok()) << call.status() << "\n" << Logs();
    return call.ok() ? *std::move(call) : nullptr;
  }

  // Which agent server runs the call's job, and as which process.
  struct Where {
    size_t server = 0;
    pid_t pid = 0;
  };
  Where WhereIs(const FrontDeskCall& call, int attempt) {
    const auto job = api_->Job(call.dispatch_id());
    EXPECT_TRUE(job.ok()) << job.status();
    const std::string id = job.ok() ? (*job)["id"].get<std::string>() : "";
    for (size_t i = 0; i < 2; ++i) {
      std::istringstream lines(cluster_->AgentServer(i).Log());
      for (std::string line; std::getline(lines, line);) {
        const json entry = json::parse(line, nullptr, false);
        if (entry.is_object() && entry.value("msg", "") == "job running" &&
            entry.value("job_id", "") == id && entry.value("attempt", 0) == attempt) {
          return {i, entry["pid"].get<pid_t>()};
        }
      }
    }
    ADD_FAILURE() << "no agent server says that it runs " << id << "\n" << Logs();
    return {};
  }

  json WaitForJobState(const FrontDeskCall& call, const std::string& state,
                       absl::Duration timeout) {
    const auto until = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(timeout);
    json last;
    while (std::chrono::steady_clock::now() < until) {
      const auto job = api_->Job(call.dispatch_id());
      if (job.ok()) {
        last = *job;
        if (last["state"] == state) return last;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    ADD_FAILURE() << "the job is not " << state << ": " << last << "\n" << Logs();
    return last;
  }

  std::string Logs() {
    if (!cluster_) return {};
    std::string text;
    for (size_t i = 0; i < 2; ++i) {
      const std::string log = cluster_->AgentServer(i).Log();
      text += "--- agent server " + std::to_string(i) + "\n" +
              log.substr(log.size() > 3000 ? log.size() - 3000 : 0);
    }
    for (const char* service : {"dispatch-broker", "room-server"}) {
      const std::string log = cluster_->Service(service).Log();
      text += std::string("--- ") + service + "\n" +
              log.substr(log.size() > 2000 ? log.size() - 2000 : 0);
    }
    return text;
  }

  std::unique_ptr<Cluster> cluster_;
  std::unique_ptr<Api> api_;
};

TEST_F(KillsTest, CallsAreAnsweredAcrossProcesses) {
  auto call = Place();
  ASSERT_NE(call, nullptr);
  ASSERT_OK(call->Ask("single", "80"));
  ASSERT_OK(call->Ask("suite", "250"));
}

TEST_F(KillsTest, KilledJobComesBackAsItsSecondAttempt) {
  std::unique_ptr<FrontDeskCall> other;
  Api others(*cluster_);
  std::thread somebody_else([&] {
    auto placed = FrontDeskCall::Place(others);
    EXPECT_TRUE(placed.ok()) << placed.status();
    if (placed.ok()) other = *std::move(placed);
  });
  auto call = Place();
  somebody_else.join();
  ASSERT_TRUE(call != nullptr && other != nullptr);
  const Where where = WhereIs(*call, 1);
  const int64_t killed_us = call->caller().NowMicros();
  ASSERT_EQ(kill(where.pid, SIGKILL), 0);
  // Sooner than any lease of 12 s ends.
  const auto back_us = call->WaitForNewAgent(killed_us, absl::Seconds(10));
  ASSERT_OK(back_us.status());
  RecordProperty("back_after_ms", static_cast<int>((*back_us - killed_us) / 1000));
  std::printf("the agent was back after %.0f ms\n",
              static_cast<double>(*back_us - killed_us) / 1000);
  const json job = WaitForJobState(*call, "RUNNING", kLong);
  EXPECT_EQ(job["attempt"], 2);
  EXPECT_EQ(job["previousReason"], "PROCESS_CRASHED");
  ASSERT_OK(call->Ask("double", "120"));
  // No other call notices.
  ASSERT_OK(other->Ask("single", "80"));
  EXPECT_EQ((*api_->Job(other->dispatch_id()))["attempt"], 1);
}

TEST_F(KillsTest, KilledJobWithPolicyNeverEndsWithItsReason) {
  auto call = Place("NEVER");
  ASSERT_NE(call, nullptr);
  ASSERT_EQ(kill(WhereIs(*call, 1).pid, SIGKILL), 0);
  const json job = WaitForJobState(*call, "FAILED", kLong);
  EXPECT_EQ(job["reason"], "PROCESS_CRASHED");
  EXPECT_EQ(job["attempt"], 1);
}

TEST_F(KillsTest, KilledAgentServersCallsMoveToTheOther) {
  auto call = Place();
  ASSERT_NE(call, nullptr);
  const Where where = WhereIs(*call, 1);
  const int64_t killed_us = call->caller().NowMicros();
  // The zygote is the process that was started; its first child is the agent server.
  const std::string zygote = std::to_string(cluster_->AgentServer(where.server).pid());
  std::ifstream children("/proc/" + zygote + "/task/" + zygote + "/children");
  pid_t server = 0;
  children >> server;
  ASSERT_GT(server, 0);
  ASSERT_EQ(kill(server, SIGKILL), 0);
  const auto back_us = call->WaitForNewAgent(killed_us, absl::Seconds(10));
  ASSERT_OK(back_us.status());
  std::printf("the agent was back after %.0f ms\n",
              static_cast<double>(*back_us - killed_us) / 1000);
  const json job = WaitForJobState(*call, "RUNNING", kLong);
  EXPECT_EQ(job["attempt"], 2);
  EXPECT_EQ(job["previousReason"], "WORKER_LOST");
  EXPECT_NE(WhereIs(*call, 2).server, where.server);
  ASSERT_OK(call->Ask("double", "120"));
}

TEST_F(KillsTest, CallsGoOnWithoutTheBrokerAndNewOnesWorkWhenItIsBack) {
  auto call = Place();
  ASSERT_NE(call, nullptr);
  cluster_->Service("dispatch-broker").Signal(SIGKILL);
  ASSERT_OK(cluster_->Service("dispatch-broker").Wait(absl::Seconds(5)).status());
  ASSERT_OK(call->Ask("single", "80"));
  ASSERT_OK(cluster_->Restart("dispatch-broker"));
  ASSERT_OK(call->Ask("suite", "250"));
  const json job = WaitForJobState(*call, "RUNNING", kLong);
  EXPECT_EQ(job["attempt"], 1);
  auto next = Place();
  ASSERT_NE(next, nullptr);
  ASSERT_OK(next->Ask("double", "120"));
}

}  // namespace
}  // namespace parley::testing
