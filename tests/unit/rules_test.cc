#include "engines/rules/rules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/status.h"
#include "engines/rules/engine.h"

namespace parley::engines {
namespace {

using ::testing::HasSubstr;

constexpr const char* kHotel = R"([
  {"when": "(how much|price|rate) .* {room:single|double|suite}", "call": "room_rate",
   "say": "A {room} room is {result} euros a night."},
  {"when": "my name is {name}", "say": "Hello {name}."},
  {"when": "^(bye|good ?bye)$", "say": "Good bye."},
  {"otherwise": "I can tell you our room rates."}])";

speech::ChatItem User(std::string text) { return speech::ChatMessage{"user", std::move(text)}; }
speech::ChatItem Result(std::string output, bool error = false) {
  return speech::ChatToolResult{"call_1", "room_rate", std::move(output), error};
}
const std::vector<speech::ChatTool> kTools = {{"room_rate", "Nightly rate", "{}"}};

RuleAnswer Ask(const std::vector<speech::ChatItem>& items, std::string_view rules = kHotel) {
  auto set = RuleSet::Parse(rules);
  EXPECT_TRUE(set.ok()) << set.status();
  auto answer = set->Answer(items, kTools);
  EXPECT_TRUE(answer.ok()) << answer.status();
  return answer.value_or(RuleAnswer());
}
std::string Refusal(std::string_view rules) {
  const auto set = RuleSet::Parse(rules);
  EXPECT_EQ(set.status().code(), absl::StatusCode::kInvalidArgument) << rules;
  return std::string(Message(set.status()));
}

TEST(RulesTest, SlotsBecomeTheArgumentsOfTheCall) {
  for (const char* said :
       {"How much is a single room?", "how much is a single", "price single",
        "What's the PRICE of a single, please?", "the rate for your single room"}) {
    const RuleAnswer answer = Ask({User(said)});
    ASSERT_TRUE(answer.call.has_value()) << said;
    EXPECT_EQ(answer.call->name, "room_rate");
    EXPECT_EQ(answer.call->arguments_json, R"({"room":"single"})");
  }
}

TEST(RulesTest, ResultFillsTheTemplate) {
  EXPECT_EQ(Ask({User("how much is a suite"), Result("210")}).say,
            "A suite room is 210 euros a night.");
  EXPECT_EQ(Ask({User("how much is a suite"), Result("\"210\"")}).say,
            "A suite room is 210 euros a night.");
  EXPECT_EQ(Ask({User("how much is a suite"), Result("{\"rate\": 210.5}")}).say,
            "A suite room is 210.5 euros a night.");
  EXPECT_EQ(Ask({User("how much is a suite"), Result("no such room", true)}).say,
            "Sorry, I could not find that out just now.");
}

TEST(RulesTest, ResultOfAnEarlierTurnIsNotSaidAgain) {
  const RuleAnswer answer =
      Ask({User("how much is a suite"), Result("210"),
           speech::ChatMessage{"assistant", "A suite room is 210 euros a night."},
           User("how much is a double")});
  ASSERT_TRUE(answer.call.has_value());
  EXPECT_EQ(answer.call->arguments_json, R"({"room":"double"})");
}

TEST(RulesTest, SaysWithoutACall) {
  EXPECT_EQ(Ask({User("Hello, my name is Ada Lovelace.")}).say, "Hello ada lovelace.");
  EXPECT_EQ(Ask({User("Goodbye!")}).say, "Good bye.");
}

TEST(RulesTest, HandsOverOnceItHasSpoken) {
  constexpr const char* kRules =
      R"([{"when": "bill for {what}", "say": "The {what}? One moment.", "handoff": "billing"}])";
  const auto set = RuleSet::Parse(kRules);
  ASSERT_TRUE(set.ok()) << set.status();
  const std::vector<speech::ChatTool> tools = {{"transfer_to_billing", "", "{}"}};
  const auto answer = set->Answer({User("a bill for breakfast")}, tools);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->say, "The breakfast? One moment.");
  ASSERT_TRUE(answer->call.has_value());
  EXPECT_EQ(answer->call->name, "transfer_to_billing");
  EXPECT_EQ(answer->call->arguments_json, "{}");
  EXPECT_FALSE(set->Answer({User("a bill for breakfast")}, {}).ok()) << "not its to do";
  EXPECT_THAT(Refusal(R"([{"when": "a", "call": "b", "handoff": "c"}])"),
              HasSubstr("both call and handoff"));
}

TEST(RulesTest, OtherwiseAnswersTheRest) {
  EXPECT_EQ(Ask({User("do you have a pool")}).say, "I can tell you our room rates.");
  EXPECT_EQ(Ask({}).say, "I can tell you our room rates.");
  EXPECT_EQ(Ask({User("hm")}, R"([{"when": "x", "say": "y"}])").say,
            "Sorry, I did not understand that.");
}

TEST(RulesTest, PartsOfWordsDoNotMatchASlot) {
  EXPECT_FALSE(Ask({User("how much is a singles night")}).call.has_value());
}

TEST(RulesTest, UnknownToolIsRefused) {
  const auto set = RuleSet::Parse(kHotel);
  EXPECT_THAT(Message(set->Answer({User("how much is a single")}, {}).status()),
              HasSubstr("\"room_rate\""));
}

TEST(RulesTest, BadRulesAreNamed) {
  EXPECT_THAT(Refusal("{}"), HasSubstr("JSON list"));
  EXPECT_THAT(Refusal("[{]"), HasSubstr("JSON list"));
  EXPECT_THAT(Refusal("[]"), HasSubstr("none"));
  EXPECT_THAT(Refusal(R"([{"when": "a", "say": "b"}, {"when": "(a", "say": "b"}])"),
              HasSubstr("rule 2: the pattern does not compile"));
  EXPECT_THAT(Refusal(R"([{"when": "a", "says": "b"}])"), HasSubstr("\"says\""));
  EXPECT_THAT(Refusal(R"([{"when": "a"}])"), HasSubstr("neither call nor say"));
  EXPECT_THAT(Refusal(R"([{"say": "a"}])"), HasSubstr("no when"));
  EXPECT_THAT(Refusal(R"([{"when": "a", "say": "{room}"}])"), HasSubstr("no such slot"));
  EXPECT_THAT(Refusal(R"([{"when": "a", "say": "{result}"}])"), HasSubstr("calls no tool"));
  EXPECT_THAT(Refusal(R"([{"when": 1, "say": "b"}])"), HasSubstr("when is no text"));
  EXPECT_THAT(Refusal(R"([{"otherwise": "a"}, {"otherwise": "b"}])"), HasSubstr("already"));
  EXPECT_THAT(Refusal(R"([{"when": "{a:x} {a:y}", "say": "b"}])"), HasSubstr("twice"));
  EXPECT_THAT(Refusal(R"([{"when": "((a{1,100}){1,100}){1,100}", "say": "b"}])"),
              HasSubstr("does not compile"));
  EXPECT_THAT(Refusal(std::string(100, '[') + std::string(100, ']')), HasSubstr("JSON list"));
}

TEST(RulesTest, ResultsAreMadeToBeSpoken) {
  EXPECT_EQ(SpokenResult("89.0"), "89");
  EXPECT_EQ(SpokenResult("[\"a\", \"b\"]"), "a, b");
  EXPECT_EQ(SpokenResult(" plain text "), "plain text");
  EXPECT_EQ(SpokenResult("{\"a\": 1, \"b\": 2}"), "a 1, b 2");
  EXPECT_EQ(FillTemplate("{result.rate} for {room}{nothing}", {{"room", "two"}}, "{\"rate\": 5}"),
            "5 for two");
  EXPECT_EQ(FillTemplate("an open { stays", {}, ""), "an open { stays");
}

TEST(RulesEngineTest, ChatSinksTheAnswer) {
  RulesEngine engine;
  speech::ChatPrompt prompt;
  prompt.config.rules_json = kHotel;
  prompt.tools = kTools;
  prompt.items = {User("how much is a double room")};
  std::vector<speech::ChatPiece> pieces;
  const speech::Cancellation cancel;
  const auto sink = [&](speech::ChatPiece piece) {
    pieces.push_back(std::move(piece));
    return true;
  };
  const auto done = engine.Chat(prompt, sink, cancel);
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_EQ(done->finish_reason, "tool_calls");
  ASSERT_EQ(pieces.size(), 1u);
  EXPECT_THAT(std::get<speech::ChatToolCall>(pieces[0]).call_id, HasSubstr("call_"));
  prompt.config.rules_json = "";
  EXPECT_EQ(engine.Chat(prompt, sink, cancel).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace parley::engines
