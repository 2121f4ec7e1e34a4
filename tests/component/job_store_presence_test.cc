// Dispatches that stay: a job for each person or publisher, an agent that is there while a person
// is.
#include "job_store_fixture.h"

namespace parley::job {
namespace {

using testing::HasCode;
using ::testing::SizeIs;

class PresenceTest : public JobStoreTest {
 protected:
  NewDispatch NewStaying(Type type, bool while_present = false) {
    NewDispatch dispatch = NewEcho();
    dispatch.type = type;
    dispatch.while_present = dispatch.unique_in_room = while_present;
    return dispatch;
  }
  NewDispatch WhilePresent() { return NewStaying(Type::kRoom, true); }

  // People of the room now; "*name" publishes. True: say it again.
  bool People(const std::vector<std::string>& people, const std::string& sid = "RM_1") {
    RoomPresence presence = Here(sid);
    for (const std::string& name : people) {
      const bool publishing = name.starts_with("*");
      presence.people.push_back({publishing ? name.substr(1) : name, publishing});
    }
    return Tell(presence);
  }
  void CloseRoom(const std::string& sid = "RM_1") {
    RoomPresence presence = Here(sid);
    presence.closed = true;
    Tell(presence);
  }
  RoomPresence Here(const std::string& sid) {
    RoomPresence presence;
    presence.project = "default";
    presence.room = "room";
    presence.room_sid = sid;
    presence.version = ++version_;
    return presence;
  }
  bool Tell(const RoomPresence& presence) {
    const auto watched = store().SetPresence({presence});
    EXPECT_TRUE(watched.ok()) << watched.status();
    return watched.ok() && watched->front();
  }
  // Jobs of the dispatch that have not ended, by identity.
  std::map<std::string, Job> Live(const std::string& dispatch_id) {
    std::map<std::string, Job> live;
    for (const Job& job : Stored(dispatch_id).jobs) {
      if (IsTerminal(job.state)) continue;
      EXPECT_TRUE(live.emplace(job.participant_identity, job).second) << "two for one person";
    }
    return live;
  }
  Dispatch Stored(const std::string& dispatch_id) {
    const auto dispatch = store().GetDispatch(dispatch_id);
    EXPECT_TRUE(dispatch.ok()) << dispatch.status();
    return dispatch.value_or(Dispatch{});
  }
  void Run(const Job& job) {
    Say(Get(job.id), WordKind::kAccepted);
    Say(Get(job.id), WordKind::kStarted);
  }
  void End(const Job& job, Reason reason) { Say(Get(job.id), WordKind::kEnded, reason); }

  uint64_t version_ = 0;
};

TEST_F(PresenceTest, OneJobForEachParticipant) {
  Connect("AW_1", 10);
  const NewDispatch dispatch = NewStaying(Type::kParticipant);
  PARLEY_ASSERT_OK(store().Create(dispatch));
  EXPECT_THAT(Live(dispatch.dispatch_id), SizeIs(0));
  EXPECT_TRUE(People({"ann"}));
  EXPECT_TRUE(People({"ann", "bob"}));
  const auto live = Live(dispatch.dispatch_id);
  ASSERT_THAT(live, SizeIs(2));
  EXPECT_NE(live.at("ann").session_id, live.at("bob").session_id);
  PARLEY_ASSERT_OK_AND_ASSIGN(
      const Assignment assignment,
      store().GetAssignment(live.at("ann").id, live.at("ann").fencing_token));
  EXPECT_EQ(assignment.participant_identity, "ann");
  EXPECT_EQ(assignment.type, Type::kParticipant);
  for (const auto& [name, job] : live) Run(job);
  People({"bob"});
  End(live.at("ann"), Reason::kParticipantsLeft);
  EXPECT_THAT(Live(dispatch.dispatch_id), SizeIs(1));
  People({"ann", "bob"});  // she is back
  EXPECT_NE(Live(dispatch.dispatch_id).at("ann").id, live.at("ann").id);
  EXPECT_FALSE(Stored(dispatch.dispatch_id).ended);
}

// Versions that did not say the form of their records wrote that they mean nobody in particular.
TEST_F(PresenceTest, ADispatchThatNamesNobodyMeansEverybody) {
  const NewDispatch dispatch = NewStaying(Type::kParticipant);
  PARLEY_ASSERT_OK(store().Create(dispatch));
  PARLEY_ASSERT_OK(
      pool().Command({"HSET", "parley:{echo}:d:" + dispatch.dispatch_id, "identity", ""}));
  People({"ann"});
  EXPECT_TRUE(Live(dispatch.dispatch_id).contains("ann"));
}

TEST_F(PresenceTest, OneJobForEachPublisherAndOnlyThem) {
  Connect("AW_1", 10);
  const NewDispatch dispatch = NewStaying(Type::kPublisher);
  PARLEY_ASSERT_OK(store().Create(dispatch));
  People({"ann", "bob"});
  EXPECT_THAT(Live(dispatch.dispatch_id), SizeIs(0));
  People({"*ann", "bob"});
  EXPECT_TRUE(Live(dispatch.dispatch_id).contains("ann"));
  EXPECT_THAT(Live(dispatch.dispatch_id), SizeIs(1));
  NewDispatch named = NewStaying(Type::kParticipant);
  named.participant_identity = "bob";
  PARLEY_ASSERT_OK(store().Create(named));
  EXPECT_THAT(Live(named.dispatch_id), SizeIs(1));
  EXPECT_TRUE(Live(named.dispatch_id).contains("bob"));
}

TEST_F(PresenceTest, WhoIsThereAlreadyGetsItsJobAtOnce) {
  Connect("AW_1", 10);
  EXPECT_FALSE(People({"ann"}));
  const NewDispatch dispatch = WhilePresent();
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto created, store().Create(dispatch));
  EXPECT_THAT(created.dispatch.jobs, SizeIs(1));
  EXPECT_TRUE(IsLeased(Live(dispatch.dispatch_id).at("").state));
}

TEST_F(PresenceTest, ThereWhileAPersonIs) {
  Connect("AW_1", 10);
  const NewDispatch dispatch = WhilePresent();
  PARLEY_ASSERT_OK(store().Create(dispatch));
  People({});
  EXPECT_THAT(Live(dispatch.dispatch_id), SizeIs(0));
  People({"ann"});
  const Job first = Live(dispatch.dispatch_id).at("");
  Run(first);
  People({"ann", "bob"});
  EXPECT_THAT(Live(dispatch.dispatch_id), SizeIs(1));  // never two
  People({});
  End(first, Reason::kParticipantsLeft);
  EXPECT_THAT(Live(dispatch.dispatch_id), SizeIs(0));
  People({"bob"});
  EXPECT_THAT(Live(dispatch.dispatch_id), SizeIs(1));
  EXPECT_FALSE(Stored(dispatch.dispatch_id).ended);
}

TEST_F(PresenceTest, AgentThatLeftWhileThePersonCameBackReturns) {
  Connect("AW_1", 10);
  const NewDispatch dispatch = WhilePresent();
  PARLEY_ASSERT_OK(store().Create(dispatch));
  People({"ann"});
  const Job first = Live(dispatch.dispatch_id).at("");
  Run(first);
  // It had seen her leave; she was back before it had gone, so no report says anything new.
  End(first, Reason::kParticipantsLeft);
  EXPECT_THAT(Live(dispatch.dispatch_id), SizeIs(0));
  MakeDue("again:" + first.id);
  Tick();
  EXPECT_THAT(Live(dispatch.dispatch_id), SizeIs(1));
}

TEST_F(PresenceTest, FailedAgentComesBackAndOneThatEndedItselfWaitsForTheNextPerson) {
  Connect("AW_1", 10);
  NewDispatch dispatch = WhilePresent();
  dispatch.restart_policy = RestartPolicy::kNever;
  PARLEY_ASSERT_OK(store().Create(dispatch));
  People({"ann"});
  const Job crashed = Live(dispatch.dispatch_id).at("");
  Run(crashed);
  End(crashed, Reason::kProcessCrashed);
  EXPECT_THAT(Live(dispatch.dispatch_id), SizeIs(0));
  MakeDue("again:" + crashed.id);
  Tick();
  const Job second = Live(dispatch.dispatch_id).at("");
  Run(second);
  End(second, Reason::kShutdown);
  People({"ann", "bob"});
  EXPECT_THAT(Live(dispatch.dispatch_id), SizeIs(0));
  People({});
  People({"ann"});
  EXPECT_THAT(Live(dispatch.dispatch_id), SizeIs(1));
}

TEST_F(PresenceTest, WorkerRestartKeepsOneAgentThere) {
  Connect("AW_1", 1);
  const NewDispatch dispatch = WhilePresent();
  PARLEY_ASSERT_OK(store().Create(dispatch));
  People({"ann"});
  const Job job = Live(dispatch.dispatch_id).at("");
  Run(job);
  PARLEY_ASSERT_OK(store().EndSession("echo", "AW_1", std::string(32, 'a'), 1));
  EXPECT_EQ(Live(dispatch.dispatch_id).at("").state, State::kPending);
  People({"ann"});
  EXPECT_THAT(Live(dispatch.dispatch_id), SizeIs(1));
  Connect("AW_2", 1);
  const Job again = Live(dispatch.dispatch_id).at("");
  EXPECT_EQ(again.id, job.id);
  EXPECT_EQ(again.worker_id, "AW_2");
}

TEST_F(PresenceTest, LostWhenNobodyIsThereIsNotTriedAgain) {
  Connect("AW_1", 1);
  const NewDispatch dispatch = WhilePresent();
  PARLEY_ASSERT_OK(store().Create(dispatch));
  People({"ann"});
  const Job job = Live(dispatch.dispatch_id).at("");
  Run(job);
  People({});
  PARLEY_ASSERT_OK(store().EndSession("echo", "AW_1", std::string(32, 'a'), 1));
  EXPECT_EQ(Get(job.id).state, State::kSucceeded);
  EXPECT_EQ(Get(job.id).reason, Reason::kParticipantsLeft);
}

TEST_F(PresenceTest, WaitingJobEndsWhenItsPersonLeaves) {
  const NewDispatch dispatch = WhilePresent();
  PARLEY_ASSERT_OK(store().Create(dispatch));
  People({"ann"});
  const Job job = Live(dispatch.dispatch_id).at("");
  EXPECT_EQ(job.state, State::kPending);
  People({});
  EXPECT_EQ(Get(job.id).state, State::kSucceeded);
  EXPECT_EQ(Tick().pending, 0);
}

TEST_F(PresenceTest, OlderReportChangesNothing) {
  const NewDispatch dispatch = WhilePresent();
  PARLEY_ASSERT_OK(store().Create(dispatch));
  RoomPresence old = Here("RM_1");
  People({"ann"});
  Tell(old);
  EXPECT_THAT(Live(dispatch.dispatch_id), SizeIs(1));
}

TEST_F(PresenceTest, EndsWithItsRoomAndNotWithAnOlderOne) {
  Connect("AW_1", 10);
  const NewDispatch dispatch = WhilePresent();
  PARLEY_ASSERT_OK(store().Create(dispatch));
  People({"ann"}, "RM_2");
  CloseRoom("RM_1");  // one of this name before it
  EXPECT_FALSE(Stored(dispatch.dispatch_id).ended);
  const Job job = Live(dispatch.dispatch_id).at("");
  Run(job);
  CloseRoom("RM_2");
  EXPECT_FALSE(Stored(dispatch.dispatch_id).ended);  // its job has not ended
  End(job, Reason::kRoomClosed);
  EXPECT_TRUE(Stored(dispatch.dispatch_id).ended);
  EXPECT_FALSE(People({"ann"}, "RM_3"));
}

TEST_F(PresenceTest, RoomThatNobodySpeaksOfIsOver) {
  const NewDispatch dispatch = WhilePresent();
  PARLEY_ASSERT_OK(store().Create(dispatch));
  People({"ann"});
  MakeDue("absent:" + dispatch.dispatch_id);
  Tick();
  EXPECT_TRUE(Stored(dispatch.dispatch_id).ended);
}

TEST_F(PresenceTest, DeleteEndsItForGood) {
  Connect("AW_1", 10);
  const NewDispatch dispatch = NewStaying(Type::kParticipant);
  PARLEY_ASSERT_OK(store().Create(dispatch));
  People({"ann", "bob"});
  const auto live = Live(dispatch.dispatch_id);
  Run(live.at("ann"));
  PARLEY_ASSERT_OK(store().Terminate(dispatch.dispatch_id));
  EXPECT_EQ(Get(live.at("bob").id).state, State::kCancelled);
  EXPECT_TRUE(Get(live.at("ann").id).stop_requested);
  EXPECT_FALSE(Stored(dispatch.dispatch_id).ended);
  People({"ann", "bob", "eve"});
  EXPECT_THAT(Live(dispatch.dispatch_id), SizeIs(1));
  End(live.at("ann"), Reason::kTerminated);
  EXPECT_TRUE(Stored(dispatch.dispatch_id).ended);
  const auto types = EventTypes();
  EXPECT_EQ(std::count(types.begin(), types.end(), "dispatch_ended"), 1);
}

TEST_F(PresenceTest, UniqueInItsRoomUntilItEnds) {
  NewDispatch first = NewEcho(), second = NewEcho(), elsewhere = NewEcho("other");
  first.unique_in_room = second.unique_in_room = elsewhere.unique_in_room = true;
  PARLEY_ASSERT_OK(store().Create(first));
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto same, store().Create(second));
  EXPECT_TRUE(same.existed);
  EXPECT_EQ(same.dispatch.id, first.dispatch_id);
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto other, store().Create(elsewhere));
  EXPECT_FALSE(other.existed);
  PARLEY_ASSERT_OK(store().Terminate(first.dispatch_id));
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto next, store().Create(second));
  EXPECT_FALSE(next.existed);
}

TEST_F(PresenceTest, CrashLoopLeavesNoMoreThanAHundredJobsBehind) {
  Connect("AW_1", 1);
  const NewDispatch dispatch = WhilePresent();
  PARLEY_ASSERT_OK(store().Create(dispatch));
  for (int i = 0; i < 120; ++i) {
    People({"ann"});
    End(Live(dispatch.dispatch_id).at(""), Reason::kShutdown);
    People({});
  }
  EXPECT_LE(Stored(dispatch.dispatch_id).jobs.size(), 100u);
}

}  // namespace
}  // namespace parley::job
