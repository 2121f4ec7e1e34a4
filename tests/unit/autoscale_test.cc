// The autoscaler's algorithm, calibrated with what a real control plane (Kubernetes 1.35) was seen
// to do.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "autoscale/simulation.h"

namespace parley::autoscale {
namespace {

using ::testing::HasSubstr;

constexpr char kManifest[] = R"(
apiVersion: v1
kind: Service
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: agent-server}
spec:
  minReplicas: 2
  maxReplicas: 40
  metrics:
    - type: External
      external:
        metric: {name: parley_pool_jobs, selector: {matchLabels: {pool: default}}}
        target: {type: AverageValue, averageValue: "4"}
    - type: Resource
      resource: {name: cpu, target: {type: Utilization, averageUtilization: 60}}
  behavior:
    scaleUp:
      policies: [{type: Pods, value: 4, periodSeconds: 15}]
    scaleDown:
      stabilizationWindowSeconds: 20
      policies: [{type: Pods, value: 1, periodSeconds: 15}]
)";

Manifest Read() {
  auto manifests = ParseManifests(kManifest);
  EXPECT_TRUE(manifests.ok()) << manifests.status();
  EXPECT_EQ(manifests->size(), 1U);
  return manifests->front();
}

TEST(HpaTest, ReadsWhatAManifestSays) {
  const Manifest manifest = Read();
  EXPECT_EQ(manifest.name, "agent-server");
  EXPECT_EQ(manifest.min, 2);
  EXPECT_EQ(manifest.max, 40);
  ASSERT_EQ(manifest.metrics.size(), 1U);
  EXPECT_EQ(manifest.metrics[0].matches.at("pool"), "default");
  EXPECT_EQ(manifest.metrics[0].target, 4);
  EXPECT_EQ(manifest.others, 1);
  EXPECT_EQ(manifest.up.window_s, 0);
  EXPECT_EQ(manifest.down.window_s, 20);
}

TEST(HpaTest, NamesWhatItCannotUse) {
  for (const auto& [yaml, word] : std::vector<std::pair<std::string, std::string>>{
           {"kind: HorizontalPodAutoscaler\napiVersion: autoscaling/v1", "autoscaling/v2"},
           {"kind: HorizontalPodAutoscaler\napiVersion: autoscaling/v2\nspec: {}", "maxReplicas"},
           {"kind: HorizontalPodAutoscaler\napiVersion: autoscaling/v2\nspec: {maxReplicas: 1, "
            "minReplicas: 2}",
            "below"},
           {"a: [", "YAML"},
           {std::string(200, '['), "deeply"}}) {
    const auto read = ParseManifests(yaml);
    ASSERT_FALSE(read.ok()) << yaml;
    EXPECT_THAT(std::string(read.status().message()), HasSubstr(word));
  }
}

TEST(HpaTest, ReadsQuantities) {
  EXPECT_EQ(ParseQuantity("37.5"), 37.5);
  EXPECT_EQ(ParseQuantity("37500m"), 37.5);
  EXPECT_EQ(ParseQuantity("2k"), 2000);
  for (const char* bad : {"", "m", "1e3", "-1", "x", "1.2.3"})
    EXPECT_FALSE(ParseQuantity(bad).has_value()) << bad;
}

// Seen: queue 40, target 4, at most 4 more per 15 s: 2 → 6 at 2 s → 10 at 17 s.
TEST(HpaTest, ScalesUpAsSeen) {
  Autoscaler autoscaler(Read());
  EXPECT_EQ(autoscaler.Decide(2, 2, {40}), 6);
  EXPECT_EQ(autoscaler.Decide(9, 6, {40}), 6) << "four were added in this period";
  EXPECT_EQ(autoscaler.Decide(17.1, 6, {40}), 10);
  EXPECT_EQ(autoscaler.Decide(32, 10, {40}), 10);
}

// Seen: queue 0, window 20 s, one less per 15 s: 10 → 2, a step every 15 s.
TEST(HpaTest, ScalesDownAsSeen) {
  Autoscaler autoscaler(Read());
  int replicas = autoscaler.Decide(0, 10, {40});
  std::vector<double> steps;
  for (double now = 1; now < 200; now += 1) {
    const int desired = autoscaler.Decide(now, replicas, {0});
    if (desired < replicas) steps.push_back(now);
    replicas = desired;
  }
  EXPECT_EQ(replicas, 2);
  ASSERT_EQ(steps.size(), 8U);
  EXPECT_EQ(steps[0], 20);
  for (size_t i = 1; i < steps.size(); ++i) EXPECT_EQ(steps[i] - steps[i - 1], 15);
}

TEST(HpaTest, StaysWithinTheTolerance) {
  Autoscaler autoscaler(Read());
  EXPECT_EQ(autoscaler.Decide(0, 10, {43.9}), 10);
  EXPECT_EQ(autoscaler.Decide(1, 10, {44.1}), 12);
}

TEST(HpaTest, AMissingMetricNeverScalesDown) {
  Manifest manifest = Read();
  manifest.metrics.push_back(manifest.metrics[0]);
  Autoscaler autoscaler(manifest);
  EXPECT_EQ(autoscaler.Decide(0, 10, {std::nullopt, std::nullopt}), 10);
  EXPECT_EQ(autoscaler.Decide(100, 10, {std::nullopt, 4}), 10);
  EXPECT_EQ(autoscaler.Decide(200, 10, {std::nullopt, 80}), 14);
}

TEST(SimulationTest, ADayWithoutCallsKeepsTheMinimum) {
  const auto result = Simulate(Read(), {}, {});
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->calls, 0U);
  EXPECT_EQ(result->peak_servers, 2);
}

TEST(SimulationTest, CountsWaitsAndCutCalls) {
  Manifest manifest = Read();
  manifest.min = 1;
  SimulationOptions options;
  options.slots = 4;
  options.metrics_lag_s = 0;
  options.sync_s = 1;
  options.start_s = 5;
  std::vector<TraceCall> trace(8, TraceCall{10, 100});
  const auto result = Simulate(manifest, trace, options);
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->calls, 8U);
  EXPECT_EQ(result->wait_p50_s, 0);
  EXPECT_NEAR(result->wait_p99_s, 5, 1.5) << "half of them wait for a second server";
  EXPECT_EQ(result->cut, 0U);

  trace.push_back({10.1, 2000});
  options.drain_s = 60;
  const auto hurried = Simulate(manifest, trace, options);
  ASSERT_TRUE(hurried.ok());
  // All but one end after 110 s; the long one is on one of three servers, and at most that is cut.
  EXPECT_LE(hurried->cut, 1U);
  EXPECT_GT(hurried->scale_downs, 0);
}

TEST(SimulationTest, TracesAreReadByLine) {
  const auto calls = ParseTrace("start_s,duration_s\n5,10\n\n1.5,2\r\n");
  ASSERT_TRUE(calls.ok());
  ASSERT_EQ(calls->size(), 2U);
  EXPECT_EQ(calls->front().start_s, 1.5);
  EXPECT_THAT(std::string(ParseTrace("1,2\n1;2\n").status().message()), HasSubstr("line 2"));
  EXPECT_FALSE(ParseTrace("-1,2").ok());
  EXPECT_FALSE(ParseTrace("1,nan").ok());
}

TEST(SimulationTest, AskedForAnUnknownMetricItSaysSo) {
  Manifest manifest = Read();
  manifest.metrics[0].name = "queue_length";
  EXPECT_THAT(std::string(Simulate(manifest, {}, {}).status().message()),
              HasSubstr("queue_length"));
}

}  // namespace
}  // namespace parley::autoscale
