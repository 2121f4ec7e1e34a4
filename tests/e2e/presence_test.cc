// `while_present` with the real binaries: an agent that is there while a person is, and never
// twice. People join and leave over their own streams; agents are counted by who was in the room
// with them, and by the jobs that the broker tells of.
#include <gtest/gtest.h>
#include <signal.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>

#include "auth/token.h"
#include "base/status.h"
#include "testing/calls.h"
#include "testing/matchers.h"

namespace parley::testing {
namespace {

using nlohmann::json;

#define ASSERT_OK(expression)                                                     \
  do {                                                                            \
    const absl::Status parley_test_status = (expression);                         \
    ASSERT_TRUE(parley_test_status.ok()) << parley_test_status << "\n" << Logs(); \
  } while (false)

class WhilePresentTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "present-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    work_dir_ = pattern;
    ClusterOptions options;
    options.work_dir = pattern;
    options.agent_servers = 2;
    options.agent_arguments = {"--slots", "4"};
    std::ofstream(pattern + "/script.json") << MemoryCall::kScript;
    for (const std::string kind : {"stt", "tts", "llm"}) {
      options.extra_arguments[kind + "-gateway"] = {"--" + kind + "-script",
                                                    pattern + "/script.json"};
    }
    auto cluster = Cluster::Start(options);
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = *std::move(cluster);
    api_ = std::make_unique<Api>(*cluster_);
    ASSERT_OK(api_->Register(MemoryCall::kAgent));
    const auto made = api_->Call(
        "POST", "/api/dispatches",
        {{"room", "lobby"}, {"metadata", R"({"agentId":"memory"})"}, {"while_present", true}});
    ASSERT_TRUE(made.ok()) << made.status();
    dispatch_ = (*made)["id"].get<std::string>();
  }
  void TearDown() override {
    api_.reset();
    cluster_.reset();
    std::error_code ignored;
    if (!work_dir_.empty()) std::filesystem::remove_all(work_dir_, ignored);
  }

  std::unique_ptr<caller::Caller> Join(const std::string& identity) {
    auth::Claims claims;
    claims.identity = identity;
    claims.video.room_join = true;
    claims.video.room = "lobby";
    caller::CallerOptions options;
    options.token = auth::Sign(claims, auth::KeyRing::Development()->keys()[0], absl::Hours(1));
    options.media_url = cluster_->Address("room-server");
    options.record = false;
    auto caller = caller::Caller::Connect(options);
    EXPECT_TRUE(caller.ok()) << caller.status();
    return caller.ok() ? *std::move(caller) : nullptr;
  }
  static absl::Status WaitForNextAgent(caller::Caller& caller, int64_t after_us) {
    return caller
        .WaitFor(
            "the agent back in the room",
            [](const caller::CallEvent& event) {
              return event.type == caller::CallEvent::Type::kParticipantJoined &&
                     event.identity.starts_with("agent-");
            },
            absl::Seconds(20), after_us)
        .status();
  }
  json Dispatch() { return api_->Call("GET", "/api/dispatches/" + dispatch_).value_or(json()); }
  std::vector<json> Jobs() {
    const json dispatch = Dispatch();
    return dispatch.contains("jobs") ? dispatch["jobs"].get<std::vector<json>>()
                                     : std::vector<json>();
  }
  static bool Lives(const json& job) {
    return job["state"] != "SUCCEEDED" && job["state"] != "FAILED" && job["state"] != "CANCELLED";
  }
  int Living() {
    int count = 0;
    for (const json& job : Jobs()) count += Lives(job) ? 1 : 0;
    return count;
  }
  bool LastJobLeftWithThePeople() {
    int left = 0;
    for (const json& job : Jobs()) left += job["reason"] == "PARTICIPANTS_LEFT" ? 1 : 0;
    return Living() == 0 && left > 0;
  }
  // Of the agents that somebody saw come and go: the most that were there at one time.
  static size_t MostAgents(const caller::Caller& caller) {
    std::set<std::string> there;
    size_t most = 0;
    for (const caller::CallEvent& event : caller.events()) {
      using Type = caller::CallEvent::Type;
      if (!event.agent && !event.identity.starts_with("agent-")) continue;
      if (event.type == Type::kParticipantJoined) there.insert(event.identity);
      if (event.type == Type::kParticipantLeft) there.erase(event.identity);
      most = std::max(most, there.size());
    }
    return most;
  }
  // Kills the agent server, not its parent, that runs the living job; the parent tells of it.
  bool KillHolder() {
    for (const json& job : Jobs()) {
      if (!Lives(job)) continue;
      for (size_t i = 0; i < 2; ++i) {
        if (cluster_->AgentServer(i).Log().find(job["workerId"].get<std::string>()) ==
            std::string::npos) {
          continue;
        }
        const int parent = cluster_->AgentServer(i).pid();
        std::ifstream children(fmt::format("/proc/{}/task/{}/children", parent, parent));
        for (int child = 0; children >> child;) {
          std::string name;
          std::getline(std::ifstream(fmt::format("/proc/{}/comm", child)), name);
          if (name != "parley-job") return kill(child, SIGKILL) == 0;
        }
      }
    }
    return false;
  }
  std::string Logs() {
    std::string text = Dispatch().dump(1) + "\n";
    for (const char* service : {"dispatch-broker", "room-server"}) {
      const std::string log = cluster_->Service(service).Log();
      text += std::string("--- ") + service + "\n" +
              log.substr(log.size() > 2000 ? log.size() - 2000 : 0);
    }
    return text;
  }

  std::string work_dir_;
  std::unique_ptr<Cluster> cluster_;
  std::unique_ptr<Api> api_;
  std::string dispatch_;
};

TEST_F(WhilePresentTest, ThereWhileAPersonIsAndNeverTwice) {
  EXPECT_TRUE(Jobs().empty()) << "nobody is there to talk to";
  auto ann = Join("ann");
  ASSERT_NE(ann, nullptr);
  ASSERT_OK(ann->WaitForAgent(absl::Seconds(20)).status());
  EXPECT_EQ(Living(), 1);

  // A second person brings no second agent. The agent goes with whom it talks to, and is back for
  // who is still there.
  auto bob = Join("bob");
  ASSERT_NE(bob, nullptr);
  ASSERT_OK(bob->WaitForAgent(absl::Seconds(20)).status());
  EXPECT_EQ(Jobs().size(), 1u) << Logs();
  const int64_t left_us = bob->NowMicros();
  ann->HangUp();
  EXPECT_EQ(MostAgents(*ann), 1u);
  ASSERT_OK(WaitForNextAgent(*bob, left_us));
  EXPECT_EQ(Living(), 1) << Logs();
  EXPECT_EQ(Jobs().size(), 2u) << Logs();

  // With the last one it leaves; with the next one it is back.
  bob->HangUp();
  EXPECT_EQ(MostAgents(*bob), 1u);
  ASSERT_TRUE(Eventually([&] { return LastJobLeftWithThePeople(); }, absl::Seconds(20))) << Logs();
  EXPECT_EQ(Dispatch()["state"], "ACTIVE") << Logs();
  auto again = Join("ann");
  ASSERT_NE(again, nullptr);
  ASSERT_OK(again->WaitForAgent(absl::Seconds(20)).status());
  EXPECT_EQ(Jobs().size(), 3u) << Logs();

  // Its agent server dies: it is back from the other one, never together with its old self.
  const int64_t killed_us = again->NowMicros();
  ASSERT_TRUE(KillHolder()) << Logs();
  ASSERT_OK(WaitForNextAgent(*again, killed_us));
  EXPECT_EQ(MostAgents(*again), 1u);
  EXPECT_EQ(Living(), 1) << Logs();

  // Deleted, it leaves people alone, and stays away from those who come later.
  ASSERT_OK(api_->Call("DELETE", "/api/dispatches/" + dispatch_).status());
  ASSERT_TRUE(Eventually([&] { return Living() == 0; }, absl::Seconds(20))) << Logs();
  auto late = Join("late");
  ASSERT_NE(late, nullptr);
  std::this_thread::sleep_for(std::chrono::seconds(2));  // time in which it might come
  EXPECT_EQ(MostAgents(*late), 0u);
  EXPECT_EQ(Living(), 0);
  EXPECT_EQ(Dispatch()["state"], "ENDED") << Logs();
}

}  // namespace
}  // namespace parley::testing
