// What gateways share, against a real redis-server: every outcome of every script.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "speech_redis/budget.h"
#include "speech_redis/health_board.h"
#include "speech_redis/keys.h"
#include "speech_redis/ledger.h"
#include "speech_redis/scripts.h"
#include "speech_redis/voice_index.h"
#include "testing/redis_fixture.h"

namespace parley::speech_redis {
namespace {

using ::parley::testing::Eventually;
using ::parley::testing::HasReason;
using ::parley::testing::IsOk;
using ::parley::testing::RedisTest;
using ::testing::ElementsAre;
using ::testing::SizeIs;

// ---- exchange, leave: the decisions, call by call ----

struct Line {
  std::string project;
  int weight = 1;
  int held = 0;
  int waiting = 0;
  int cost = 0;
};

class ExchangeTest : public RedisTest {
 protected:
  void SetUp() override {
    RedisTest::SetUp();
    // The hold after a server's start is its own test.
    Exchange("first", 1500, {});
    PARLEY_ASSERT_OK(pool().Command({"HSET", BudgetKey("p"), "hold", "0"}));
    PARLEY_ASSERT_OK(pool().Call(scripts::leave, {BudgetKey("p")}, {"first"}));
  }
  struct Limits {
    int streams = 0, requests = 0, tokens = 0;
  };
  // Grants by line; head: second, replicas, hold.
  std::vector<int64_t> Exchange(const std::string& replica, int lease_ms,
                                const std::vector<Line>& lines,
                                const std::vector<std::pair<int64_t, int64_t>>& corrections = {}) {
    std::vector<std::string> arguments = {replica,
                                          std::to_string(lease_ms),
                                          std::to_string(limits_.streams),
                                          std::to_string(limits_.requests),
                                          std::to_string(limits_.tokens),
                                          std::to_string(corrections.size())};
    for (const auto& [second, tokens] : corrections) {
      arguments.push_back(std::to_string(second));
      arguments.push_back(std::to_string(tokens));
    }
    for (const Line& line : lines) {
      arguments.push_back(line.project);
      for (const int number : {line.weight, line.held, line.waiting, line.cost})
        arguments.push_back(std::to_string(number));
    }
    const auto reply = pool().Call(scripts::exchange, {BudgetKey("p")}, arguments);
    EXPECT_THAT(reply, IsOk());
    std::vector<int64_t> numbers;
    head_.clear();
    if (!reply.ok()) return numbers;
    for (size_t i = 0; i < reply->elements.size(); ++i)
      (i < 3 ? head_ : numbers).push_back(reply->elements[i].integer);
    return numbers;
  }
  int64_t second() const { return head_.at(0); }
  int64_t replicas() const { return head_.at(1); }

  Limits limits_;
  std::vector<int64_t> head_;
};

TEST_F(ExchangeTest, GrantsUpToTheLimitAndNotOneMore) {
  limits_.streams = 3;
  EXPECT_THAT(Exchange("a", 1500, {{.project = "x", .waiting = 5}}), ElementsAre(3));
  EXPECT_THAT(Exchange("a", 1500, {{.project = "x", .held = 3, .waiting = 2}}), ElementsAre(0));
  EXPECT_THAT(Exchange("b", 1500, {{.project = "x", .waiting = 1}}), ElementsAre(0));
  EXPECT_EQ(replicas(), 2);
  EXPECT_THAT(Exchange("a", 1500, {{.project = "x", .held = 1}}), ElementsAre(0));
  // One of the two that came free was kept for b, which waits; the other is a's.
  EXPECT_THAT(Exchange("a", 1500, {{.project = "x", .held = 1, .waiting = 4}}), ElementsAre(1));
  EXPECT_THAT(Exchange("b", 1500, {{.project = "x", .waiting = 1}}), ElementsAre(1));
  EXPECT_THAT(Exchange("b", 1500, {{.project = "x", .held = 1, .waiting = 9}}), ElementsAre(0));
}

TEST_F(ExchangeTest, WithoutLimitsEverybodyBegins) {
  EXPECT_THAT(Exchange("a", 1500, {{.project = "x", .waiting = 7}, {.project = "y", .waiting = 2}}),
              ElementsAre(7, 2));
}

TEST_F(ExchangeTest, SlotsAreSharedByWeight) {
  limits_.streams = 20;
  const auto all = [](int waiting) {
    return std::vector<Line>{{"four", 4, 0, waiting},
                             {"two", 2, 0, waiting},
                             {"one", 1, 0, waiting},
                             {"uno", 1, 0, waiting}};
  };
  const std::vector<int64_t> given = Exchange("a", 1500, all(20));
  EXPECT_EQ(given[0], 10);
  EXPECT_EQ(given[1], 5);
  EXPECT_EQ(given[2] + given[3], 5);
  EXPECT_GE(given[2], 2);
  EXPECT_GE(given[3], 2);
}

TEST_F(ExchangeTest, OneProjectAloneHasAll) {
  limits_.streams = 20;
  EXPECT_THAT(Exchange("a", 1500, {{"one", 1, 0, 30}}), ElementsAre(20));
}

TEST_F(ExchangeTest, AGrantWhoseAnswerWasLostIsFreeAgain) {
  limits_.streams = 2;
  EXPECT_THAT(Exchange("a", 1500, {{.project = "x", .waiting = 2}}), ElementsAre(2));
  // a never heard of it, and says so.
  EXPECT_THAT(Exchange("a", 1500, {{.project = "x", .held = 0, .waiting = 2}}), ElementsAre(2));
}

TEST_F(ExchangeTest, WhatAReplicaHeldIsFreeWhenItsLeaseEnds) {
  limits_.streams = 2;
  EXPECT_THAT(Exchange("dead", 200, {{.project = "x", .waiting = 2}}), ElementsAre(2));
  EXPECT_THAT(Exchange("b", 1500, {{.project = "x", .waiting = 2}}), ElementsAre(0));
  EXPECT_TRUE(Eventually([&] {
    return Exchange("b", 1500, {{.project = "x", .waiting = 2}}) == std::vector<int64_t>{2};
  }));
  EXPECT_EQ(replicas(), 1);
}

TEST_F(ExchangeTest, WhatAReplicaHeldIsFreeWhenItLeaves) {
  limits_.streams = 2;
  Exchange("a", 1500, {{.project = "x", .waiting = 1}});
  Exchange("b", 1500, {{.project = "x", .waiting = 1}});
  const auto left = pool().Call(scripts::leave, {BudgetKey("p")}, {"a"});
  PARLEY_ASSERT_OK(left);
  EXPECT_EQ(left->integer, 1);
  EXPECT_THAT(Exchange("c", 1500, {{.project = "x", .waiting = 2}}), ElementsAre(1))
      << "b's is b's still";
}

TEST_F(ExchangeTest, MoreThanTheLimitIsNeverAddedTo) {
  limits_.streams = 5;
  Exchange("a", 1500, {{.project = "x", .held = 5}});
  limits_.streams = 2;  // the operator lowered it
  EXPECT_THAT(Exchange("a", 1500, {{.project = "x", .held = 5, .waiting = 1}}), ElementsAre(0));
  EXPECT_THAT(Exchange("a", 1500, {{.project = "x", .held = 1, .waiting = 1}}), ElementsAre(1));
}

TEST_F(ExchangeTest, RequestsOfTheLastMinuteCount) {
  limits_.requests = 10;
  EXPECT_THAT(Exchange("a", 1500, {{.project = "x", .waiting = 6}}), ElementsAre(6));
  EXPECT_THAT(Exchange("b", 1500, {{.project = "x", .waiting = 6}}), ElementsAre(4));
  EXPECT_THAT(Exchange("b", 1500, {{.project = "x", .waiting = 6}}), ElementsAre(0))
      << "released or not";
  // As if a minute had passed: the seconds are older.
  const std::string key = "parley:{budget:p}:requests";
  PARLEY_ASSERT_OK(pool().Command({"DEL", key}));
  PARLEY_ASSERT_OK(pool().Command({"HSET", key, std::to_string(second() - 50), "3"}));
  PARLEY_ASSERT_OK(pool().Command({"HSET", key, std::to_string(second() - 65), "9"}));
  EXPECT_THAT(Exchange("b", 1500, {{.project = "x", .waiting = 20}}), ElementsAre(7));
  const auto forgotten = pool().Command({"HEXISTS", key, std::to_string(second() - 65)});
  EXPECT_EQ(forgotten->integer, 0);
}

TEST_F(ExchangeTest, RequestsAreSharedByTurns) {
  limits_.requests = 80;
  const std::vector<int64_t> given = Exchange(
      "a", 1500, {{"four", 4, 0, 100}, {"two", 2, 0, 100}, {"one", 1, 0, 100}, {"uno", 1, 0, 100}});
  EXPECT_NEAR(static_cast<double>(given[0]), 40, 1);
  EXPECT_NEAR(static_cast<double>(given[1]), 20, 1);
  EXPECT_NEAR(static_cast<double>(given[2]), 10, 1);
  EXPECT_NEAR(static_cast<double>(given[3]), 10, 1);
}

TEST_F(ExchangeTest, WhoWasAwayDoesNotCatchUp) {
  limits_.requests = 60;
  EXPECT_THAT(Exchange("a", 1500, {{"busy", 1, 0, 40}}), ElementsAre(40));
  const std::vector<int64_t> given = Exchange("a", 1500, {{"busy", 1, 0, 40}, {"new", 1, 0, 40}});
  EXPECT_NEAR(static_cast<double>(given[0]), 10, 1);
  EXPECT_NEAR(static_cast<double>(given[1]), 10, 1);
}

TEST_F(ExchangeTest, TokensAreTakenByGuessAndCorrected) {
  limits_.tokens = 1000;
  EXPECT_THAT(Exchange("a", 1500, {{"x", 1, 0, 9, 300}}), ElementsAre(4))
      << "the last may overdraw";
  const int64_t then = second();
  EXPECT_THAT(Exchange("a", 1500, {{"x", 1, 4, 9, 300}}), ElementsAre(0));
  // Two of them took 50 in truth.
  EXPECT_THAT(Exchange("a", 1500, {{"x", 1, 4, 9, 300}}, {{then, -250}, {then, -250}}),
              ElementsAre(1));
  // A correction of a second that is over must not make room; one that adds counts from now.
  EXPECT_THAT(Exchange("a", 1500, {{"x", 1, 4, 1, 1}}, {{then - 70, -5000}}), ElementsAre(0));
  EXPECT_THAT(Exchange("a", 1500, {{"x", 1, 4, 1, 1}}, {{then, -600}, {then - 70, 900}}),
              ElementsAre(0));
}

TEST_F(ExchangeTest, AServerThatKnowsNothingWaitsForReports) {
  limits_.streams = 4;
  Exchange("a", 5000, {{.project = "x", .waiting = 4}});
  PARLEY_ASSERT_OK(pool().Command({"FLUSHALL"}));
  EXPECT_THAT(Exchange("b", 5000, {{.project = "x", .waiting = 4}}), ElementsAre(0));
  EXPECT_GT(head_.at(2), 500) << "ms until anything is granted";
  Exchange("a", 5000, {{.project = "x", .held = 3}});
  EXPECT_TRUE(Eventually([&] {
    return Exchange("b", 5000, {{.project = "x", .waiting = 4}}) == std::vector<int64_t>{1};
  })) << "what a holds was never b's";
}

TEST_F(ExchangeTest, ARestartedServerWaitsForReportsToo) {
  limits_.streams = 4;
  Exchange("a", 5000, {{.project = "x", .waiting = 2}});
  server().Kill();
  PARLEY_ASSERT_OK(server().Restart());
  EXPECT_TRUE(Eventually([&] { return pool().Ping().ok(); }));
  EXPECT_THAT(Exchange("b", 5000, {{.project = "x", .waiting = 1}}), ElementsAre(0));
  EXPECT_GT(head_.at(2), 0);
}

// ---- Budget ----

class BudgetTest : public RedisTest {
 protected:
  std::unique_ptr<Budget> Replica(const std::string& name, BudgetLimits limits,
                                  absl::Duration wait = absl::Seconds(3)) {
    BudgetOptions options;
    options.provider = "p";
    options.limits = limits;
    options.wait = wait;
    return std::make_unique<Budget>(
        pool(), name, options, [](std::string_view) { return 1; }, log::Logger());
  }
  speech::Cancellation never_;
};

TEST_F(BudgetTest, PlacesComeAndGoAcrossReplicas) {
  const auto a = Replica("a", {.streams = 2});
  const auto b = Replica("b", {.streams = 2}, absl::Milliseconds(200));
  auto first = a->Acquire("x", 0, never_);
  PARLEY_ASSERT_OK(first);
  auto second = a->Acquire("x", 0, never_);
  PARLEY_ASSERT_OK(second);
  EXPECT_THAT(b->Acquire("x", 0, never_), HasReason("BUDGET_FULL"));
  first->reset();
  PARLEY_EXPECT_OK(b->Acquire("x", 0, never_));
  EXPECT_EQ(b->stats().refused, 1u);
  EXPECT_EQ(a->stats().held, 1);
}

TEST_F(BudgetTest, WhoMayNotWaitIsAskedForOnce) {
  const auto a = Replica("a", {.streams = 1}, absl::ZeroDuration());
  const auto b = Replica("b", {.streams = 1}, absl::ZeroDuration());
  for (Budget* one : {a.get(), b.get(), a.get()}) {
    absl::StatusOr<std::unique_ptr<Budget::Permit>> permit = absl::UnknownError("not asked yet");
    // What the other gave back is told with its next exchange.
    EXPECT_TRUE(Eventually([&] { return (permit = one->Acquire("x", 0, never_)).ok(); }));
    EXPECT_THAT(a->Acquire("x", 0, never_), HasReason("BUDGET_FULL"));
    EXPECT_THAT(b->Acquire("x", 0, never_), HasReason("BUDGET_FULL"));
  }
}

TEST_F(BudgetTest, NeverMoreThanTheLimitHoweverManyPull) {
  constexpr int kLimit = 5;
  std::vector<std::unique_ptr<Budget>> replicas;
  for (const char* name : {"a", "b", "c"}) replicas.push_back(Replica(name, {.streams = kLimit}));
  std::atomic<int> active = 0;
  std::atomic<int> most = 0;
  std::atomic<int> served = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 30; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 10; ++round) {
        const auto permit = replicas[static_cast<size_t>(i) % 3]->Acquire("x", 0, never_);
        if (!permit.ok()) continue;
        const int now = ++active;
        int seen = most.load();
        while (now > seen && !most.compare_exchange_weak(seen, now)) {
        }
        ++served;
        absl::SleepFor(absl::Milliseconds(2));
        --active;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(most.load(), kLimit);
  EXPECT_GT(most.load(), 1);
  EXPECT_EQ(served.load(), 300);
}

TEST_F(BudgetTest, WhoWaitsMayLeave) {
  const auto a = Replica("a", {.streams = 1});
  const auto held = a->Acquire("x", 0, never_);
  PARLEY_ASSERT_OK(held);
  speech::Cancellation cancel;
  std::thread waiter(
      [&] { EXPECT_EQ(a->Acquire("x", 0, cancel).status().code(), absl::StatusCode::kCancelled); });
  EXPECT_TRUE(Eventually([&] { return a->stats().waiting == 1; }));
  cancel.Cancel();
  waiter.join();
  EXPECT_EQ(a->stats().waiting, 0);
}

TEST_F(BudgetTest, TokensOfAnAnswerAreSettled) {
  const auto a = Replica("a", {.tokens_per_minute = 1000}, absl::Milliseconds(1500));
  auto guessed = a->Acquire("x", 1000, never_);
  PARLEY_ASSERT_OK(guessed);
  EXPECT_THAT(a->Acquire("x", 100, never_), HasReason("BUDGET_FULL"));
  (*guessed)->Settle(10);
  guessed->reset();
  PARLEY_EXPECT_OK(a->Acquire("x", 100, never_));
}

TEST_F(BudgetTest, WithoutRedisWhatIsHeldGoesOnAndNothingMore) {
  const auto a = Replica("a", {.streams = 3}, absl::Milliseconds(1500));
  auto first = a->Acquire("x", 0, never_);
  auto second = a->Acquire("x", 0, never_);
  PARLEY_ASSERT_OK(first);
  PARLEY_ASSERT_OK(second);
  EXPECT_TRUE(Eventually([&] { return a->stats().reachable; }));
  server().Kill();
  EXPECT_TRUE(Eventually([&] { return !a->stats().reachable; }));
  EXPECT_THAT(a->Acquire("x", 0, never_), HasReason("BUDGET_FULL")) << "Redis gave two";
  first->reset();
  PARLEY_EXPECT_OK(a->Acquire("x", 0, never_)) << "a place of its own is used again";
  PARLEY_ASSERT_OK(server().Restart());
  std::vector<std::unique_ptr<Budget::Permit>> held;
  EXPECT_TRUE(Eventually([&] {
    auto more = a->Acquire("x", 0, never_);
    if (more.ok()) held.push_back(*std::move(more));
    return held.size() == 2;
  })) << "and with Redis back there are three";
}

TEST_F(BudgetTest, WhoNeverReachedRedisBeginsNothing) {
  server().Kill();
  const auto a = Replica("a", {.streams = 3}, absl::Milliseconds(100));
  EXPECT_THAT(a->Acquire("x", 0, never_), HasReason("BUDGET_FULL"));
}

// ---- Ledger ----

class LedgerTest : public RedisTest {
 protected:
  std::unique_ptr<Ledger> Replica(const std::string& name,
                                  const std::vector<std::string>& caps = {},
                                  absl::Duration flush = absl::Milliseconds(50)) {
    auto parsed = SpendCap::ParseAll(caps);
    EXPECT_THAT(parsed, IsOk());
    return std::make_unique<Ledger>(pool(), name, *parsed, log::Logger(), flush);
  }
};

TEST_F(LedgerTest, AddsUpOverReplicasByProjectAndSession) {
  const auto a = Replica("a");
  const auto b = Replica("b");
  a->Charge("hotel", "AS_1", units::kTtsCharacters, "openai", true, 100);
  b->Charge("hotel", "AS_1", units::kTtsCharacters, "openai", true, 20);
  b->Charge("hotel", "AS_2", units::kTtsCharacters, "flite", false, 5);
  b->Charge("other", "AS_3", units::kTtsCharacters, "openai", true, 7);
  ASSERT_TRUE(Eventually([&] {
    const auto book = a->Read("hotel", "AS_1");
    return book.ok() && book->day.contains("tts_characters:flite") &&
           book->day.at("tts_characters") == 120;
  }));
  PARLEY_ASSERT_OK_AND_ASSIGN(const Ledger::Book book, a->Read("hotel", "AS_1"));
  EXPECT_EQ(book.session.at("tts_characters"), 120);
  EXPECT_EQ(book.session.at("tts_characters:openai"), 120);
  EXPECT_EQ(book.day.at("tts_characters:flite"), 5);
  EXPECT_FALSE(book.session.contains("tts_characters:flite"));
}

TEST_F(LedgerTest, AChargeSaidTwiceCountsOnce) {
  const std::vector<std::string> charge = {"a", "1", "1", "AS_1", "1", "tokens", "50", "AS_1"};
  PARLEY_ASSERT_OK(pool().Call(scripts::charge, {SpendKey("x")}, charge));
  PARLEY_ASSERT_OK_AND_ASSIGN(const redis::Reply again,
                              pool().Call(scripts::charge, {SpendKey("x")}, charge));
  EXPECT_EQ(again.elements.at(2).elements.at(1).text, "50");
  // Another replica's first is another charge.
  std::vector<std::string> other = charge;
  other[0] = "b";
  PARLEY_ASSERT_OK_AND_ASSIGN(const redis::Reply more,
                              pool().Call(scripts::charge, {SpendKey("x")}, other));
  EXPECT_EQ(more.elements.at(1).elements.at(1).text, "100");
}

TEST_F(LedgerTest, WhatIsAtItsCapGoesNoFurther) {
  const auto a = Replica("a", {"hotel/tokens/session=100", "*/tts_characters/day=1000"});
  const auto b = Replica("b", {"hotel/tokens/session=100", "*/tts_characters/day=1000"});
  PARLEY_EXPECT_OK(a->Check("hotel", "AS_1"));
  a->Charge("hotel", "AS_1", units::kInputTokens, "openai", true, 90);
  PARLEY_EXPECT_OK(a->Check("hotel", "AS_1"));
  a->Charge("hotel", "AS_1", units::kOutputTokens, "openai", true, 10);
  EXPECT_THAT(a->Check("hotel", "AS_1"), HasReason("SPEND_CAP"));
  EXPECT_THAT(b->Check("hotel", "AS_1"), HasReason("SPEND_CAP")) << "on every replica";
  PARLEY_EXPECT_OK(b->Check("hotel", "AS_2"));
  PARLEY_EXPECT_OK(b->Check("other", "AS_1"));
  b->Charge("other", "AS_9", units::kTtsCharacters, "openai", true, 1000);
  EXPECT_THAT(b->Check("other", "AS_1"), HasReason("SPEND_CAP"));
  b->Charge("third", "AS_9", units::kTtsCharacters, "flite", false, 5000);
  PARLEY_EXPECT_OK(b->Check("third", "AS_1")) << "embedded engines cost nothing";
}

TEST_F(LedgerTest, NothingIsLostOrDoubledWhileRedisIsAway) {
  const auto a = Replica("a", {"*/tokens/day=10"});
  a->Charge("x", "AS_1", units::kInputTokens, "openai", true, 5);
  ASSERT_TRUE(Eventually([&] { return pool().Command({"EXISTS", SpendKey("x")})->integer == 1; }));
  server().Kill();
  for (int i = 0; i < 10; ++i) {
    a->Charge("x", "AS_1", units::kInputTokens, "openai", true, 5);
    absl::SleepFor(absl::Milliseconds(20));  // several flushes fail
  }
  PARLEY_EXPECT_OK(a->Check("x", "AS_1")) << "nobody is stopped by what cannot be known";
  PARLEY_ASSERT_OK(server().Restart());
  EXPECT_TRUE(Eventually([&] {
    const auto book = a->Read("x", "AS_1");
    return book.ok() && book->day.contains("input_tokens") && book->day.at("input_tokens") == 55;
  }));
}

TEST_F(LedgerTest, TheLastChargesAreWrittenAtTheEnd) {
  Replica("a", {}, absl::Minutes(1))->Charge("x", "AS_1", units::kSttMs, "openai", true, 42);
  PARLEY_ASSERT_OK_AND_ASSIGN(const Ledger::Book book, Replica("b")->Read("x", "AS_1"));
  EXPECT_EQ(book.day.at("stt_ms"), 42);
}

TEST_F(LedgerTest, CapsThatCannotBeReadAreNamed) {
  for (const char* bad :
       {"", "hotel", "hotel/tokens=5", "hotel/beans/day=5", "hotel/tokens/week=5",
        "hotel/tokens/day=", "hotel/tokens/day=0", "hotel/tokens/day=5x", "/tokens/day=5"}) {
    EXPECT_FALSE(SpendCap::Parse(bad).ok()) << bad;
  }
}

// ---- health ----

class HealthTest : public RedisTest {
 protected:
  static absl::Status Down() { return Unavailable("down"); }
};

TEST_F(HealthTest, WhatOneFoundDownAllLeaveAloneAndOneProbes) {
  speech::Breakers a(Clock::Real(), {.failures_to_open = 3, .cool_down = absl::Milliseconds(600)});
  speech::Breakers b(Clock::Real(), {.failures_to_open = 3, .cool_down = absl::Milliseconds(600)});
  const HealthBoard board_a(pool(), "tts", a, log::Logger(), absl::Milliseconds(10));
  const HealthBoard board_b(pool(), "tts", b, log::Logger(), absl::Milliseconds(10));
  for (int i = 0; i < 3; ++i) a.Report("openai", Down());
  EXPECT_TRUE(Eventually([&] { return b.StateOf("openai") == speech::Breakers::State::kOpen; }));
  EXPECT_FALSE(b.Allow("openai"));
  EXPECT_TRUE(b.Allow("other"));
  ASSERT_TRUE(Eventually([&] { return a.Allow("openai"); })) << "the cool-down is over: a probe";
  absl::SleepFor(absl::Milliseconds(100));  // ten exchanges
  EXPECT_FALSE(b.Allow("openai")) << "a asks for all";
  a.Report("openai", absl::OkStatus());
  EXPECT_TRUE(Eventually([&] { return b.StateOf("openai") == speech::Breakers::State::kClosed; }));
  EXPECT_TRUE(b.Allow("openai"));
}

TEST_F(HealthTest, AProbeThatFailsKeepsAllAwayForLonger) {
  const speech::Breakers::Options options = {.failures_to_open = 1,
                                             .cool_down = absl::Milliseconds(100)};
  speech::Breakers a(Clock::Real(), options);
  speech::Breakers b(Clock::Real(), options);
  const HealthBoard board_a(pool(), "tts", a, log::Logger(), absl::Milliseconds(10));
  const HealthBoard board_b(pool(), "tts", b, log::Logger(), absl::Milliseconds(10));
  a.Report("openai", Down());
  ASSERT_TRUE(Eventually([&] { return a.Allow("openai"); }));
  const absl::Time failed = absl::Now();
  a.Report("openai", Down());
  absl::SleepFor(absl::Milliseconds(50));
  ASSERT_TRUE(Eventually([&] { return b.Allow("openai"); }));
  EXPECT_GE(absl::Now() - failed, absl::Milliseconds(190));
}

TEST_F(HealthTest, WithoutRedisEachGoesByWhatItSees) {
  speech::Breakers a(Clock::Real(), {.failures_to_open = 1, .cool_down = absl::Milliseconds(300)});
  const HealthBoard board(pool(), "tts", a, log::Logger(), absl::Milliseconds(10));
  server().Kill();
  a.Report("openai", Down());
  EXPECT_FALSE(a.Allow("openai"));
  EXPECT_TRUE(Eventually([&] { return a.Allow("openai"); }));
  a.Report("openai", absl::OkStatus());
  EXPECT_EQ(a.StateOf("openai"), speech::Breakers::State::kClosed);
}

// ---- where recordings are ----

class VoiceIndexTest : public RedisTest {
 protected:
  void SetUp() override {
    RedisTest::SetUp();
    a_ = std::make_unique<VoiceIndex>(pool(), "a");
    b_ = std::make_unique<VoiceIndex>(pool(), "b");
    a_->SetAddress("host:1");
    b_->SetAddress("host:2");
  }
  template <typename T>
  static std::optional<T> As(absl::StatusOr<VoiceIndex::Answer> answer) {
    EXPECT_THAT(answer, IsOk());
    if (!answer.ok() || !std::holds_alternative<T>(*answer)) return std::nullopt;
    return std::get<T>(*std::move(answer));
  }
  std::unique_ptr<VoiceIndex> a_;
  std::unique_ptr<VoiceIndex> b_;
  static constexpr absl::Duration kLong = absl::Seconds(10);
};

TEST_F(VoiceIndexTest, OneMakesTheOthersWaitAndFind) {
  const auto make = As<VoiceIndex::Make>(a_->Claim("p", "hello", kLong));
  ASSERT_TRUE(make);
  EXPECT_TRUE(As<VoiceIndex::Wait>(b_->Claim("p", "hello", kLong)));
  EXPECT_TRUE(As<VoiceIndex::Wait>(a_->Claim("p", "hello", kLong))) << "its own second caller too";
  EXPECT_TRUE(As<VoiceIndex::Make>(b_->Claim("q", "hello", kLong))) << "projects share nothing";
  PARLEY_ASSERT_OK_AND_ASSIGN(const bool kept, a_->Publish("p", "hello", make->id, kLong));
  EXPECT_TRUE(kept);
  const auto ready = As<VoiceIndex::Ready>(b_->Claim("p", "hello", kLong));
  ASSERT_TRUE(ready);
  EXPECT_EQ(ready->id, make->id);
  ASSERT_THAT(ready->keepers, SizeIs(1));
  EXPECT_EQ(ready->keepers[0].address, "host:1");
  EXPECT_TRUE(*b_->Publish("p", "hello", make->id, absl::ZeroDuration()));
  EXPECT_THAT(As<VoiceIndex::Ready>(a_->Claim("p", "hello", kLong))->keepers, SizeIs(2));
}

TEST_F(VoiceIndexTest, WhoGivesUpLeavesItToOthers) {
  const auto make = As<VoiceIndex::Make>(a_->Claim("p", "hello", kLong));
  PARLEY_ASSERT_OK(a_->Forget("p", "hello", make->id));
  const auto next = As<VoiceIndex::Make>(b_->Claim("p", "hello", kLong));
  ASSERT_TRUE(next);
  EXPECT_NE(next->id, make->id);
  PARLEY_ASSERT_OK(a_->Forget("p", "hello", make->id));
  EXPECT_TRUE(As<VoiceIndex::Wait>(a_->Claim("p", "hello", kLong))) << "b's claim is b's";
  EXPECT_FALSE(*a_->Publish("p", "hello", make->id, kLong)) << "too late";
}

TEST_F(VoiceIndexTest, AMakerThatDiedIsReplacedInTime) {
  ASSERT_TRUE(As<VoiceIndex::Make>(a_->Claim("p", "hello", absl::Milliseconds(100))));
  EXPECT_TRUE(
      Eventually([&] { return As<VoiceIndex::Make>(b_->Claim("p", "hello", kLong)).has_value(); }));
}

TEST_F(VoiceIndexTest, WhatNobodyKeepsIsMadeAgain) {
  const auto make = As<VoiceIndex::Make>(a_->Claim("p", "hello", kLong));
  EXPECT_FALSE(*b_->Publish("p", "hello", make->id, absl::ZeroDuration())) << "it is not made yet";
  EXPECT_TRUE(*a_->Publish("p", "hello", make->id, kLong));
  EXPECT_TRUE(*b_->Publish("p", "hello", make->id, absl::ZeroDuration()));
  PARLEY_ASSERT_OK(b_->Forget("p", "hello", make->id, "a"));  // b could not reach it
  EXPECT_THAT(As<VoiceIndex::Ready>(b_->Claim("p", "hello", kLong))->keepers, SizeIs(1));
  PARLEY_ASSERT_OK(b_->Forget("p", "hello", make->id));
  EXPECT_TRUE(As<VoiceIndex::Make>(b_->Claim("p", "hello", kLong)));
}

TEST_F(VoiceIndexTest, RecordingsEndWithTheirLifetime) {
  const auto make = As<VoiceIndex::Make>(a_->Claim("p", "hello", kLong));
  EXPECT_TRUE(*a_->Publish("p", "hello", make->id, absl::Milliseconds(80)));
  EXPECT_TRUE(*b_->Publish("p", "hello", make->id, absl::ZeroDuration()));
  EXPECT_TRUE(Eventually([&] {
    return As<VoiceIndex::Make>(b_->Claim("p", "hello", kLong)).has_value();
  })) << "a copy does not prolong it";
}

TEST_F(VoiceIndexTest, AFlushForgetsWhatIsThereAndWhatIsBeingMade) {
  const auto made = As<VoiceIndex::Make>(a_->Claim("p", "there", kLong));
  EXPECT_TRUE(*a_->Publish("p", "there", made->id, kLong));
  const auto making = As<VoiceIndex::Make>(a_->Claim("p", "coming", kLong));
  const auto others = As<VoiceIndex::Make>(a_->Claim("q", "there", kLong));
  EXPECT_TRUE(*a_->Publish("q", "there", others->id, kLong));
  PARLEY_ASSERT_OK(b_->Flush("p"));
  EXPECT_TRUE(As<VoiceIndex::Make>(b_->Claim("p", "there", kLong)));
  EXPECT_FALSE(*a_->Publish("p", "coming", making->id, kLong));
  EXPECT_TRUE(As<VoiceIndex::Ready>(b_->Claim("q", "there", kLong)));
}

}  // namespace
}  // namespace parley::speech_redis
