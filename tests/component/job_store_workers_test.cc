// Workers and the store's own accidents: register and its merge, leases, deaths, other brokers, a
// Redis that went away.
#include <set>

#include "job_store_fixture.h"

namespace parley::job {
namespace {

using testing::HasCode;
using testing::HasReason;
using ::testing::SizeIs;

using JobStoreWorkersTest = JobStoreTest;
using Action = ResumeVerdict::Action;

ReportedJob Reported(const Job& job, ReportedStatus status, Reason reason = Reason::kUnspecified) {
  ReportedJob reported;
  reported.job_id = job.id;
  reported.fencing_token = job.fencing_token;
  reported.status = status;
  reported.reason = reason;
  return reported;
}

TEST_F(JobStoreWorkersTest, OlderOrEqualConnectIsReplaced) {
  Connect("AW_1");
  TestBroker other(pool());
  EXPECT_THAT(other.store.Register(EchoWorker("AW_1")), HasReason("WORKER_REPLACED"));
  PARLEY_EXPECT_OK(store().Register(EchoWorker("AW_1")));  // the same call once more
  Registration newer = EchoWorker("AW_1");
  newer.connect_seq = 2;
  PARLEY_EXPECT_OK(other.store.Register(newer));
  EXPECT_THAT(store().Register(EchoWorker("AW_1")), HasReason("WORKER_REPLACED"));
  EXPECT_THAT(store().Renew("echo", {{"AW_1", 1, 0.1, true}})->refused, SizeIs(1));
  EXPECT_THAT(other.store.Renew("echo", {{"AW_1", 2, 0.1, true}})->refused, SizeIs(0));
}

TEST_F(JobStoreWorkersTest, AnotherProcessMayNotUseTheId) {
  Connect("AW_1");
  Registration thief = EchoWorker("AW_1");
  thief.instance = std::string(32, 'b');
  thief.connect_seq = 9;
  EXPECT_THAT(store().Register(thief), HasReason("INSTANCE_MISMATCH"));
  EXPECT_THAT(store().EndSession("echo", "AW_1", thief.instance, 9),
              HasCode(absl::StatusCode::kPermissionDenied));
}

TEST_F(JobStoreWorkersTest, DeathNoticeRedispatchesAtOnce) {
  Connect("AW_1");
  const Job job = RunEcho();
  Connect("AW_2");
  PARLEY_ASSERT_OK_AND_ASSIGN(const bool ended,
                              store().EndSession("echo", "AW_1", std::string(32, 'a'), 1));
  EXPECT_TRUE(ended);
  EXPECT_EQ(Get(job.id).worker_id, "AW_2");
  EXPECT_EQ(Get(job.id).previous_reason, Reason::kWorkerLost);
  PARLEY_ASSERT_OK_AND_ASSIGN(const bool again,
                              store().EndSession("echo", "AW_1", std::string(32, 'a'), 1));
  EXPECT_FALSE(again);
  Registration back = EchoWorker("AW_1");
  back.connect_seq = 2;
  EXPECT_THAT(store().Register(back), HasReason("WORKER_REPLACED"));
}

TEST_F(JobStoreWorkersTest, NoticeOfAnOlderConnectLeavesTheNewerAlone) {
  Registration worker = EchoWorker("AW_1");
  worker.connect_seq = 3;
  Connect(worker);
  PARLEY_ASSERT_OK_AND_ASSIGN(const bool ended,
                              store().EndSession("echo", "AW_1", std::string(32, 'a'), 2));
  EXPECT_FALSE(ended);
}

TEST_F(JobStoreWorkersTest, SilenceIsQuietThenTheEnd) {
  Tick();  // a beat, so that the silence is the worker's
  Connect("AW_1", 2);
  const Job job = RunEcho();
  Silence("AW_1", absl::Seconds(4));
  Tick();
  const std::string waiting = CreateEcho();
  EXPECT_EQ(Get(waiting).state, State::kPending);
  EXPECT_EQ(Get(job.id).state, State::kRunning);
  EXPECT_EQ(store().ListWorkers("echo")->at(0).state, "QUIET");
  PARLEY_ASSERT_OK(store().Renew("echo", {{"AW_1", 1, 0.1, true}}));
  EXPECT_EQ(Get(waiting).state, State::kOffered);
  Silence("AW_1", absl::Seconds(13));
  EXPECT_EQ(Tick().ended_sessions, 1);
  EXPECT_EQ(Get(job.id).state, State::kPending);
  EXPECT_EQ(Get(job.id).previous_reason, Reason::kWorkerLost);
  EXPECT_THAT(*store().ListWorkers("echo"), SizeIs(0));
}

TEST_F(JobStoreWorkersTest, OurOwnSilenceEndsNobody) {
  Tick();
  Connect("AW_1");
  const Job job = RunEcho();
  Silence("AW_1", absl::Seconds(60));
  PARLEY_ASSERT_OK(pool().Command({"HSET", "parley:{echo}:meta", "beat", "1"}));
  EXPECT_EQ(Tick().ended_sessions, 0);
  EXPECT_EQ(Get(job.id).state, State::kRunning);
}

TEST_F(JobStoreWorkersTest, NeverIsFailedWhenItsWorkerIsLost) {
  Connect("AW_1");
  NewDispatch dispatch = NewEcho();
  dispatch.restart_policy = RestartPolicy::kNever;
  const std::string id = CreateEcho(dispatch);
  Say(Get(id), WordKind::kStarted);
  PARLEY_ASSERT_OK(store().EndSession("echo", "AW_1", std::string(32, 'a'), 1));
  EXPECT_EQ(Get(id).state, State::kFailed);
  EXPECT_EQ(Get(id).reason, Reason::kWorkerLost);
}

TEST_F(JobStoreWorkersTest, DrainingAndUnwillingWorkersGetNothing) {
  Connect("AW_1", 5);
  PARLEY_ASSERT_OK(store().Renew("echo", {{"AW_1", 1, 0.9, false}}));
  const std::string id = CreateEcho();
  EXPECT_EQ(Get(id).state, State::kPending);
  PARLEY_ASSERT_OK(store().Renew("echo", {{"AW_1", 1, 0.1, true}}));
  EXPECT_EQ(Get(id).state, State::kOffered);
  broker().TakeMessages();
  PARLEY_ASSERT_OK(store().Drain("echo", "AW_1", absl::ZeroDuration()));
  EXPECT_EQ(broker().TakeMessages().at(0).kind, Message::Kind::kDrain);
  EXPECT_EQ(Get(CreateEcho()).state, State::kPending);
  EXPECT_EQ(store().ListWorkers("echo")->at(0).state, "DRAINING");
  EXPECT_THAT(store().Drain("echo", "AW_9", absl::ZeroDuration()),
              HasCode(absl::StatusCode::kNotFound));
}

// Between its registration with another broker and what it says next nothing is offered to it.
TEST_F(JobStoreWorkersTest, WhoRegistersUnwillingGetsNothing) {
  Registration worker = EchoWorker("AW_1");
  worker.accepting = false;
  Connect(worker);
  const std::string id = CreateEcho();
  EXPECT_EQ(Get(id).state, State::kPending);
  PARLEY_ASSERT_OK(store().Renew("echo", {{"AW_1", 1, 0.1, true}}));
  EXPECT_EQ(Get(id).state, State::kOffered);
}

TEST_F(JobStoreWorkersTest, StatsAndPoolOfWorker) {
  Connect("AW_1", 5);
  Connect("AW_2", 3);
  CreateEcho();
  PARLEY_ASSERT_OK(store().Drain("echo", "AW_2", std::nullopt));
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto stats, store().Stats("echo"));
  EXPECT_EQ(stats.workers, 2);
  EXPECT_EQ(stats.slots, 8);
  EXPECT_EQ(stats.used, 1);
  EXPECT_GE(stats.closed_slots, 2);
  EXPECT_EQ(stats.draining_workers, 1);
  EXPECT_EQ(stats.draining_slots, 3);
  EXPECT_LE(stats.draining_used, 1);
  EXPECT_EQ(*store().PoolOfWorker("AW_1"), "echo");
  EXPECT_THAT(store().PoolOfWorker("AW_9"), HasCode(absl::StatusCode::kNotFound));
  EXPECT_EQ(**store().PoolOfName("default", "echo"), "echo");
  EXPECT_FALSE(store().PoolOfName("hotel", "echo")->has_value());
}

TEST_F(JobStoreWorkersTest, MessageForAnotherBrokersWorkerGoesToItsInbox) {
  TestBroker other(pool());
  PARLEY_ASSERT_OK(other.store.Register(EchoWorker("AW_1")));
  const std::string id = CreateEcho();
  EXPECT_THAT(broker().TakeMessages(), SizeIs(0));
  PARLEY_ASSERT_OK(other.store.WaitInbox({"echo"}, false, absl::Seconds(1)));
  const auto messages = other.TakeMessages();
  ASSERT_THAT(messages, SizeIs(1));
  EXPECT_EQ(messages[0].job_id, id);
  EXPECT_EQ(messages[0].worker_id, "AW_1");
  PARLEY_ASSERT_OK(other.store.WaitInbox({"echo"}, false, absl::Milliseconds(10)));
  EXPECT_THAT(other.TakeMessages(), SizeIs(0));  // once
}

// ---- the merge of register ----

class ReportTest : public JobStoreTest {
 protected:
  // The worker comes back with `report`; the verdict on its only job.
  ResumeVerdict ComeBack(const Job& job, ReportedStatus status,
                         Reason reason = Reason::kUnspecified) {
    Registration back = EchoWorker("AW_1");
    back.connect_seq = ++seq_;
    back.report = {Reported(job, status, reason)};
    const auto registered = store().Register(back);
    EXPECT_TRUE(registered.ok()) << registered.status();
    EXPECT_EQ(registered->verdicts.size(), 1u);
    return registered->verdicts.empty() ? ResumeVerdict{} : registered->verdicts[0];
  }
  void ComeBackEmpty() {
    Registration back = EchoWorker("AW_1");
    back.connect_seq = ++seq_;
    Connect(back);
  }
  uint64_t seq_ = 1;
};

TEST_F(ReportTest, RunningIsKept) {
  Connect("AW_1");
  const Job job = RunEcho();
  EXPECT_EQ(ComeBack(job, ReportedStatus::kRunning).action, Action::kKeep);
  EXPECT_EQ(Get(job.id).state, State::kRunning);
  EXPECT_EQ(Get(job.id).attempt, 1);
  EXPECT_EQ(Get(job.id).fencing_token, job.fencing_token);
  EXPECT_EQ(SlotsUsed("AW_1"), 1);
}

TEST_F(ReportTest, AcceptedIsToldToGo) {
  Connect("AW_1");
  const std::string id = CreateEcho();
  Say(Get(id), WordKind::kAccepted);
  broker().TakeMessages();
  EXPECT_EQ(ComeBack(Get(id), ReportedStatus::kAccepted).action, Action::kGo);
  EXPECT_EQ(broker().TakeMessages().at(0).kind, Message::Kind::kGo);
}

TEST_F(ReportTest, StartedWordLostWithTheStreamIsInTheReport) {
  Connect("AW_1");
  const std::string id = CreateEcho();
  Say(Get(id), WordKind::kAccepted);
  EXPECT_EQ(ComeBack(Get(id), ReportedStatus::kRunning).action, Action::kKeep);
  EXPECT_EQ(Get(id).state, State::kRunning);
  EXPECT_EQ(Get(id).attempt, 1);
}

TEST_F(ReportTest, PendingUnderTheSameTokenIsTakenBack) {
  Connect("AW_1");
  const std::string id = CreateEcho();
  Say(Get(id), WordKind::kAccepted);
  const Job job = Get(id);
  MakeDue("start:" + id);
  Tick();
  EXPECT_EQ(Get(id).state, State::kPending);
  EXPECT_EQ(ComeBack(job, ReportedStatus::kRunning).action, Action::kKeep);
  EXPECT_EQ(Get(id).state, State::kRunning);
  EXPECT_EQ(Get(id).attempt, 1);
  EXPECT_EQ(Tick().pending, 0);
}

TEST_F(ReportTest, EndThatIsStoredBeginsNothingInTheHold) {
  Connect("AW_1");
  const Job job = RunEcho();
  PARLEY_ASSERT_OK(store().Drain("echo", "AW_1", absl::ZeroDuration()));
  Say(job, WordKind::kEnded, Reason::kProcessCrashed);  // stored; the answer is lost
  PARLEY_ASSERT_OK(pool().Command({"CONFIG", "SET", "appendfsync", "always"}));
  PARLEY_ASSERT_OK(pool().Command({"SET", "flushed", "1"}));
  server().Kill();
  PARLEY_ASSERT_OK(server().Restart());
  Tick();
  ASSERT_TRUE(OnHold());
  EXPECT_EQ(ComeBack(job, ReportedStatus::kEnded, Reason::kProcessCrashed).action, Action::kKeep);
  EXPECT_EQ(Get(job.id).state, State::kPending);  // RUNNING again would be a job over the cap
  EXPECT_EQ(SlotsUsed("AW_1"), 0);
  EndHold();
  EXPECT_EQ(Get(job.id).state, State::kPending);
  EXPECT_EQ(Get(job.id).attempt, 1);
}

TEST_F(ReportTest, OlderTokenIsRevoked) {
  Connect("AW_1");
  const Job job = RunEcho();
  Say(job, WordKind::kEnded, Reason::kProcessCrashed);  // offered again, to the same worker
  EXPECT_EQ(ComeBack(job, ReportedStatus::kRunning).action, Action::kRevoke);
  EXPECT_EQ(Get(job.id).state, State::kPending);  // its old copy holds the slot
  EXPECT_EQ(SlotsUsed("AW_1"), 1);
  Say(Get(job.id), WordKind::kReleased);
  EXPECT_EQ(SlotsUsed("AW_1"), 1);
  SayAs("AW_1", job, WordKind::kReleased);
  EXPECT_EQ(Get(job.id).state, State::kOffered);
}

TEST_F(ReportTest, EndedInTheMeantimeIsRevoked) {
  Connect("AW_1");
  const std::string id = CreateEcho();
  const Job job = Get(id);
  PARLEY_ASSERT_OK(store().Terminate(id));
  const ResumeVerdict verdict = ComeBack(job, ReportedStatus::kAccepted);
  EXPECT_EQ(verdict.action, Action::kRevoke);
  EXPECT_EQ(verdict.recorded_state, State::kCancelled);
}

TEST_F(ReportTest, StopRequestIsToldOnReturn) {
  Connect("AW_1");
  const Job job = RunEcho();
  PARLEY_ASSERT_OK(store().Terminate(job.id));
  EXPECT_EQ(ComeBack(job, ReportedStatus::kRunning).action, Action::kStop);
  EXPECT_EQ(ComeBack(job, ReportedStatus::kStopping).action, Action::kStop);
  EXPECT_EQ(Get(job.id).state, State::kCancelled);
}

TEST_F(ReportTest, ReportedEndIsRecorded) {
  Connect("AW_1");
  const Job job = RunEcho();
  const ResumeVerdict verdict = ComeBack(job, ReportedStatus::kEnded, Reason::kParticipantsLeft);
  EXPECT_EQ(verdict.recorded_state, State::kSucceeded);
  EXPECT_EQ(Get(job.id).reason, Reason::kParticipantsLeft);
  EXPECT_EQ(SlotsUsed("AW_1"), 0);
  ComeBack(job, ReportedStatus::kEnded, Reason::kParticipantsLeft);
  EXPECT_EQ(Get(job.id).state, State::kSucceeded);
}

TEST_F(ReportTest, RunningButNotReportedIsLost) {
  Connect("AW_1");
  const Job job = RunEcho();
  ComeBackEmpty();
  EXPECT_EQ(Get(job.id).previous_reason, Reason::kWorkerLost);
  EXPECT_EQ(Get(job.id).state, State::kOffered);
  EXPECT_GT(Get(job.id).fencing_token, job.fencing_token);
}

TEST_F(ReportTest, UndeliveredOfferIsSentAgainUnderItsToken) {
  Connect("AW_1");
  const std::string id = CreateEcho();
  const Job job = Get(id);
  broker().TakeMessages();
  ComeBackEmpty();
  EXPECT_EQ(Get(id).fencing_token, job.fencing_token);
  const auto messages = broker().TakeMessages();
  ASSERT_THAT(messages, SizeIs(1));
  EXPECT_EQ(messages[0].kind, Message::Kind::kOffer);
}

TEST_F(ReportTest, HigherTokenThanStoredMeansRedisLostIt) {
  Connect("AW_1");
  Job job = RunEcho();
  job.fencing_token += 5'000'000'000;  // rolled back: the newer lease is gone
  EXPECT_EQ(ComeBack(job, ReportedStatus::kRunning).action, Action::kKeep);
  EXPECT_EQ(Get(job.id).fencing_token, job.fencing_token);
  const std::string next = CreateEcho();
  Say(job, WordKind::kEnded, Reason::kShutdown);
  EXPECT_GT(Get(next).fencing_token, job.fencing_token);
}

TEST_F(ReportTest, JobThatRedisForgotIsRebuiltFromItsRecord) {
  Connect("AW_1");
  const Job job = RunEcho();
  PARLEY_ASSERT_OK_AND_ASSIGN(const Assignment record,
                              store().GetAssignment(job.id, job.fencing_token));
  PARLEY_ASSERT_OK(
      pool().Command({"DEL", "parley:{echo}:j:" + job.id, "parley:{echo}:d:" + job.dispatch_id}));
  Registration back = EchoWorker("AW_1");
  back.connect_seq = 2;
  back.report = {Reported(job, ReportedStatus::kRunning)};
  back.report[0].record = record;
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto registered, store().Register(back));
  EXPECT_EQ(registered.verdicts.at(0).action, Action::kKeep);
  EXPECT_EQ(Get(job.id).state, State::kRunning);
  EXPECT_EQ(Get(job.id).attempt, 1);
  EXPECT_EQ(Get(job.id).room, "room");
  PARLEY_EXPECT_OK(store().GetDispatch(job.dispatch_id));
}

TEST_F(ReportTest, UnknownJobWithoutARecordIsRevoked) {
  Connect("AW_1");
  Job job;
  job.id = "AJ_001AAAAAAAAAAAA";
  job.fencing_token = 7;
  EXPECT_EQ(ComeBack(job, ReportedStatus::kRunning).action, Action::kRevoke);
}

// ---- Redis away, and back ----

TEST_F(JobStoreWorkersTest, AwayIsUnavailableWithAHint) {
  server().Kill();
  const auto created = store().ListWorkers("echo");
  EXPECT_THAT(created, HasCode(absl::StatusCode::kUnavailable));
  EXPECT_THAT(created, HasReason("STORE_UNAVAILABLE"));
  EXPECT_EQ(parley::ReasonOf(created.status()).metadata["retry_after_ms"], "1000");
}

TEST_F(JobStoreWorkersTest, RestartIsANewEpochWithAHold) {
  Connect("AW_1", 2);
  const Job job = RunEcho();
  PARLEY_ASSERT_OK(pool().Command({"CONFIG", "SET", "appendfsync", "always"}));
  PARLEY_ASSERT_OK(pool().Command({"SET", "flushed", "1"}));
  server().Kill();
  PARLEY_ASSERT_OK(server().Restart());
  Tick();
  EXPECT_THAT(broker().recovering, SizeIs(1));
  // Until all are in: no creates, no matches; words are kept by their senders.
  EXPECT_THAT(store().Create(NewEcho()), HasReason("STORE_RECOVERING"));
  EXPECT_EQ(Say(job, WordKind::kEnded, Reason::kShutdown).outcome, WordVerdict::Outcome::kHeld);
  Registration back = EchoWorker("AW_1", 2);
  back.report = {Reported(job, ReportedStatus::kEnded, Reason::kShutdown)};
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto registered, store().Register(back));
  EXPECT_TRUE(registered.recovering);
  EXPECT_EQ(Get(job.id).state, State::kRunning);
  EndHold();
  EXPECT_EQ(Get(job.id).state, State::kSucceeded);
  const std::string id = CreateEcho();
  EXPECT_EQ(Get(id).state, State::kOffered);
  EXPECT_GT(Get(id).fencing_token, job.fencing_token + 3'000'000'000);
  EXPECT_EQ(Say(job, WordKind::kEnded, Reason::kShutdown).state, State::kSucceeded);
}

TEST_F(JobStoreWorkersTest, HoldEndsByItself) {
  Connect("AW_1");
  PARLEY_ASSERT_OK(
      pool().Command({"HSET", "parley:{echo}:meta", "hold_until", "1", "run_id", "another"}));
  EXPECT_TRUE(testing::Eventually([&] { return Tick(), store().Create(NewEcho()).ok(); }));
}

TEST_F(JobStoreWorkersTest, AllDataGoneRunningJobsComeBackByReports) {
  Connect("AW_1");
  const Job job = RunEcho();
  PARLEY_ASSERT_OK_AND_ASSIGN(const Assignment record,
                              store().GetAssignment(job.id, job.fencing_token));
  PARLEY_ASSERT_OK(pool().Command({"FLUSHALL"}));
  Tick();  // a new epoch, on hold
  EXPECT_THAT(broker().recovering, SizeIs(1));
  Registration back = EchoWorker("AW_1");
  back.report = {Reported(job, ReportedStatus::kRunning)};
  back.report[0].record = record;
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto registered, store().Register(back));
  EXPECT_EQ(registered.verdicts.at(0).action, Action::kKeep);
  EndHold();
  EXPECT_EQ(Get(job.id).state, State::kRunning);
  EXPECT_EQ(Get(job.id).fencing_token, job.fencing_token);
}

TEST_F(JobStoreWorkersTest, BrokersAgreeOnTheEpoch) {
  TestBroker other(pool());
  Connect("AW_1");
  PARLEY_ASSERT_OK(other.store.Tick("echo"));
  EXPECT_THAT(other.recovering, SizeIs(0));
  PARLEY_ASSERT_OK(pool().Command({"HINCRBY", "parley:{echo}:meta", "epoch", "1"}));
  PARLEY_ASSERT_OK(other.store.Tick("echo"));  // STALE_EPOCH, asked again
  EXPECT_THAT(other.recovering, SizeIs(1));
}

}  // namespace
}  // namespace parley::job
