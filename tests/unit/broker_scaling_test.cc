// What the broker tells autoscalers: how many servers are needed, and which pods cost most to take.
#include <gtest/gtest.h>

#include "dispatch_broker/metrics.h"
#include "dispatch_broker/pod_costs.h"

namespace parley::dispatch_broker {
namespace {

job::JobStore::PoolStats Stats(int workers, int slots, int used) {
  job::JobStore::PoolStats stats;
  stats.workers = workers;
  stats.slots = slots;
  stats.used = used;
  return stats;
}

TEST(DesiredWorkersTest, AreEnoughForWhatRunsAndWaits) {
  EXPECT_EQ(DesiredWorkers(Stats(0, 0, 0), 0), 0);
  EXPECT_EQ(DesiredWorkers(Stats(0, 0, 0), 7), 1) << "nobody is there to say how large they are";
  EXPECT_EQ(DesiredWorkers(Stats(2, 20, 0), 0), 0);
  EXPECT_EQ(DesiredWorkers(Stats(2, 20, 11), 0), 2);
  EXPECT_EQ(DesiredWorkers(Stats(2, 20, 20), 1), 3);
}

TEST(DesiredWorkersTest, JobsOfDrainingServersNeedNone) {
  auto stats = Stats(3, 30, 25);
  stats.draining_workers = 1;
  stats.draining_slots = 10;
  stats.draining_used = 10;
  EXPECT_EQ(DesiredWorkers(stats, 0), 2);
  stats.draining_workers = 3;
  stats.draining_slots = 30;
  stats.draining_used = 25;
  EXPECT_EQ(DesiredWorkers(stats, 0), 0);
  EXPECT_EQ(DesiredWorkers(stats, 12), 2) << "the size of those that leave";
}

TEST(PodCostsTest, RiseWithTheJobsAndChangeSeldom) {
  EXPECT_EQ(PodCosts::CostOf(0), 0);
  EXPECT_EQ(PodCosts::CostOf(1), 100);
  EXPECT_EQ(PodCosts::CostOf(2), 200);
  EXPECT_EQ(PodCosts::CostOf(3), 200);
  EXPECT_EQ(PodCosts::CostOf(50), 600);
}

}  // namespace
}  // namespace parley::dispatch_broker
