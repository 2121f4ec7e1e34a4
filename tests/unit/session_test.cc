#include "session/session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "session/checkpoint.h"
#include "session_talk.h"

namespace parley::session {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int kLong = 60'000;  // ms; long enough for anything to end

Character Concierge() {
  return {.instructions = "Be brief.",
          .greeting = "Good day.",
          .tools = {{.name = "rate"}, {.name = "book"}}};
}

// The agent has been asked something and is in the middle of a ten-word answer.
void BringToSpeaking(Talk& talk) {
  talk.finals = {{"how much"}};
  talk.answers = {{.text = "one two three four five six seven eight nine ten"}};
  talk.StartWith("ann");
  talk.Speak(600);
  talk.Quiet(1'500);
}

TEST(GreetingTest, IsSaidToTheFirstPerson) {
  Talk talk({}, Concierge());
  talk.Start();
  talk.Send(event::Joined{});
  talk.Wait(1'000);
  EXPECT_EQ(talk.Count<command::TtsText>(), 0) << "nobody is there yet";
  talk.Send(event::PersonJoined{{.identity = "ann"}});
  talk.Send(event::OutputSubscribed{});
  talk.Wait(kLong);
  EXPECT_EQ(talk.AgentSaid(), "Good day.|");
  EXPECT_THAT(talk.History(), ElementsAre("assistant: Good day."));
  EXPECT_THAT(talk.States(),
              ElementsAre("initializing", "idle", "listening", "speaking", "listening"));
}

TEST(GreetingTest, WaitsUntilSomebodyReceivesIt) {
  Talk talk({}, Concierge());
  talk.Start();
  talk.Send(event::Joined{{{.identity = "ann"}}});
  talk.Wait(3'000);
  EXPECT_EQ(talk.Count<command::PlayStart>(), 0);
  talk.Send(event::OutputSubscribed{});
  EXPECT_EQ(talk.Count<command::PlayStart>(), 1);
}

TEST(GreetingTest, DoesNotWaitForever) {
  Talk talk({.subscribe_wait = absl::Seconds(5)}, Concierge());
  talk.Start();
  talk.Send(event::Joined{{{.identity = "ann"}}});
  const int64_t linked = talk.now_ms();
  talk.Wait(kLong);
  EXPECT_EQ(talk.FirstAt<command::PlayStart>(), linked + 5'000);
}

TEST(TurnTest, IsAnsweredInOrder) {
  Talk talk;
  talk.finals = {{"how much is a room"}};
  talk.answers = {{.text = "Ninety euros a night."}};
  talk.StartWith("ann");
  talk.Speak(600);
  talk.Quiet(700);
  talk.Wait(kLong);
  EXPECT_THAT(talk.History(),
              ElementsAre("user: how much is a room", "assistant: Ninety euros a night."));
  EXPECT_THAT(talk.States(),
              ElementsAre("initializing", "listening", "thinking", "speaking", "listening"));
  EXPECT_THAT(talk.All<command::LlmChat>().at(0).items.front().text, "Be brief.");
}

TEST(TurnTest, IsTakenAfterTheMinimumDelay) {
  Talk talk;
  talk.finals = {{"hello"}};
  talk.StartWith("ann");
  talk.Speak(600);
  const int64_t end = talk.now_ms();
  talk.Quiet(1'000);
  EXPECT_EQ(talk.FirstAt<command::LlmChat>(), end + 500);
}

TEST(TurnTest, WaitsForALateTranscript) {
  Talk talk;
  talk.finals = {{"hello", 900}};
  talk.StartWith("ann");
  talk.Speak(600);
  const int64_t end = talk.now_ms();
  talk.Quiet(3'000);
  EXPECT_EQ(talk.FirstAt<command::LlmChat>(), end + 460 + 900);
}

TEST(TurnTest, IsTakenWithThePartialWhenTheFinalNeverComes) {
  Talk talk;
  talk.finals = {{.silent = true}};
  talk.StartWith("ann");
  talk.Speak(600);
  const int64_t end = talk.now_ms();
  talk.Send(event::SttPartial{1, "hello there"});
  talk.Quiet(2'000);
  EXPECT_EQ(talk.FirstAt<command::LlmChat>(), end + 460 + 1'300);
  EXPECT_THAT(talk.History(), ElementsAre("user: hello there"));
  talk.Send(event::SttFinal{1, 1, "hello there you"});
  talk.finals = {{"goodbye"}};
  talk.Speak(600);
  talk.Quiet(1'000);
  EXPECT_THAT(talk.History(), ElementsAre("user: hello there goodbye"))
      << "the late final adds nothing";
}

TEST(TurnTest, IsNotTakenForSoundWithoutWords) {
  Talk talk;
  talk.finals = {{""}};
  talk.StartWith("ann");
  talk.Speak(400);
  talk.Quiet(5'000);
  EXPECT_EQ(talk.Count<command::LlmChat>(), 0);
  EXPECT_THAT(talk.States(), ElementsAre("initializing", "listening"));
}

TEST(TurnTest, AClickDoesNotReachTheRecogniser) {
  Talk talk;
  talk.StartWith("ann");
  talk.Speak(60);
  talk.Quiet(2'000);
  EXPECT_EQ(talk.Count<command::SttStart>(), 0);
}

TEST(TurnTest, TwoUtterancesAreOneTurn) {
  Talk talk({.min_silence = absl::Milliseconds(250)});
  talk.finals = {{"how much is"}, {"a single room"}};
  talk.StartWith("ann");
  talk.Speak(400);
  talk.Quiet(400);  // longer than the gate's silence, shorter than the endpointing delay
  talk.Speak(400);
  talk.Quiet(1'000);
  EXPECT_EQ(talk.Count<command::SttEnd>(), 2);
  EXPECT_EQ(talk.Count<command::LlmChat>(), 1);
  EXPECT_THAT(talk.History(), ElementsAre("user: how much is a single room"));
}

TEST(TurnTest, EarlySpeechReachesTheRecogniser) {
  Talk talk;
  talk.StartWith("ann");
  talk.Quiet(1'000);
  talk.Speak(200);
  const auto starts = talk.All<command::SttStart>();
  ASSERT_EQ(starts.size(), 1U);
  EXPECT_EQ(starts[0].preroll, absl::Milliseconds(400 + 100))
      << "the pre-roll, and what it took to be sure";
}

TEST(TurnTest, EndsWhenFramesStopComing) {
  Talk talk;
  talk.finals = {{"hello"}};
  talk.StartWith("ann");
  talk.Speak(600);
  talk.Wait(2'000);
  EXPECT_EQ(talk.Count<command::LlmChat>(), 1);
}

TEST(TurnTest, EndlessSpeechIsCutIntoPieces) {
  Talk talk({.max_utterance = absl::Seconds(5)});
  talk.StartWith("ann");
  talk.Speak(12'000);
  EXPECT_EQ(talk.Count<command::SttEnd>(), 2);
}

TEST(TurnTest, IsReportedInPartsThatSum) {
  Talk talk;
  talk.finals = {{"hello", 200}};
  talk.answers = {{.text = "Hello to you too.", .after_ms = 300}};
  talk.tts_after_ms = 40;
  talk.StartWith("ann");
  talk.Speak(600);
  talk.Quiet(1'000);
  talk.Wait(kLong);
  const auto reports = talk.All<command::TurnDone>();
  ASSERT_EQ(reports.size(), 1U);
  const TurnReport& report = reports[0].report;
  EXPECT_EQ(report.turn_id, "1");
  EXPECT_EQ(report.endpointing_us, 500'000);
  EXPECT_EQ(report.transcript_us, 160'000) << "460 ms of silence, 200 ms of work, less the delay";
  EXPECT_EQ(report.llm_us, 300'000);
  EXPECT_EQ(report.tts_us, 40'000);
  EXPECT_EQ(report.total_us, report.endpointing_us + report.transcript_us + report.llm_us +
                                 report.tts_us + report.output_us);
  EXPECT_FALSE(report.interrupted);
}

TEST(TranscriptTest, UserTextIsShownAsItComes) {
  Talk talk;
  talk.finals = {{"hello there"}};
  talk.StartWith("ann");
  talk.Speak(400);
  talk.Send(event::SttPartial{1, "hello"});
  talk.Send(event::SttPartial{1, "hello"});
  talk.Quiet(600);
  const auto shown = talk.All<command::UserText>();
  ASSERT_EQ(shown.size(), 2U);
  EXPECT_EQ(shown[0].text, "hello");
  EXPECT_FALSE(shown[0].final);
  EXPECT_EQ(shown[1].text, "hello there");
  EXPECT_TRUE(shown[1].final);
  EXPECT_EQ(shown[0].segment_id, shown[1].segment_id);
}

TEST(TranscriptTest, AgentTextKeepsStepWithItsAudio) {
  Talk talk;
  BringToSpeaking(talk);
  const int64_t begin = talk.FirstAt<command::PlayStart>();
  talk.Wait(kLong);
  int word = 0;
  for (const auto& [at, command] : talk.log) {
    const auto* text = std::get_if<command::AgentText>(&command);
    if (text == nullptr || text->delta.empty()) continue;
    EXPECT_NEAR(static_cast<double>(at / 1000 - begin), 200 * word + 100, 25) << text->delta;
    ++word;
  }
  EXPECT_EQ(word, 10);
  EXPECT_EQ(talk.AgentSaid(), "one two three four five six seven eight nine ten|");
}

TEST(BargeInTest, PausesThenResumesAfterAFalseInterruption) {
  Talk talk;
  BringToSpeaking(talk);
  talk.finals = {{""}};
  talk.Speak(600);
  const int64_t end = talk.now_ms();
  EXPECT_EQ(talk.Count<command::PlayPause>(), 1);
  EXPECT_EQ(talk.session().state(), AgentState::kListening);
  talk.Quiet(3'000);
  EXPECT_EQ(talk.FirstAt<command::PlayResume>(), end + 2'000);
  EXPECT_EQ(talk.Count<command::FalseInterruption>(), 1);
  EXPECT_EQ(talk.Count<command::PlayClear>(), 0);
  talk.Wait(kLong);
  EXPECT_THAT(talk.History().back(), "assistant: one two three four five six seven eight nine ten");
}

TEST(BargeInTest, ShortNoiseChangesNothing) {
  Talk talk;
  BringToSpeaking(talk);
  talk.finals = {{""}};
  talk.Speak(200);
  talk.Quiet(2'000);
  EXPECT_EQ(talk.Count<command::PlayPause>(), 0);
  EXPECT_EQ(talk.Count<command::PlayClear>(), 0);
}

TEST(BargeInTest, CutsWhenTheUserHasSaidSomething) {
  Talk talk;
  BringToSpeaking(talk);
  talk.finals = {{"wait a moment"}};
  talk.answers = {{.text = "I am waiting."}};
  talk.Speak(600);
  talk.Quiet(480);
  EXPECT_EQ(talk.Count<command::LlmChat>(), 1);
  EXPECT_EQ(talk.Count<command::PlayClear>(), 1) << "with the transcript, before the turn is taken";
  EXPECT_EQ(talk.Count<command::TtsCancel>(), 1);
  talk.Wait(kLong);
  // 1 s of silence before its speech was decided to be over, then 500 ms until the pause: seven
  // words were heard.
  EXPECT_THAT(talk.History(),
              ElementsAre("user: how much", HasSubstr("assistant: one two three four five"),
                          "user: wait a moment", "assistant: I am waiting."));
  EXPECT_THAT(talk.History()[1], HasSubstr(" --"));
  EXPECT_TRUE(talk.All<command::TurnDone>().at(0).report.interrupted);
}

TEST(BargeInTest, HistoryEndsWithTheLastWordHeard) {
  Talk talk;
  BringToSpeaking(talk);
  talk.Send(event::Interrupt{});
  const int64_t heard_ms = talk.now_ms() - talk.FirstAt<command::PlayStart>();
  const auto said = Words(talk.History().back());
  EXPECT_EQ(static_cast<int64_t>(said.size()) - 2,
            (heard_ms + 100) / 200);  // less the role and the mark
}

TEST(BargeInTest, HistoryIsCutWithoutWordTimesToo) {
  Talk talk;
  talk.word_times = false;
  BringToSpeaking(talk);
  talk.Send(event::Interrupt{});
  EXPECT_THAT(talk.History().back(), HasSubstr("assistant: one two three"));
  EXPECT_THAT(talk.History().back(), HasSubstr(" --"));
}

TEST(BargeInTest, CutsAtOnceWhenItMayNotPause) {
  Talk talk({.resume_false_after = absl::ZeroDuration()});
  BringToSpeaking(talk);
  talk.Speak(600);
  EXPECT_EQ(talk.Count<command::PlayPause>(), 0);
  EXPECT_EQ(talk.Count<command::PlayClear>(), 1);
}

TEST(BargeInTest, AsksForEnoughWords) {
  Talk talk({.min_interruption_words = 2});
  BringToSpeaking(talk);
  talk.finals = {{"yes"}};
  talk.answers = {{.text = "Fine."}};
  talk.Speak(200);
  talk.Send(event::SttPartial{1, "yes"});
  talk.Quiet(600);
  EXPECT_EQ(talk.session().state(), AgentState::kSpeaking);
  EXPECT_EQ(talk.Count<command::PlayPause>(), 0);
  EXPECT_EQ(talk.Count<command::PlayClear>(), 0);
  EXPECT_EQ(talk.Count<command::LlmChat>(), 1);
  talk.Wait(kLong);
  EXPECT_THAT(
      talk.History(),
      ElementsAre("user: how much", "assistant: one two three four five six seven eight nine ten",
                  "user: yes", "assistant: Fine."))
      << "the turn stays open until the agent has finished";
}

TEST(BargeInTest, IsIgnoredWhereItIsNotAllowed) {
  Talk talk({.allow_interruptions = false});
  BringToSpeaking(talk);
  talk.Speak(600);
  EXPECT_EQ(talk.Count<command::PlayPause>(), 0);
  EXPECT_EQ(talk.Count<command::SttStart>(), 1) << "only the question";
}

TEST(BargeInTest, WhileThinkingTheUserSimplyGoesOn) {
  Talk talk;
  talk.finals = {{"how much is"}, {"a double room"}};
  talk.answers = {{.text = "Too early.", .after_ms = 2'000}, {.text = "Ninety."}};
  talk.StartWith("ann");
  talk.Speak(600);
  talk.Quiet(700);
  EXPECT_EQ(talk.session().state(), AgentState::kThinking);
  talk.Speak(600);
  talk.Quiet(700);
  talk.Wait(kLong);
  EXPECT_EQ(talk.Count<command::LlmCancel>(), 1);
  EXPECT_THAT(talk.History(), ElementsAre("user: how much is a double room", "assistant: Ninety."));
}

TEST(BargeInTest, SpeechHoldsBackAnAnswerThatHasNotBegun) {
  Talk talk;
  talk.finals = {{"how much"}, {""}};
  talk.answers = {{.text = "Ninety.", .after_ms = 300}};
  talk.StartWith("ann");
  talk.Speak(600);
  talk.Quiet(600);
  talk.Speak(600);
  EXPECT_EQ(talk.Count<command::PlayStart>(), 0);
  talk.Quiet(600);
  EXPECT_EQ(talk.Count<command::PlayStart>(), 1) << "it was nothing";
}

TEST(ToolTest, ResultGoesBackToTheModel) {
  Talk talk({}, {.tools = {{.name = "rate"}}});
  talk.finals = {{"how much is a single"}};
  talk.answers = {{.text = "Let me see.", .calls = {{"rate", R"({"room":"single"})"}}},
                  {.text = "It is ninety."}};
  talk.tools = {{"rate", "90"}};
  talk.StartWith("ann");
  talk.Speak(600);
  talk.Quiet(700);
  talk.Wait(kLong);
  EXPECT_THAT(talk.History(), ElementsAre("user: how much is a single", "assistant: Let me see.",
                                          R"(call rate {"room":"single"})", "result 90",
                                          "assistant: It is ninety."));
  EXPECT_EQ(talk.AgentSaid(), "Let me see. It is ninety.|");
  EXPECT_EQ(talk.All<command::TurnDone>().at(0).report.tool_calls, 1);
  EXPECT_EQ(talk.All<command::LlmChat>().at(1).items.back().text, "90");
}

TEST(ToolTest, ErrorsAreForTheModelToRead) {
  Talk talk({}, Concierge());
  talk.finals = {{"book it"}};
  talk.answers = {{.calls = {{"book", "{}"}, {"fly", "{}"}}}, {.text = "I cannot do that."}};
  talk.failing_tools = {{"book", "the hotel is full"}};
  talk.StartWith("ann");
  talk.Wait(3'000);
  talk.Speak(600);
  talk.Quiet(700);
  talk.Wait(kLong);
  EXPECT_THAT(talk.History(), Contains("error the hotel is full"));
  EXPECT_THAT(talk.History(), Contains("error there is no tool \"fly\"; there are: rate, book"));
  EXPECT_THAT(talk.History().back(), "assistant: I cannot do that.");
}

TEST(ToolTest, SilentToolIsGivenUp) {
  Talk talk({}, {.tools = {{.name = "slow", .timeout = absl::Seconds(2)}}});
  talk.finals = {{"hello"}};
  talk.answers = {{.calls = {{"slow", "{}"}}}, {.text = "It takes too long."}};
  talk.StartWith("ann");
  talk.Speak(600);
  talk.Quiet(700);
  talk.Wait(kLong);
  EXPECT_EQ(talk.Count<command::CancelTool>(), 1);
  EXPECT_THAT(talk.History(), Contains("error the tool did not answer in time"));
}

TEST(ToolTest, StepsAreLimited) {
  Talk talk({.max_tool_steps = 2}, Concierge());
  talk.tools = {{"rate", "90"}};
  talk.finals = {{"hello"}};
  const Answer again{.calls = {{"rate", "{}"}}};
  talk.answers = {again, again, {.text = "Enough."}};
  talk.StartWith("ann");
  talk.Wait(3'000);
  talk.Speak(600);
  talk.Quiet(700);
  talk.Wait(kLong);
  const auto chats = talk.All<command::LlmChat>();
  ASSERT_EQ(chats.size(), 3U);
  EXPECT_TRUE(chats[1].allow_tools);
  EXPECT_FALSE(chats[2].allow_tools);
}

TEST(ToolTest, InterruptedOnesAreToldToTheModel) {
  Talk talk({}, {.tools = {{.name = "slow", .timeout = absl::Seconds(30)}}});
  talk.finals = {{"hello"}};
  talk.answers = {{.text = "Let me see what there is for you.", .calls = {{"slow", "{}"}}}};
  talk.StartWith("ann");
  talk.Speak(600);
  talk.Quiet(1'500);
  talk.Send(event::Interrupt{});
  EXPECT_EQ(talk.Count<command::CancelTool>(), 1);
  EXPECT_THAT(talk.History(), Contains("error cancelled: the user interrupted"));
}

TEST(FailureTest, ModelFailsAndTheAgentApologises) {
  Talk talk;
  talk.finals = {{"hello"}};
  talk.answers = {{.error = "503"}};
  talk.StartWith("ann");
  talk.Speak(600);
  talk.Quiet(700);
  talk.Wait(kLong);
  EXPECT_THAT(talk.AgentSaid(), HasSubstr("something went wrong"));
  EXPECT_THAT(talk.History(), ElementsAre("user: hello"));
  EXPECT_EQ(talk.session().state(), AgentState::kListening);
}

TEST(FailureTest, SilentModelIsGivenUp) {
  Talk talk({.llm_timeout = absl::Seconds(4)});
  talk.finals = {{"hello"}};
  talk.answers = {{.silent = true}};
  talk.StartWith("ann");
  talk.Speak(600);
  talk.Quiet(700);
  talk.Wait(kLong);
  EXPECT_EQ(talk.Count<command::LlmCancel>(), 1);
  EXPECT_THAT(talk.AgentSaid(), HasSubstr("something went wrong"));
}

TEST(FailureTest, FourthInARowCloses) {
  Talk talk;
  talk.StartWith("ann");
  for (int i = 0; i < 4; ++i) {
    EXPECT_FALSE(talk.session().ended()) << i;
    talk.finals = {{"hello"}};
    talk.answers = {{.error = "503"}};
    talk.Speak(600);
    talk.Quiet(700);
    talk.Wait(10'000);
  }
  ASSERT_TRUE(talk.session().ended());
  EXPECT_EQ(talk.All<command::End>().at(0).reason, EndReason::kError);
  EXPECT_THAT(talk.All<command::End>().at(0).error, HasSubstr("4 times in a row: 503"));
}

TEST(FailureTest, AGoodAnswerForgivesEarlierErrors) {
  Talk talk;
  talk.StartWith("ann");
  for (int i = 0; i < 8; ++i) {
    talk.finals = {{"hello"}};
    talk.answers = {i % 2 == 0 ? Answer{.error = "503"} : Answer{.text = "Hello."}};
    talk.Speak(600);
    talk.Quiet(700);
    talk.Wait(10'000);
  }
  EXPECT_FALSE(talk.session().ended());
}

TEST(FailureTest, VoiceFailsAndTheTextIsShown) {
  Talk talk;
  talk.tts_fails = true;
  talk.finals = {{"hello"}};
  talk.answers = {{.text = "Hello to you."}};
  talk.StartWith("ann");
  talk.Speak(600);
  talk.Quiet(700);
  talk.Wait(1'000);
  EXPECT_EQ(talk.AgentSaid(), "Hello to you.|");
  EXPECT_EQ(talk.session().state(), AgentState::kListening);
}

TEST(FailureTest, SilentVoiceIsGivenUp) {
  Talk talk;
  talk.tts_silent = true;
  talk.finals = {{"hello"}};
  talk.answers = {{.text = "Hello to you."}};
  talk.StartWith("ann");
  talk.Speak(600);
  talk.Quiet(700);
  talk.Wait(kLong);
  EXPECT_EQ(talk.Count<command::TtsCancel>(), 1);
  EXPECT_EQ(talk.session().state(), AgentState::kListening);
}

TEST(FailureTest, RecogniserIsOpenedAgain) {
  Talk talk;
  talk.StartWith("ann");
  talk.Speak(400);
  talk.Send(event::SttFailed{1, "gone"});
  EXPECT_EQ(talk.Count<command::SttOpen>(), 1);
  talk.Wait(100);
  EXPECT_EQ(talk.Count<command::SttOpen>(), 2);
  EXPECT_EQ(talk.All<command::SttStart>().back().stream, 2U) << "the user is still speaking";
  talk.finals = {{"hello"}};
  talk.Quiet(700);
  EXPECT_THAT(talk.History(), ElementsAre("user: hello"));
}

TEST(FailureTest, RecogniserThatNeverWorksCloses) {
  Talk talk;
  talk.StartWith("ann");
  for (uint32_t stream = 1; stream <= 4; ++stream) {
    talk.Send(event::SttFailed{stream, "no such engine"});
    talk.Wait(5'000);
  }
  ASSERT_TRUE(talk.session().ended());
  EXPECT_THAT(talk.All<command::End>().at(0).error, HasSubstr("speech recognition failed 4 times"));
}

TEST(RoomTest, EndsWhenThePersonLeaves) {
  Talk talk;
  BringToSpeaking(talk);
  talk.Send(event::PersonLeft{"bob"});
  EXPECT_FALSE(talk.session().ended());
  talk.Send(event::PersonLeft{"ann"});
  EXPECT_EQ(talk.All<command::End>().at(0).reason, EndReason::kParticipantsLeft);
  EXPECT_EQ(talk.Count<command::TtsCancel>(), 1);
  EXPECT_TRUE(std::holds_alternative<command::End>(talk.log.back().second)) << "nothing follows";
}

TEST(RoomTest, WaitsForSomebodyWhoseConnectionBroke) {
  Talk talk({}, Concierge());
  talk.StartWith("ann");
  talk.Wait(5'000);
  talk.Send(event::PersonLeft{"ann", false});
  EXPECT_EQ(talk.session().state(), AgentState::kIdle);
  talk.Send(event::PersonJoined{{.identity = "ann"}});
  talk.Wait(10'000);
  EXPECT_EQ(talk.AgentSaid(), "Good day.|") << "not greeted twice";
  EXPECT_EQ(talk.session().state(), AgentState::kListening);
}

TEST(RoomTest, TakesTheNextPersonWhenItMayGoOn) {
  Talk talk({.close_on_disconnect = false}, Concierge());
  talk.StartWith("ann");
  talk.Send(event::PersonJoined{{.identity = "bob"}});
  talk.Wait(5'000);
  talk.Send(event::PersonLeft{"ann"});
  EXPECT_EQ(talk.All<command::Link>().back().identity, "bob");
  talk.Wait(kLong);
  EXPECT_EQ(talk.AgentSaid(), "Good day.|Good day.|");
}

TEST(RoomTest, EndsWithTheRoom) {
  Talk talk;
  talk.StartWith("ann");
  talk.Send(event::RoomClosed{});
  EXPECT_EQ(talk.All<command::End>().at(0).reason, EndReason::kRoomClosed);
}

TEST(ChatTest, TextIsAnsweredAndInterrupts) {
  Talk talk;
  BringToSpeaking(talk);
  talk.answers = {{.text = "Read you."}};
  talk.Send(event::Chat{"ann", "  can you read this?  "});
  talk.Wait(kLong);
  EXPECT_EQ(talk.Count<command::PlayClear>(), 1);
  EXPECT_THAT(talk.History(), Contains("user: can you read this?"));
  EXPECT_THAT(talk.History().back(), "assistant: Read you.");
  const TurnReport report = talk.All<command::TurnDone>().back().report;
  EXPECT_EQ(report.endpointing_us + report.transcript_us, 0);
}

TEST(ChatTest, OthersAreNotAnswered) {
  Talk talk;
  talk.StartWith("ann");
  talk.Send(event::Chat{"bob", "hello"});
  talk.Send(event::Chat{"ann", "   "});
  EXPECT_EQ(talk.Count<command::LlmChat>(), 0);
}

TEST(ProgramTest, SayWaitsItsTurn) {
  Talk talk;
  BringToSpeaking(talk);
  talk.Send(event::Say{"And one more thing."});
  talk.Wait(kLong);
  EXPECT_EQ(talk.AgentSaid(),
            "one two three four five six seven eight nine ten|And one more thing.|");
}

TEST(ProgramTest, InterruptDropsWhatWaits) {
  Talk talk;
  BringToSpeaking(talk);
  talk.Send(event::Say{"And one more thing."});
  talk.Send(event::Interrupt{});
  talk.Wait(kLong);
  EXPECT_THAT(talk.AgentSaid(), Not(HasSubstr("one more thing")));
}

TEST(ProgramTest, GenerateReplyCarriesItsInstructions) {
  Talk talk;
  talk.answers = {{.text = "Goodbye then."}};
  talk.StartWith("ann");
  talk.Send(event::GenerateReply{"Say goodbye."});
  talk.Wait(kLong);
  EXPECT_EQ(talk.All<command::LlmChat>().at(0).items.back().text, "Say goodbye.");
  EXPECT_THAT(talk.History(), ElementsAre("assistant: Goodbye then."));
  EXPECT_EQ(talk.Count<command::TurnDone>(), 0) << "it answers no turn";
}

TEST(ProgramTest, ShutdownLetsLastWordsBeHeard) {
  Talk talk;
  talk.StartWith("ann");
  talk.Send(event::Say{"Goodbye and thank you."});
  talk.Send(event::Shutdown{});
  EXPECT_FALSE(talk.session().ended());
  talk.Wait(kLong);
  EXPECT_EQ(talk.AgentSaid(), "Goodbye and thank you.|");
  EXPECT_EQ(talk.All<command::End>().at(0).reason, EndReason::kShutdown);
}

TEST(ProgramTest, TerminationDoesNotWait) {
  Talk talk;
  BringToSpeaking(talk);
  talk.Send(event::Shutdown{EndReason::kTerminated});
  EXPECT_TRUE(talk.session().ended());
}

TEST(ProgramTest, SessionsHaveALongestDuration) {
  Talk talk({.max_duration = absl::Seconds(30)});
  talk.StartWith("ann");
  talk.Wait(29'000);
  EXPECT_FALSE(talk.session().ended());
  talk.Wait(1'001);
  EXPECT_EQ(talk.All<command::End>().at(0).reason, EndReason::kLimit);
}

TEST(SpeakingTest, LongAnswersAreSpokenSentenceBySentence) {
  Talk talk;
  talk.finals = {{"tell me a story"}};
  std::string story;
  for (int i = 0; i < 40; ++i) story += "This is one more sentence of it. ";
  talk.answers = {{.text = story}};
  talk.StartWith("ann");
  talk.Speak(600);
  talk.Quiet(700);
  const int early = talk.Count<command::TtsText>();
  EXPECT_GE(early, 2);
  EXPECT_LE(early, 10) << "no more than ten seconds ahead";
  talk.Wait(kLong);
  EXPECT_EQ(talk.Count<command::TtsText>(), 40);
  EXPECT_EQ(talk.Count<command::TtsOpen>(), 1);
  EXPECT_EQ(talk.Count<command::TtsFinish>(), 1);
}

TEST(UserStateTest, FollowsSpeechAndAbsence) {
  Talk talk({.away_after = absl::Seconds(15)});
  talk.finals = {{""}};
  talk.StartWith("ann");
  talk.Wait(14'000);
  EXPECT_EQ(talk.Count<command::SetUserState>(), 0);
  talk.Wait(1'001);
  talk.Speak(600);
  talk.Quiet(1'000);
  std::vector<std::string> states;
  for (const auto& one : talk.All<command::SetUserState>()) states.emplace_back(Name(one.state));
  EXPECT_THAT(states, ElementsAre("away", "speaking", "listening"));
}

TEST(FailureTest, IdleStreamsMayEnd) {
  Talk talk;
  talk.StartWith("ann");
  for (uint32_t stream = 1; stream <= 10; ++stream) {
    talk.Wait(600'000);
    talk.Send(event::SttFailed{stream, "no audio for 10 minutes"});
    talk.Wait(200);
    EXPECT_EQ(talk.Count<command::SttOpen>(), static_cast<int>(stream) + 1);
  }
  EXPECT_FALSE(talk.session().ended());
}

TEST(CheckpointTest, TheNextAttemptGoesOn) {
  Talk first({}, Concierge());
  first.finals = {{"my name is ann"}};
  first.answers = {{.text = "Hello Ann."}};
  first.StartWith("ann");
  first.Send(event::SetUserData{"room 7"});
  first.Wait(5'000);
  first.Speak(600);
  first.Quiet(700);
  first.Wait(kLong);
  const std::string blob = first.All<command::SaveCheckpoint>().back().blob;
  EXPECT_LE(blob.size(), Checkpoint::kMaxBytes);

  Talk second({}, Concierge());
  ASSERT_TRUE(second.session().Restore(blob).ok());
  EXPECT_EQ(second.session().user_data(), "room 7");
  second.finals = {{"what is my name"}};
  second.answers = {{.text = "Ann."}};
  second.StartWith("ann");
  second.Wait(5'000);
  EXPECT_EQ(second.AgentSaid(), "") << "no second greeting";
  second.Speak(600);
  second.Quiet(700);
  EXPECT_EQ(second.All<command::LlmChat>().at(0).turn_id, "2");
  EXPECT_THAT(second.History(),
              ElementsAre("assistant: Good day.", "user: my name is ann", "assistant: Hello Ann.",
                          "user: what is my name", "assistant: Ann."));
}

TEST(CheckpointTest, TheAgentThatHasTheConversationKeepsIt) {
  const std::vector<Character> agents = {{.name = "desk", .handoffs = {"billing"}},
                                         {.name = "billing", .instructions = "Bills."}};
  Session first({}, agents);
  first.Start(1);
  first.Handle(event::Joined{{{"ann", ""}}}, 2);
  first.Handle(event::SetAgent{"billing"}, 3);
  EXPECT_EQ(first.agent(), "billing");
  std::string blob;
  for (const Command& one : first.Take()) {
    if (const auto* save = std::get_if<command::SaveCheckpoint>(&one)) blob = save->blob;
  }
  Session second({}, agents);
  ASSERT_TRUE(second.Restore(blob).ok());
  EXPECT_EQ(second.agent(), "billing");
  second.Start(1);
  second.Handle(event::Joined{{{"ann", ""}}}, 2);
  std::vector<std::string> asked;
  for (const Command& one : second.Take()) {
    if (const auto* chat = std::get_if<command::LlmChat>(&one)) asked.push_back(chat->agent);
  }
  EXPECT_THAT(asked, ElementsAre("billing")) << "who took over owes a word";
  // An agent that is there no more: the first goes on.
  Session third({}, agents.front());
  ASSERT_TRUE(third.Restore(blob).ok());
  EXPECT_EQ(third.agent(), "desk");
}

TEST(CheckpointTest, AnUnansweredQuestionGetsItsAnswer) {
  Talk first;
  first.finals = {{"how much"}};
  first.answers = {{.silent = true}};
  first.StartWith("ann");
  first.Speak(600);
  first.Quiet(700);
  Talk second;
  ASSERT_TRUE(second.session().Restore(first.All<command::SaveCheckpoint>().back().blob).ok());
  second.answers = {{.text = "Ninety."}};
  second.StartWith("ann");
  second.Wait(kLong);
  EXPECT_THAT(second.History(), ElementsAre("user: how much", "assistant: Ninety."));
}

TEST(CheckpointTest, NonsenseIsRefused) {
  Session session({}, Character{});
  EXPECT_FALSE(session.Restore("").ok());
  EXPECT_FALSE(session.Restore("{}").ok());
  EXPECT_FALSE(session.Restore(R"({"version":2,"items":[],"usage":[0,0,0,0,0]})").ok());
  EXPECT_FALSE(session.Restore(R"({"version":1,"items":[{"kind":9}],"usage":[0,0,0,0,0]})").ok());
}

TEST(CheckpointTest, StaysWithinItsBound) {
  Checkpoint checkpoint;
  for (int i = 0; i < 400; ++i)
    checkpoint.items.push_back({.role = "user", .text = std::string(1'500, '\x01')});
  const std::string blob = FormatCheckpoint(checkpoint);
  EXPECT_LE(blob.size(), Checkpoint::kMaxBytes);
  EXPECT_GT(ParseCheckpoint(blob)->items.size(), 5U);
}

TEST(DeterminismTest, SameEventsMakeSameCommands) {
  const auto run = [] {
    Talk talk({}, Concierge());
    BringToSpeaking(talk);
    talk.finals = {{"wait"}};
    talk.Speak(600);
    talk.Quiet(600);
    talk.Wait(kLong);
    std::vector<std::pair<int64_t, size_t>> shape;
    for (const auto& [at, command] : talk.log) shape.emplace_back(at, command.index());
    return shape;
  };
  EXPECT_EQ(run(), run());
}

}  // namespace
}  // namespace parley::session
