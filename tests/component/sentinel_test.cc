// Fail-overs of a Redis that sentinels watch: real redis-servers, real sentinels.
#include "redis/redis.h"
#include "testing/redis_fixture.h"
#include "testing/sentinel_redis.h"

namespace parley::redis {
namespace {

using testing::Eventually;
using testing::HasCode;
using testing::HasReason;
using testing::SentinelRedis;

constexpr Script kAdd{"add", "#!lua\nreturn redis.call('INCR', KEYS[1])"};

class SentinelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    PARLEY_ASSERT_OK_AND_ASSIGN(redis_, SentinelRedis::Start(directory_.path()));
    pool_ = std::make_unique<Pool>(redis_->config(), log::Logger());
    PARLEY_ASSERT_OK(pool_->Command({"SET", "kept", "yes"}));
    PARLEY_ASSERT_OK(pool_->Command({"WAIT", "1", "5000"}));
  }
  // The run_id of the server that answers now.
  std::string Server() {
    const auto info = pool_->Command({"INFO", "server"});
    if (!info.ok()) return "";
    const size_t begin = info->text.find("run_id:") + 7;
    return info->text.substr(begin, 40);
  }
  bool Writes() { return pool_->Command({"SET", "written", "yes"}).ok(); }

  testing::TemporaryDirectory directory_;
  std::unique_ptr<SentinelRedis> redis_;
  std::unique_ptr<Pool> pool_;
};

TEST_F(SentinelTest, FailOverIsFollowedAndTheOldMasterIsLeftAlone) {
  PARLEY_ASSERT_OK_AND_ASSIGN(const std::string before, redis_->Master());
  const std::string server = Server();
  redis_->KillMaster();
  const absl::Time killed = absl::Now();
  ASSERT_TRUE(Eventually([&] { return Writes(); }, absl::Seconds(20)));
  fmt::print("writes again {:.1f} s after the kill\n", absl::ToDoubleSeconds(absl::Now() - killed));
  PARLEY_ASSERT_OK_AND_ASSIGN(const std::string after, redis_->Master());
  EXPECT_NE(after, before);
  EXPECT_EQ(pool_->Command({"GET", "kept"})->text, "yes");
  // What was meant for the old server's data does not touch the new one's.
  EXPECT_THAT(pool_->Eval(kAdd, {"n"}, {}, server), HasReason("SERVER_CHANGED"));
  EXPECT_TRUE(pool_->Command({"GET", "n"})->nil());
  PARLEY_EXPECT_OK(pool_->Eval(kAdd, {"n"}, {}, Server()));
  // The old one comes back with its old data: nobody goes there.
  PARLEY_ASSERT_OK(redis_->RestartKilled());
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(Writes());
    absl::SleepFor(absl::Milliseconds(20));
  }
  EXPECT_EQ(pool_->Command({"GET", "n"})->text, "1");
}

TEST_F(SentinelTest, MasterThatBecomesAReplicaWhileItLivesIsLeft) {
  const std::string server = Server();
  PARLEY_ASSERT_OK(redis_->FailOver());
  ASSERT_TRUE(Eventually([&] { return Server() != server && Writes(); }, absl::Seconds(20)));
  EXPECT_EQ(pool_->Command({"GET", "kept"})->text, "yes");
}

TEST_F(SentinelTest, OneSentinelIsEnoughToBeToldAndNoneIsUnavailableAtOnce) {
  redis_->sentinel(0).Signal(SIGKILL);
  redis_->sentinel(1).Signal(SIGSTOP);
  Pool patient(redis_->config(), log::Logger());
  PARLEY_EXPECT_OK(patient.Ping());
  redis_->sentinel(2).Signal(SIGSTOP);
  const absl::Duration quickest = testing::Quickest(3, [&] {
    Pool pool(redis_->config(), log::Logger());
    EXPECT_THAT(pool.Ping(), HasCode(absl::StatusCode::kUnavailable));
  });
  EXPECT_LT(quickest, absl::Milliseconds(800));
  // Who is connected stays so: silent sentinels say nothing against the master.
  absl::SleepFor(absl::Milliseconds(1100));
  PARLEY_EXPECT_OK(pool_->Ping());
  Config unknown = redis_->config();
  unknown.master_name = "another";
  redis_->sentinel(2).Signal(SIGCONT);
  Pool lost(unknown, log::Logger());
  EXPECT_THAT(lost.Ping(), HasCode(absl::StatusCode::kUnavailable));
}

}  // namespace
}  // namespace parley::redis
