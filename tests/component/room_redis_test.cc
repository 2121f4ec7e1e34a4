// The directory of rooms against a real redis-server: every outcome of every script.
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "room_redis/directory.h"
#include "room_redis/keys.h"
#include "testing/redis_fixture.h"

namespace parley::room_redis {
namespace {

using ::parley::testing::Eventually;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

class RoomDirectoryTest : public ::parley::testing::RedisTest {
 protected:
  Directory Replica(const std::string& id, const std::string& url,
                    absl::Duration lease = absl::Seconds(10)) {
    return Directory(pool(), {id, url}, lease);
  }
};

TEST_F(RoomDirectoryTest, FirstOneTakesTheRoom) {
  Directory a = Replica("RS_a", "host:1");
  Directory b = Replica("RS_b", "host:2");
  PARLEY_ASSERT_OK_AND_ASSIGN(const Claim first, a.TakeRoom("p", "r"));
  EXPECT_TRUE(first.mine);
  PARLEY_ASSERT_OK_AND_ASSIGN(const Claim again, a.TakeRoom("p", "r"));
  EXPECT_TRUE(again.mine) << "asking twice is asking once";
  PARLEY_ASSERT_OK_AND_ASSIGN(const Claim second, b.TakeRoom("p", "r"));
  EXPECT_FALSE(second.mine);
  EXPECT_EQ(second.media_url, "host:1");
  PARLEY_ASSERT_OK_AND_ASSIGN(const Claim other_project, b.TakeRoom("q", "r"));
  EXPECT_TRUE(other_project.mine);
}

TEST_F(RoomDirectoryTest, SaysWhoHoldsARoom) {
  Directory a = Replica("RS_a", "host:1");
  PARLEY_ASSERT_OK_AND_ASSIGN(auto holder, a.HolderUrl("p", "r"));
  EXPECT_EQ(holder, std::nullopt);
  PARLEY_ASSERT_OK(a.TakeRoom("p", "r"));
  PARLEY_ASSERT_OK_AND_ASSIGN(holder, a.HolderUrl("p", "r"));
  EXPECT_EQ(holder, "host:1");
}

TEST_F(RoomDirectoryTest, OnlyTheHolderFreesARoom) {
  Directory a = Replica("RS_a", "host:1");
  Directory b = Replica("RS_b", "host:2");
  PARLEY_ASSERT_OK(a.TakeRoom("p", "r"));
  PARLEY_ASSERT_OK(b.FreeRooms("p", {"r"}));
  EXPECT_FALSE(b.TakeRoom("p", "r")->mine);
  PARLEY_ASSERT_OK(a.FreeRooms("p", {"r", "never there"}));
  EXPECT_TRUE(b.TakeRoom("p", "r")->mine);
}

TEST_F(RoomDirectoryTest, RoomsOfASilentReplicaAreFree) {
  Directory silent = Replica("RS_a", "host:1", absl::Milliseconds(100));
  Directory b = Replica("RS_b", "host:2");
  PARLEY_ASSERT_OK(silent.TakeRoom("p", "r"));
  EXPECT_TRUE(Eventually([&] { return b.TakeRoom("p", "r")->mine; }));
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto lost, silent.Heartbeat("p", {{"r", "summary"}}));
  EXPECT_THAT(lost, ElementsAre("r")) << "and it is told so when it comes back";
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto holder, b.HolderUrl("p", "r"));
  EXPECT_EQ(holder, "host:2");
}

TEST_F(RoomDirectoryTest, HeartbeatsKeepTheLeaseAndTakeBackWhatTheStoreForgot) {
  Directory a = Replica("RS_a", "host:1", absl::Milliseconds(500));
  Directory b = Replica("RS_b", "host:2");
  PARLEY_ASSERT_OK(a.TakeRoom("p", "r"));
  const absl::Time until = absl::Now() + absl::Milliseconds(1200);
  while (absl::Now() < until) {
    PARLEY_ASSERT_OK_AND_ASSIGN(const auto lost, a.Heartbeat("p", {{"r", "s"}}));
    ASSERT_THAT(lost, IsEmpty());
    ASSERT_FALSE(b.TakeRoom("p", "r")->mine);
    absl::SleepFor(absl::Milliseconds(50));
  }
  PARLEY_ASSERT_OK(pool().Command({"FLUSHALL"}));
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto lost, a.Heartbeat("p", {{"r", "s"}}));
  EXPECT_THAT(lost, IsEmpty());
  EXPECT_FALSE(b.TakeRoom("p", "r")->mine);
}

TEST_F(RoomDirectoryTest, NextRunOnTheSameAddressTakesOver) {
  Directory before = Replica("RS_a", "host:1");
  Directory after = Replica("RS_b", "host:1");
  PARLEY_ASSERT_OK(before.TakeRoom("p", "r"));
  PARLEY_ASSERT_OK(before.TakeRoom("p", "s", "s of a"));
  PARLEY_ASSERT_OK_AND_ASSIGN(const Claim claim, after.TakeRoom("p", "r"));
  EXPECT_TRUE(claim.mine) << "a server never sends clients to itself";
  PARLEY_ASSERT_OK(after.Heartbeat("p", {{"r", "now"}}));
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto rooms, after.List("p"));
  ASSERT_EQ(rooms.size(), 1u) << "the former run's other room is forgotten";
  EXPECT_EQ(rooms[0].name, "r");
  PARLEY_ASSERT_OK_AND_ASSIGN(const Claim other, after.TakeRoom("p", "s"));
  EXPECT_EQ(other.heritage, "s of a") << "it goes on when somebody comes back to it";
}

TEST_F(RoomDirectoryTest, ADeadReplicasRoomIsInheritedOnceAndForAMinuteOnly) {
  Directory dead = Replica("RS_a", "host:1", absl::Milliseconds(50));
  Directory b = Replica("RS_b", "host:2");
  PARLEY_ASSERT_OK_AND_ASSIGN(Claim claim, dead.TakeRoom("p", "r", "new"));
  EXPECT_EQ(claim.heritage, "") << "nobody had it before";
  PARLEY_ASSERT_OK_AND_ASSIGN(claim, dead.TakeRoom("p", "r", "newer"));
  EXPECT_EQ(claim.heritage, "") << "it is there already";
  PARLEY_ASSERT_OK(dead.TakeRoom("p", "young", "before any heartbeat"));
  PARLEY_ASSERT_OK(dead.TakeRoom("p", "old", "summary"));
  PARLEY_ASSERT_OK(dead.Heartbeat("p", {{"r", "at the last heartbeat"}, {"old", "summary"}}));
  EXPECT_TRUE(Eventually([&] {
    const auto taken = b.TakeRoom("p", "r", "of b");
    if (taken.ok() && taken->mine) claim = *taken;
    return taken.ok() && taken->mine;
  }));
  EXPECT_EQ(claim.heritage, "at the last heartbeat");
  PARLEY_ASSERT_OK_AND_ASSIGN(claim, b.TakeRoom("p", "r", "of b"));
  EXPECT_EQ(claim.heritage, "") << "it is its own now";
  PARLEY_ASSERT_OK_AND_ASSIGN(claim, b.TakeRoom("p", "young", "of b"));
  EXPECT_EQ(claim.heritage, "before any heartbeat");

  // A minute and a second later nobody waits for it any more.
  const std::string long_ago =
      fmt::format("{} host:1", absl::ToUnixMillis(absl::Now() - absl::Seconds(61)));
  PARLEY_ASSERT_OK(pool().Command({"HSET", ReplicasKey("p"), "RS_a", long_ago}));
  PARLEY_ASSERT_OK_AND_ASSIGN(claim, b.TakeRoom("p", "old", "of b"));
  EXPECT_TRUE(claim.mine);
  EXPECT_EQ(claim.heritage, "");
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto rooms, b.List("p"));
  ASSERT_EQ(rooms.size(), 3u);
  EXPECT_EQ(rooms[0].summary, "of b") << "of the new room, not of the one before";
}

TEST_F(RoomDirectoryTest, WhatIsLeftBehindGoesOnElsewhereAtOnce) {
  Directory a = Replica("RS_a", "host:1");
  Directory b = Replica("RS_b", "host:2");
  PARLEY_ASSERT_OK(a.TakeRoom("p", "occupied", "of a"));
  PARLEY_ASSERT_OK(a.TakeRoom("p", "empty", "of a"));
  PARLEY_ASSERT_OK(a.Leave("p", {"occupied", "never there"}));
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto holder, b.HolderUrl("p", "occupied"));
  EXPECT_EQ(holder, std::nullopt);
  PARLEY_ASSERT_OK_AND_ASSIGN(Claim claim, b.TakeRoom("p", "occupied", "of b"));
  EXPECT_TRUE(claim.mine);
  EXPECT_EQ(claim.heritage, "of a");
  PARLEY_ASSERT_OK_AND_ASSIGN(claim, b.TakeRoom("p", "empty", "of b"));
  EXPECT_EQ(claim.heritage, "");
}

TEST_F(RoomDirectoryTest, ListsRoomsOfAllLiveReplicas) {
  Directory a = Replica("RS_a", "host:1");
  Directory b = Replica("RS_b", "host:2");
  Directory gone = Replica("RS_c", "host:3", absl::Milliseconds(20));
  PARLEY_ASSERT_OK(a.TakeRoom("p", "r1"));
  PARLEY_ASSERT_OK(b.TakeRoom("p", "r2"));
  PARLEY_ASSERT_OK(gone.TakeRoom("p", "r3"));
  const std::string binary("\0\xff summary", 10);
  PARLEY_ASSERT_OK(b.Heartbeat("p", {{"r2", binary}}));
  EXPECT_TRUE(Eventually([&] { return a.List("p")->size() == 2; }));
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto rooms, a.List("p"));
  EXPECT_EQ(rooms[0].name, "r1");
  EXPECT_EQ(rooms[0].summary, "");
  EXPECT_EQ(rooms[1].media_url, "host:2");
  EXPECT_EQ(rooms[1].summary, binary);
}

TEST_F(RoomDirectoryTest, LeavingFreesEverything) {
  Directory a = Replica("RS_a", "host:1");
  Directory b = Replica("RS_b", "host:2");
  PARLEY_ASSERT_OK(a.TakeRoom("p", "r1"));
  PARLEY_ASSERT_OK(b.TakeRoom("p", "r2"));
  PARLEY_ASSERT_OK(a.Leave("p"));
  EXPECT_TRUE(b.TakeRoom("p", "r1")->mine);
  EXPECT_EQ(b.List("p")->size(), 2u);
}

TEST_F(RoomDirectoryTest, AStoreOutOfReachIsUnavailable) {
  Directory a = Replica("RS_a", "host:1");
  server().Kill();
  EXPECT_THAT(a.TakeRoom("p", "r"), ::parley::testing::HasCode(absl::StatusCode::kUnavailable));
}

}  // namespace
}  // namespace parley::room_redis
