// Dispatches, matching and words: every outcome of create, match, words, terminate and tick.
#include <set>

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
  const WordVerdict end = Say(Get(id), WordKind::kEnded, Reason::kParticipantsLeft);
  EXPECT_EQ(end.outcome, WordVerdict::Outcome::kRecorded);
  EXPECT_EQ(end.state, State::kSucceeded);
  EXPECT_EQ(end.reason, Reason::kParticipantsLeft);
  EXPECT_EQ(SlotsUsed("AW_1"), 0);
  EXPECT_THAT(EventTypes(),
              ElementsAre("worker_registered", "dispatch_created", "job_pending", "job_offered",
                          "job_assigned", "job_running", "job_succeeded", "dispatch_ended"));
  const auto dispatch = store().GetDispatch(Get(id).dispatch_id);
  PARLEY_ASSERT_OK(dispatch);
  EXPECT_TRUE(dispatch->ended);
}

}  // namespace
}  // namespace parley::job
