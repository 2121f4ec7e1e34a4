// Hand-over of running jobs: each row of the state machine that knows a successor, on a real Redis.
#include "job_store_fixture.h"

namespace parley::job {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using testing::HasCode;
using testing::HasReason;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using Kind = Message::Kind;

// AW_1 runs a job that AW_2 is to take over. Both take all that comes.
class HandOverTest : public JobStoreTest {
 protected:
  void SetUp() override {
    JobStoreTest::SetUp();
    Connect(Willing("AW_1"));
    old_ = RunEcho();
    Connect(Willing("AW_2"));
    broker().TakeMessages();
  }
  Registration Willing(const std::string& id, uint64_t seq = 1) {
    Registration worker = EchoWorker(id);
    worker.accepts_all = true;
    worker.connect_seq = seq;
    return worker;
  }
  // The job as its successor knows it.
  Job Begin(const std::string& to = "") {
    const auto begun = store().Migrate(old_.id, 0, to);
    EXPECT_TRUE(begun.ok()) << begun.status();
    Job next = begun.value_or(Job{});
    next.worker_id = next.next_worker_id;
    next.fencing_token = next.next_token;
    return next;
  }
  // Prepared, told, paused with a checkpoint.
  Job BeginAndPause() {
    const Job next = Begin();
    EXPECT_EQ(Say(next, WordKind::kPrepared).outcome, WordVerdict::Outcome::kOk);
    EXPECT_TRUE(store().SaveLastCheckpoint(old_.id, old_.fencing_token, "memory", paused_at_).ok());
    return next;
  }
  std::vector<std::pair<std::string, Kind>> Told() {
    std::vector<std::pair<std::string, Kind>> told;
    for (const Message& message : broker().TakeMessages()) {
      told.emplace_back(message.worker_id, message.kind);
    }
    return told;
  }
  void EndSessionOf(const std::string& worker) {
    const auto ended = store().EndSession("echo", worker, std::string(32, 'a'), 1);
    EXPECT_TRUE(ended.ok() && *ended);
  }
  static std::pair<std::string, Kind> To(const std::string& worker, Kind kind) {
    return {worker, kind};
  }

  Job old_;
  const absl::Time paused_at_ = absl::FromUnixMillis(1'700'000'000'123);
};

TEST_F(HandOverTest, BeginningReservesASecondSlotAndChangesNothingElse) {
  const Job next = Begin();
  EXPECT_EQ(next.worker_id, "AW_2");
  EXPECT_GT(next.fencing_token, old_.fencing_token);
  EXPECT_THAT(Told(), ElementsAre(To("AW_2", Kind::kGo)));
  EXPECT_EQ(SlotsUsed("AW_1"), 1);
  EXPECT_EQ(SlotsUsed("AW_2"), 1);
  EXPECT_EQ(Get(old_.id).worker_id, "AW_1");
  EXPECT_EQ(Get(old_.id).fencing_token, old_.fencing_token);
  EXPECT_THAT(EventTypes(), Contains("job_migrating"));
  PARLEY_ASSERT_OK_AND_ASSIGN(const Assignment assignment,
                              store().GetAssignment(next.id, next.fencing_token));
  EXPECT_TRUE(assignment.take_over);
  EXPECT_TRUE(assignment.resuming);
  // Once more is the same hand-over.
  EXPECT_EQ(Begin().fencing_token, next.fencing_token);
  EXPECT_THAT(Told(), IsEmpty());
}

TEST_F(HandOverTest, PreparedPausedStartedMovesTheJob) {
  const Job next = Begin();
  Told();
  Say(next, WordKind::kPrepared);
  EXPECT_THAT(Told(), ElementsAre(To("AW_1", Kind::kHandOver)));
  PARLEY_ASSERT_OK(store().SaveLastCheckpoint(old_.id, old_.fencing_token, "memory", paused_at_));
  EXPECT_THAT(Told(), ElementsAre(To("AW_2", Kind::kTakeOver)));
  PARLEY_ASSERT_OK_AND_ASSIGN(const Assignment assignment,
                              store().GetAssignment(next.id, next.fencing_token));
  EXPECT_EQ(assignment.checkpoint, "memory");
  EXPECT_EQ(assignment.paused_at, paused_at_);
  EXPECT_EQ(Get(old_.id).worker_id, "AW_1");

  EXPECT_EQ(Say(next, WordKind::kStarted).outcome, WordVerdict::Outcome::kOk);
  EXPECT_THAT(Told(), ElementsAre(To("AW_1", Kind::kRevoke)));
  const Job after = Get(old_.id);
  EXPECT_EQ(after.state, State::kRunning);
  EXPECT_EQ(after.worker_id, "AW_2");
  EXPECT_EQ(after.fencing_token, next.fencing_token);
  EXPECT_EQ(after.attempt, old_.attempt);  // no attempt was lost
  EXPECT_EQ(after.start_time, old_.start_time);
  EXPECT_TRUE(after.next_worker_id.empty());

  // StaleWriteRefused: whatever the old holder says now changes nothing but frees its slot.
  EXPECT_THAT(store().SaveCheckpoint(old_.id, old_.fencing_token, "late"),
              HasCode(absl::StatusCode::kAborted));
  EXPECT_EQ(Say(old_, WordKind::kEnded, Reason::kProcessCrashed).outcome,
            WordVerdict::Outcome::kStale);
  EXPECT_EQ(SlotsUsed("AW_1"), 0);
  EXPECT_EQ(Get(old_.id).worker_id, "AW_2");
  EXPECT_EQ(Say(next, WordKind::kEnded, Reason::kParticipantsLeft).state, State::kSucceeded);
}

TEST_F(HandOverTest, AnEmptyLastCheckpointLeavesTheOneBefore) {
  PARLEY_ASSERT_OK(store().SaveCheckpoint(old_.id, old_.fencing_token, "earlier"));
  const Job next = Begin();
  Say(next, WordKind::kPrepared);
  PARLEY_ASSERT_OK(store().SaveLastCheckpoint(old_.id, old_.fencing_token, "", paused_at_));
  EXPECT_EQ(store().GetAssignment(next.id, next.fencing_token)->checkpoint, "earlier");
}

TEST_F(HandOverTest, HandedOverManyTimesIsStillOneAttempt) {
  std::string at = "AW_1";
  for (int i = 0; i < 5; ++i) {
    const Job next = BeginAndPause();
    Say(next, WordKind::kStarted);
    SayAs(at, old_, WordKind::kReleased);
    at = next.worker_id;
    old_ = Get(old_.id);
    EXPECT_EQ(old_.worker_id, at);
  }
  EXPECT_EQ(old_.attempt, 1);
  EXPECT_EQ(at, "AW_2");
  // A loss afterwards is the first one.
  EndSessionOf("AW_2");
  EXPECT_EQ(Get(old_.id).worker_id, "AW_1");
  EXPECT_EQ(Get(old_.id).attempt, 2);
}

TEST_F(HandOverTest, HolderReleasedAfterPausingPromotesWithoutAnAttempt) {
  const Job next = BeginAndPause();
  Told();
  Say(old_, WordKind::kReleased);  // the room has removed it before the successor's word arrived
  EXPECT_THAT(Told(), ElementsAre(To("AW_2", Kind::kTakeOver)));
  EXPECT_EQ(Get(old_.id).state, State::kAssigned);
  EXPECT_EQ(Get(old_.id).worker_id, "AW_2");
  EXPECT_EQ(Get(old_.id).attempt, 1);
  Say(next, WordKind::kStarted);
  EXPECT_EQ(Get(old_.id).state, State::kRunning);
  EXPECT_EQ(Get(old_.id).attempt, 1);
}

TEST_F(HandOverTest, HolderLostPromotesItsSuccessor) {
  const Job next = Begin();
  Told();
  EndSessionOf("AW_1");
  EXPECT_THAT(Told(), ElementsAre(To("AW_2", Kind::kTakeOver)));
  const Job after = Get(old_.id);
  EXPECT_EQ(after.state, State::kAssigned);
  EXPECT_EQ(after.fencing_token, next.fencing_token);
  EXPECT_EQ(after.attempt, 2);
  EXPECT_EQ(after.previous_reason, Reason::kWorkerLost);
  // Its word that it is prepared comes late: it is told once more.
  Say(next, WordKind::kPrepared);
  EXPECT_THAT(Told(), ElementsAre(To("AW_2", Kind::kTakeOver)));
  Say(next, WordKind::kStarted);
  EXPECT_EQ(Get(old_.id).state, State::kRunning);
}

TEST_F(HandOverTest, HolderThatCrashesOnItsThirdAttemptIsStillTakenOver) {
  PARLEY_ASSERT_OK(pool().Command({"HSET", "parley:{echo}:j:" + old_.id, "attempt", "3"}));
  Begin();
  Say(old_, WordKind::kEnded, Reason::kProcessCrashed);
  EXPECT_EQ(Get(old_.id).state, State::kAssigned);
  EXPECT_EQ(Get(old_.id).worker_id, "AW_2");
}

TEST_F(HandOverTest, PromotedSuccessorThatNeverStartsIsLostToo) {
  Begin();
  EndSessionOf("AW_1");
  MakeDue("start:" + old_.id);
  Tick();
  EXPECT_EQ(Get(old_.id).state, State::kPending);
  EXPECT_EQ(Get(old_.id).previous_reason, Reason::kStartTimeout);
}

// next rejects, dies, is silent: the old one runs on.
TEST_F(HandOverTest, RejectedReleasedOrCrashedSuccessorChangesNothing) {
  for (const WordKind kind : {WordKind::kRejected, WordKind::kReleased, WordKind::kEnded}) {
    const Job next = Begin();
    Told();
    Say(next, kind, Reason::kProcessCrashed);
    EXPECT_THAT(Told(), ElementsAre(To("AW_2", Kind::kRevoke), To("AW_1", Kind::kGoOn)));
    EXPECT_EQ(SlotsUsed("AW_2"), 0);
    EXPECT_EQ(Get(old_.id).state, State::kRunning);
    EXPECT_EQ(Get(old_.id).worker_id, "AW_1");
    EXPECT_TRUE(Get(old_.id).next_worker_id.empty());
  }
  EXPECT_THAT(EventTypes(), Contains("job_kept"));
}

TEST_F(HandOverTest, DeadSuccessorChangesNothing) {
  Begin();
  Told();
  EndSessionOf("AW_2");
  EXPECT_THAT(Told(), ElementsAre(To("AW_1", Kind::kGoOn)));
  EXPECT_EQ(Get(old_.id).worker_id, "AW_1");
  EXPECT_EQ(Get(old_.id).state, State::kRunning);
}

TEST_F(HandOverTest, SilentSuccessorIsRevokedAndItsSlotWaitsForItsWord) {
  const Job next = BeginAndPause();
  Told();
  MakeDue("handover:" + old_.id);
  Tick();
  EXPECT_THAT(Told(), ElementsAre(To("AW_2", Kind::kRevoke), To("AW_1", Kind::kGoOn)));
  EXPECT_EQ(SlotsUsed("AW_2"), 1);  // its process may still be there
  EXPECT_EQ(Say(next, WordKind::kStarted).outcome, WordVerdict::Outcome::kStale);
  EXPECT_EQ(Get(old_.id).worker_id, "AW_1");
  Say(next, WordKind::kReleased);
  EXPECT_EQ(SlotsUsed("AW_2"), 0);
  EXPECT_THAT(store().GetAssignment(next.id, next.fencing_token),
              HasCode(absl::StatusCode::kAborted));
}

TEST_F(HandOverTest, PausedTooLateIsToldToGoOn) {
  const Job next = Begin();
  Say(next, WordKind::kRejected);
  Told();
  PARLEY_ASSERT_OK(store().SaveLastCheckpoint(old_.id, old_.fencing_token, "memory", paused_at_));
  EXPECT_THAT(Told(), ElementsAre(To("AW_1", Kind::kGoOn)));
}

TEST_F(HandOverTest, TerminateEndsBothCopies) {
  Begin();
  Told();
  PARLEY_ASSERT_OK(store().Terminate(old_.id));
  EXPECT_THAT(Told(), ElementsAre(To("AW_2", Kind::kRevoke), To("AW_1", Kind::kGoOn),
                                  To("AW_1", Kind::kStop)));
  EXPECT_THAT(store().Migrate(old_.id, 0, ""), HasReason("NOT_RUNNING"));
  Say(old_, WordKind::kEnded, Reason::kTerminated);
  EXPECT_EQ(Get(old_.id).state, State::kCancelled);
}

TEST_F(HandOverTest, GoodEndOfTheHolderRevokesTheSuccessor) {
  Begin();
  Told();
  Say(old_, WordKind::kEnded, Reason::kParticipantsLeft);
  EXPECT_THAT(Told(), ElementsAre(To("AW_2", Kind::kRevoke)));
  EXPECT_EQ(Get(old_.id).state, State::kSucceeded);
}

TEST_F(HandOverTest, GoodEndOfTheSuccessorImpliesItStarted) {
  const Job next = BeginAndPause();
  Told();
  EXPECT_EQ(Say(next, WordKind::kEnded, Reason::kParticipantsLeft).state, State::kSucceeded);
  EXPECT_THAT(Told(), ElementsAre(To("AW_1", Kind::kRevoke)));
}

TEST_F(HandOverTest, OnlyRunningJobsOfTheRightHolderAndOnlyToWhoFits) {
  EXPECT_THAT(store().Migrate(old_.id, old_.fencing_token - 1, ""),
              HasCode(absl::StatusCode::kAborted));
  EXPECT_THAT(store().Migrate(old_.id, 0, "AW_1"), HasReason("NO_WORKER"));  // it has it
  EXPECT_THAT(store().Migrate(old_.id, 0, "AW_9"), HasReason("NO_WORKER"));
  PARLEY_ASSERT_OK(store().Drain("echo", "AW_2", std::nullopt));
  EXPECT_THAT(store().Migrate(old_.id, 0, ""), HasReason("NO_WORKER"));
  EXPECT_THAT(store().Migrate(old_.id, 0, "AW_2"), HasReason("NO_WORKER"));
  EXPECT_THAT(store().Migrate("AJ_000nothing", 0, ""), HasCode(absl::StatusCode::kNotFound));
  const std::string waiting = CreateEcho();
  EXPECT_THAT(store().Migrate(waiting, 0, ""), HasReason("NOT_RUNNING"));
  EXPECT_EQ(Get(old_.id).state, State::kRunning);
  Connect(Willing("AW_3"));
  SayAs("AW_3", Get(waiting), WordKind::kReleased);
}

TEST_F(HandOverTest, NamedWorkerGetsIt) {
  Connect(Willing("AW_3"));
  Connect(Willing("AW_4"));
  EXPECT_EQ(Begin("AW_4").worker_id, "AW_4");
  EXPECT_THAT(store().Migrate(old_.id, 0, "AW_3"), HasReason("NO_WORKER"));
}

TEST_F(HandOverTest, WorkerThatAnswersOffersIsAskedFirst) {
  Registration asked = EchoWorker("AW_3");
  Connect(asked);
  const Job next = Begin("AW_3");
  EXPECT_THAT(Told(), ElementsAre(To("AW_3", Kind::kOffer)));
  Say(next, WordKind::kAccepted);
  EXPECT_THAT(Told(), ElementsAre(To("AW_3", Kind::kGo)));
}

// ---- reports ----

class HandOverReportTest : public HandOverTest {
 protected:
  ResumeVerdict ComeBack(const std::string& worker, const Job& job, ReportedStatus status) {
    Registration back = Willing(worker, ++seq_);
    ReportedJob& reported = back.report.emplace_back();
    reported.job_id = job.id;
    reported.fencing_token = job.fencing_token;
    reported.status = status;
    const auto registered = store().Register(back);
    EXPECT_TRUE(registered.ok() && registered->verdicts.size() == 1) << registered.status();
    return registered.ok() ? registered->verdicts.at(0) : ResumeVerdict{};
  }
  using Action = ResumeVerdict::Action;
  uint64_t seq_ = 1;
};

TEST_F(HandOverReportTest, PreparedSuccessorIsKept) {
  const Job next = Begin();
  EXPECT_EQ(ComeBack("AW_2", next, ReportedStatus::kPrepared).action, Action::kKeep);
  EXPECT_EQ(SlotsUsed("AW_2"), 1);
  EXPECT_EQ(Get(old_.id).next_worker_id, "AW_2");
}

TEST_F(HandOverReportTest, PreparedForAHandOverThatWasCalledOffIsRevoked) {
  const Job next = Begin();
  MakeDue("handover:" + old_.id);
  Tick();
  EXPECT_EQ(ComeBack("AW_2", next, ReportedStatus::kPrepared).action, Action::kRevoke);
  EXPECT_EQ(Get(old_.id).worker_id, "AW_1");
  EXPECT_EQ(Get(old_.id).state, State::kRunning);
}

TEST_F(HandOverReportTest, PreparedAndPromotedMeanwhileIsToldToBegin) {
  const Job next = Begin();
  EndSessionOf("AW_1");
  Told();
  EXPECT_EQ(ComeBack("AW_2", next, ReportedStatus::kPrepared).action, Action::kKeep);
  EXPECT_THAT(Told(), ElementsAre(To("AW_2", Kind::kTakeOver)));
}

TEST_F(HandOverReportTest, SuccessorThatRunsHasTakenOver) {
  const Job next = BeginAndPause();
  EXPECT_EQ(ComeBack("AW_2", next, ReportedStatus::kRunning).action, Action::kKeep);
  EXPECT_EQ(Get(old_.id).worker_id, "AW_2");
  EXPECT_EQ(ComeBack("AW_1", old_, ReportedStatus::kRunning).action, Action::kRevoke);
}

TEST_F(HandOverReportTest, HolderThatComesBackMeanwhileKeepsItsJob) {
  Begin();
  EXPECT_EQ(ComeBack("AW_1", old_, ReportedStatus::kRunning).action, Action::kKeep);
  EXPECT_EQ(Get(old_.id).next_worker_id, "AW_2");
}

TEST_F(HandOverReportTest, SuccessorWithoutTheJobCallsItOff) {
  Begin();
  Told();
  Connect(Willing("AW_2", 2));
  EXPECT_THAT(Told(), Contains(To("AW_1", Kind::kGoOn)));
  EXPECT_EQ(SlotsUsed("AW_2"), 0);
  EXPECT_TRUE(Get(old_.id).next_worker_id.empty());
}

// ---- fences ----

TEST_F(HandOverTest, EndsThatACopyMayHaveMissedAreFencedUntilTheRoomKnows) {
  EXPECT_THAT(*store().Fences("echo"), IsEmpty());
  const Job next = Begin();
  PARLEY_ASSERT_OK(store().Terminate(old_.id));
  MakeDue("stop:" + old_.id);
  Tick();
  EXPECT_EQ(Get(old_.id).state, State::kCancelled);
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto fences, store().Fences("echo"));
  ASSERT_THAT(fences, SizeIs(1));
  EXPECT_EQ(fences[0].job_id, old_.id);
  EXPECT_GT(fences[0].lowest_token, old_.fencing_token);
  EXPECT_EQ(fences[0].room, "room");
  EXPECT_EQ(fences[0].project, "default");
  EXPECT_LT(absl::Now() - fences[0].since, absl::Seconds(10));
  PARLEY_ASSERT_OK(store().ClearFence("echo", fences[0]));
  EXPECT_THAT(*store().Fences("echo"), IsEmpty());
}

TEST_F(HandOverTest, FenceIsAboveTheSuccessorToo) {
  const Job next = Begin();
  Say(old_, WordKind::kEnded, Reason::kParticipantsLeft);
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto fences, store().Fences("echo"));
  ASSERT_THAT(fences, SizeIs(1));
  EXPECT_GT(fences[0].lowest_token, next.fencing_token);
}

TEST_F(HandOverTest, EndThatTheOnlyCopySaidItselfNeedsNoFence) {
  Say(old_, WordKind::kEnded, Reason::kParticipantsLeft);
  EXPECT_THAT(*store().Fences("echo"), IsEmpty());
  const std::string queued = CreateEcho();
  SayAs("AW_2", Get(queued), WordKind::kReleased);
}

TEST_F(HandOverTest, DrainTellsTheWorkerItsDeadline) {
  PARLEY_ASSERT_OK(store().Drain("echo", "AW_1", absl::Milliseconds(1500)));
  const auto messages = broker().TakeMessages();
  ASSERT_THAT(messages, SizeIs(1));
  EXPECT_EQ(messages[0].kind, Kind::kDrain);
  EXPECT_EQ(messages[0].fencing_token, 1500u);
}

}  // namespace
}  // namespace parley::job
