#include "tts_gateway/ssml.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/status.h"

namespace parley {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// "pause text rate pitch" of each piece.
std::vector<std::string> Pieces(std::string_view inside) {
  const auto parsed = ParseSsml(fmt::format("<speak>{}</speak>", inside));
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  std::vector<std::string> out;
  for (const SsmlPiece& piece : parsed.value_or(std::vector<SsmlPiece>())) {
    out.push_back(fmt::format("{} {} {:.3g} {:.3g}", absl::ToInt64Milliseconds(piece.pause),
                              piece.text, piece.rate, piece.pitch));
  }
  return out;
}

std::string ErrorOf(std::string_view document) {
  const auto parsed = ParseSsml(document);
  EXPECT_FALSE(parsed.ok()) << document;
  EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(Message(parsed.status()));
}

TEST(SsmlTest, WordsAreToldFromDocuments) {
  EXPECT_TRUE(IsSsml(" \n<speak>hi</speak>"));
  EXPECT_TRUE(IsSsml("<?xml version=\"1.0\"?><speak/>"));
  EXPECT_TRUE(IsSsml("<!DOCTYPE speak><speak/>"));
  EXPECT_FALSE(IsSsml("a < b, <speak>"));
  EXPECT_FALSE(IsSsml(""));
}

TEST(SsmlTest, PausesStandBetweenWhatIsSaid) {
  EXPECT_THAT(Pieces("One<break time=\"250ms\"/>two<break time='1.5s'/><break/>"),
              ElementsAre("0 One 1 1", "250 two 1 1", "1900  1 1"));
  EXPECT_THAT(Pieces("<break strength=\"weak\"/>a<break strength=\"none\"/>b"),
              ElementsAre("200 a 1 1", "0 b 1 1"));
  EXPECT_THAT(Pieces("<p><s>One.</s><s>Two.</s></p><p>Three.</p>"),
              ElementsAre("0 One. 1 1", "0 Two. 1 1", "400 Three. 1 1"));
}

TEST(SsmlTest, ProsodyNestsAndEnds) {
  EXPECT_THAT(Pieces("a<prosody rate=\"slow\">b<prosody rate='120%' pitch='+12st'>c</prosody>d"
                     "</prosody>e"),
              ElementsAre("0 a 1 1", "0 b 0.75 1", "0 c 0.9 2", "0 d 0.75 1", "0 e 1 1"));
  EXPECT_THAT(
      Pieces("<prosody rate='+50%' pitch='-10%'>a</prosody><prosody rate='0.001'>b</prosody>"),
      ElementsAre("0 a 1.5 0.9", "0 b 0.25 1"));
  EXPECT_THAT(Pieces("<prosody volume='loud'>a</prosody>"), ElementsAre("0 a 1 1"));
}

TEST(SsmlTest, WordsAreReplacedAndSpelled) {
  EXPECT_THAT(Pieces("Ask <sub alias=\"the desk\">FD</sub>, <emphasis>now</emphasis>."),
              ElementsAre("0 Ask the desk, now. 1 1"));
  EXPECT_THAT(Pieces("Room <say-as interpret-as='characters'>B 12ü</say-as>!"),
              ElementsAre("0 Room B 1 2 ü! 1 1"));
  EXPECT_THAT(Pieces("<say-as interpret-as='telephone'>+49 (30) 12</say-as>"),
              ElementsAre("0 + 4 9, 3 0, 1 2 1 1"));
  EXPECT_THAT(Pieces("<say-as interpret-as='date'>1 May</say-as> &lt;&#65;<![CDATA[<b>]]>"),
              ElementsAre("0 1 May <A<b> 1 1"));
}

TEST(SsmlTest, WhatCannotBeReadIsNamed) {
  EXPECT_THAT(ErrorOf("<speak>a"), HasSubstr("line 1"));
  EXPECT_THAT(ErrorOf("<speak>a</speak>b"), HasSubstr("line 1"));
  EXPECT_THAT(ErrorOf("<speak>\xff</speak>"), HasSubstr("line 1"));
  EXPECT_THAT(ErrorOf("<speak>&nbsp;</speak>"), HasSubstr("entity"));
  EXPECT_THAT(ErrorOf("<!DOCTYPE s [<!ENTITY a 'b'>]><speak>&a;</speak>"), HasSubstr("DOCTYPE"));
  EXPECT_THAT(ErrorOf("<s>a</s>"), HasSubstr("<speak>"));
  EXPECT_THAT(ErrorOf("<speak><speak/></speak>"), HasSubstr("<speak>"));
  EXPECT_THAT(ErrorOf("<speak><voice name='x'>a</voice></speak>"), HasSubstr("voice"));
  EXPECT_THAT(ErrorOf("<speak><break time='11s'/></speak>"), HasSubstr("break"));
  EXPECT_THAT(ErrorOf("<speak><break time='-1s'/></speak>"), HasSubstr("break"));
  EXPECT_THAT(ErrorOf("<speak><break strength='odd'/></speak>"), HasSubstr("break"));
  for (const char* rate : {"nan", "inf", "0", "-5%%", "-100%", "quick", "1e9"})
    EXPECT_THAT(ErrorOf(fmt::format("<speak><prosody rate='{}'>a</prosody></speak>", rate)),
                HasSubstr("prosody"))
        << rate;
  std::string deep = "<speak>";
  for (size_t i = 0; i < kMaxSsmlDepth; ++i) deep += "<s>";
  EXPECT_THAT(ErrorOf(deep), HasSubstr("deeper"));
  std::string many = "<speak>";
  for (size_t i = 0; i < kMaxSsmlElements; ++i) many += "<mark name='a'/>";
  EXPECT_THAT(ErrorOf(many + "</speak>"), HasSubstr("elements"));
  std::string quiet = "<speak>";
  for (int i = 0; i < 7; ++i) quiet += "<break time='10s'/>";
  EXPECT_THAT(ErrorOf(quiet + "</speak>"), HasSubstr("breaks"));
}

}  // namespace
}  // namespace parley
