#include "redis/redis.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "testing/redis_fixture.h"

namespace parley::redis {
namespace {

using testing::Eventually;
using testing::HasCode;
using testing::HasReason;
using testing::RedisTest;
using testing::TemporaryDirectory;

constexpr Script kEcho{"echo", "#!lua\nreturn {ARGV[1], #KEYS}"};
constexpr Script kStale{"stale", "#!lua\nreturn redis.error_reply('STALE_EPOCH 7')"};

TEST_F(RedisTest, CommandAnswersEachType) {
  PARLEY_ASSERT_OK_AND_ASSIGN(Reply set, pool().Command({"SET", "a", std::string("\0b", 2)}));
  EXPECT_EQ(set.type, Reply::Type::kStatus);
  PARLEY_ASSERT_OK_AND_ASSIGN(Reply get, pool().Command({"GET", "a"}));
  EXPECT_EQ(get.text, std::string("\0b", 2));
  PARLEY_ASSERT_OK_AND_ASSIGN(Reply none, pool().Command({"GET", "b"}));
  EXPECT_TRUE(none.nil());
  PARLEY_ASSERT_OK_AND_ASSIGN(Reply count, pool().Command({"STRLEN", "a"}));
  EXPECT_EQ(count.integer, 2);
  PARLEY_ASSERT_OK_AND_ASSIGN(Reply keys, pool().Command({"KEYS", "*"}));
  ASSERT_EQ(keys.elements.size(), 1u);
}

TEST_F(RedisTest, ServerErrorIsFailedPreconditionWithItsFirstWord) {
  PARLEY_ASSERT_OK(pool().Command({"SET", "a", "x"}));
  const auto reply = pool().Command({"LPUSH", "a", "y"});
  EXPECT_THAT(reply, HasCode(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(reply, HasReason("WRONGTYPE"));
  EXPECT_THAT(pool().Eval(kStale, {}, {}), HasReason("STALE_EPOCH"));
}

TEST_F(RedisTest, ScriptIsLoadedAgainAfterFlush) {
  for (int round = 0; round < 2; ++round) {
    PARLEY_ASSERT_OK_AND_ASSIGN(Reply reply, pool().Eval(kEcho, {"k"}, {"hello"}));
    ASSERT_EQ(reply.elements.size(), 2u);
    EXPECT_EQ(reply.elements[0].text, "hello");
    EXPECT_EQ(reply.elements[1].integer, 1);
    PARLEY_ASSERT_OK(pool().Command({"SCRIPT", "FLUSH"}));
  }
}

TEST_F(RedisTest, PipelineKeepsOneAnswerPerCommand) {
  PARLEY_ASSERT_OK_AND_ASSIGN(
      auto replies, pool().Pipeline({{"SET", "n", "1"}, {"LPUSH", "n", "x"}, {"INCR", "n"}}));
  ASSERT_EQ(replies.size(), 3u);
  PARLEY_EXPECT_OK(replies[0]);
  EXPECT_THAT(replies[1], HasReason("WRONGTYPE"));
  EXPECT_EQ(replies[2]->integer, 2);
  PARLEY_ASSERT_OK_AND_ASSIGN(auto none, pool().Pipeline({}));
  EXPECT_TRUE(none.empty());
}

TEST_F(RedisTest, BlockingCommandWaitsWithoutHoldingACommandConnection) {
  Config config = PoolConfig();
  config.connections = 1;
  Pool one(config, log::Logger());
  std::thread reader([&one] {
    const auto reply =
        one.BlockingCommand({"XREAD", "BLOCK", "5000", "STREAMS", "s", "0"}, absl::Seconds(5));
    PARLEY_ASSERT_OK(reply);
    EXPECT_FALSE(reply->nil());
  });
  PARLEY_EXPECT_OK(one.Command({"XADD", "s", "*", "a", "b"}));
  reader.join();
  PARLEY_ASSERT_OK_AND_ASSIGN(
      Reply nothing,
      one.BlockingCommand({"XREAD", "BLOCK", "10", "STREAMS", "s", "$"}, absl::Milliseconds(10)));
  EXPECT_TRUE(nothing.nil());
}

TEST_F(RedisTest, ReconnectsAfterARestartAndKeepsTheData) {
  PARLEY_ASSERT_OK(pool().Command({"SET", "a", "kept"}));
  PARLEY_ASSERT_OK(pool().Command({"CONFIG", "SET", "appendfsync", "always"}));
  PARLEY_ASSERT_OK(pool().Command({"SET", "b", "kept"}));
  server().Kill();
  EXPECT_THAT(pool().Ping(), HasCode(absl::StatusCode::kUnavailable));
  PARLEY_ASSERT_OK(server().Restart());
  PARLEY_ASSERT_OK_AND_ASSIGN(Reply reply, pool().Command({"GET", "b"}));
  EXPECT_EQ(reply.text, "kept");
}

TEST_F(RedisTest, StalledServerIsUnavailableWithinTheTimeout) {
  Config config = PoolConfig();
  config.command_timeout = absl::Milliseconds(100);
  Pool hasty(config, log::Logger());
  PARLEY_ASSERT_OK(hasty.Ping());
  kill(server().pid(), SIGSTOP);
  EXPECT_LT(testing::Quickest(
                3, [&] { EXPECT_THAT(hasty.Ping(), HasCode(absl::StatusCode::kUnavailable)); }),
            absl::Milliseconds(400));
  kill(server().pid(), SIGCONT);
  EXPECT_TRUE(Eventually([&] { return hasty.Ping().ok(); }));
}

TEST_F(RedisTest, PasswordAndDatabaseAreUsedAndWrongOnesSaySo) {
  TemporaryDirectory directory;
  PARLEY_ASSERT_OK_AND_ASSIGN(auto locked,
                              PrivateServer::Start(directory.path(), {"--requirepass", ""}));
  Config config;
  config.address = locked->address();
  Pool open(config, log::Logger());
  PARLEY_ASSERT_OK(open.Command({"CONFIG", "SET", "requirepass", "tangerine"}));
  config.password = "tangerine";
  config.database = 3;
  Pool right(config, log::Logger());
  PARLEY_ASSERT_OK(right.Command({"SET", "x", "1"}));
  PARLEY_ASSERT_OK_AND_ASSIGN(Reply info, right.Command({"INFO", "keyspace"}));
  EXPECT_NE(info.text.find("db3:keys=1"), std::string::npos);
  config.password = "apple";
  Pool wrong(config, log::Logger());
  EXPECT_THAT(wrong.Ping(), HasReason("WRONGPASS"));
}

TEST_F(RedisTest, AddressesAreCheckedByName) {
  for (const char* address : {"", "localhost", ":1", "h:0", "h:70000", "h:12x", "unix:"}) {
    Config config;
    config.address = address;
    EXPECT_THAT(Pool(config, log::Logger()).Ping(), HasCode(absl::StatusCode::kInvalidArgument))
        << address;
  }
}

TEST_F(RedisTest, ADirectoryServesOneServer) {
  TemporaryDirectory directory;
  PARLEY_ASSERT_OK_AND_ASSIGN(auto first, PrivateServer::Start(directory.path()));
  EXPECT_THAT(PrivateServer::Start(directory.path()),
              HasCode(absl::StatusCode::kFailedPrecondition));
  first.reset();
  PARLEY_EXPECT_OK(PrivateServer::Start(directory.path()));
}

TEST_F(RedisTest, BadArgumentIsReportedWithTheLog) {
  TemporaryDirectory directory;
  EXPECT_THAT(PrivateServer::Start(directory.path(), {"--maxmemory-policy", "nonsense"}),
              HasCode(absl::StatusCode::kUnavailable));
}

// The thread that starts the server may end; its process may not.
TEST_F(RedisTest, PrivateServerLivesWithItsObjectAndDiesWithItsProcess) {
  TemporaryDirectory directory;
  std::unique_ptr<PrivateServer> started;
  std::thread([&] {
    auto server = PrivateServer::Start(directory.path());
    PARLEY_ASSERT_OK(server);
    started = std::move(*server);
  }).join();
  ASSERT_NE(started, nullptr);
  Config config;
  config.address = started->address();
  PARLEY_EXPECT_OK(Pool(config, log::Logger()).Ping());

  TemporaryDirectory orphaned;
  int pipe_fds[2];
  ASSERT_EQ(pipe(pipe_fds), 0);
  const int child = fork();
  if (child == 0) {
    auto server = PrivateServer::Start(orphaned.path());
    const int pid = server.ok() ? (*server)->pid() : -1;
    [[maybe_unused]] const ssize_t written = write(pipe_fds[1], &pid, sizeof pid);
    _exit(0);  // without destructors, as a crash
  }
  int pid = -1;
  ASSERT_EQ(read(pipe_fds[0], &pid, sizeof pid), static_cast<ssize_t>(sizeof pid));
  ASSERT_GT(pid, 0);
  waitpid(child, nullptr, 0);
  close(pipe_fds[0]);
  close(pipe_fds[1]);
  Config of_orphan;
  of_orphan.address = "unix:" + orphaned.path() + "/redis.sock";
  EXPECT_TRUE(Eventually([&] { return !Pool(of_orphan, log::Logger()).Ping().ok(); }));
}

}  // namespace
}  // namespace parley::redis
