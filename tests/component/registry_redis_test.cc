// The agent store against a real redis-server: every outcome of every script.
#include <gtest/gtest.h>

#include <thread>

#include "registry_redis/keys.h"
#include "registry_redis/store.h"
#include "testing/redis_fixture.h"

namespace parley::registry_redis {
namespace {

using ::parley::testing::Eventually;
using ::parley::testing::HasCode;
using ::parley::testing::HasReason;
using registry::AgentRecord;
using registry::Change;
using registry::ListPage;
using registry::ListQuery;
using registry::RegisterOutcome;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

AgentRecord Record(std::string id, std::string greeting, std::string agent_name = {}) {
  registry::AgentDefinition definition;
  definition.id = id;
  definition.name = "An agent";
  definition.agent_name = agent_name.empty() ? id : agent_name;
  definition.greeting = std::move(greeting);
  definition.labels = {{"team", id.substr(0, 1)}};
  return registry::MakeRecord("hotel", definition);
}

class RedisAgentStoreTest : public ::parley::testing::RedisTest {
 protected:
  RedisAgentStore Store() { return RedisAgentStore(pool()); }
  std::vector<std::string> Ids(const ListPage& page) {
    std::vector<std::string> ids;
    for (const AgentRecord& agent : page.agents) ids.push_back(agent.id);
    return ids;
  }
};

TEST_F(RedisAgentStoreTest, NewContentIsANewVersion) {
  RedisAgentStore store = Store();
  PARLEY_ASSERT_OK_AND_ASSIGN(RegisterOutcome first, store.Register(Record("desk", "hi")));
  EXPECT_TRUE(first.created);
  EXPECT_EQ(first.record.version, 1u);
  EXPECT_EQ(first.record.definition_json, Record("desk", "hi").definition_json);
  EXPECT_GT(first.record.create_time, absl::UnixEpoch());
  PARLEY_ASSERT_OK_AND_ASSIGN(RegisterOutcome same, store.Register(Record("desk", "hi")));
  EXPECT_FALSE(same.created);
  EXPECT_EQ(same.record.version, 1u);
  PARLEY_ASSERT_OK_AND_ASSIGN(RegisterOutcome changed, store.Register(Record("desk", "hello")));
  EXPECT_TRUE(changed.created);
  EXPECT_EQ(changed.record.version, 2u);
  PARLEY_ASSERT_OK_AND_ASSIGN(RegisterOutcome back, store.Register(Record("desk", "hi")));
  EXPECT_EQ(back.record.version, 3u) << "content of an older version is a change, too";
}

TEST_F(RedisAgentStoreTest, ReadsByIdVersionAndName) {
  RedisAgentStore store = Store();
  PARLEY_ASSERT_OK(store.Register(Record("desk", "one", "Desk")));
  PARLEY_ASSERT_OK(store.Register(Record("desk", "two", "Desk")));
  PARLEY_ASSERT_OK_AND_ASSIGN(AgentRecord newest, store.Get("hotel", "desk", 0));
  EXPECT_EQ(newest.version, 2u);
  EXPECT_EQ(newest.labels.at("team"), "d");
  PARLEY_ASSERT_OK_AND_ASSIGN(AgentRecord first, store.Get("hotel", "desk", 1));
  EXPECT_EQ(first.content_hash, Record("desk", "one", "Desk").content_hash);
  PARLEY_ASSERT_OK_AND_ASSIGN(AgentRecord named, store.GetByAgentName("hotel", "Desk"));
  EXPECT_EQ(named.version, 2u);
  EXPECT_THAT(store.Get("hotel", "desk", 3), HasCode(absl::StatusCode::kNotFound));
  EXPECT_THAT(store.Get("hotel", "nobody", 0), HasReason("AGENT_UNKNOWN"));
  EXPECT_THAT(store.GetByAgentName("hotel", "desk"), HasReason("AGENT_UNKNOWN")) << "case matters";
  EXPECT_THAT(store.Get("other", "desk", 0), HasCode(absl::StatusCode::kNotFound));
}

TEST_F(RedisAgentStoreTest, ANameBelongsToOne) {
  RedisAgentStore store = Store();
  PARLEY_ASSERT_OK(store.Register(Record("a", "", "shared")));
  EXPECT_THAT(store.Register(Record("b", "", "shared")), HasReason("NAME_TAKEN"));
  EXPECT_THAT(store.Get("hotel", "b", 0), HasCode(absl::StatusCode::kNotFound));
  PARLEY_ASSERT_OK(store.Register(Record("a", "", "own")));  // frees the other name
  PARLEY_ASSERT_OK(store.Register(Record("b", "", "shared")));
  PARLEY_ASSERT_OK_AND_ASSIGN(AgentRecord b, store.GetByAgentName("hotel", "shared"));
  EXPECT_EQ(b.id, "b");
}

TEST_F(RedisAgentStoreTest, ProgramsAndDefinitionsKeepOutOfEachOthersNames) {
  RedisAgentStore store = Store();
  PARLEY_ASSERT_OK(store.ClaimForProgram("hotel", "echo", absl::Milliseconds(500)));
  PARLEY_ASSERT_OK(store.ClaimForProgram("hotel", "echo", absl::Milliseconds(500)));
  EXPECT_THAT(store.Register(Record("echo", "")), HasReason("NAME_TAKEN"));
  EXPECT_TRUE(Eventually([&] { return store.Register(Record("echo", "")).ok(); }))
      << "the claim runs out";
  EXPECT_THAT(store.ClaimForProgram("hotel", "echo", absl::Seconds(1)), HasReason("NAME_TAKEN"));
  PARLEY_ASSERT_OK(store.Delete("hotel", "echo"));
  PARLEY_ASSERT_OK(store.ClaimForProgram("hotel", "echo", absl::Seconds(1)));
}

TEST_F(RedisAgentStoreTest, DeletedVersionsAreNeverGivenOutAgain) {
  RedisAgentStore store = Store();
  PARLEY_ASSERT_OK(store.Register(Record("desk", "one")));
  PARLEY_ASSERT_OK(store.Delete("hotel", "desk"));
  EXPECT_THAT(store.Delete("hotel", "desk"), HasCode(absl::StatusCode::kNotFound));
  EXPECT_THAT(store.Get("hotel", "desk", 1), HasCode(absl::StatusCode::kNotFound));
  EXPECT_THAT(store.GetByAgentName("hotel", "desk"), HasCode(absl::StatusCode::kNotFound));
  EXPECT_THAT(store.Versions("hotel", "desk"), HasCode(absl::StatusCode::kNotFound));
  PARLEY_ASSERT_OK_AND_ASSIGN(RegisterOutcome again, store.Register(Record("desk", "one")));
  EXPECT_EQ(again.record.version, 2u);
}

TEST_F(RedisAgentStoreTest, VersionsAreNewestFirstAndBounded) {
  RedisAgentStore store = Store();
  for (int i = 1; i <= kVersionsKept + 5; ++i) {
    PARLEY_ASSERT_OK(store.Register(Record("desk", std::to_string(i))));
  }
  PARLEY_ASSERT_OK_AND_ASSIGN(std::vector<AgentRecord> versions, store.Versions("hotel", "desk"));
  ASSERT_EQ(versions.size(), static_cast<size_t>(kVersionsKept));
  EXPECT_EQ(versions.front().version, static_cast<uint64_t>(kVersionsKept + 5));
  EXPECT_EQ(versions.back().version, 6u);
}

TEST_F(RedisAgentStoreTest, ListsInPagesAndByLabel) {
  RedisAgentStore store = Store();
  for (const char* id : {"c2", "a1", "b1", "c1", "a2"}) {
    PARLEY_ASSERT_OK(store.Register(Record(id, "")));
  }
  ListQuery query;
  query.page_size = 2;
  PARLEY_ASSERT_OK_AND_ASSIGN(ListPage first, store.List("hotel", query));
  EXPECT_THAT(Ids(first), ElementsAre("a1", "a2"));
  EXPECT_EQ(first.sequence, 5u);
  query.page_token = first.next_page_token;
  PARLEY_ASSERT_OK_AND_ASSIGN(ListPage second, store.List("hotel", query));
  EXPECT_THAT(Ids(second), ElementsAre("b1", "c1"));
  query.page_token = second.next_page_token;
  PARLEY_ASSERT_OK_AND_ASSIGN(ListPage third, store.List("hotel", query));
  EXPECT_THAT(Ids(third), ElementsAre("c2"));
  EXPECT_EQ(third.next_page_token, "");
  ListQuery labelled;
  labelled.labels = {{"team", "c"}};
  PARLEY_ASSERT_OK_AND_ASSIGN(ListPage team, store.List("hotel", labelled));
  EXPECT_THAT(Ids(team), ElementsAre("c1", "c2"));
  ListQuery pool;
  pool.pool = "other";
  PARLEY_ASSERT_OK_AND_ASSIGN(ListPage none, store.List("hotel", pool));
  EXPECT_THAT(none.agents, IsEmpty());
  query.page_token = "[x";
  EXPECT_THAT(store.List("hotel", query), HasCode(absl::StatusCode::kInvalidArgument));
}

TEST_F(RedisAgentStoreTest, ChangesComeInOrderAndFromAnyPosition) {
  RedisAgentStore store = Store();
  PARLEY_ASSERT_OK(store.Register(Record("a", "one")));
  PARLEY_ASSERT_OK(store.Register(Record("b", "one")));
  PARLEY_ASSERT_OK(store.Register(Record("a", "two")));
  PARLEY_ASSERT_OK(store.Delete("hotel", "b"));
  PARLEY_ASSERT_OK_AND_ASSIGN(std::vector<Change> all,
                              store.ReadChanges("hotel", 0, absl::ZeroDuration()));
  ASSERT_EQ(all.size(), 4u);
  EXPECT_EQ(all[0].record.version, 1u);
  EXPECT_TRUE(all[1].deleted) << "b is gone by now";
  EXPECT_EQ(all[2].record.version, 2u);
  EXPECT_EQ(all[3].sequence, 4u);
  EXPECT_TRUE(all[3].deleted);
  PARLEY_ASSERT_OK_AND_ASSIGN(std::vector<Change> later,
                              store.ReadChanges("hotel", 3, absl::ZeroDuration()));
  EXPECT_EQ(later.size(), 1u);
  PARLEY_ASSERT_OK_AND_ASSIGN(std::vector<Change> none,
                              store.ReadChanges("hotel", 4, absl::Milliseconds(20)));
  EXPECT_THAT(none, IsEmpty());
}

TEST_F(RedisAgentStoreTest, WaitingForAChangeEndsWithIt) {
  RedisAgentStore store = Store();
  PARLEY_ASSERT_OK(store.Register(Record("a", "one")));
  std::thread writer([&] { PARLEY_EXPECT_OK(store.Register(Record("a", "two"))); });
  PARLEY_ASSERT_OK_AND_ASSIGN(std::vector<Change> changes,
                              store.ReadChanges("hotel", 1, absl::Seconds(5)));
  writer.join();
  ASSERT_EQ(changes.size(), 1u);
  EXPECT_EQ(changes[0].record.version, 2u);
}

TEST_F(RedisAgentStoreTest, LostPositionsAreNamed) {
  RedisAgentStore store = Store();
  for (int i = 0; i < 10; ++i) {
    PARLEY_ASSERT_OK(store.Register(Record("a", std::to_string(i))));
  }
  PARLEY_ASSERT_OK(pool().Command({"XTRIM", ChangesKey("hotel"), "MAXLEN", "3"}));
  EXPECT_THAT(store.ReadChanges("hotel", 6, absl::ZeroDuration()), HasReason("POSITION_LOST"));
  PARLEY_EXPECT_OK(store.ReadChanges("hotel", 7, absl::ZeroDuration()));
  EXPECT_THAT(store.ReadChanges("hotel", 11, absl::ZeroDuration()), HasReason("POSITION_LOST"))
      << "Redis came back with less than it had";
}

TEST_F(RedisAgentStoreTest, ConcurrentRegistersEachGetTheirVersion) {
  RedisAgentStore store = Store();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&store, t] {
      for (int i = 0; i < 20; ++i) {
        PARLEY_EXPECT_OK(store.Register(Record("desk", fmt::format("{} {}", t, i))));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  PARLEY_ASSERT_OK_AND_ASSIGN(AgentRecord newest, store.Get("hotel", "desk", 0));
  EXPECT_EQ(newest.version, 80u);
}

TEST_F(RedisAgentStoreTest, EverythingSurvivesRedis) {
  RedisAgentStore store = Store();
  PARLEY_ASSERT_OK(store.Register(Record("desk", "hi")));
  PARLEY_ASSERT_OK(pool().Command({"SAVE"}));
  server().Kill();
  EXPECT_THAT(store.Register(Record("desk", "hello")), HasCode(absl::StatusCode::kUnavailable));
  PARLEY_ASSERT_OK(server().Restart());
  EXPECT_TRUE(Eventually([&] { return store.Get("hotel", "desk", 1).ok(); }));
}

TEST_F(RedisAgentStoreTest, RecordsOfNewerProgramsAreNotGuessed) {
  PARLEY_ASSERT_OK(pool().Command({"HSET", HeadsKey("hotel"), "x", "1 2 0 abc {}"}));
  EXPECT_THAT(Store().Get("hotel", "x", 0), HasCode(absl::StatusCode::kInternal));
}

registry::Deployment Shares(std::vector<registry::VersionShare> versions, bool sticky = false) {
  registry::Deployment deployment;
  deployment.versions = std::move(versions);
  deployment.sticky = sticky;
  EXPECT_TRUE(registry::Settle(deployment).ok());
  return deployment;
}

TEST_F(RedisAgentStoreTest, DeploymentsAreSetAndRolledBackStepByStep) {
  RedisAgentStore store = Store();
  for (const char* greeting : {"one", "two", "three"}) {
    PARLEY_ASSERT_OK(store.Register(Record("desk", greeting)));
  }
  PARLEY_ASSERT_OK_AND_ASSIGN(registry::Deployment none, store.GetDeployment("hotel", "desk"));
  EXPECT_EQ(none, registry::Deployment());
  PARLEY_ASSERT_OK_AND_ASSIGN(registry::Deployment first,
                              store.SetDeployment("hotel", "desk", Shares({{2, 100}})));
  EXPECT_EQ(first.revision, 1u);
  EXPECT_GT(first.time, absl::UnixEpoch());
  PARLEY_ASSERT_OK_AND_ASSIGN(registry::Deployment same,
                              store.SetDeployment("hotel", "desk", Shares({{2, 100}})));
  EXPECT_EQ(same, first) << "saying it again changes nothing";
  PARLEY_ASSERT_OK_AND_ASSIGN(
      registry::Deployment canary,
      store.SetDeployment("hotel", "desk", Shares({{3, 10}, {2, 90}}, true)));
  EXPECT_EQ(canary.revision, 2u);
  EXPECT_TRUE(canary.sticky);
  PARLEY_ASSERT_OK_AND_ASSIGN(registry::Deployment got, store.GetDeployment("hotel", "desk"));
  EXPECT_EQ(got, canary);

  PARLEY_ASSERT_OK_AND_ASSIGN(registry::Deployment back, store.RollBack("hotel", "desk"));
  EXPECT_EQ(back.versions, first.versions);
  EXPECT_FALSE(back.sticky);
  EXPECT_EQ(back.revision, 3u) << "a revision is never given out twice";
  PARLEY_ASSERT_OK_AND_ASSIGN(back, store.RollBack("hotel", "desk"));
  EXPECT_THAT(back.versions, IsEmpty()) << "before the first deployment the newest served";
  EXPECT_THAT(store.RollBack("hotel", "desk"), HasReason("NOTHING_BEFORE"));
}

TEST_F(RedisAgentStoreTest, WhatWasNeverDeployedRollsBackOneVersion) {
  RedisAgentStore store = Store();
  PARLEY_ASSERT_OK(store.Register(Record("desk", "one")));
  EXPECT_THAT(store.RollBack("hotel", "desk"), HasReason("NOTHING_BEFORE"));
  PARLEY_ASSERT_OK(store.Register(Record("desk", "two")));
  PARLEY_ASSERT_OK_AND_ASSIGN(registry::Deployment back, store.RollBack("hotel", "desk"));
  EXPECT_THAT(back.versions, ElementsAre(registry::VersionShare{1, 100}));
}

TEST_F(RedisAgentStoreTest, DeploymentsNameVersionsThatAreThere) {
  RedisAgentStore store = Store();
  EXPECT_THAT(store.SetDeployment("hotel", "desk", Shares({{1, 100}})), HasReason("AGENT_UNKNOWN"));
  EXPECT_THAT(store.RollBack("hotel", "desk"), HasReason("AGENT_UNKNOWN"));
  PARLEY_ASSERT_OK(store.Register(Record("desk", "one")));
  EXPECT_THAT(store.SetDeployment("hotel", "desk", Shares({{1, 50}, {7, 50}})),
              HasReason("VERSION_UNKNOWN"));
  PARLEY_ASSERT_OK(store.SetDeployment("hotel", "desk", Shares({{1, 100}})));
  PARLEY_ASSERT_OK(store.Delete("hotel", "desk"));
  PARLEY_ASSERT_OK(store.Register(Record("desk", "again")));
  PARLEY_ASSERT_OK_AND_ASSIGN(registry::Deployment none, store.GetDeployment("hotel", "desk"));
  EXPECT_EQ(none.revision, 0u) << "the deployment goes with its agent";
  EXPECT_THAT(store.RollBack("hotel", "desk"), HasReason("NOTHING_BEFORE"));
}

}  // namespace
}  // namespace parley::registry_redis
