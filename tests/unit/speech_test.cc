#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/status.h"
#include "base/strings.h"
#include "speech/cancel.h"
#include "speech/engines.h"
#include "speech/llm.h"
#include "speech/pattern.h"
#include "speech/sentences.h"
#include "speech/tts.h"

namespace parley::speech {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// However the text arrives, the sentences are the same.
std::vector<std::string> Sentences(std::string_view text, size_t piece = 1) {
  SentenceSplitter splitter;
  std::vector<std::string> out;
  for (size_t i = 0; i < text.size(); i += piece) {
    for (std::string& sentence : splitter.Push(text.substr(i, piece)))
      out.push_back(std::move(sentence));
  }
  for (std::string& sentence : splitter.Flush()) out.push_back(std::move(sentence));
  return out;
}

TEST(SentenceSplitterTest, CutsAtMarksFollowedBySpace) {
  for (const size_t piece : {1U, 3U, 7U, 1000U}) {
    EXPECT_THAT(Sentences("Good day! How are you? Fine. And", piece),
                ElementsAre("Good day!", "How are you?", "Fine.", "And"));
  }
}

TEST(SentenceSplitterTest, IsCertainOnlyAfterTheSpace) {
  SentenceSplitter splitter;
  EXPECT_THAT(splitter.Push("It costs 3."), IsEmpty());
  EXPECT_THAT(splitter.Push("50 euros."), IsEmpty());
  EXPECT_THAT(splitter.Push(" Yes."), ElementsAre("It costs 3.50 euros."));
  EXPECT_THAT(splitter.Flush(), ElementsAre("Yes."));
  EXPECT_THAT(splitter.Flush(), IsEmpty());
}

TEST(SentenceSplitterTest, AbbreviationsInitialsAndListNumbersDoNotEndASentence) {
  EXPECT_THAT(Sentences("Dr. Who met J. Smith, e.g. today. Then he left."),
              ElementsAre("Dr. Who met J. Smith, e.g. today.", "Then he left."));
  EXPECT_THAT(Sentences("1. First\n2. Second"), ElementsAre("1. First", "2. Second"));
  EXPECT_THAT(Sentences("It was in 1984. Then it ended."),
              ElementsAre("It was in 1984.", "Then it ended."));
}

TEST(SentenceSplitterTest, QuotesEllipsesAndWideMarks) {
  EXPECT_THAT(Sentences("He said \"Go.\" She went... Why?! 你好。再见！"),
              ElementsAre("He said \"Go.\"", "She went...", "Why?!", "你好。", "再见！"));
}

TEST(SentenceSplitterTest, CodeIsNotSpoken) {
  for (const size_t piece : {1U, 4U, 1000U}) {
    EXPECT_THAT(Sentences("Look:\n```cpp\nint a. = 1;\n```\nDone.", piece),
                ElementsAre("Look:", "Done."));
    EXPECT_THAT(Sentences("See ```open", piece), ElementsAre("See"));
  }
}

TEST(SentenceSplitterTest, LongTextIsCutAtBordersAndNeverInsideACharacter) {
  std::string clauses;
  for (int i = 0; i < 40; ++i) clauses += "and then some more words, ";
  for (const std::string& sentence : Sentences(clauses)) {
    EXPECT_LE(sentence.size(), kMaxSentenceBytes);
    EXPECT_EQ(sentence.back(), ',');
  }
  std::string wide;
  for (int i = 0; i < 300; ++i) wide += "ü";
  std::string together;
  for (const std::string& sentence : Sentences(wide)) {
    EXPECT_TRUE(IsValidUtf8(sentence));
    EXPECT_LE(sentence.size(), kMaxSentenceBytes);
    together += sentence;
  }
  EXPECT_EQ(together, wide);
}

TEST(SpokenTextTest, MarkdownGoesItsTextStays) {
  EXPECT_EQ(SpokenText("## A **bold** and _soft_ `word`"), "A bold and soft word");
  EXPECT_EQ(SpokenText("- see [our page](https://a.example/x?y=1)!"), "see our page!");
  EXPECT_EQ(SpokenText("![a map](map.png)"), "a map");
  EXPECT_EQ(SpokenText("1. first"), "first");
  EXPECT_EQ(SpokenText("| a | b |"), "a b");
  EXPECT_EQ(SpokenText("snake_case is read"), "snake case is read");
  EXPECT_EQ(SpokenText("2 - 1"), "2 - 1");
  EXPECT_EQ(SpokenText("---"), "");
  EXPECT_EQ(SpokenText("***"), "");
}

TEST(SpokenTextTest, SymbolsBecomeWords) {
  EXPECT_EQ(SpokenText("€5 & 10% of $3.50."), "5 euros and 10 percent of 3.50 dollars.");
  EXPECT_EQ(SpokenText("20°"), "20 degrees");
  EXPECT_EQ(SpokenText("10% & mehr", "de"), "10% & mehr");
  EXPECT_EQ(SpokenText("Great 🎉👍!"), "Great!");
  EXPECT_EQ(SpokenText("don’t “quote”"), "don't \"quote\"");
  EXPECT_EQ(SpokenText("go to https://www.example.com/a/b?c=d now."), "go to www.example.com now.");
}

std::map<std::string, std::string> Slots(std::string_view pattern, std::string_view text) {
  auto compiled = Pattern::Compile(pattern);
  EXPECT_TRUE(compiled.ok()) << compiled.status();
  return compiled->Match(NormalisedSpeech(text))
      .value_or(std::map<std::string, std::string>{{"!", "no match"}});
}

TEST(PatternTest, SlotsAreFoundAtWordBorders) {
  EXPECT_THAT(Slots("book {n:one|two} {room:single|double}", "Book TWO double rooms, please"),
              ElementsAre(std::pair("n", "two"), std::pair("room", "double")));
  EXPECT_THAT(Slots("{room:single}", "singles"), ElementsAre(std::pair("!", "no match")));
  EXPECT_THAT(Slots("room {n:[0-9]{1,3}}", "room 12"), ElementsAre(std::pair("n", "12")));
}

TEST(PatternTest, NormalisedSpeechIsWhatRecognisersWrite) {
  EXPECT_EQ(NormalisedSpeech("  How much… is it, Dr. O’Neil-Smith? 3.5! "),
            "how much is it dr o'neil-smith 3.5");
  EXPECT_EQ(NormalisedSpeech("!?"), "");
}

TEST(PatternTest, BadPatternsAreRefused) {
  EXPECT_THAT(Message(Pattern::Compile("").status()), HasSubstr("empty"));
  EXPECT_THAT(Message(Pattern::Compile("{Room:a}").status()), HasSubstr("slot name"));
  EXPECT_THAT(Message(Pattern::Compile("{a:}").status()), HasSubstr("no choices"));
  EXPECT_THAT(Message(Pattern::Compile(std::string(3000, 'a')).status()), HasSubstr("2048"));
}

struct Engine {};

TEST(EngineTableTest, UnknownEngineNamesTheKnownOnes) {
  EngineTable<Engine> table("speech-to-text");
  table.Add("a", std::make_unique<Engine>());
  table.Add("b", std::make_unique<Engine>());
  EXPECT_TRUE(table.Find("a").ok());
  const absl::Status unknown = table.Find("c").status();
  EXPECT_EQ(unknown.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReasonOf(unknown).reason, "UNKNOWN_ENGINE");
  EXPECT_EQ(ReasonOf(unknown).metadata.at("known"), "a, b");
}

TEST(TtsConfigTest, RangesAreChecked) {
  TtsConfig config;
  EXPECT_TRUE(CheckTtsConfig(config).ok());
  config.rate = 3;
  EXPECT_FALSE(CheckTtsConfig(config).ok());
  config.rate = 1;
  config.pitch = std::nan("");
  EXPECT_FALSE(CheckTtsConfig(config).ok());
}

TEST(CancellationTest, SleepersWake) {
  Cancellation cancel;
  EXPECT_FALSE(cancel.SleepFor(absl::ZeroDuration()));
  cancel.Cancel();
  EXPECT_TRUE(cancel.SleepFor(absl::Hours(1)));
  EXPECT_TRUE(cancel.cancelled());
}

TEST(StopFilterTest, TextEndsBeforeTheFirstStopHoweverItIsCut) {
  constexpr std::string_view kText = "one two STOP three END";
  for (size_t piece = 1; piece <= kText.size(); ++piece) {
    StopFilter filter({"END", "STOP", "STOPS"});
    std::string out;
    for (size_t i = 0; i < kText.size(); i += piece) out += filter.Push(kText.substr(i, piece));
    out += filter.Flush();
    EXPECT_EQ(out, "one two ") << piece;
    EXPECT_TRUE(filter.stopped());
  }
  StopFilter filter({"\n\n"});
  EXPECT_EQ(filter.Push("a\n"), "a");  // may be the beginning of it
  EXPECT_EQ(filter.Push("b"), "\nb");
  EXPECT_EQ(filter.Push("c\n"), "c");
  EXPECT_EQ(filter.Flush(), "\n");
  EXPECT_FALSE(filter.stopped());
}

TEST(CheckImageTest, PicturesAreDataOrOnTheWebByName) {
  for (const char* good : {"https://pictures.example/a.png", "https://a.b:8443/x?y=1",
                           "data:image/png;base64,AAAA", "data:image/webp;base64,AA=="}) {
    EXPECT_TRUE(CheckImage({good, "low"}).ok()) << good;
  }
  for (const char* bad :
       {"", "http://pictures.example/a.png", "https://", "https://localhost/a",
        "https://10.0.0.1/a", "https://[::1]/a", "https://2130706433/a", "https://0x7f.1/a",
        "https://user@host.example/a", "https://a.b:x/", "https://a.b/ c", "https://a.b./",
        "file:///etc/passwd", "data:image/png;base64,", "data:image/png;base64,*",
        "data:image/svg+xml;base64,AAAA", "data:text/html;base64,AAAA"}) {
    EXPECT_FALSE(CheckImage({bad, ""}).ok()) << bad;
  }
  EXPECT_FALSE(CheckImage({"https://a.b/c", "huge"}).ok());
}

}  // namespace
}  // namespace parley::speech
