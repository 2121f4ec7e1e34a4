// Redis comes back without its last writes, or without any: what was acknowledged is put back from
// what brokers and workers know. Real redis-server, real append-only file; each test names the
// promise it defends.
#include <filesystem>

#include "job_store_fixture.h"

namespace parley::job {
namespace {

using ::testing::ElementsAre;
using testing::Eventually;
using testing::HasReason;
using ::testing::SizeIs;
using Action = ResumeVerdict::Action;

class RollBackTest : public JobStoreTest {
 protected:
  void SetUp() override {
    JobStoreTest::SetUp();
    PARLEY_ASSERT_OK(pool().Command({"CONFIG", "SET", "appendfsync", "always"}));
    PARLEY_ASSERT_OK_AND_ASSIGN(const redis::Reply dir, pool().Command({"CONFIG", "GET", "dir"}));
    data_ = dir.elements.at(1).text + "/appendonlydir";
    saved_ = dir.elements.at(1).text + "/saved";
  }
  void TearDown() override {
    std::filesystem::remove_all(saved_);
    JobStoreTest::TearDown();
  }

  // What follows is lost by RollBack.
  void Save() {
    std::filesystem::remove_all(saved_);
    std::filesystem::copy(data_, saved_, std::filesystem::copy_options::recursive);
  }
  void RollBack() {
    server().Kill();
    std::filesystem::remove_all(data_);
    std::filesystem::copy(saved_, data_, std::filesystem::copy_options::recursive);
    PARLEY_ASSERT_OK(server().Restart());
  }

  // As a broker does once it notices: the rings first, then the reports of all its workers.
  void Replay(TestBroker& broker) {
    PARLEY_ASSERT_OK(broker.store.Tick("echo"));
    PARLEY_ASSERT_OK(broker.store.Replay("echo"));
  }
  ReportedJob Record(const Job& job, ReportedStatus status, Reason reason = Reason::kUnspecified) {
    ReportedJob reported;
    reported.job_id = job.id;
    reported.fencing_token = job.fencing_token;
    reported.status = status;
    reported.reason = reason;
    const auto record = store().GetAssignment(job.id, job.fencing_token);
    EXPECT_TRUE(record.ok()) << record.status();
    if (record.ok()) reported.record = *record;
    return reported;
  }
  ResumeVerdict Report(const std::string& worker, std::vector<ReportedJob> jobs, int slots = 4) {
    Registration again = EchoWorker(worker, slots);
    again.report = std::move(jobs);
    const auto registered = store().Register(again);
    EXPECT_TRUE(registered.ok()) << registered.status();
    return registered.ok() && !registered->verdicts.empty() ? registered->verdicts[0]
                                                            : ResumeVerdict{};
  }
  int CountEvents(const std::string& type) {
    const std::vector<std::string> types = EventTypes();
    return static_cast<int>(std::count(types.begin(), types.end(), type));
  }

  std::string data_;
  std::string saved_;
};

TEST_F(RollBackTest, AckedDispatchKeptWhenTheLastSecondIsLost) {
  CreateEcho();
  Save();
  const NewDispatch lost = NewEcho("lost-room");
  CreateEcho(lost);
  RollBack();
  Replay(broker());
  EXPECT_EQ(Get(lost.job_id).state, State::kPending);
  EndHold();
  Connect("AW_1", 2);
  EXPECT_EQ(Get(lost.job_id).state, State::kOffered);
  EXPECT_EQ(store().GetDispatch(lost.dispatch_id)->room, "lost-room");
  EXPECT_EQ(CountEvents("dispatch_created"), 2);
}

TEST_F(RollBackTest, WhatMayComeBackIsNotSaidToBeMissing) {
  const NewDispatch kept = NewEcho(), lost = NewEcho("lost-room");
  CreateEcho(kept);
  Save();
  CreateEcho(lost);
  RollBack();
  // Nobody has noticed yet; a reader is the first to ask.
  EXPECT_THAT(store().GetDispatch(lost.dispatch_id), HasReason("STORE_RECOVERING"));
  EXPECT_THAT(store().GetJob(lost.job_id), HasReason("STORE_RECOVERING"));
  PARLEY_EXPECT_OK(store().GetDispatch(kept.dispatch_id));
  TestBroker other(pool());
  EXPECT_THAT(other.store.GetDispatch(lost.dispatch_id), HasReason("STORE_RECOVERING"));
  Replay(broker());
  PARLEY_EXPECT_OK(store().GetDispatch(lost.dispatch_id));
  const NewDispatch never = NewEcho();
  EXPECT_THAT(store().GetDispatch(never.dispatch_id), HasReason("STORE_RECOVERING"));
  EndHold();
  EXPECT_TRUE(absl::IsNotFound(store().GetDispatch(never.dispatch_id).status()));
  EXPECT_TRUE(absl::IsNotFound(store().GetJob(never.job_id).status()));
}

TEST_F(RollBackTest, AckedDispatchKeptWhenAllDataIsGone) {
  const NewDispatch first = NewEcho(), second = NewEcho();
  CreateEcho(first);
  CreateEcho(second);
  const Job before = Get(second.job_id);
  PARLEY_ASSERT_OK(pool().Command({"FLUSHALL"}));
  Replay(broker());
  EndHold();
  Connect("AW_1", 1);
  EXPECT_EQ(Get(second.job_id).create_time, before.create_time);
  EXPECT_EQ(Get(second.job_id).deadline, before.deadline);
  EXPECT_EQ(Get(first.job_id).state, State::kOffered);  // in their order
  EXPECT_EQ(Get(second.job_id).state, State::kPending);
  // The pools' numbers are back too: ids route, and a new pool gets a number of its own.
  TestBroker fresh(pool());
  PARLEY_EXPECT_OK(fresh.store.GetDispatch(first.dispatch_id));
  const std::string other = *fresh.store.NewDispatchId("other");
  EXPECT_NE(other.substr(3, 3), first.dispatch_id.substr(3, 3));
}

TEST_F(RollBackTest, OneKeyOneDispatchAcrossARollBack) {
  Save();
  NewDispatch keyed = NewEcho();
  keyed.idempotency_key = "order-7";
  CreateEcho(keyed);
  RollBack();
  Replay(broker());
  EndHold();
  NewDispatch retry = NewEcho();
  retry.idempotency_key = "order-7";
  PARLEY_ASSERT_OK_AND_ASSIGN(const JobStore::Created again, store().Create(retry));
  EXPECT_TRUE(again.existed);
  EXPECT_EQ(again.dispatch.id, keyed.dispatch_id);
}

TEST_F(RollBackTest, TerminalIsFinalWhenItsRecordIsLost) {
  Connect("AW_1", 4);
  const Job job = RunEcho();
  Save();
  ASSERT_EQ(Say(job, WordKind::kEnded, Reason::kParticipantsLeft).state, State::kSucceeded);
  RollBack();
  Replay(broker());
  EXPECT_EQ(Get(job.id).state, State::kSucceeded);
  EXPECT_EQ(Get(job.id).reason, Reason::kParticipantsLeft);
  EndHold();
  EXPECT_EQ(Get(job.id).state, State::kSucceeded);
  EXPECT_EQ(CountEvents("job_succeeded"), 1);
}

TEST_F(RollBackTest, TerminalIsFinalByTheWorkersReportAlone) {
  Connect("AW_1", 4);
  const Job job = RunEcho();
  ReportedJob kept = Record(job, ReportedStatus::kEnded, Reason::kShutdown);
  Save();
  Say(job, WordKind::kEnded, Reason::kShutdown);
  kept.recorded = true;
  kept.recorded_state = State::kSucceeded;
  RollBack();
  Tick();  // the broker that answered has forgotten it
  Report("AW_1", {kept});
  EXPECT_EQ(Get(job.id).state, State::kSucceeded);
  EndHold();
  EXPECT_EQ(SlotsUsed("AW_1"), 0);
}

// Facts come in any order: the end, or the stop, before the create that another broker has.
TEST_F(RollBackTest, RecordedEndWaitsForItsCreate) {
  TestBroker other(pool());
  Registration worker = EchoWorker("AW_1");
  PARLEY_ASSERT_OK(other.store.Register(worker));
  Save();
  const Job job = Get(CreateEcho());
  Word ended{job.id, job.fencing_token, WordKind::kEnded, Reason::kShutdown, "", false};
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto verdicts, other.store.Apply("echo", "AW_1", {ended}));
  ASSERT_EQ(verdicts[0].state, State::kSucceeded);
  RollBack();
  Replay(other);
  EXPECT_THAT(store().GetJob(job.id), testing::HasCode(absl::StatusCode::kUnavailable));
  Replay(broker());
  EXPECT_EQ(Get(job.id).state, State::kSucceeded);
  EXPECT_EQ(Get(job.id).fencing_token, job.fencing_token);
}

TEST_F(RollBackTest, CancelledNeverRestartsThoughItsStopComesFirst) {
  TestBroker other(pool());
  Save();
  const std::string id = CreateEcho();
  PARLEY_ASSERT_OK(other.store.Terminate(id));
  RollBack();
  Replay(other);
  Replay(broker());
  EXPECT_EQ(Get(id).state, State::kPending);  // stops wait for the end of the hold
  PARLEY_ASSERT_OK(other.store.CheckedIn("echo"));
  EndHold();
  EXPECT_EQ(Get(id).state, State::kCancelled);
  Connect("AW_1", 4);
  EXPECT_EQ(Get(id).state, State::kCancelled);
}

TEST_F(RollBackTest, BrokerLaterThanTheHoldReplaysTheSame) {
  Save();
  const std::string cancelled = CreateEcho(), wanted = CreateEcho();
  PARLEY_ASSERT_OK(store().Terminate(cancelled));
  RollBack();
  TestBroker quick(pool());
  PARLEY_ASSERT_OK(quick.store.Tick("echo"));
  ASSERT_TRUE(Eventually([&] {
    EXPECT_TRUE(quick.store.CheckedIn("echo").ok());
    return !OnHold();
  }));
  Replay(broker());
  EXPECT_EQ(Get(wanted).state, State::kPending);
  EXPECT_EQ(Get(cancelled).state, State::kCancelled);
}

TEST_F(RollBackTest, RecordedEndGoesBeforeAStopAskedForInTheHold) {
  Connect("AW_1", 4);
  const Job job = RunEcho();
  ReportedJob kept = Record(job, ReportedStatus::kEnded, Reason::kShutdown);
  Save();
  Say(job, WordKind::kEnded, Reason::kShutdown);
  RollBack();
  TestBroker fresh(pool());  // knows nothing
  PARLEY_ASSERT_OK(fresh.store.Tick("echo"));
  PARLEY_ASSERT_OK(fresh.store.Terminate(job.id));
  EXPECT_EQ(Get(job.id).state, State::kRunning);
  Replay(broker());
  EXPECT_EQ(Get(job.id).state, State::kSucceeded);
  PARLEY_ASSERT_OK(fresh.store.CheckedIn("echo"));
  EndHold();
  EXPECT_EQ(Get(job.id).reason, Reason::kShutdown);
}

TEST_F(RollBackTest, UnknownInTheHoldMayStillComeBack) {
  CreateEcho();
  Save();
  const std::string id = CreateEcho();
  RollBack();
  TestBroker fresh(pool());
  PARLEY_ASSERT_OK(fresh.store.Tick("echo"));
  EXPECT_THAT(fresh.store.Terminate(id), HasReason("STORE_RECOVERING"));
}

TEST_F(RollBackTest, NoNeedlessRestartOfAJobThatRedisThinksIsPending) {
  const NewDispatch dispatch = NewEcho();
  CreateEcho(dispatch);
  Save();
  Connect("AW_1", 4);
  Say(Get(dispatch.job_id), WordKind::kAccepted);
  Say(Get(dispatch.job_id), WordKind::kStarted);
  const Job running = Get(dispatch.job_id);
  const ReportedJob report = Record(running, ReportedStatus::kRunning);
  RollBack();
  // Whoever comes first meets the hold: here a worker that could take the job.
  Connect("AW_2", 4);
  EXPECT_EQ(Get(dispatch.job_id).state, State::kPending);
  EXPECT_EQ(Report("AW_1", {report}).action, Action::kKeep);
  EndHold();
  const Job after = Get(dispatch.job_id);
  EXPECT_EQ(after.state, State::kRunning);
  EXPECT_EQ(after.worker_id, "AW_1");
  EXPECT_EQ(after.fencing_token, running.fencing_token);
  EXPECT_EQ(after.attempt, 1);
}

TEST_F(RollBackTest, JobIsRebuiltFromTheWorkersReportAlone) {
  Connect("AW_1", 4);
  NewDispatch dispatch = NewEcho("suite");
  dispatch.metadata = "{\"guest\":7}";
  dispatch.idempotency_key = "guest-7";
  const std::string id = CreateEcho(dispatch);
  Say(Get(id), WordKind::kAccepted);
  Say(Get(id), WordKind::kStarted);
  const Job running = Get(id);
  const ReportedJob report = Record(running, ReportedStatus::kRunning);
  PARLEY_ASSERT_OK(pool().Command({"FLUSHALL"}));
  TestBroker fresh(pool());  // the broker that acknowledged it is gone
  Registration again = EchoWorker("AW_1", 4);
  again.connect_seq = 2;
  again.report = {report};
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto registered, fresh.store.Register(again));
  EXPECT_EQ(registered.verdicts.at(0).action, Action::kKeep);
  PARLEY_ASSERT_OK_AND_ASSIGN(const Dispatch back, fresh.store.GetDispatch(dispatch.dispatch_id));
  EXPECT_EQ(back.metadata, "{\"guest\":7}");
  EXPECT_EQ(back.jobs.at(0).state, State::kRunning);
  EXPECT_EQ(back.jobs.at(0).fencing_token, running.fencing_token);
  EXPECT_EQ(SlotsUsed("AW_1"), 1);
}

TEST_F(RollBackTest, EndOfAJobThatRedisForgotIsRecorded) {
  Connect("AW_1", 4);
  const Job job = RunEcho();
  const ReportedJob report = Record(job, ReportedStatus::kEnded, Reason::kShutdown);
  PARLEY_ASSERT_OK(pool().Command({"FLUSHALL"}));
  TestBroker fresh(pool());
  Registration again = EchoWorker("AW_1", 4);
  again.connect_seq = 2;
  again.report = {report};
  PARLEY_ASSERT_OK(fresh.store.Register(again));
  EXPECT_EQ(Get(job.id).state, State::kSucceeded);
  EXPECT_EQ(SlotsUsed("AW_1"), 0);
}

TEST_F(RollBackTest, TokenNeverRepeatsOverTwoRollBacks) {
  Connect("AW_1", 40);
  std::set<uint64_t> tokens;
  Save();
  uint64_t highest = 0;
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 3; ++i) {
      const Job job = Get(CreateEcho());
      EXPECT_GT(job.fencing_token, highest);
      highest = job.fencing_token;
      EXPECT_TRUE(tokens.insert(job.fencing_token).second);
    }
    RollBack();
    Tick();
    Report("AW_1", {}, 40);
    EndHold();
  }
}

TEST_F(RollBackTest, SessionThatRedisLostIsAskedNotRefused) {
  Save();
  Connect("AW_1");
  const Job job = RunEcho();
  RollBack();
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto renewed, store().Renew("echo", {{"AW_1", 1, 0.1, true}}));
  EXPECT_THAT(renewed.refused, SizeIs(0));
  EXPECT_THAT(renewed.owing, ElementsAre("AW_1"));
  // Its words from before the report wait, also once the hold is over.
  EndHold();
  EXPECT_EQ(SayAs("AW_1", job, WordKind::kStarted).outcome, WordVerdict::Outcome::kHeld);
  Report("AW_1", {});
  EXPECT_THAT(store().Renew("echo", {{"AW_1", 1, 0.1, true}})->owing, SizeIs(0));
}

TEST_F(RollBackTest, HoldWaitsForEveryBrokerThatLives) {
  TestBroker other(pool());
  PARLEY_ASSERT_OK(other.store.Tick("echo"));
  Save();
  RollBack();
  PARLEY_ASSERT_OK(store().Tick("echo"));
  PARLEY_ASSERT_OK(other.store.Tick("echo"));
  const absl::Time start = absl::Now();
  PARLEY_ASSERT_OK(store().CheckedIn("echo"));
  absl::SleepFor(absl::Milliseconds(700));  // all had time to be known
  Tick();
  EXPECT_TRUE(OnHold() || absl::Now() - start > absl::Milliseconds(1400));
  PARLEY_ASSERT_OK(other.store.CheckedIn("echo"));
  EXPECT_FALSE(OnHold());
}

TEST_F(RollBackTest, HoldEndsWithoutABrokerThatDied) {
  TestBroker dead(pool());
  PARLEY_ASSERT_OK(dead.store.Tick("echo"));
  Save();
  RollBack();
  Tick();
  const absl::Time start = absl::Now();
  EndHold();
  EXPECT_LT(absl::Now() - start, absl::Seconds(10)) << "1.5 alone; not a lease of 12";
  PARLEY_EXPECT_OK(store().Create(NewEcho()));
}

}  // namespace
}  // namespace parley::job
