// Every scenario under tests/rehearsals, and the kit itself.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "base/status.h"
#include "rehearsal/scenario.h"
#include "rehearsal/stage.h"

namespace parley::rehearsal {
namespace {

using ::testing::HasSubstr;

std::filesystem::path Root() {
  const char* root = std::getenv("PARLEY_SOURCE_DIR");
  return root == nullptr ? "." : root;
}

std::string Read(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::vector<std::filesystem::path> Files() {
  std::vector<std::filesystem::path> files;
  for (const auto& entry :
       std::filesystem::recursive_directory_iterator(Root() / "tests/rehearsals")) {
    if (entry.path().extension() == ".yaml") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

Outcome Rehearse(const std::string& text, const std::string& agent_json = {}) {
  auto scenario = ParseScenario(text, "test.yaml");
  EXPECT_TRUE(scenario.ok()) << scenario.status();
  if (!scenario.ok()) return {};
  const auto agent = AgentOf(*scenario, agent_json);
  EXPECT_TRUE(agent.ok()) << agent.status();
  if (!agent.ok()) return {};
  auto cast = CastOf(*agent);
  EXPECT_TRUE(cast.ok()) << cast.status();
  return Perform(*scenario, *cast);
}

class ScenarioFiles : public ::testing::TestWithParam<std::filesystem::path> {};

TEST_P(ScenarioFiles, ComesOutAsWritten) {
  const std::string text = Read(GetParam());
  const auto scenario = ParseScenario(text, GetParam().filename().string());
  ASSERT_TRUE(scenario.ok()) << Message(scenario.status());
  const auto agent = AgentOf(*scenario);
  ASSERT_TRUE(agent.ok()) << Message(agent.status());
  const auto cast = CastOf(*agent);
  ASSERT_TRUE(cast.ok()) << Message(cast.status());
  const Outcome outcome = Perform(*scenario, *cast);
  std::string failures;
  for (const std::string& failure : outcome.failures) failures += failure + "\n";
  EXPECT_TRUE(outcome.passed()) << failures << "The decision log:\n" << outcome.LogText();
  // The same again, to the last byte.
  EXPECT_EQ(Perform(*scenario, *cast).LogText(), outcome.LogText());
}

INSTANTIATE_TEST_SUITE_P(All, ScenarioFiles, ::testing::ValuesIn(Files()), [](const auto& info) {
  std::string name = info.param.stem().string();
  std::replace_if(
      name.begin(), name.end(), [](char c) { return std::isalnum(c) == 0; }, '_');
  return name;
});

TEST(RehearsalTest, FilesAreThere) { EXPECT_GE(Files().size(), 60u); }

constexpr const char* kHours = R"(
name: opening hours
agent: {instructions: Be brief.}
model: [{text: "From nine to five."}]
timeline: [{at: 1000, speak: "when are you open", for: 1200}]
)";

TEST(RehearsalTest, SaysWhatDidNotCome) {
  const Outcome outcome = Rehearse(std::string(kHours) + R"(
expect:
  - {line: "item user: when are you open"}
  - {line: "play", at: 9000}
  - {line: "pause"}
  - {line: "agent speaking", never: true}
history: ["user: when are you open"]
)");
  ASSERT_EQ(outcome.failures.size(), 4u) << outcome.LogText();
  EXPECT_THAT(outcome.failures[0],
              HasSubstr("test.yaml:9: expected \"play\" at 9000 ± 40 ms, but it came at"));
  EXPECT_THAT(outcome.failures[1], HasSubstr("it never came"));
  EXPECT_THAT(outcome.failures[2], HasSubstr("never, but it came at"));
  EXPECT_THAT(outcome.failures[3], HasSubstr("assistant: From nine to five."));
}

TEST(RehearsalTest, AModelWithoutAnAnswerIsAFailure) {
  const Outcome outcome = Rehearse(R"(
name: nobody answers
timeline: [{at: 1000, speak: "hello", for: 400}]
expect: [{line: "item user: hello"}]
)");
  ASSERT_EQ(outcome.failures.size(), 1u);
  EXPECT_THAT(outcome.failures[0], HasSubstr("the model was asked \"hello\" and has no answer"));
}

TEST(RehearsalTest, TheExampleAgentAnswersByItsRules) {
  const auto agent = registry::ParseDefinition(Read(Root() / "examples/front-desk.yaml"),
                                               "front-desk.yaml", {.allow_loopback = true});
  ASSERT_TRUE(agent.ok()) << agent.status();
  const Outcome outcome = Rehearse(R"(
name: a price
tools: {room_rate: {output: "89"}}
timeline: [{at: 4000, speak: "how much is a single room", for: 1600}]
expect: [{line: 'tool 1 room_rate {"room":"single"}'}]
history:
  - "assistant: Good day, how can I help?"
  - "user: how much is a single room"
  - 'call room_rate {"room":"single"}'
  - "result room_rate: 89"
  - "assistant: A single room is 89 euros a night."
)",
                                   registry::ToJson(*agent));
  EXPECT_TRUE(outcome.passed()) << ::testing::PrintToString(outcome.failures) << outcome.LogText();
}

TEST(RehearsalTest, RunsToolsOfAProgram) {
  const auto scenario = ParseScenario(
      std::string(kHours) + R"(expect: [{line: "item result clock: noon"}])", "test.yaml");
  ASSERT_TRUE(scenario.ok());
  Scenario asked = *scenario;
  asked.model.insert(asked.model.begin(), ModelAnswer{.calls = {{"clock", "{}"}}});
  Cast cast{.character = {.tools = {{.name = "clock"}}}};
  cast.tools["clock"] = [](std::string_view) { return "noon"; };
  const Outcome outcome = Perform(asked, cast);
  EXPECT_TRUE(outcome.passed()) << ::testing::PrintToString(outcome.failures) << outcome.LogText();
}

TEST(ScenarioTest, ErrorsNameLineAndField) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"timeline: []\nexpect: [{line: x}]", "test.yaml:1: name: is missing"},
      {"name: a\ntimeline: []", "expects nothing: it could not fail"},
      {"name: a\ntimeline:\n  - {at: 5}\nexpect: [{line: x}]",
       "test.yaml:3: timeline[0]: must hold one thing that happens"},
      {"name: a\ntimeline:\n  - {at: 5, noise: 90, say: b}\nexpect: [{line: x}]",
       "must hold one thing that happens"},
      {"name: a\ntimeline: [{at: 0, noise: 90}, {at: 50, noise: 90}]\nexpect: [{line: x}]",
       "two sounds of the caller overlap at 50 ms"},
      {"name: a\ntimelin: []\nexpect: [{line: x}]", "did you mean timeline?"},
  };
  for (const auto& [text, error] : cases) {
    const auto scenario = ParseScenario(text, "test.yaml");
    ASSERT_FALSE(scenario.ok()) << text;
    EXPECT_THAT(std::string(Message(scenario.status())), HasSubstr(error));
  }
}

}  // namespace
}  // namespace parley::rehearsal
