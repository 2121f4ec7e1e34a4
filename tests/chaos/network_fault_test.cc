// Links that fail, short form. The long ones are in outage_long_test.cc.
#include "outage_fixture.h"

namespace parley::testing {
namespace {

class NetworkTest : public OutageTest {
 protected:
  std::unique_ptr<TcpGate> Gate(const std::string& target) {
    auto gate = TcpGate::Start(target);
    EXPECT_TRUE(gate.ok()) << gate.status();
    return *std::move(gate);
  }
};

TEST_F(NetworkTest, WorkerCutFor5SecondsKeepsItsJobs) {
  ASSERT_NO_FATAL_FAILURE(StartCluster());
  const auto gate = Gate(cluster_->Address("dispatch-broker"));
  AddServer({"--dispatch-address", gate->address()});
  AddServer();  // somebody could take them
  ASSERT_NO_FATAL_FAILURE(PlaceMany(4));
  gate->SetFlow(TcpGate::Flow::kRefused);
  gate->Cut();
  const int64_t before = gate->accepted();
  absl::SleepFor(absl::Seconds(5));
  ASSERT_EQ(gate->accepted(), before) << "it was not cut off";
  gate->SetFlow(TcpGate::Flow::kOpen);
  EXPECT_TRUE(Eventually([&] { return gate->accepted() > before; }));
  ExpectAllUncut();
}

// Of two brokers one loses Redis: it says so at once, its worker goes to the other, calls go on.
TEST_F(NetworkTest, WorkersLeaveABrokerThatAloneIsCutOff) {
  const auto gate = Gate("unix:" + directory_.path() + "/redis.sock");  // the cluster's
  ClusterOptions options;
  options.extra_arguments["dispatch-broker"] = {"--redis-address", gate->address()};
  ASSERT_NO_FATAL_FAILURE(StartCluster(options));
  std::string other;
  ASSERT_NO_FATAL_FAILURE(AddBroker(&other));
  const std::string cut_off = cluster_->Address("dispatch-broker");
  // The worker's first stream goes to the one that will be cut off.
  AddServer({"--dispatch-address", "ipv4:" + cut_off + "," + other});
  AddServer({"--dispatch-address", "ipv4:" + other + "," + cut_off});
  ASSERT_NO_FATAL_FAILURE(PlaceMany(4));
  gate->SetFlow(TcpGate::Flow::kStalled);
  const auto registered = [](const std::string& log) {
    int count = 0;
    for (size_t at = log.find("\"msg\":\"worker registered\""); at != std::string::npos;
         at = log.find("\"msg\":\"worker registered\"", at + 1)) {
      ++count;
    }
    return count;
  };
  EXPECT_TRUE(Eventually([&] { return registered(brokers_[0]->Log()) == 2; })) << Logs();
  const auto refused = Create("refused");
  ASSERT_OK(refused.status());
  EXPECT_EQ(refused->status, 503);
  for (auto& call : calls_) ASSERT_OK(call->Ask());
  gate->SetFlow(TcpGate::Flow::kOpen);
  EXPECT_TRUE(Eventually([&] { return AdminStatus("/readyz") == 200; }));
  ExpectAllUncut();
}

}  // namespace
}  // namespace parley::testing
