#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <thread>
#include <vector>

#include "base/executor.h"
#include "base/ids.h"
#include "base/ip.h"
#include "base/status.h"
#include "base/strings.h"
#include "base/trace_context.h"

namespace parley {
namespace {

TEST(StatusTest, ReasonAndMetadataSurviveAnnotation) {
  const absl::Status status = WithReason(AlreadyExists("key {} is in use", "k"), "KEY_REUSED",
                                         {{"dispatch_id", "AD_1"}, {"empty", ""}});
  const absl::Status annotated = Annotate(status, "create");
  EXPECT_EQ(annotated.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(Message(annotated), "create: key k is in use");
  const ErrorReason reason = ReasonOf(annotated);
  EXPECT_EQ(reason.reason, "KEY_REUSED");
  EXPECT_THAT(reason.metadata, testing::UnorderedElementsAre(testing::Pair("dispatch_id", "AD_1"),
                                                             testing::Pair("empty", "")));
  EXPECT_EQ(ReasonOf(NotFound("x")).reason, "");
}

TEST(IpTest, ListenersAreReachedByHostAndPort) {
  EXPECT_EQ(ReachableAddress("192.0.2.7", 7105), "192.0.2.7:7105");
  EXPECT_EQ(ReachableAddress("rooms.example", 7105), "rooms.example:7105");
  EXPECT_EQ(ReachableAddress("2001:db8::7", 7105), "[2001:db8::7]:7105");
  EXPECT_EQ(ReachableAddress("[2001:db8::7]", 7105), "[2001:db8::7]:7105");
  EXPECT_EQ(ReachableAddress("2001:db8::7", "::", 7105), "[2001:db8::7]:7105");
  EXPECT_EQ(ReachableAddress("[2001:db8::7]", "::", 7105), "[2001:db8::7]:7105");
  EXPECT_EQ(ReachableAddress("192.0.2.7", "0.0.0.0", 7105), "192.0.2.7:7105");
  EXPECT_EQ(ReachableAddress("rooms.example", "0.0.0.0", 7105), "rooms.example:7105");
  EXPECT_EQ(ReachableAddress("rooms.example:443", "0.0.0.0", 7105), "rooms.example:443");
  EXPECT_EQ(ReachableAddress("[2001:db8::7]:443", "::", 7105), "[2001:db8::7]:443");
  EXPECT_EQ(ReachableAddress("", "192.0.2.7", 7105), "192.0.2.7:7105");
  for (const char* any : {"0.0.0.0", "::", ""}) {
    const std::string reachable = ReachableAddress(any, 7105);
    EXPECT_TRUE(reachable.ends_with(":7105")) << reachable;
    EXPECT_EQ(reachable.find("::"), std::string::npos)
        << "a wildcard reaches nobody: " << reachable;
  }
}

constexpr char kTraceparent[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

TEST(TraceContextTest, ReadsAndWritesTraceparent) {
  const TraceContext trace = TraceContext::Parse(kTraceparent);
  EXPECT_TRUE(trace.valid());
  EXPECT_TRUE(trace.sampled);
  EXPECT_EQ(trace.TraceId(), "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_EQ(trace.Traceparent(), kTraceparent);
  EXPECT_FALSE(
      TraceContext::Parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-02").sampled);
  // A later version may say more; what this one knows is read.
  const std::string later = "cc" + std::string(kTraceparent).substr(2);
  EXPECT_EQ(TraceContext::Parse(later).Traceparent(), kTraceparent);
  EXPECT_EQ(TraceContext::Parse(later + "-what-the-future").Traceparent(), kTraceparent);
}

TEST(TraceContextTest, WhatIsNoTraceparentIsNoTrace) {
  const std::string good = kTraceparent;
  for (const std::string& bad : {
           std::string(),
           std::string("00"),
           good.substr(1),
           good + "-",
           good + "0",
           "ff" + good.substr(2),
           "cc" + good.substr(2) + "x",
           "0g" + good.substr(2),
           std::string("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"),
           std::string("00-00000000000000000000000000000000-00f067aa0ba902b7-01"),
           std::string("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"),
           std::string("00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
           std::string("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x"),
       }) {
    const TraceContext trace = TraceContext::Parse(bad);
    EXPECT_FALSE(trace.valid()) << bad;
    EXPECT_EQ(trace.Traceparent(), "") << bad;
    EXPECT_EQ(trace.TraceId(), "") << bad;
  }
}

TEST(TraceContextTest, ChildrenKeepTheTraceAndScopesNest) {
  const TraceContext root = TraceContext::Root();
  const TraceContext child = root.Child();
  EXPECT_TRUE(root.sampled);
  EXPECT_EQ(child.trace_id, root.trace_id);
  EXPECT_NE(child.span_id, root.span_id);
  EXPECT_NE(TraceContext::Root().trace_id, root.trace_id);
  EXPECT_FALSE(CurrentTrace().valid());
  {
    const TraceScope outer(root);
    {
      const TraceScope inner(child);
      EXPECT_EQ(CurrentTrace(), child);
      std::thread([] { EXPECT_FALSE(CurrentTrace().valid()); }).join();
    }
    EXPECT_EQ(CurrentTrace(), root);
  }
  EXPECT_FALSE(CurrentTrace().valid());
}

TEST(IdsTest, IdsAreUniqueAndCarryTheirTag) {
  std::set<std::string> seen;
  for (int i = 0; i < 10'000; ++i) {
    const std::string id = NewId(kJobPrefix, "00a");
    EXPECT_EQ(id.substr(0, 6), "AJ_00a");
    EXPECT_EQ(id.size(), 18u);
    EXPECT_TRUE(seen.insert(id).second);
  }
}

TEST(StringsTest, DurationsNeedAUnit) {
  EXPECT_EQ(ParseDuration("500ms"), absl::Milliseconds(500));
  EXPECT_EQ(ParseDuration("1.5m"), absl::Seconds(90));
  EXPECT_EQ(ParseDuration("0"), absl::ZeroDuration());
  for (const char* bad : {"", "5", "-1s", "1 s", "1e3s", "s", "1..5s", "1week"})
    EXPECT_EQ(ParseDuration(bad), std::nullopt) << bad;
  for (const char* text : {"500ms", "2s", "90s", "1h", "7us"}) {
    EXPECT_EQ(ParseDuration(DurationText(*ParseDuration(text))), ParseDuration(text));
  }
}

TEST(StringsTest, SizesCountInBinaryUnits) {
  EXPECT_EQ(ParseSize("64KiB"), 65536);
  EXPECT_EQ(ParseSize("4096"), 4096);
  EXPECT_EQ(SizeText(256 << 20), "256MiB");
  for (const char* bad : {"", "-1", "1kb", "KiB", "99999999999TiB"})
    EXPECT_EQ(ParseSize(bad), std::nullopt) << bad;
}

TEST(StringsTest, Utf8IsCheckedStrictly) {
  EXPECT_TRUE(IsValidUtf8("grüß dich \xF0\x9F\x99\x82"));
  for (const char* bad :
       {"\xC0\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xE2\x82", "\x80", "\xFF"})
    EXPECT_FALSE(IsValidUtf8(bad));
}

TEST(ExecutorTest, RefusesWhenFullAndRunsWhatItTook) {
  std::atomic<int> ran{0};
  Mutex mutex;
  mutex.Lock();
  Executor executor(1, 2);
  ASSERT_TRUE(executor.Post([&] {
    MutexLock lock(&mutex);
    ++ran;
  }));
  while (executor.queued() != 0)
    std::this_thread::yield();  // the only thread now waits for the mutex
  ASSERT_TRUE(executor.Post([&] { ++ran; }));
  ASSERT_TRUE(executor.Post([&] { ++ran; }));
  EXPECT_FALSE(executor.Post([&] { ++ran; }));
  EXPECT_TRUE(executor.PostAdmitted([&] { ++ran; }));
  mutex.Unlock();
  executor.Stop();
  EXPECT_EQ(ran, 4);
  EXPECT_FALSE(executor.Post([] {}));
}

TEST(StrandTest, KeepsOrderAcrossThreads) {
  Executor executor(4, 16);
  std::vector<int> order;
  {
    Strand strand(executor);
    for (int i = 0; i < 1'000; ++i) strand.Post([&order, i] { order.push_back(i); });
  }
  executor.Stop();
  ASSERT_EQ(order.size(), 1'000u);
  for (int i = 0; i < 1'000; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
}

TEST(StrandTest, WhatIsPostedWaitsForWhoeverEntered) {
  Executor executor(2, 16);
  std::atomic<bool> ran{false};
  Strand strand(executor);
  ASSERT_TRUE(strand.TryEnter());
  strand.Post([&ran] { ran = true; });
  EXPECT_FALSE(strand.TryEnter());
  EXPECT_EQ(executor.queued(), 0u);
  EXPECT_FALSE(ran);
  strand.Leave();
  executor.Stop();
  EXPECT_TRUE(ran);
}

TEST(StrandTest, OneAtATimeWhetherEnteredOrPosted) {
  constexpr int kEach = 20'000;
  Executor executor(2, 16);
  int64_t sum = 0;  // of the strand
  int64_t entered = 0;
  Strand strand(executor);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < kEach; ++n) {
        if (strand.TryEnter()) {
          ++sum;
          ++entered;
          strand.Leave();
        } else {
          strand.Post([&sum] { ++sum; });
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  executor.Stop();
  EXPECT_EQ(sum, 4 * kEach);
  EXPECT_GT(entered, 0);
}

}  // namespace
}  // namespace parley
