// Dispatches, matching and words: every outcome of create, match, words, terminate and tick.
#include <set>

#include "job_redis/scripts.h"
#include "job_store_fixture.h"

namespace parley::job {
namespace {

using ::testing::ElementsAre;
using testing::HasCode;
using testing::HasReason;
using ::testing::SizeIs;

TEST_F(JobStoreTest, WaitingJobGoesToTheFirstWorker) {
  const std::string id = CreateEcho();
  EXPECT_EQ(Get(id).state, State::kPending);
  EXPECT_EQ(Get(id).attempt, 0);
  Connect("AW_1");
  const Job offered = Get(id);
  EXPECT_EQ(offered.state, State::kOffered);
  EXPECT_EQ(offered.worker_id, "AW_1");
  const auto messages = broker().TakeMessages();
  ASSERT_THAT(messages, SizeIs(1));
  EXPECT_EQ(messages[0].kind, Message::Kind::kOffer);
  EXPECT_EQ(messages[0].fencing_token, offered.fencing_token);
}

TEST_F(JobStoreTest, JobRunsThroughItsStates) {
  Connect("AW_1");
  const std::string id = CreateEcho();
  EXPECT_EQ(Say(Get(id), WordKind::kAccepted).outcome, WordVerdict::Outcome::kOk);
  EXPECT_EQ(Get(id).state, State::kAssigned);
  EXPECT_EQ(Get(id).attempt, 1);
  EXPECT_EQ(broker().TakeMessages().back().kind, Message::Kind::kGo);
  Say(Get(id), WordKind::kStarted);
  EXPECT_EQ(Get(id).state, State::kRunning);
  const uint64_t token = Get(id).fencing_token;
  PARLEY_EXPECT_OK(store().NoteStall(id, token, "model", false));
  EXPECT_THAT(store().NoteStall(id, token - 1, "model", false),
              HasCode(absl::StatusCode::kAborted));
  EXPECT_THAT(store().NoteStall(id, token, "a\nb", true),
              HasCode(absl::StatusCode::kInvalidArgument));
  const WordVerdict end = Say(Get(id), WordKind::kEnded, Reason::kParticipantsLeft);
  EXPECT_EQ(end.outcome, WordVerdict::Outcome::kRecorded);
  EXPECT_EQ(end.state, State::kSucceeded);
  EXPECT_EQ(end.reason, Reason::kParticipantsLeft);
  EXPECT_EQ(SlotsUsed("AW_1"), 0);
  EXPECT_THAT(store().NoteStall(id, token, "model", false), HasCode(absl::StatusCode::kAborted));
  EXPECT_THAT(EventTypes(), ElementsAre("worker_registered", "dispatch_created", "job_pending",
                                        "job_offered", "job_assigned", "job_running",
                                        "job_slow_model", "job_succeeded", "dispatch_ended"));
  const auto dispatch = store().GetDispatch(Get(id).dispatch_id);
  PARLEY_ASSERT_OK(dispatch);
  EXPECT_TRUE(dispatch->ended);
}

// ---- create ----

TEST_F(JobStoreTest, CreateTwiceIsOneDispatch) {
  const NewDispatch dispatch = NewEcho();
  CreateEcho(dispatch);
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto again, store().Create(dispatch));
  EXPECT_TRUE(again.existed);
  EXPECT_EQ(again.dispatch.id, dispatch.dispatch_id);
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto page, store().ListDispatches({.project = "default"}));
  EXPECT_THAT(page.items, SizeIs(1));
}

TEST_F(JobStoreTest, OneKeyOneDispatch) {
  NewDispatch first = NewEcho(), second = NewEcho(), other = NewEcho();
  first.idempotency_key = second.idempotency_key = other.idempotency_key = "RM_1/echo";
  other.request_hash = "different";
  CreateEcho(first);
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto again, store().Create(second));
  EXPECT_TRUE(again.existed);
  EXPECT_EQ(again.dispatch.id, first.dispatch_id);
  const auto reused = store().Create(other);
  EXPECT_THAT(reused, HasCode(absl::StatusCode::kAlreadyExists));
  EXPECT_THAT(reused, HasReason("KEY_REUSED"));
}

TEST_F(JobStoreTest, KeysOfTwoProjectsAreTwoKeys) {
  NewDispatch first = NewEcho(), second = NewEcho();
  first.idempotency_key = second.idempotency_key = "k";
  second.project = "hotel";
  CreateEcho(first);
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto created, store().Create(second));
  EXPECT_FALSE(created.existed);
}

TEST_F(JobStoreTest, EveryFieldComesBack) {
  NewDispatch dispatch = NewEcho("lobby");
  dispatch.room_sid = "RM_x";
  dispatch.metadata = "line\nline {\"a\": \"\xC3\xA4\"}";
  dispatch.attributes = {{"k=&%", "v\n"}, {"empty", ""}};
  dispatch.restart_policy = RestartPolicy::kNever;
  dispatch.priority = 7;
  dispatch.selector.labels = {{"gpu", "yes"}};
  dispatch.idempotency_key = "key";
  dispatch.agent_id = "front-desk";
  dispatch.agent_version = 3;
  dispatch.session_id = "AS_1";
  CreateEcho(dispatch);
  PARLEY_ASSERT_OK_AND_ASSIGN(const Dispatch read, store().GetDispatch(dispatch.dispatch_id));
  EXPECT_EQ(read.room, "lobby");
  EXPECT_EQ(read.room_sid, "RM_x");
  EXPECT_EQ(read.metadata, dispatch.metadata);
  EXPECT_EQ(read.attributes, dispatch.attributes);
  EXPECT_EQ(read.restart_policy, RestartPolicy::kNever);
  EXPECT_EQ(read.priority, 7);
  EXPECT_EQ(read.selector, dispatch.selector);
  EXPECT_EQ(read.agent_version, 3u);
  EXPECT_EQ(read.session_id, "AS_1");
  EXPECT_FALSE(read.ended);
  ASSERT_THAT(read.jobs, SizeIs(1));
  EXPECT_EQ(read.jobs[0].id, dispatch.job_id);
}

TEST_F(JobStoreTest, AgentHasAtMost64SelectorsWaiting) {
  for (int i = 0; i < 64; ++i) {
    NewDispatch dispatch = NewEcho();
    dispatch.selector.labels = {{"n", std::to_string(i)}};
    CreateEcho(dispatch);
  }
  NewDispatch over = NewEcho();
  over.selector.labels = {{"n", "64"}};
  EXPECT_THAT(store().Create(over), HasCode(absl::StatusCode::kResourceExhausted));
  over.selector.labels = {{"n", "63"}};
  PARLEY_EXPECT_OK(store().Create(over));
}

TEST_F(JobStoreTest, UnknownIdsAreNotFound) {
  for (const char* id : {"", "AJ_", "AJ_zzzAAAAAAAAAAAA", "AD_001AAAAAAAAAAAA", "AJ_001\r\nx"}) {
    EXPECT_THAT(store().GetJob(id), HasCode(absl::StatusCode::kNotFound)) << id;
    EXPECT_THAT(store().Terminate(id), HasCode(absl::StatusCode::kNotFound)) << id;
  }
}

TEST_F(JobStoreTest, NotBeforeIsQueuedWhenItIsDue) {
  Connect("AW_1");
  NewDispatch later = NewEcho();
  later.not_before = absl::Now() + absl::Hours(1);
  const std::string id = CreateEcho(later);
  EXPECT_EQ(Get(id).state, State::kPending);
  Tick();
  EXPECT_EQ(Get(id).state, State::kPending);
  MakeDue("queue:" + id);
  Tick();
  EXPECT_EQ(Get(id).state, State::kOffered);
}

// ---- match ----

TEST_F(JobStoreTest, HigherPriorityThenAge) {
  NewDispatch low = NewEcho(), first = NewEcho(), second = NewEcho(), high = NewEcho();
  low.priority = 1;
  high.priority = 9;
  for (const NewDispatch& dispatch : {low, first, second, high}) CreateEcho(dispatch);
  Connect("AW_1", 1);
  std::vector<std::string> order;
  for (int i = 0; i < 4; ++i) {
    const auto messages = broker().TakeMessages();
    ASSERT_THAT(messages, SizeIs(1));
    order.push_back(messages[0].job_id);
    Say(Get(messages[0].job_id), WordKind::kEnded, Reason::kShutdown);
  }
  EXPECT_THAT(order, ElementsAre(high.job_id, first.job_id, second.job_id, low.job_id));
}

TEST_F(JobStoreTest, SlotsAreNeverExceeded) {
  Connect("AW_1", 3);
  Connect("AW_2", 2);
  for (int i = 0; i < 8; ++i) CreateEcho();
  EXPECT_EQ(SlotsUsed("AW_1"), 3);
  EXPECT_EQ(SlotsUsed("AW_2"), 2);
  EXPECT_EQ(Tick().pending, 3);
}

TEST_F(JobStoreTest, WorkersFillEvenly) {
  Connect("AW_1", 10);
  Connect("AW_2", 10);
  for (int i = 0; i < 10; ++i) CreateEcho();
  EXPECT_EQ(SlotsUsed("AW_1"), 5);
  EXPECT_EQ(SlotsUsed("AW_2"), 5);
}

TEST_F(JobStoreTest, ManyWaitingJobsAreMatchedBeyondOneSlice) {
  for (int i = 0; i < 150; ++i) CreateEcho();
  Connect("AW_1", 200);
  EXPECT_EQ(SlotsUsed("AW_1"), 150);
  EXPECT_EQ(Tick().pending, 0);
}

TEST_F(JobStoreTest, AcceptingAllMeansAssignedAtOnce) {
  Registration worker = EchoWorker("AW_1");
  worker.accepts_all = true;
  Connect(worker);
  const std::string id = CreateEcho();
  EXPECT_EQ(Get(id).state, State::kAssigned);
  EXPECT_EQ(Get(id).attempt, 1);
  EXPECT_EQ(broker().TakeMessages().at(0).kind, Message::Kind::kGo);
  Say(Get(id), WordKind::kStarted);
  EXPECT_EQ(Get(id).attempt, 1);
}

TEST_F(JobStoreTest, ProjectsDoNotShareTheirWorkers) {
  Registration worker = EchoWorker("AW_1", 5);
  worker.project = "hotel";
  Connect(worker);
  const std::string id = CreateEcho();
  EXPECT_EQ(Get(id).state, State::kPending);
  Registration shared = EchoWorker("AW_2", 5);
  shared.project = "";
  Connect(shared);
  EXPECT_EQ(Get(id).worker_id, "AW_2");
}

TEST_F(JobStoreTest, ProjectsTakeTurns) {
  std::map<std::string, std::string> project_of;
  for (int i = 0; i < 6; ++i) project_of[CreateEcho()] = "default";
  for (int i = 0; i < 3; ++i) {
    NewDispatch dispatch = NewEcho();
    dispatch.project = "hotel";
    project_of[CreateEcho(dispatch)] = "hotel";
  }
  Registration worker = EchoWorker("AW_1", 6);
  worker.project = "";
  Connect(worker);
  std::map<std::string, int> got;
  for (const Message& message : broker().TakeMessages()) ++got[project_of[message.job_id]];
  EXPECT_EQ(got["default"], 3);
  EXPECT_EQ(got["hotel"], 3);
}

TEST_F(JobStoreTest, ProjectsShareByWeight) {
  PARLEY_ASSERT_OK(store().SetLimits("echo", {.projects = {{"hotel", 3, 0, 0}}}));
  std::map<std::string, std::string> project_of;
  for (int i = 0; i < 40; ++i) {
    NewDispatch dispatch = NewEcho();
    dispatch.project = i % 2 == 0 ? "default" : "hotel";
    project_of[CreateEcho(dispatch)] = dispatch.project;
  }
  Registration worker = EchoWorker("AW_1", 20);
  worker.project = "";
  Connect(worker);
  std::map<std::string, int> got;
  for (const Message& message : broker().TakeMessages()) ++got[project_of[message.job_id]];
  EXPECT_EQ(got["hotel"], 15);
  EXPECT_EQ(got["default"], 5);
}

TEST_F(JobStoreTest, CapNeverExceeded) {
  PARLEY_ASSERT_OK(store().SetLimits("echo", {.projects = {{"default", 1, 2, 0}}}));
  Connect("AW_1", 10);
  std::vector<std::string> ids;
  for (int i = 0; i < 5; ++i) ids.push_back(CreateEcho());
  const auto leased = [&] {
    return std::count_if(ids.begin(), ids.end(),
                         [&](const std::string& id) { return IsLeased(Get(id).state); });
  };
  EXPECT_EQ(leased(), 2);
  Tick();
  EXPECT_EQ(leased(), 2);
  // Another project is not held up by it, and each end makes room for the next in order.
  NewDispatch other = NewEcho();
  other.project = "hotel";
  Registration shared = EchoWorker("AW_2", 10);
  shared.project = "";
  Connect(shared);
  EXPECT_EQ(leased(), 2);
  EXPECT_TRUE(IsLeased(Get(CreateEcho(other)).state));
  for (int i = 0; i < 3; ++i) {
    Say(Get(ids[static_cast<size_t>(i)]), WordKind::kEnded, Reason::kShutdown);
    EXPECT_EQ(leased(), 2) << i;
    EXPECT_TRUE(IsLeased(Get(ids[static_cast<size_t>(i) + 2]).state)) << i;
  }
  Say(Get(ids[3]), WordKind::kEnded, Reason::kShutdown);
  EXPECT_EQ(leased(), 1);
}

TEST_F(JobStoreTest, CapHoldsOverLostJobsTerminationAndNewLimits) {
  PARLEY_ASSERT_OK(store().SetLimits("echo", {.projects = {{"default", 1, 1, 0}}}));
  Connect("AW_1", 10);
  const std::string first = CreateEcho(), second = CreateEcho(), third = CreateEcho();
  EXPECT_TRUE(IsLeased(Get(first).state));
  Say(Get(first), WordKind::kAccepted);
  Say(Get(first), WordKind::kEnded, Reason::kProcessCrashed);  // lost: first in the queue again
  EXPECT_TRUE(IsLeased(Get(first).state));
  EXPECT_EQ(Get(second).state, State::kPending);
  PARLEY_ASSERT_OK(store().Terminate(first));
  EXPECT_TRUE(IsLeased(Get(second).state));
  EXPECT_EQ(Get(third).state, State::kPending);
  PARLEY_ASSERT_OK(store().SetLimits("echo", {}));
  EXPECT_TRUE(IsLeased(Get(third).state));
}

TEST_F(JobStoreTest, PoolHasACapOfItsOwn) {
  PARLEY_ASSERT_OK(store().SetLimits("echo", {.max_jobs = 1}));
  Connect("AW_1", 10);
  const std::string first = CreateEcho(), second = CreateEcho();
  EXPECT_EQ(Get(second).state, State::kPending);
  Say(Get(first), WordKind::kEnded, Reason::kShutdown);
  EXPECT_TRUE(IsLeased(Get(second).state));
}

TEST_F(JobStoreTest, WhatWaitsBeyondTheQuotaIsRefused) {
  PARLEY_ASSERT_OK(
      store().SetLimits("echo", {.projects = {{"default", 1, 0, 2}}, .max_queued = 3}));
  const std::string first = CreateEcho();
  CreateEcho();
  const auto over = store().Create(NewEcho());
  EXPECT_THAT(over, HasCode(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(over.status(), HasReason("OVER_QUOTA"));
  NewDispatch other = NewEcho();
  other.project = "hotel";
  CreateEcho(other);
  NewDispatch fourth = NewEcho();
  fourth.project = "school";
  EXPECT_THAT(store().Create(fourth).status(), HasReason("OVER_QUOTA"));
  PARLEY_ASSERT_OK(store().Terminate(first));
  PARLEY_EXPECT_OK(store().Create(NewEcho()));
}

TEST_F(JobStoreTest, PackFillsOneWorkerFirst) {
  PARLEY_ASSERT_OK(store().SetLimits("echo", {.pack = true}));
  Connect("AW_1", 10);
  Connect("AW_2", 10);
  for (int i = 0; i < 10; ++i) CreateEcho();
  EXPECT_EQ(std::max(SlotsUsed("AW_1"), SlotsUsed("AW_2")), 10);
}

TEST_F(JobStoreTest, OneWorkerOfManyFitsAndIsFound) {
  for (int i = 0; i < 300; ++i) {
    Registration worker = EchoWorker("AW_" + std::to_string(i));
    worker.labels = {{"zone", "a"}, {"gpu", i == 217 ? "yes" : "no"}};
    if (i == 13) worker.project = "hotel";
    Connect(worker);
  }
  NewDispatch picky = NewEcho();
  picky.selector.labels = {{"zone", "a"}, {"gpu", "yes"}};
  EXPECT_EQ(Get(CreateEcho(picky)).worker_id, "AW_217");
  // No set of its own names this one: it is looked for 128 at a time.
  for (int i = 0; i < 298; ++i) CreateEcho();
  NewDispatch guest = NewEcho();
  guest.project = "hotel";
  const std::string id = CreateEcho(guest);
  for (int i = 0; i < 3 && Get(id).worker_id.empty(); ++i) Tick();
  EXPECT_EQ(Get(id).worker_id, "AW_13");
}

TEST_F(JobStoreTest, WorkerThatChangesItsLabelsIsFoundByTheNewOnesOnly) {
  Registration worker = EchoWorker("AW_1", 5);
  worker.labels = {{"gpu", "yes"}};
  Connect(worker);
  worker.labels = {{"gpu", "no"}};
  worker.connect_seq = 2;
  Connect(worker);
  NewDispatch picky = NewEcho();
  picky.selector.labels = {{"gpu", "yes"}};
  EXPECT_EQ(Get(CreateEcho(picky)).state, State::kPending);
  picky = NewEcho();
  picky.selector.labels = {{"gpu", "no"}};
  EXPECT_EQ(Get(CreateEcho(picky)).worker_id, "AW_1");
}

TEST_F(JobStoreTest, SelectorIsHeldToAndNothingHidesBehindIt) {
  NewDispatch picky = NewEcho();
  picky.selector.labels = {{"gpu", "yes"}};
  picky.priority = 9;
  CreateEcho(picky);
  const std::string plain = CreateEcho();
  Connect("AW_1");
  EXPECT_EQ(Get(plain).state, State::kOffered);
  EXPECT_EQ(Get(picky.job_id).state, State::kPending);
  Registration fit = EchoWorker("AW_2");
  fit.labels = {{"gpu", "yes"}, {"a", "b"}};
  Connect(fit);
  EXPECT_EQ(Get(picky.job_id).worker_id, "AW_2");
}

TEST_F(JobStoreTest, PreferenceIsWaitedForThenDropped) {
  Registration far = EchoWorker("AW_far");
  far.region = "us";
  Connect(far);
  NewDispatch dispatch = NewEcho();
  dispatch.selector.preferred_region = "eu";
  const std::string id = CreateEcho(dispatch);
  EXPECT_EQ(Get(id).state, State::kPending);
  MakeDue("relax:" + id);
  Tick();
  EXPECT_EQ(Get(id).worker_id, "AW_far");
  Registration near = EchoWorker("AW_near");
  near.region = "eu";
  Connect(near);
  NewDispatch second = NewEcho();
  second.selector.preferred_region = "eu";
  EXPECT_EQ(Get(CreateEcho(second)).worker_id, "AW_near");
}

TEST_F(JobStoreTest, TokensRise) {
  Connect("AW_1", 100);
  uint64_t last = 0;
  for (int i = 0; i < 20; ++i) {
    const uint64_t token = Get(CreateEcho()).fencing_token;
    EXPECT_GT(token, last);
    last = token;
  }
  EXPECT_LT(last, uint64_t{1} << 53);
}

// ---- words ----

TEST_F(JobStoreTest, WordsSaidTwiceAreSaidOnce) {
  Connect("AW_1");
  const std::string id = CreateEcho();
  const Job job = Get(id);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(Say(job, WordKind::kAccepted).outcome, WordVerdict::Outcome::kOk);
  }
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(Say(job, WordKind::kStarted).outcome, WordVerdict::Outcome::kOk);
  }
  EXPECT_EQ(Get(id).attempt, 1);
  for (int i = 0; i < 2; ++i) {
    const WordVerdict verdict = Say(job, WordKind::kEnded, Reason::kRoomClosed);
    EXPECT_EQ(verdict.outcome, WordVerdict::Outcome::kRecorded);
    EXPECT_EQ(verdict.reason, Reason::kRoomClosed);
  }
}

TEST_F(JobStoreTest, TerminalIsFinal) {
  Connect("AW_1");
  const Job job = RunEcho();
  Say(job, WordKind::kEnded, Reason::kShutdown);
  const WordVerdict later = Say(job, WordKind::kEnded, Reason::kProcessCrashed);
  EXPECT_EQ(later.state, State::kSucceeded);
  EXPECT_EQ(Get(job.id).reason, Reason::kShutdown);
  PARLEY_ASSERT_OK(store().Terminate(job.id));
  EXPECT_EQ(Get(job.id).state, State::kSucceeded);
}

TEST_F(JobStoreTest, StaleWordChangesNothing) {
  Connect("AW_1");
  const Job old = RunEcho();
  PARLEY_ASSERT_OK(store().EndSession("echo", "AW_1", std::string(32, 'a'), 1));
  Connect("AW_2");
  const Job fresh = Get(old.id);
  EXPECT_GT(fresh.fencing_token, old.fencing_token);
  EXPECT_EQ(fresh.worker_id, "AW_2");
  const WordVerdict verdict = Say(old, WordKind::kEnded, Reason::kShutdown);
  EXPECT_EQ(verdict.outcome, WordVerdict::Outcome::kStale);
  EXPECT_EQ(verdict.newest_token, fresh.fencing_token);
  EXPECT_EQ(Get(old.id).state, State::kOffered);
}

TEST_F(JobStoreTest, OlderTokenOfTheSameWorkerNeitherEndsItNorFreesItsSlot) {
  Connect("AW_1");
  const Job old = RunEcho();
  Say(old, WordKind::kEnded, Reason::kProcessCrashed);
  const Job fresh = Get(old.id);
  ASSERT_EQ(fresh.state, State::kOffered);
  ASSERT_EQ(fresh.worker_id, "AW_1");
  for (const WordKind kind : {WordKind::kEnded, WordKind::kReleased, WordKind::kStarted}) {
    EXPECT_EQ(SayAs("AW_1", old, kind, Reason::kShutdown).outcome, WordVerdict::Outcome::kStale);
  }
  EXPECT_EQ(Get(old.id).state, State::kOffered);
  EXPECT_EQ(SlotsUsed("AW_1"), 1);
}

TEST_F(JobStoreTest, AnotherWorkersWordIsStale) {
  Connect("AW_1");
  Connect("AW_2");
  const Job job = Get(CreateEcho());
  const std::string other = job.worker_id == "AW_1" ? "AW_2" : "AW_1";
  EXPECT_EQ(SayAs(other, job, WordKind::kEnded, Reason::kShutdown).outcome,
            WordVerdict::Outcome::kStale);
  EXPECT_EQ(Get(job.id).state, State::kOffered);
  EXPECT_EQ(SlotsUsed(job.worker_id), 1);
}

TEST_F(JobStoreTest, WordsAreCumulative) {
  Connect("AW_1");
  const Job job = Get(CreateEcho());
  Say(job, WordKind::kStarted);  // its ACCEPTED went with another stream
  EXPECT_EQ(Get(job.id).state, State::kRunning);
  EXPECT_EQ(Get(job.id).attempt, 1);
}

TEST_F(JobStoreTest, UnknownJobIsStale) {
  Connect("AW_1");
  Job job;
  job.id = "AJ_001AAAAAAAAAAAA";
  job.fencing_token = 1;
  job.worker_id = "AW_1";
  EXPECT_EQ(Say(job, WordKind::kStarted).outcome, WordVerdict::Outcome::kStale);
}

TEST_F(JobStoreTest, RejectionGoesOnToTheNextWorker) {
  Connect("AW_1");
  const std::string id = CreateEcho();
  const Job first = Get(id);
  Connect("AW_2");
  Say(first, WordKind::kRejected);
  EXPECT_EQ(Get(id).state, State::kOffered);
  EXPECT_EQ(Get(id).worker_id, "AW_2");
  EXPECT_GT(Get(id).fencing_token, first.fencing_token);
  EXPECT_EQ(Get(id).attempt, 0);
  EXPECT_EQ(SlotsUsed("AW_1"), 0);
}

TEST_F(JobStoreTest, WhoIsBusyDoesNotSpeakAgainstAJob) {
  Connect("AW_1", 2);
  RunEcho();
  const std::string id = CreateEcho();
  for (int i = 0; i < 25; ++i) {  // more often than it may be offered else
    Say(Get(id), WordKind::kRejected);
    MakeDue("queue:" + id);
    Tick();
    ASSERT_EQ(Get(id).state, State::kOffered) << i;
  }
}

TEST_F(JobStoreTest, FinalRejectionEndsIt) {
  Connect("AW_1");
  const std::string id = CreateEcho();
  const WordVerdict verdict = Say(Get(id), WordKind::kRejected, Reason::kUnspecified, true);
  EXPECT_EQ(verdict.state, State::kFailed);
  EXPECT_EQ(Get(id).reason, Reason::kRejected);
}

TEST_F(JobStoreTest, AllHaveRejectedItWaitsASecondAndAsksAgain) {
  Connect("AW_1");
  const std::string id = CreateEcho();
  Say(Get(id), WordKind::kRejected);
  EXPECT_EQ(Get(id).state, State::kPending);
  const std::string behind = CreateEcho();  // is not held up
  EXPECT_EQ(Get(behind).state, State::kOffered);
  Say(Get(behind), WordKind::kEnded, Reason::kShutdown);
  Tick();
  EXPECT_EQ(Get(id).state, State::kPending);
  MakeDue("queue:" + id);
  Tick();
  EXPECT_EQ(Get(id).state, State::kOffered);
}

TEST_F(JobStoreTest, TwentyOffersAreEnough) {
  Connect("AW_1");
  const std::string id = CreateEcho();
  for (int i = 0; i < 19; ++i) {
    Say(Get(id), WordKind::kRejected);
    MakeDue("queue:" + id);
    Tick();
    ASSERT_EQ(Get(id).state, State::kOffered) << i;
  }
  Say(Get(id), WordKind::kRejected);
  EXPECT_EQ(Get(id).state, State::kFailed);
  EXPECT_EQ(Get(id).reason, Reason::kRejected);
}

TEST_F(JobStoreTest, CrashIsTriedAgainWithHigherTokenAndAttempt) {
  Connect("AW_1");
  const Job first = RunEcho();
  PARLEY_ASSERT_OK(store().SaveCheckpoint(first.id, first.fencing_token, "state"));
  Say(first, WordKind::kEnded, Reason::kProcessCrashed);
  const Job second = Get(first.id);
  EXPECT_EQ(second.state, State::kOffered);
  EXPECT_EQ(second.previous_reason, Reason::kProcessCrashed);
  EXPECT_GT(second.fencing_token, first.fencing_token);
  PARLEY_ASSERT_OK_AND_ASSIGN(const Assignment assignment,
                              store().GetAssignment(second.id, second.fencing_token));
  EXPECT_EQ(assignment.attempt, 2);
  EXPECT_TRUE(assignment.resuming);
  EXPECT_EQ(assignment.checkpoint, "state");
}

TEST_F(JobStoreTest, ThreeAttemptsThenFailedForTheLastReason) {
  Connect("AW_1");
  const std::string id = CreateEcho();
  for (int attempt = 1; attempt <= 3; ++attempt) {
    if (attempt == 3) {  // back-off of a second before the third
      EXPECT_EQ(Get(id).state, State::kPending);
      MakeDue("queue:" + id);
      Tick();
    }
    Say(Get(id), WordKind::kAccepted);
    Say(Get(id), WordKind::kStarted);
    EXPECT_EQ(Get(id).attempt, attempt);
    Say(Get(id), WordKind::kEnded, attempt == 3 ? Reason::kHung : Reason::kOutOfMemory);
  }
  EXPECT_EQ(Get(id).state, State::kFailed);
  EXPECT_EQ(Get(id).reason, Reason::kHung);
  EXPECT_EQ(Get(id).previous_reason, Reason::kOutOfMemory);
}

TEST_F(JobStoreTest, NeverIsNotTriedAgain) {
  Connect("AW_1");
  NewDispatch dispatch = NewEcho();
  dispatch.restart_policy = RestartPolicy::kNever;
  const std::string id = CreateEcho(dispatch);
  Say(Get(id), WordKind::kStarted);
  Say(Get(id), WordKind::kEnded, Reason::kProcessCrashed);
  EXPECT_EQ(Get(id).state, State::kFailed);
  EXPECT_EQ(Get(id).reason, Reason::kProcessCrashed);
}

TEST_F(JobStoreTest, InvalidDefinitionIsNotTriedAgain) {
  Connect("AW_1");
  const Job job = RunEcho();
  EXPECT_EQ(Say(job, WordKind::kEnded, Reason::kDefinitionInvalid).state, State::kFailed);
}

TEST_F(JobStoreTest, LostJobKeepsItsPlaceInTheQueue) {
  Connect("AW_1");
  const Job lost = RunEcho();
  const std::string younger = CreateEcho();
  Say(lost, WordKind::kReleased);
  EXPECT_EQ(Get(lost.id).state, State::kOffered);
  EXPECT_EQ(Get(younger).state, State::kPending);
}

TEST_F(JobStoreTest, CheckpointsAreOfTheNewestTokenAndEndWithTheJob) {
  Connect("AW_1");
  const Job job = RunEcho();
  PARLEY_ASSERT_OK(store().SaveCheckpoint(job.id, job.fencing_token, std::string("a\0b", 3)));
  EXPECT_THAT(store().SaveCheckpoint(job.id, job.fencing_token - 1, "old"),
              HasCode(absl::StatusCode::kAborted));
  EXPECT_THAT(store().SaveCheckpoint(job.id, job.fencing_token, std::string(300'000, 'x')),
              HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(pool().Command({"EXISTS", "parley:{echo}:c:" + job.id})->integer, 1);
  Say(job, WordKind::kEnded, Reason::kShutdown);
  EXPECT_EQ(pool().Command({"EXISTS", "parley:{echo}:c:" + job.id})->integer, 0);
  EXPECT_THAT(store().SaveCheckpoint(job.id, job.fencing_token, "late"),
              HasCode(absl::StatusCode::kAborted));
}

// ---- terminate ----

TEST_F(JobStoreTest, TerminateInEachState) {
  const std::string pending = CreateEcho();
  PARLEY_ASSERT_OK(store().Terminate(pending));
  EXPECT_EQ(Get(pending).state, State::kCancelled);
  EXPECT_EQ(Get(pending).reason, Reason::kTerminated);

  Connect("AW_1", 10);
  EXPECT_EQ(SlotsUsed("AW_1"), 0);  // a cancelled job never starts
  const std::string offered = CreateEcho();
  const std::string assigned = CreateEcho();
  Say(Get(assigned), WordKind::kAccepted);
  broker().TakeMessages();
  for (const std::string& id : {offered, assigned}) {
    const Job before = Get(id);
    PARLEY_ASSERT_OK(store().Terminate(id));
    EXPECT_EQ(Get(id).state, State::kCancelled);
    const auto messages = broker().TakeMessages();
    ASSERT_THAT(messages, SizeIs(1));
    EXPECT_EQ(messages[0].kind, Message::Kind::kRevoke);
    // The slot is the worker's until it says that the process is gone.
    EXPECT_EQ(pool().Command({"HEXISTS", "parley:{echo}:wr:AW_1", id})->integer, 1);
    EXPECT_EQ(Say(before, WordKind::kReleased).outcome, WordVerdict::Outcome::kRecorded);
    EXPECT_EQ(pool().Command({"HEXISTS", "parley:{echo}:wr:AW_1", id})->integer, 0);
  }
}

TEST_F(JobStoreTest, TerminateRunningAsksItToStop) {
  Connect("AW_1", 10);
  for (const bool good : {true, false}) {
    const Job job = RunEcho();
    broker().TakeMessages();
    PARLEY_ASSERT_OK(store().Terminate(Get(job.id).dispatch_id));
    EXPECT_EQ(Get(job.id).state, State::kRunning);
    EXPECT_TRUE(Get(job.id).stop_requested);
    EXPECT_EQ(broker().TakeMessages().at(0).kind, Message::Kind::kStop);
    Say(job, WordKind::kEnded, good ? Reason::kParticipantsLeft : Reason::kProcessCrashed);
    // A good end under way wins; a bad one is not tried again.
    EXPECT_EQ(Get(job.id).state, good ? State::kSucceeded : State::kCancelled);
  }
}

TEST_F(JobStoreTest, StopThatIsNotObeyedEndsAfterTenSeconds) {
  Connect("AW_1");
  const Job job = RunEcho();
  PARLEY_ASSERT_OK(store().Terminate(job.id));
  broker().TakeMessages();
  MakeDue("stop:" + job.id);
  Tick();
  EXPECT_EQ(Get(job.id).state, State::kCancelled);
  EXPECT_EQ(broker().TakeMessages().at(0).kind, Message::Kind::kRevoke);
}

TEST_F(JobStoreTest, StoppedJobIsNotDispatchedAgainWhenItsWorkerIsLost) {
  Connect("AW_1");
  Connect("AW_2");
  const Job job = RunEcho();
  PARLEY_ASSERT_OK(store().Terminate(job.id));
  PARLEY_ASSERT_OK(store().EndSession("echo", job.worker_id, std::string(32, 'a'), 1));
  EXPECT_EQ(Get(job.id).state, State::kCancelled);
}

// ---- timers ----

TEST_F(JobStoreTest, NobodyBeforeTheDeadline) {
  const std::string id = CreateEcho();
  MakeDue("deadline:" + id);
  EXPECT_EQ(Tick().expired, 1);
  EXPECT_EQ(Get(id).state, State::kFailed);
  EXPECT_EQ(Get(id).reason, Reason::kNoWorkerBeforeDeadline);
  Connect("AW_1");
  EXPECT_EQ(SlotsUsed("AW_1"), 0);
}

TEST_F(JobStoreTest, UnansweredOfferGoesElsewhereAndKeepsItsSlot) {
  Connect("AW_1");
  const std::string id = CreateEcho();
  const Job first = Get(id);
  Connect("AW_2");
  broker().TakeMessages();
  MakeDue("offer:" + id);
  Tick();
  EXPECT_EQ(Get(id).worker_id, "AW_2");
  std::set<Message::Kind> kinds;
  for (const Message& message : broker().TakeMessages()) kinds.insert(message.kind);
  EXPECT_TRUE(kinds.contains(Message::Kind::kRevoke));
  EXPECT_TRUE(kinds.contains(Message::Kind::kOffer));
  EXPECT_EQ(SlotsUsed("AW_1"), 1);
  Say(first, WordKind::kReleased);
  EXPECT_EQ(SlotsUsed("AW_1"), 0);
  EXPECT_EQ(Get(id).worker_id, "AW_2");
}

TEST_F(JobStoreTest, JobThatNeverStartsIsLost) {
  Connect("AW_1");
  const std::string id = CreateEcho();
  Say(Get(id), WordKind::kAccepted);
  Connect("AW_2");
  MakeDue("start:" + id);
  Tick();
  EXPECT_EQ(Get(id).previous_reason, Reason::kStartTimeout);
  EXPECT_EQ(Get(id).worker_id, "AW_2");
}

// ---- events, lists, sessions ----

TEST_F(JobStoreTest, EveryEventOnceWithItsReason) {
  Connect("AW_1");
  const Job job = RunEcho();
  Say(job, WordKind::kEnded, Reason::kEntrypointError);
  PARLEY_ASSERT_OK(store().Terminate(job.id));
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto batch, store().ReadEvents("echo", "0", 100));
  std::vector<std::string> lines;
  std::set<std::string> positions;
  for (const Event& event : batch.events) {
    lines.push_back(event.type + " " + std::string(Text(event.reason)));
    positions.insert(event.position);
    EXPECT_EQ(event.project, "default");
  }
  EXPECT_THAT(lines,
              ElementsAre("worker_registered ", "dispatch_created ", "job_pending ", "job_offered ",
                          "job_assigned ", "job_running ", "job_pending ENTRYPOINT_ERROR",
                          "job_offered ", "job_cancelled TERMINATED", "dispatch_ended TERMINATED"));
  EXPECT_EQ(positions.size(), lines.size());
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto rest,
                              store().ReadEvents("echo", batch.events[7].position, 100));
  EXPECT_THAT(rest.events, SizeIs(2));
  EXPECT_THAT(store().ReadEvents("echo", "nonsense", 1),
              HasCode(absl::StatusCode::kInvalidArgument));
}

TEST_F(JobStoreTest, ListsPageNewestFirst) {
  std::vector<std::string> ids;
  for (int i = 0; i < 7; ++i) {
    const NewDispatch dispatch = NewEcho(i % 2 == 0 ? "even" : "odd");
    CreateEcho(dispatch);
    ids.insert(ids.begin(), dispatch.dispatch_id);
  }
  std::set<std::string> seen;
  JobStore::ListQuery query{.project = "default", .limit = 3};
  int pages = 0;
  do {
    PARLEY_ASSERT_OK_AND_ASSIGN(const auto page, store().ListDispatches(query));
    for (const Dispatch& dispatch : page.items) EXPECT_TRUE(seen.insert(dispatch.id).second);
    query.after = page.next;
    ++pages;
  } while (!query.after.empty());
  EXPECT_EQ(seen.size(), 7u);
  EXPECT_EQ(pages, 3);
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto even,
                              store().ListDispatches({.project = "default", .room = "even"}));
  EXPECT_THAT(even.items, SizeIs(4));
  PARLEY_ASSERT_OK(store().Terminate(ids[0]));
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto live, store().ListDispatches({.project = "default"}));
  EXPECT_THAT(live.items, SizeIs(6));
  PARLEY_ASSERT_OK_AND_ASSIGN(
      const auto all, store().ListDispatches({.project = "default", .include_ended = true}));
  EXPECT_THAT(all.items, SizeIs(7));
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto none, store().ListDispatches({.project = "hotel"}));
  EXPECT_THAT(none.items, SizeIs(0));
  EXPECT_THAT(store().ListDispatches({.project = "default", .after = "x"}),
              HasCode(absl::StatusCode::kInvalidArgument));
}

TEST_F(JobStoreTest, ARoomsListCostsWhatItHolds) {
  const NewDispatch quiet = NewEcho("quiet {room}");
  CreateEcho(quiet);
  const NewDispatch over = NewEcho("quiet {room}");
  CreateEcho(over);
  PARLEY_ASSERT_OK(store().Terminate(over.dispatch_id));
  // More of them than one page's reads may look at.
  std::vector<NewDispatch> others;
  for (int i = 0; i < 5'100; ++i) {
    others.push_back(NewEcho("busy"));
    if (others.size() < 100) continue;
    for (const auto& created : store().CreateMany(others)) PARLEY_ASSERT_OK(created);
    others.clear();
  }
  JobStore::ListQuery query{.project = "default", .room = quiet.room};
  PARLEY_ASSERT_OK_AND_ASSIGN(auto page, store().ListDispatches(query));
  ASSERT_THAT(page.items, SizeIs(1));
  EXPECT_EQ(page.items[0].id, quiet.dispatch_id);
  EXPECT_EQ(page.next, "");
  query.include_ended = true;
  PARLEY_ASSERT_OK_AND_ASSIGN(page, store().ListDispatches(query));
  EXPECT_THAT(page.items, SizeIs(2));
  EXPECT_EQ(page.next, "");
}

TEST_F(JobStoreTest, SessionRecordsMergeAndStayErased) {
  SessionRecord record;
  record.id = "AS_1";
  record.project = "default";
  record.room = "room";
  record.create_time = absl::FromUnixMillis(absl::ToUnixMillis(absl::Now()));
  PARLEY_ASSERT_OK(store().SaveSession(record));
  SessionRecord end = record;
  end.room = "";
  end.end_time = record.create_time + absl::Seconds(5);
  end.report = std::string("\x01\0\xff", 3);
  PARLEY_ASSERT_OK(store().SaveSession(end));
  PARLEY_ASSERT_OK_AND_ASSIGN(const SessionRecord read, store().GetSession("default", "AS_1"));
  EXPECT_EQ(read.room, "room");
  EXPECT_EQ(read.end_time, end.end_time);
  EXPECT_EQ(read.report, end.report);
  EXPECT_THAT(store().GetSession("hotel", "AS_1"), HasCode(absl::StatusCode::kNotFound));
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto page, store().ListSessions("default", 10, ""));
  EXPECT_THAT(page.items, SizeIs(1));
  PARLEY_ASSERT_OK(store().EraseSession("default", "AS_1"));
  PARLEY_ASSERT_OK(store().SaveSession(end));  // a late report
  EXPECT_THAT(store().GetSession("default", "AS_1"), HasCode(absl::StatusCode::kNotFound));

  // What else is kept of sessions: erased, still there, never heard of (the store may have lost
  // it), never heard of for longer than records are kept.
  SessionRecord other = record;
  other.id = "AS_2";
  PARLEY_ASSERT_OK(store().SaveSession(other));
  const absl::Time now = absl::Now();
  PARLEY_ASSERT_OK_AND_ASSIGN(const std::vector<bool> gone,
                              store().SessionsGone({{"default", "AS_1", now},
                                                    {"default", "AS_2", now - absl::Hours(1000)},
                                                    {"default", "AS_3", now},
                                                    {"default", "AS_4", now - absl::Hours(1000)},
                                                    {"hotel", "AS_1", now}}));
  EXPECT_EQ(gone, std::vector<bool>({true, false, false, true, false}));
}

// The code of a version that no broker runs any more, one that a broker uses, and another
// program's.
TEST_F(JobStoreTest, OldCodeIsForgottenOnceNobodyUsesIt) {
  const auto load = [&](const std::string& name) {
    return pool().Command({"FUNCTION", "LOAD",
                           "#!lua name=" + name + "\nredis.register_function('" + name +
                               "_f', function() return 1 end)"});
  };
  const auto libraries = [&] {
    std::set<std::string> names;
    const auto list = pool().Command({"FUNCTION", "LIST"});
    EXPECT_TRUE(list.ok()) << list.status();
    for (const redis::Reply& library : list->elements) names.insert(library.elements[1].text);
    return names;
  };
  CreateEcho();  // loads this version's
  const std::set<std::string> ours = libraries();
  ASSERT_THAT(ours, SizeIs(1));
  const std::string old = "parley_0123456789ab", neighbour = "parley_ba9876543210";
  for (const std::string& name : {old, neighbour, std::string("somebodys")}) {
    PARLEY_ASSERT_OK(load(name));
  }
  // Heard of for the first time: who knows who uses it.
  EXPECT_EQ(store().ForgetOldCode(absl::Seconds(1)).value_or(-1), 0);
  ASSERT_TRUE(testing::Eventually([&] {
    PARLEY_EXPECT_OK(pool().Command({"ZADD", std::string(keys::kLibraries), "99999999999",
                                     neighbour}));  // its broker says so again and again
    return store().ForgetOldCode(absl::Seconds(1)).value_or(-1) == 1;
  }));
  EXPECT_THAT(libraries(), ::testing::UnorderedElementsAre(*ours.begin(), neighbour, "somebodys"));
  // Removed under a broker that runs: it loads its own again.
  PARLEY_ASSERT_OK(pool().Command({"FUNCTION", "DELETE", *ours.begin()}));
  CreateEcho(NewEcho("another"));
  EXPECT_THAT(libraries(), ::testing::Contains(*ours.begin()));
}

// ---- versions side by side ----

class VersionsTest : public JobStoreTest {
 protected:
  // Every key and what is in it.
  std::map<std::string, std::string> Everything() {
    std::map<std::string, std::string> all;
    const auto keys = pool().Command({"KEYS", "*"});
    for (const redis::Reply& key : keys->elements) {
      all[key.text] = pool().Command({"DUMP", key.text})->text;
    }
    return all;
  }
  // A broker of a later version, whose records are of form `form`, meets the pool.
  void MeetNewer(int form) {
    const std::string number = std::to_string(form);
    PARLEY_ASSERT_OK(pool().Eval(scripts::mark_form, {std::string(keys::kPools)}, {number}));
    const auto begun =
        pool().Eval(scripts::begin_epoch, {"parley:{echo}:meta"}, {"0", "0", number});
    PARLEY_ASSERT_OK(begun);
    epoch_ = begun->elements[0].integer;
  }
  int64_t epoch_ = 0;
};

TEST_F(VersionsTest, RecordsOfAFormBeyondOursAreLeftAlone) {
  Connect("AW_1", 2);
  const Job running = RunEcho();
  PARLEY_ASSERT_OK(store().Pools());
  NewDispatch late = NewEcho();
  MeetNewer(keys::kRecordForm + 1);
  EXPECT_GT(epoch_, 1);  // ours is over: nothing that is under way writes any more
  const auto before = Everything();
  const auto refused = store().Create(late);
  EXPECT_THAT(refused, HasCode(absl::StatusCode::kUnavailable));
  EXPECT_THAT(std::string(refused.status().message()), ::testing::HasSubstr("newer version"));
  Word end;
  end.job_id = running.id;
  end.fencing_token = running.fencing_token;
  end.kind = WordKind::kEnded;
  EXPECT_THAT(store().Apply("echo", "AW_1", {end}), HasCode(absl::StatusCode::kUnavailable));
  EXPECT_THAT(store().Tick("echo"), HasCode(absl::StatusCode::kUnavailable));
  EXPECT_THAT(store().Pools(), HasCode(absl::StatusCode::kUnavailable));  // so it is not ready
  TestBroker another(pool());
  EXPECT_THAT(another.store.Pools(), HasCode(absl::StatusCode::kUnavailable));
  EXPECT_THAT(another.store.Create(late), HasCode(absl::StatusCode::kUnavailable));
  EXPECT_EQ(Everything(), before);
}

TEST_F(VersionsTest, ANewerBrokerOfTheSameFormChangesNothing) {
  Connect("AW_1", 2);
  PARLEY_ASSERT_OK(store().Pools());
  MeetNewer(keys::kRecordForm);
  EXPECT_EQ(epoch_, 1);
  EXPECT_FALSE(OnHold());
  EXPECT_EQ(RunEcho().attempt, 1);
}

// As versions before forms had numbers left it.
TEST_F(VersionsTest, RecordsThatSayNoFormAreOfTheFirst) {
  Connect("AW_1", 2);
  const Job running = RunEcho();
  PARLEY_ASSERT_OK(pool().Command({"HDEL", "parley:{echo}:meta", "form"}));
  PARLEY_ASSERT_OK(pool().Command({"HDEL", std::string(keys::kPools), "form"}));
  TestBroker later(pool());
  PARLEY_ASSERT_OK(later.store.Pools());
  NewDispatch dispatch = NewEcho("another");
  PARLEY_ASSERT_OK(later.store.Create(dispatch));
  EXPECT_FALSE(OnHold());
  EXPECT_EQ(pool().Command({"HGET", "parley:{echo}:meta", "epoch"})->text, "1");
  EXPECT_EQ(Get(running.id).state, State::kRunning);
  EXPECT_EQ(Get(dispatch.job_id).state, State::kOffered);
}

TEST_F(VersionsTest, FieldsOfALaterVersionAreIgnoredAndKept) {
  Connect("AW_1");
  const std::string id = CreateEcho();
  const std::string dispatch = Get(id).dispatch_id;
  const std::vector<std::string> all = {"parley:{echo}:j:" + id, "parley:{echo}:d:" + dispatch,
                                        "parley:{echo}:w:AW_1"};
  for (const std::string& key : all) {
    ASSERT_EQ(pool().Command({"EXISTS", key})->integer, 1) << key;
    PARLEY_ASSERT_OK(pool().Command({"HSET", key, "mood", "future"}));
  }
  Say(Get(id), WordKind::kAccepted);
  Say(Get(id), WordKind::kStarted);
  EXPECT_EQ(Say(Get(id), WordKind::kEnded, Reason::kShutdown).outcome,
            WordVerdict::Outcome::kRecorded);
  for (const std::string& key : all) {
    EXPECT_EQ(pool().Command({"HGET", key, "mood"})->text, "future") << key;
  }
}

TEST_F(VersionsTest, EventsOfOtherVersionsAreReadAsFarAsTheyAreKnown) {
  CreateEcho();
  const std::string events = "parley:{echo}:events";
  PARLEY_ASSERT_OK(pool().Command({"XADD", events, "*", "t", "1700000000000", "e", "job_running",
                                   "p", "default"}));  // as the first versions wrote them
  PARLEY_ASSERT_OK(pool().Command(
      {"XADD", events, "*", "e",
       "1700000000000\njob_running\ndefault\nAD_1\nAJ_1\nAW_1\nroom\necho\nRUNNING\n\n7\n1\n"
       "RM_1\nann\nwhat the future adds"}));
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto batch, store().ReadEvents("echo", "0", 100));
  ASSERT_THAT(batch.events, SizeIs(3));
  EXPECT_EQ(batch.events[2].job_id, "AJ_1");
  EXPECT_EQ(batch.events[2].room_sid, "RM_1");
  EXPECT_EQ(batch.events[2].participant_identity, "ann");
}

// Earlier versions spelled out what says nothing; later ones leave it away.
TEST_F(VersionsTest, FieldsThatSayTheirDefaultAreAsGoodAsNone) {
  const std::string id = CreateEcho();
  PARLEY_ASSERT_OK(pool().Command({"HSET",        "parley:{echo}:j:" + id,
                                   "qagent",      "echo",
                                   "qproject",    "default",
                                   "qroom",       "room",
                                   "attempt",     "0",
                                   "offers",      "0",
                                   "stop",        "0",
                                   "tried",       "",
                                   "token",       "0",
                                   "worker",      "",
                                   "error",       "",
                                   "sel",         "-",
                                   "cap",         "",
                                   "next_worker", ""}));
  Connect("AW_1");
  EXPECT_EQ(Get(id).state, State::kOffered);
  Say(Get(id), WordKind::kAccepted);
  Say(Get(id), WordKind::kStarted);
  EXPECT_EQ(Get(id).attempt, 1);
  EXPECT_EQ(Say(Get(id), WordKind::kEnded, Reason::kShutdown).state, State::kSucceeded);
}

// They kept the dispatch in a set of its room, and marked neither payload nor checkpoint.
TEST_F(VersionsTest, WhatTheyKeptBesideARecordEndsWithIt) {
  Connect("AW_1");
  const Job job = RunEcho();
  const std::string payload = "parley:{echo}:m:" + job.dispatch_id;
  const std::string checkpoint = "parley:{echo}:c:" + job.id;
  const std::string room = "parley:{echo}:r:default:room";
  PARLEY_ASSERT_OK(
      pool().Command({"HSET", "parley:{echo}:j:" + job.id, "identity", "", "unique", ""}));
  PARLEY_ASSERT_OK(pool().Command({"SET", payload, "\nhello"}));
  PARLEY_ASSERT_OK(pool().Command({"HSET", checkpoint, "token", "1", "blob", "b"}));
  PARLEY_ASSERT_OK(pool().Command({"SADD", room, job.dispatch_id}));
  EXPECT_EQ(Say(job, WordKind::kEnded, Reason::kShutdown).state, State::kSucceeded);
  EXPECT_GT(pool().Command({"TTL", payload})->integer, 0);
  EXPECT_EQ(pool().Command({"EXISTS", checkpoint, room})->integer, 0);
}

}  // namespace
}  // namespace parley::job
