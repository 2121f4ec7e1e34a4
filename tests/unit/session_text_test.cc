#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "session/gate.h"
#include "session/history.h"
#include "session/sentences.h"
#include "session/spoken_text.h"
#include "session/text.h"

namespace parley::session {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(SentencesTest, ComeAsSoonAsTheyAreComplete) {
  SentenceSplitter splitter;
  EXPECT_THAT(splitter.Add("A single room is "), IsEmpty());
  EXPECT_THAT(splitter.Add("90.5 euros. Any"), ElementsAre("A single room is 90.5 euros."));
  EXPECT_THAT(splitter.Add("thing else?"), IsEmpty()) << "more may follow";
  EXPECT_THAT(splitter.Finish(), ElementsAre("Anything else?"));
}

TEST(SentencesTest, ShortOnesAndAbbreviationsStayTogether) {
  SentenceSplitter splitter;
  EXPECT_THAT(splitter.Add("Yes. I know Dr. Miller well. "),
              ElementsAre("Yes. I know Dr. Miller well."));
}

TEST(SentencesTest, MarksOfMarkdownAreNotSpoken) {
  SentenceSplitter splitter;
  splitter.Add("# We have **two** `rooms`");
  EXPECT_THAT(splitter.Finish(), ElementsAre("We have two rooms"));
}

TEST(SentencesTest, EndlessOnesAreCutAtSpaces) {
  SentenceSplitter splitter;
  std::string text;
  for (int i = 0; i < 300; ++i) text += "word ";
  std::vector<std::string> out = splitter.Add(text);
  for (std::string& rest : splitter.Finish()) out.push_back(rest);
  std::string joined;
  for (const std::string& one : out) {
    EXPECT_LE(one.size(), SentenceSplitter::kMaxBytes);
    joined = JoinText(joined, one);
  }
  EXPECT_EQ(CountWords(joined), 300);
}

TEST(SentencesTest, CharactersAreNotCutApart) {
  SentenceSplitter splitter;
  std::string text;
  for (int i = 0; i < 400; ++i) text += "é";
  for (const std::string& one : splitter.Add(text)) EXPECT_EQ(one.size() % 2, 0U);
}

TEST(SpokenTextTest, OtherWordsThanWrittenAreSharedOutByLength) {
  SpokenText spoken;
  spoken.Add(1, 0, "It is 90 euros");
  spoken.OnAudio(1, 1'000'000,
                 {{"it", 0, 1}, {"is", 1, 2}, {"ninety", 2, 3}, {"e", 3, 4}, {"u", 4, 5}});
  spoken.OnDone(1);
  EXPECT_EQ(spoken.TakeHeard(480'000), "It is");
  EXPECT_EQ(spoken.TakeHeard(1'000'000), "90 euros");
  EXPECT_EQ(spoken.TakeHeard(1'000'000), "");
  EXPECT_EQ(spoken.Heard(0), "It is 90 euros");
}

TEST(HistoryTest, OldestMakeRoomAndResultsGoWithTheirCalls) {
  History history;
  history.Add({.role = "user", .text = "first"});
  history.Add({.kind = ChatItem::Kind::kToolCall, .name = "t"});
  history.Add({.kind = ChatItem::Kind::kToolResult, .name = "t"});
  for (size_t i = 0; i < History::kMaxItems - 2; ++i) history.Add({.role = "user", .text = "next"});
  EXPECT_EQ(history.items().size(), History::kMaxItems - 2);
  EXPECT_EQ(history.items().front().text, "next");
  history.Add({.role = "user", .text = std::string(History::kMaxBytes - 100, 'x')});
  EXPECT_EQ(history.items().size(), 1U);
}

TEST(HistoryTest, ItemsThatAreGoneStayGone) {
  History history;
  const uint64_t first = history.Add({.role = "assistant", .text = "a"});
  const uint64_t second = history.Add({.role = "assistant", .text = "b"});
  history.Remove(first);
  history.Remove(first);
  history.SetText(first, "x", true);
  history.SetText(second, "c", true);
  ASSERT_EQ(history.items().size(), 1U);
  EXPECT_EQ(history.items()[0].text, "c");
}

TEST(GateTest, HasABeginningAndAnEnd) {
  SpeechGate gate({.min_speech = absl::Milliseconds(100), .min_silence = absl::Milliseconds(200)});
  int64_t now = 0;
  const auto add = [&](bool speech) { return gate.Add(speech, now += SpeechGate::kFrameUs); };
  for (int i = 0; i < 4; ++i) EXPECT_EQ(add(true), SpeechGate::Edge::kNone);
  EXPECT_EQ(add(true), SpeechGate::Edge::kStarted);
  EXPECT_EQ(gate.start_us(), 0);
  const int64_t last = now;
  for (int i = 0; i < 5; ++i) EXPECT_EQ(add(false), SpeechGate::Edge::kNone);
  EXPECT_EQ(add(true), SpeechGate::Edge::kNone) << "a click";
  for (int i = 0; i < 3; ++i) EXPECT_EQ(add(false), SpeechGate::Edge::kNone);
  EXPECT_EQ(add(false), SpeechGate::Edge::kStopped);
  EXPECT_EQ(gate.last_speech_us(), last);
}

}  // namespace
}  // namespace parley::session
