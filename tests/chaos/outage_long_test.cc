// Outages as long as they come, and the network between every pair of processes.
#include "outage_fixture.h"
#include "testing/sentinel_redis.h"

namespace parley::testing {
namespace {

TEST_F(RedisAwayTest, NoCallOf50IsCutWhileRedisIsAwayFor60Seconds) {
  NoCallIsCutWhileRedisIsAwayFor(absl::Seconds(60), 50);
}

TEST_F(RedisAwayTest, NoCallIsCutWhileRedisIsAwayFor5Minutes) {
  NoCallIsCutWhileRedisIsAwayFor(absl::Minutes(5), 20);
}

TEST_F(RedisAwayTest, NoCallIsCutWhileAllBrokersAreAwayForAMinute) {
  ASSERT_NO_FATAL_FAILURE(StartCluster());
  AddServer();
  ASSERT_NO_FATAL_FAILURE(PlaceMany(20));
  cluster_->Service("dispatch-broker").Signal(SIGKILL);
  const absl::Time gone = absl::Now();
  while (absl::Now() - gone < absl::Minutes(1)) {
    ASSERT_OK(calls_[static_cast<size_t>(asked_++) % calls_.size()]->Ask());
    absl::SleepFor(absl::Seconds(1));
  }
  ASSERT_OK(cluster_->Restart("dispatch-broker"));
  ExpectRecoveryWithin2s();
  ExpectAllUncut();
}

TEST_F(RedisAwayTest, NoCallIsCutByAFailOver) {
  auto redis = SentinelRedis::Start(directory_.path());
  ASSERT_TRUE(redis.ok()) << redis.status();
  std::string sentinels;
  for (const std::string& address : (*redis)->sentinel_addresses()) {
    sentinels += (sentinels.empty() ? "" : ",") + address;
  }
  ClusterOptions options;
  for (const char* service : {"agent-registry", "dispatch-broker", "room-server"}) {
    options.extra_arguments[service] = {"--redis-sentinels", sentinels};
  }
  ASSERT_NO_FATAL_FAILURE(StartCluster(options));
  AddServer();
  ASSERT_NO_FATAL_FAILURE(PlaceMany(10));
  (*redis)->KillMaster();
  const absl::Time killed = absl::Now();
  EXPECT_TRUE(Eventually([&] { return AdminStatus("/readyz") == 503; }));
  ASSERT_OK(calls_[0]->Ask());
  EXPECT_TRUE(Eventually(
      [&] {
        const auto created = Create("after-the-fail-over");
        return created.ok() && created->status == 201;
      },
      absl::Seconds(20)))
      << Logs();
  fmt::print("creates again {:.1f} s after the master was killed\n",
             absl::ToDoubleSeconds(absl::Now() - killed));
  // Two leases later nobody has been given up either.
  absl::SleepFor(2 * Lease());
  ExpectAllUncut();
}

// How a link misbehaves for 5 s, which is less than a lease.
struct Fault {
  const char* name;
  TcpGate::Flow flow;
  absl::Duration delay;
  bool cut;
};
void PrintTo(const Fault& fault, std::ostream* out) { *out << fault.name; }

class ShortFaultTest : public OutageTest, public ::testing::WithParamInterface<Fault> {
 protected:
  void Break(TcpGate& gate) {
    gate.SetDelay(GetParam().delay);
    gate.SetFlow(GetParam().flow);
    if (GetParam().cut) gate.Cut();
    const absl::Time until = absl::Now() + absl::Seconds(5);
    while (absl::Now() < until) {
      ASSERT_OK(calls_[0]->Ask());
      absl::SleepFor(absl::Milliseconds(500));
    }
    gate.SetFlow(TcpGate::Flow::kOpen);
    gate.SetDelay(absl::ZeroDuration());
    absl::SleepFor(absl::Seconds(3));  // connections are made again
  }
};

TEST_P(ShortFaultTest, BetweenWorkerAndBrokerCutsNoCall) {
  ASSERT_NO_FATAL_FAILURE(StartCluster());
  auto gate = TcpGate::Start(cluster_->Address("dispatch-broker"));
  ASSERT_TRUE(gate.ok()) << gate.status();
  AddServer({"--dispatch-address", (*gate)->address()});
  AddServer();
  ASSERT_NO_FATAL_FAILURE(PlaceMany(4));
  ASSERT_NO_FATAL_FAILURE(Break(**gate));
  ExpectAllUncut();
}

TEST_P(ShortFaultTest, BetweenBrokerAndRedisCutsNoCall) {
  auto gate = TcpGate::Start("unix:" + directory_.path() + "/redis.sock");  // the cluster's
  ASSERT_TRUE(gate.ok()) << gate.status();
  ClusterOptions options;
  options.extra_arguments["dispatch-broker"] = {"--redis-address", (*gate)->address()};
  ASSERT_NO_FATAL_FAILURE(StartCluster(options));
  AddServer();
  ASSERT_NO_FATAL_FAILURE(PlaceMany(4));
  ASSERT_NO_FATAL_FAILURE(Break(**gate));
  EXPECT_TRUE(Eventually([&] { return AdminStatus("/readyz") == 200; }));
  ExpectAllUncut();
}

INSTANTIATE_TEST_SUITE_P(
    Faults, ShortFaultTest,
    ::testing::Values(
        Fault{"cut", TcpGate::Flow::kRefused, absl::ZeroDuration(), true},
        Fault{"stall", TcpGate::Flow::kStalled, absl::ZeroDuration(), false},
        Fault{"delay", TcpGate::Flow::kOpen, absl::Milliseconds(150), false},
        Fault{"to_server_only", TcpGate::Flow::kToServer, absl::ZeroDuration(), false},
        Fault{"to_client_only", TcpGate::Flow::kToClient, absl::ZeroDuration(), false}),
    [](const auto& info) { return info.param.name; });

// Cut off for longer than its lease: every job runs elsewhere, once, and the old copy stops.
class LongCutTest : public OutageTest {
 protected:
  void Start() {
    ASSERT_NO_FATAL_FAILURE(StartCluster());
    auto gate = TcpGate::Start(cluster_->Address("dispatch-broker"));
    ASSERT_TRUE(gate.ok()) << gate.status();
    to_broker_ = *std::move(gate);
    gate = TcpGate::Start(cluster_->Address("room-server"));
    ASSERT_TRUE(gate.ok()) << gate.status();
    to_rooms_ = *std::move(gate);
    AddServer(
        {"--dispatch-address", to_broker_->address(), "--rooms-address", to_rooms_->address()});
    ASSERT_NO_FATAL_FAILURE(PlaceMany(4));
    ASSERT_NO_FATAL_FAILURE(AddServer());
    for (auto& call : calls_) {
      old_.push_back(ProcessOf(*call, 0));
      ASSERT_GT(old_.back(), 0);
    }
  }
  void ExpectEachRunsElsewhereOnce(const std::vector<int64_t>& since_us) {
    for (size_t i = 0; i < calls_.size(); ++i) {
      const auto running = [&] {
        const json job = JobOf(*calls_[i]);
        return job["state"] == "RUNNING" && job["attempt"] == 2;
      };
      EXPECT_TRUE(Eventually(running, absl::Seconds(20))) << JobOf(*calls_[i]) << Logs();
      EXPECT_TRUE(Eventually([&] { return calls_[i]->NewAgents(since_us[i]) > 0; }));
      EXPECT_EQ(calls_[i]->NewAgents(since_us[i]), 1);
      EXPECT_EQ(JobOf(*calls_[i])["previousReason"], "WORKER_LOST");
      EXPECT_NE(ProcessOf(*calls_[i], 1), 0);
    }
  }
  std::vector<int64_t> Now() {
    std::vector<int64_t> now;
    for (auto& call : calls_) now.push_back(call->caller().NowMicros());
    return now;
  }
  bool OldCopiesAreGone() {
    return std::all_of(old_.begin(), old_.end(), [](pid_t pid) { return kill(pid, 0) != 0; });
  }

  std::unique_ptr<TcpGate> to_broker_, to_rooms_;
  std::vector<pid_t> old_;
};

TEST_F(LongCutTest, EachJobRunsElsewhereOnceAndTheOldCopyIsPutOutOfTheRoom) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const std::vector<int64_t> cut = Now();
  to_broker_->SetFlow(TcpGate::Flow::kRefused);
  to_broker_->Cut();
  ExpectEachRunsElsewhereOnce(cut);
  to_broker_->SetFlow(TcpGate::Flow::kOpen);
  EXPECT_TRUE(Eventually([&] { return OldCopiesAreGone(); }, absl::Seconds(10))) << Logs();
  ExpectEachRunsElsewhereOnce(cut);
}

// Neither broker nor room reach it.
TEST_F(LongCutTest, EachJobRunsElsewhereOnceAndNoOldCopyComesBackIntoItsRoom) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const std::vector<int64_t> cut = Now();
  for (TcpGate* gate : {to_broker_.get(), to_rooms_.get()}) {
    gate->SetFlow(TcpGate::Flow::kRefused);
    gate->Cut();
  }
  ExpectEachRunsElsewhereOnce(cut);
  for (TcpGate* gate : {to_broker_.get(), to_rooms_.get()}) gate->SetFlow(TcpGate::Flow::kOpen);
  EXPECT_TRUE(Eventually([&] { return OldCopiesAreGone(); }, absl::Seconds(4))) << Logs();
  absl::SleepFor(absl::Seconds(3));
  ExpectEachRunsElsewhereOnce(cut);
}

// A machine that stood still for longer than the lease wakes up and believes that nothing happened:
// its copies live until the broker tells it.
TEST_F(LongCutTest, OldCopiesOfAServerThatStoodStillStopWithinAHeartbeatOfItsWaking) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const std::string zygote = std::to_string(cluster_->AgentServer(0).pid());
  std::ifstream children("/proc/" + zygote + "/task/" + zygote + "/children");
  pid_t server = 0;  // the zygote's first child
  children >> server;
  ASSERT_GT(server, 0);
  const std::vector<int64_t> stood = Now();
  ASSERT_EQ(kill(server, SIGSTOP), 0);
  ExpectEachRunsElsewhereOnce(stood);
  EXPECT_TRUE(std::all_of(old_.begin(), old_.end(), [](pid_t pid) { return kill(pid, 0) == 0; }));
  const absl::Time woken = absl::Now();
  ASSERT_EQ(kill(server, SIGCONT), 0);
  EXPECT_TRUE(Eventually([&] { return OldCopiesAreGone(); }, absl::Seconds(4))) << Logs();
  fmt::print("old copies stopped {:.1f} s after their server woke\n",
             absl::ToDoubleSeconds(absl::Now() - woken));
  absl::SleepFor(absl::Seconds(3));
  ExpectEachRunsElsewhereOnce(stood);
}

}  // namespace
}  // namespace parley::testing
