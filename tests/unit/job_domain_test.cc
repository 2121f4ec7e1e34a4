#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/status.h"
#include "job/backoff.h"
#include "job/ids.h"
#include "job/limits.h"
#include "job/selector.h"
#include "job/states.h"

namespace parley::job {
namespace {

constexpr State kAllStates[] = {State::kPending,  State::kOffered,   State::kAssigned,
                                State::kRunning,  State::kSucceeded, State::kFailed,
                                State::kCancelled};

TEST(StatesTest, TextsGoThereAndBack) {
  for (const State state : kAllStates) EXPECT_EQ(StateFromText(Text(state)), state);
  int reasons = 0;
  for (int i = 0; i < 40; ++i) {
    const auto reason = static_cast<Reason>(i);
    if (Text(reason).empty()) continue;
    ++reasons;
    EXPECT_EQ(ReasonFromText(Text(reason)), reason);
    EXPECT_TRUE(IsTerminal(StateFor(reason)));
  }
  EXPECT_EQ(reasons, 15);
  EXPECT_EQ(StateFromText("JOB"), State::kUnspecified);
  EXPECT_EQ(ReasonFromText(""), Reason::kUnspecified);
}

TEST(StatesTest, TerminalIsFinal) {
  for (const State from : kAllStates) {
    for (const State to : kAllStates) {
      if (IsTerminal(from)) {
        EXPECT_FALSE(IsTransition(from, to));
      }
      if (!IsTerminal(from) && IsTerminal(to)) {
        EXPECT_TRUE(IsTransition(from, to));
      }
    }
  }
  EXPECT_TRUE(IsTransition(State::kRunning, State::kPending));
  EXPECT_TRUE(IsTransition(State::kPending, State::kRunning));  // taken back
  EXPECT_FALSE(IsTransition(State::kPending, State::kPending));
  EXPECT_FALSE(IsTransition(State::kRunning, State::kOffered));
  EXPECT_FALSE(IsTransition(State::kAssigned, State::kOffered));
}

TEST(StatesTest, RetriesAreForFailuresThatMayPass) {
  for (const Reason reason : {Reason::kWorkerLost, Reason::kProcessCrashed, Reason::kOutOfMemory,
                              Reason::kHung, Reason::kStartTimeout, Reason::kEntrypointError,
                              Reason::kLimitExceeded, Reason::kDrainDeadline}) {
    EXPECT_TRUE(CanRetry(reason)) << Text(reason);
  }
  for (const Reason reason :
       {Reason::kNoWorkerBeforeDeadline, Reason::kRejected, Reason::kDefinitionInvalid,
        Reason::kShutdown, Reason::kTerminated, Reason::kUnspecified}) {
    EXPECT_FALSE(CanRetry(reason)) << Text(reason);
  }
}

TEST(BackoffTest, DoublesUpToThirtySeconds) {
  const int expected[] = {0, 1, 2, 4, 8, 16, 30, 30};
  for (int attempt = 1; attempt <= 8; ++attempt) {
    EXPECT_EQ(BackoffAfter(attempt), absl::Seconds(expected[attempt - 1])) << attempt;
  }
  EXPECT_EQ(BackoffAfter(1000), absl::Seconds(30));
}

TEST(BackoffTest, PriorityComesBeforeAge) {
  EXPECT_LT(QueueScore(9, 1'000'000'000), QueueScore(8, 1));
  EXPECT_LT(QueueScore(5, 1), QueueScore(5, 2));
  EXPECT_NE(QueueScore(0, (int64_t{1} << 45) - 1), QueueScore(0, (int64_t{1} << 45) - 2));
}

TEST(IdsTest, TagIsReadFromIdsOfItsKindOnly) {
  EXPECT_EQ(PoolTagOf("AJ_0A3abcdefghijkl", "AJ_"), "0A3");
  EXPECT_EQ(PoolTagOf(NewRoutedId("AD_", "00z"), "AD_"), "00z");
  for (const char* id : {"", "AJ_", "AJ_0A3", "AD_0A3abc", "AJ_0A3ab c", "AJ_0A3:{x}"}) {
    EXPECT_EQ(PoolTagOf(id, "AJ_"), "") << id;
  }
  EXPECT_EQ(PoolTagOf("AJ_" + std::string(100, 'a'), "AJ_"), "");
}

TEST(SelectorTest, TextGoesThereAndBack) {
  Selector selector;
  EXPECT_EQ(*SelectorText(selector), "-");
  EXPECT_EQ(*ParseSelector("-"), selector);
  selector.deployment = "canary & co";
  selector.labels = {{"gpu", "yes"}, {"k=ey", "ä"}, {"empty", ""}};
  selector.preferred_region = "eu:1";
  selector.preferred_labels = {{"p", "q"}};
  const std::string text = *SelectorText(selector);
  EXPECT_EQ(text.find_first_of(" :{}*"), std::string::npos) << text;
  EXPECT_EQ(*ParseSelector(text), selector);
  EXPECT_EQ(RelaxedSelectorText(text), "d=canary%20%26%20co&l.empty=&l.gpu=yes&l.k%3Dey=%C3%A4");
  EXPECT_EQ(RelaxedSelectorText("r=eu"), "-");
  selector.deployment = std::string(2000, 'x');
  EXPECT_EQ(SelectorText(selector).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(SelectorTest, NonsenseIsRefused) {
  for (const char* text : {"x", "x=1", "d=%", "d=%4", "d=%zz", "l=1", "&"}) {
    EXPECT_FALSE(ParseSelector(text).ok()) << text;
  }
}

class ValidateTest : public ::testing::Test {
 protected:
  static NewDispatch Good() {
    NewDispatch dispatch;
    dispatch.room = "room";
    return dispatch;
  }
  static std::string Refusal(const NewDispatch& dispatch) {
    const absl::Status status = Validate(dispatch, absl::FromUnixSeconds(0));
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(parley::Message(status));
  }
};

TEST_F(ValidateTest, DispatchLimits) {
  EXPECT_TRUE(Validate(Good(), absl::FromUnixSeconds(0)).ok());
  NewDispatch d = Good();
  d.room = "";
  EXPECT_EQ(Refusal(d), "room is missing");
  d = Good();
  d.agent_name = std::string(257, 'a');
  EXPECT_EQ(Refusal(d), "agent_name has 257 bytes; at most 256 are allowed");
  d = Good();
  d.room = "a\nb";
  EXPECT_EQ(Refusal(d), "room holds a control character");
  d = Good();
  d.metadata = "\xff";
  EXPECT_EQ(Refusal(d), "metadata must be UTF-8");
  d = Good();
  d.attributes[""] = "v";
  EXPECT_EQ(Refusal(d), "attributes: a key is empty");
  d = Good();
  d.queue_deadline = absl::Hours(25);
  EXPECT_EQ(Refusal(d), "queue_deadline is above 0 and at most 24 h");
  d = Good();
  d.not_before = absl::FromUnixSeconds(0) + absl::Hours(25);
  EXPECT_EQ(Refusal(d), "not_before is at most 24 h ahead");
  d = Good();
  d.type = Type::kPublisher;
  d.while_present = true;
  EXPECT_EQ(Refusal(d), "while_present is for ROOM dispatches; others stay anyway");
  d.while_present = false;
  d.not_before = absl::FromUnixSeconds(0);
  EXPECT_EQ(Refusal(d), "not_before is for dispatches of one job");
}

TEST_F(ValidateTest, PresenceReports) {
  RoomPresence good;
  good.project = "default";
  good.room = "lobby";
  good.room_sid = "RM_1";
  good.version = 1;
  good.people = {{"ann", true}};
  EXPECT_TRUE(Validate(good).ok());
  RoomPresence bad = good;
  bad.version = 0;
  EXPECT_EQ(parley::Message(Validate(bad)), "version counts from 1");
  bad = good;
  bad.people.push_back({"", false});
  EXPECT_EQ(parley::Message(Validate(bad)), "identity is missing");
  bad = good;
  bad.people.resize(kMaxPeople + 1);
  EXPECT_EQ(parley::Message(Validate(bad)), "people: at most 1000, not 1001");
}

}  // namespace
}  // namespace parley::job
