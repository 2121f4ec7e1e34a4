// What an acknowledgement can stand on besides Redis: the broker's own disk, a replica. Real
// servers, real files; each test names what it defends.
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "job_store_fixture.h"
#include "testing/fake_clock.h"
#include "testing/free_port.h"

namespace parley::job {
namespace {

using ::testing::ElementsAre;
using testing::Eventually;
using testing::FakeClock;
using testing::HasCode;
using testing::HasReason;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// ---- the journal alone ----

class JournalTest : public ::testing::Test {
 protected:
  std::unique_ptr<Journal> Open() {
    auto journal = Journal::Open(Folder(), clock_);
    EXPECT_TRUE(journal.ok()) << journal.status();
    return journal.ok() ? *std::move(journal) : nullptr;
  }
  std::string Folder() const { return directory_.path() + "/journal"; }
  std::vector<std::filesystem::path> Files() const {
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(Folder())) {
      if (entry.path().filename() != "lock") files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
    return files;
  }
  static std::vector<std::string> Names(const std::vector<JournalFact>& facts) {
    std::vector<std::string> names;
    for (const JournalFact& fact : facts) names.push_back(fact.pool + ":" + fact.parts.at(1));
    return names;
  }
  void Write(Journal& journal, const std::string& name) {
    PARLEY_ASSERT_OK(journal.Append("echo", {"stop", name}));
    PARLEY_ASSERT_OK(journal.Commit());
  }

  FakeClock clock_;
  testing::TemporaryDirectory directory_;
};

TEST_F(JournalTest, KeepsWhatWasCommittedOverARestart) {
  {
    const auto journal = Open();
    Write(*journal, "AJ_1");
    Write(*journal, "AJ_2");
    PARLEY_ASSERT_OK(journal->Append("echo", {"stop", "never committed"}));
  }
  {
    const auto journal = Open();
    EXPECT_THAT(Names(journal->TakeOld()), ElementsAre("echo:AJ_1", "echo:AJ_2"));
    EXPECT_THAT(journal->TakeOld(), IsEmpty());  // once
    Write(*journal, "AJ_3");
  }
  EXPECT_THAT(Names(Open()->TakeOld()), ElementsAre("echo:AJ_1", "echo:AJ_2", "echo:AJ_3"));
}

TEST_F(JournalTest, TornEndLosesNothingBeforeIt) {
  {
    const auto journal = Open();
    Write(*journal, "AJ_1");
    Write(*journal, "AJ_2");
  }
  const auto file = Files().front();
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 1);
  EXPECT_THAT(Names(Open()->TakeOld()), ElementsAre("echo:AJ_1"));
  std::fstream(file, std::ios::in | std::ios::out).write("\xff\xff\xff\xff", 4);
  EXPECT_THAT(Open()->TakeOld(), IsEmpty());
}

TEST_F(JournalTest, WhatIsOldGoesAndItsFileToo) {
  const auto journal = Open();
  Write(*journal, "AJ_1");
  for (int i = 2; i < 6; ++i) {
    clock_.Advance(absl::Seconds(31));
    Write(*journal, fmt::format("AJ_{}", i));
  }
  EXPECT_LE(Files().size(), 3u);
  // Another process reads them: only those of the last minute.
  std::filesystem::remove(Folder() + "/lock");
  EXPECT_THAT(Names(Open()->TakeOld()), ElementsAre("echo:AJ_4", "echo:AJ_5"));
}

TEST_F(JournalTest, FolderHasOneOwner) {
  const auto journal = Open();
  EXPECT_THAT(Journal::Open(Folder()), HasCode(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(Journal::Open("/proc/no/such/place"), HasCode(absl::StatusCode::kFailedPrecondition));
}

TEST_F(JournalTest, ThreadsShareWritesAndEachIsOnDiskWhenItsCommitReturns) {
  const auto journal = Open();
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 20; ++i) Write(*journal, fmt::format("AJ_{}_{}", t, i));
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::filesystem::remove(Folder() + "/lock");
  EXPECT_THAT(Open()->TakeOld(), SizeIs(160));
}

TEST_F(JournalTest, AFullQueueRefusesTheNewAndLetsNothingOldGo) {
  signal(SIGXFSZ, SIG_IGN);
  const auto journal = Open();
  EXPECT_THAT(journal->Append("echo", {"stop", std::string(5 << 20, 'x')}),
              HasCode(absl::StatusCode::kResourceExhausted));
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit full{4096, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &full), 0);
  std::vector<std::string> taken;
  absl::Status status;
  for (int i = 0; i < 40 && status.ok(); ++i) {
    const std::string name = fmt::format("AJ_{}", i);
    status = journal->Append("echo", {"stop", name, std::string(3 << 20, 'x')});
    if (status.ok()) taken.push_back("echo:" + name);
  }
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_THAT(status, HasCode(absl::StatusCode::kUnavailable));
  EXPECT_EQ(ReasonOf(status).reason, "JOURNAL_FAILED");
  Write(*journal, "AJ_after");  // not before what waited is written
  taken.push_back("echo:AJ_after");
  std::filesystem::remove(Folder() + "/lock");
  EXPECT_EQ(Names(Open()->TakeOld()), taken);
}

TEST_F(JournalTest, FullDiskIsSaidAndForgottenByTheNextWrite) {
  signal(SIGXFSZ, SIG_IGN);
  const auto journal = Open();
  Write(*journal, "AJ_1");
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit full{std::filesystem::file_size(Files().front()) + 5, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &full), 0);
  PARLEY_ASSERT_OK(journal->Append("echo", {"stop", "AJ_2"}));
  const absl::Status refused = journal->Commit();
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_THAT(refused, HasReason("JOURNAL_FAILED"));
  Write(*journal, "AJ_3");
  std::filesystem::remove(Folder() + "/lock");
  EXPECT_THAT(Names(Open()->TakeOld()), ElementsAre("echo:AJ_1", "echo:AJ_2", "echo:AJ_3"));
}

// ---- a broker with one ----

class JournalledBrokerTest : public JobStoreTest {
 protected:
  // One whose process ends with the object.
  struct Broker {
    Broker(redis::Pool& redis, const std::string& folder)
        : journal(*Journal::Open(folder)),
          store(redis, "B" + RandomBase62(8), {[](const Message&) {}, [](const std::string&) {}},
                {journal.get(), false}) {}
    std::unique_ptr<Journal> journal;
    RedisJobStore store;
  };
  std::string Folder() const { return folder_.path() + "/journal"; }
  testing::TemporaryDirectory folder_;
};

TEST_F(JournalledBrokerTest, AckedDispatchKeptWhenRedisAndBrokerAreBothLost) {
  const NewDispatch waits = NewEcho("waits"), stopped = NewEcho("stopped"), ran = NewEcho("ran");
  {
    Broker broker(pool(), Folder());
    for (const NewDispatch& one : {waits, stopped, ran}) {
      PARLEY_ASSERT_OK(broker.store.Create(one));
    }
    PARLEY_ASSERT_OK(broker.store.Terminate(stopped.dispatch_id));
    Connect("AW_1", 2);
    const Job job = Get(ran.job_id);
    Word word;
    word.job_id = job.id;
    word.fencing_token = job.fencing_token;
    word.kind = WordKind::kEnded;
    word.reason = Reason::kShutdown;
    PARLEY_ASSERT_OK(broker.store.Apply("echo", "AW_1", {word}));
    ASSERT_EQ(Get(ran.job_id).state, State::kSucceeded);
  }
  PARLEY_ASSERT_OK(pool().Command({"FLUSHALL"}));
  Broker broker(pool(), Folder());
  EXPECT_THAT(broker.store.Remembered(), ElementsAre("echo"));
  PARLEY_ASSERT_OK(broker.store.Replay("echo"));
  EXPECT_EQ(broker.store.GetJob(waits.job_id)->state, State::kPending);
  EXPECT_EQ(broker.store.GetJob(stopped.job_id)->state, State::kCancelled);
  EXPECT_EQ(broker.store.GetJob(ran.job_id)->state, State::kSucceeded);
  EXPECT_EQ(broker.store.GetJob(ran.job_id)->reason, Reason::kShutdown);
}

TEST_F(JournalledBrokerTest, WithoutAJournalItWouldBeLost) {
  const NewDispatch waits = NewEcho();
  {
    TestBroker broker(pool());
    PARLEY_ASSERT_OK(broker.store.Create(waits));
  }
  PARLEY_ASSERT_OK(pool().Command({"FLUSHALL"}));
  TestBroker broker(pool());
  EXPECT_THAT(broker.store.Remembered(), IsEmpty());
  PARLEY_ASSERT_OK(broker.store.NewDispatchId("echo"));  // the pool's number
  EXPECT_TRUE(absl::IsNotFound(broker.store.GetJob(waits.job_id).status()));
}

// ---- a replica ----

class ReplicaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string port = std::to_string(testing::FreePort());
    PARLEY_ASSERT_OK_AND_ASSIGN(
        master_, redis::PrivateServer::Start(directory_.path() + "/master",
                                             {"--port", port, "--repl-diskless-sync-delay", "0"}));
    PARLEY_ASSERT_OK_AND_ASSIGN(replica_,
                                redis::PrivateServer::Start(directory_.path() + "/replica",
                                                            {"--replicaof", "127.0.0.1", port}));
    redis::Config config;
    config.address = master_->address();
    pool_ = std::make_unique<redis::Pool>(config, log::Logger());
    store_ = std::make_unique<RedisJobStore>(
        *pool_, "Breplica", JobStore::Listener{[](const Message&) {}, [](const std::string&) {}},
        Durability{nullptr, true});
    ASSERT_TRUE(Eventually([&] { return Replicas() == 1; }, absl::Seconds(20)));
  }
  // That confirm a write: one that still loads its first copy counts in a WAIT without one.
  int64_t Replicas() {
    const auto replies = pool_->Pipeline({{"SET", "probe", "1"}, {"WAIT", "1", "100"}});
    return replies.ok() && replies->back().ok() ? (*replies)[1]->integer : -1;
  }
  // As clients do: said again for as long as the answer asks for it, which it may on a busy
  // machine.
  template <typename Say>
  static auto SaidAgain(Say say) {
    auto answer = say();
    const absl::Time until = absl::Now() + absl::Seconds(20);
    while (ReasonOf(answer.status()).reason == "NOT_REPLICATED" && absl::Now() < until) {
      answer = say();
    }
    return answer;
  }
  NewDispatch New(RedisJobStore& store) {
    NewDispatch dispatch;
    dispatch.project = "default";
    dispatch.agent_name = dispatch.pool = "echo";
    dispatch.room = "room";
    dispatch.request_hash = "h";
    dispatch.dispatch_id = *store.NewDispatchId("echo");
    dispatch.job_id = *store.NewJobId("echo");
    return dispatch;
  }

  testing::TemporaryDirectory directory_;
  std::unique_ptr<redis::PrivateServer> master_, replica_;
  std::unique_ptr<redis::Pool> pool_;
  std::unique_ptr<RedisJobStore> store_;
};

TEST_F(ReplicaTest, AcknowledgedIsReplicated) {
  const NewDispatch dispatch = New(*store_);
  PARLEY_ASSERT_OK(SaidAgain([&] { return store_->Create(dispatch); }));
  master_->Kill();
  redis::Config config;
  config.address = replica_->address();
  redis::Pool replica(config, log::Logger());
  PARLEY_ASSERT_OK_AND_ASSIGN(
      const redis::Reply there,
      replica.Command({"EXISTS", keys::PoolKeys("echo").dispatch(dispatch.dispatch_id)}));
  EXPECT_EQ(there.integer, 1);
}

TEST_F(ReplicaTest, WithoutAReplicaNothingIsAcknowledgedAndSayingItAgainLaterIsTheSame) {
  const NewDispatch before = New(*store_);
  PARLEY_ASSERT_OK(SaidAgain([&] { return store_->Create(before); }));
  replica_->Kill();
  const NewDispatch dispatch = New(*store_);
  const absl::Duration quickest = testing::Quickest(3, [&] {
    EXPECT_THAT(store_->Create(dispatch), HasReason("NOT_REPLICATED"));
    EXPECT_THAT(store_->Terminate(before.dispatch_id), HasReason("NOT_REPLICATED"));
  });
  EXPECT_LT(quickest, absl::Seconds(1));
  // A broker that is not asked to wait does not.
  RedisJobStore other(*pool_, "Bother", {[](const Message&) {}, [](const std::string&) {}});
  PARLEY_EXPECT_OK(other.Create(New(other)));
  PARLEY_ASSERT_OK(replica_->Restart());
  ASSERT_TRUE(Eventually([&] { return Replicas() == 1; }, absl::Seconds(20)));
  PARLEY_ASSERT_OK_AND_ASSIGN(const JobStore::Created again,
                              SaidAgain([&] { return store_->Create(dispatch); }));
  EXPECT_TRUE(again.existed);
  EXPECT_EQ(again.dispatch.id, dispatch.dispatch_id);
  PARLEY_ASSERT_OK(SaidAgain([&] { return store_->Terminate(before.dispatch_id); }));
  EXPECT_EQ(store_->GetJob(before.job_id)->state, State::kCancelled);
}

}  // namespace
}  // namespace parley::job
