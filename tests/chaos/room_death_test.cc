// Two room servers, and calls on one of them that is killed, or stopped, or stands still, in their
// midst: its rooms go on at the other one, under the same sids, with the agents they had and no
// second ones. The agents remember in their own memory what they were told, so an answer shows that
// nobody took their place.
#include "room_calls.h"

namespace parley::testing {
namespace {

constexpr auto kFirst = "room-server";
constexpr auto kSecond = "room-server-2";

class RoomDeathTest : public RoomCallsTest {
 protected:
  void SetUp() override {
    ClusterOptions options;
    options.services = {"agent-registry", "dispatch-broker", kFirst,        kSecond,
                        "stt-gateway",    "tts-gateway",     "llm-gateway", "api-server"};
    options.extra_arguments["room-server"] = {"--drain", "1s"};
    ASSERT_NO_FATAL_FAILURE(StartCluster(options));
    ASSERT_NO_FATAL_FAILURE(AddServer());
  }
  void EnterMany(int people) {
    for (int i = 0; i < people; ++i) {
      ASSERT_OK(Enter(fmt::format("r{}", i), cluster_->Address(kFirst)));
    }
  }
  void Signal(int signal) {
    cluster_->Service(kFirst).Signal(signal);
    ASSERT_OK(cluster_->Service(kFirst).Wait(absl::Seconds(10)).status());
  }
  // All of them, at the second server; how long the last waited for an answer.
  double LastIsBackAfter(absl::Time since) {
    std::vector<double> seconds = AllComeBack(since, cluster_->Address(kSecond));
    EXPECT_EQ(seconds.size(), people_.size());
    if (seconds.empty()) return 0;
    std::ranges::sort(seconds);
    fmt::print("answered again after {:.1f} to {:.1f} s\n", seconds.front(), seconds.back());
    return seconds.back();
  }

  // Nor does who asks for a session there, of any api_server, bring another agent.
  void ExpectTheAgentsOfBefore() {
    for (const auto& person : people_) {
      const auto session =
          api_->Call("POST", "/api/sessions", {{"agent", "memory"}, {"room", person->room}});
      ASSERT_OK(session.status());
      EXPECT_EQ((*session)["mediaUrl"], cluster_->Address(kSecond));
    }
    ASSERT_NO_FATAL_FAILURE(ExpectOneAgentEach(cluster_->Address(kSecond)));
    for (const auto& person : people_) ExpectAgentOfAttempt(*person, 1);
  }

  std::string RoomLogs() override {
    std::string text = Logs();
    for (const char* name : {kFirst, kSecond}) {
      const std::string log = cluster_->Service(name).Log();
      text +=
          std::string("--- ") + name + "\n" + log.substr(log.size() > 2500 ? log.size() - 2500 : 0);
    }
    return text;
  }
};

TEST_F(RoomDeathTest, AKilledReplicasRoomsGoOnAtTheOtherWithTheAgentsTheyHad) {
  ASSERT_NO_FATAL_FAILURE(EnterMany(4));
  const absl::Time killed = absl::Now();
  ASSERT_NO_FATAL_FAILURE(Signal(SIGKILL));
  EXPECT_LT(LastIsBackAfter(killed), 12);
  ExpectTheAgentsOfBefore();
}

// No connection of its is closed, and its kernel goes on to accept new ones: as if its host had
// vanished, but that it wakes up.
TEST_F(RoomDeathTest, AReplicaThatStandsStillIsMissedAndLetsGoOfItsRoomsWhenItWakes) {
  ASSERT_NO_FATAL_FAILURE(EnterMany(2));
  const absl::Time stood = absl::Now();
  cluster_->Service(kFirst).Signal(SIGSTOP);
  EXPECT_LT(LastIsBackAfter(stood), 12);
  cluster_->Service(kFirst).Signal(SIGCONT);
  EXPECT_TRUE(cluster_->Service(kFirst)
                  .WaitForLine("another room server holds this room", absl::Seconds(5))
                  .ok())
      << RoomLogs();
  ExpectTheAgentsOfBefore();
}

TEST_F(RoomDeathTest, AStoppedReplicasRoomsGoOnAtTheOtherAtOnce) {
  ASSERT_NO_FATAL_FAILURE(EnterMany(2));
  const absl::Time stopped = absl::Now();
  ASSERT_NO_FATAL_FAILURE(Signal(SIGTERM));  // its people do not leave within the second it waits
  EXPECT_LT(LastIsBackAfter(stopped), 6);
  ExpectTheAgentsOfBefore();
}

}  // namespace
}  // namespace parley::testing
