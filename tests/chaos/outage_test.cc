// Redis away, short form. The long ones are in outage_long_test.cc.
#include "outage_fixture.h"

namespace parley::testing {
namespace {

TEST_F(RedisAwayTest, NoCallIsCutWhileRedisIsAwayForLongerThanALease) {
  NoCallIsCutWhileRedisIsAwayFor(absl::Seconds(12.5), 5);
}

// Everything gone: what runs is put back from the workers' reports, what waits from the broker.
TEST_F(RedisAwayTest, NoCallIsCutAndNoDispatchLostWhenRedisForgetsEverything) {
  ASSERT_NO_FATAL_FAILURE(StartCluster());
  AddServer();
  ASSERT_NO_FATAL_FAILURE(PlaceMany(3));
  auto waiting = api_->Call("POST", "/api/sessions", {{"agent", "nobody-yet"}});
  ASSERT_TRUE(waiting.ok()) << waiting.status();
  redis::Config config;
  config.address = cluster_->Redis().address();
  ASSERT_OK(redis::Pool(config, log::Logger()).Command({"FLUSHALL"}).status());
  ExpectRecoveryWithin2s();
  ExpectAllUncut();
  EXPECT_TRUE(Eventually([&] {
    const auto job = api_->Job((*waiting)["dispatchId"].get<std::string>());
    return job.ok() && (*job)["state"] == "PENDING";
  })) << Logs();
}

}  // namespace
}  // namespace parley::testing
