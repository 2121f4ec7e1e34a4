// Turns that the program looks at before they are answered, and speeches in its hands.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "session/session.h"
#include "session_talk.h"

namespace parley::session {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int kLong = 60'000;  // ms

Options Reviewed() { return {.review_timeout = absl::Seconds(5)}; }

// Says "how much is it"; the turn is taken, and the program is asked.
void Ask(Talk& talk) {
  talk.finals = {{"how much is it"}};
  talk.StartWith("ann");
  talk.Speak(600);
  talk.Quiet(700);
}

TEST(ReviewTest, TheTurnIsAnsweredAsTheProgramLeavesIt) {
  Talk talk(Reviewed());
  talk.answers = {{.text = "Ninety euros."}};
  Ask(talk);
  ASSERT_EQ(talk.Count<command::ReviewTurn>(), 1);
  EXPECT_EQ(talk.All<command::ReviewTurn>()[0].text, "how much is it");
  EXPECT_EQ(talk.session().state(), AgentState::kThinking);
  talk.Wait(1'000);
  EXPECT_EQ(talk.Count<command::LlmChat>(), 0) << "not before the program has spoken";
  EXPECT_THAT(talk.History(), IsEmpty());
  talk.Send(event::TurnReviewed{1, "how much is a single", "A single is 90 euros."});
  talk.Wait(kLong);
  EXPECT_THAT(talk.History(),
              ElementsAre("user: how much is a single", "assistant: Ninety euros."));
  const auto chats = talk.All<command::LlmChat>();
  ASSERT_EQ(chats.size(), 1U);
  EXPECT_EQ(chats[0].items.back().text, "A single is 90 euros.");
  EXPECT_EQ(talk.Count<command::TurnDone>(), 1);
}

TEST(ReviewTest, ARefusedTurnNeverWas) {
  Talk talk(Reviewed());
  Ask(talk);
  talk.Send(event::TurnReviewed{1, "how much is it", "", false});
  talk.Wait(10'000);
  EXPECT_EQ(talk.Count<command::LlmChat>(), 0);
  EXPECT_THAT(talk.History(), IsEmpty());
  EXPECT_EQ(talk.session().state(), AgentState::kListening);
}

TEST(ReviewTest, AProgramThatHangsDoesNotMuteTheAgent) {
  Talk talk(Reviewed());
  talk.answers = {{.text = "Ninety euros."}};
  Ask(talk);
  const int64_t asked_ms = talk.LastAt<command::ReviewTurn>();
  talk.Wait(kLong);
  EXPECT_EQ(talk.FirstAt<command::LlmChat>(), asked_ms + 5'000);
  EXPECT_THAT(talk.History(), ElementsAre("user: how much is it", "assistant: Ninety euros."));
  talk.Send(event::TurnReviewed{1, "too late", ""});
  EXPECT_THAT(talk.History(), ElementsAre("user: how much is it", "assistant: Ninety euros."));
}

TEST(ReviewTest, WhoeverGoesOnIsHeardWhole) {
  Talk talk(Reviewed());
  talk.answers = {{.text = "Ninety euros."}};
  Ask(talk);
  talk.finals = {{"for two nights"}};
  talk.Speak(600);
  talk.Quiet(700);
  ASSERT_EQ(talk.Count<command::ReviewTurn>(), 2);
  EXPECT_EQ(talk.All<command::ReviewTurn>()[1].text, "how much is it for two nights");
  talk.Send(event::TurnReviewed{1, "the first alone", ""});
  EXPECT_EQ(talk.Count<command::LlmChat>(), 0) << "that question was taken back";
  talk.Send(event::TurnReviewed{2, "how much is it for two nights", ""});
  talk.Wait(kLong);
  EXPECT_THAT(talk.History(),
              ElementsAre("user: how much is it for two nights", "assistant: Ninety euros."));
}

TEST(ReviewTest, AnAnswerMadeAheadIsUsedWhenTheTurnStaysAsItWas) {
  Options options = Reviewed();
  options.preemptive_generation = true;
  for (const bool changed : {false, true}) {
    Talk talk(options);
    talk.answers = {{.text = "Ninety euros."}, {.text = "Eighty euros."}};
    Ask(talk);
    EXPECT_EQ(talk.Count<command::LlmChat>(), 1) << "asked before the turn was taken";
    talk.Wait(500);
    EXPECT_EQ(talk.Count<command::TtsText>(), 0) << "and not spoken before the program agrees";
    talk.Send(event::TurnReviewed{1, changed ? "and a double" : "how much is it", ""});
    talk.Wait(kLong);
    EXPECT_EQ(talk.AgentSaid(), changed ? "Eighty euros.|" : "Ninety euros.|");
    EXPECT_EQ(talk.Count<command::LlmChat>(), changed ? 2 : 1);
  }
}

TEST(ReviewTest, WrittenTurnsAreReviewedToo) {
  Talk talk(Reviewed());
  talk.answers = {{.text = "Hello."}};
  talk.StartWith("ann");
  talk.Send(event::Chat{"ann", "hello"});
  EXPECT_EQ(talk.Count<command::LlmChat>(), 0);
  talk.Send(event::TurnReviewed{1, "hello", ""});
  talk.Wait(kLong);
  EXPECT_THAT(talk.History(), ElementsAre("user: hello", "assistant: Hello."));
}

TEST(HandleTest, WhatIsAskedForTooLateIsOverAtOnce) {
  Talk talk;
  talk.StartWith("ann");
  talk.Send(event::Say{"Goodbye and thank you.", true, 1});
  talk.Send(event::Shutdown{});
  talk.Send(event::Say{"One more thing.", true, 2});
  talk.Send(event::GenerateReply{.instructions = "And another.", .handle = 3});
  talk.Wait(kLong);
  std::vector<std::string> done;
  for (const auto& one : talk.All<command::SpeechDone>()) {
    done.push_back(std::to_string(one.handle) + (one.interrupted ? " cut" : " said"));
  }
  EXPECT_THAT(done, ElementsAre("2 cut", "3 cut", "1 said"));
}

TEST(HandleTest, AnAnswerMayBeUninterruptible) {
  for (const bool allow : {true, false}) {
    Talk talk;
    talk.answers = {{.text = "one two three four five six seven eight nine ten"}};
    talk.finals = {{"wait a moment"}};
    talk.StartWith("ann");
    talk.Send(
        event::GenerateReply{.instructions = "Count.", .handle = 1, .allow_interruptions = allow});
    talk.Wait(600);
    talk.Speak(900);
    talk.Quiet(700);
    talk.Wait(kLong);
    ASSERT_GE(talk.Count<command::SpeechDone>(), 1);
    EXPECT_EQ(talk.All<command::SpeechDone>()[0].interrupted, allow);
  }
}

}  // namespace
}  // namespace parley::session
