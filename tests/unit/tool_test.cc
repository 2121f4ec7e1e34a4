#include "agent/tool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/status.h"

namespace parley::agent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Everything {
  std::string room;
  int64_t nights = 0;
  std::optional<double> budget;
  std::optional<bool> breakfast;
  std::optional<std::vector<std::string>> extras;
  static void Describe(ToolFields<Everything>& fields) {
    fields.Add("room", &Everything::room, "Type of room").OneOf({"single", "double"});
    fields.Add("nights", &Everything::nights, "How many nights").Range(1, 30);
    fields.Add("budget", &Everything::budget, "");
    fields.Add("breakfast", &Everything::breakfast, "");
    fields.Add("extras", &Everything::extras, "").OneOf({"view", "balcony"});
  }
};

class ToolTest : public ::testing::Test {
 protected:
  std::string Refused(std::string_view json) {
    const auto result = tool_.run(json);
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument) << json;
    return std::string(Message(result.status()));
  }
  Everything got_;
  Tool tool_ = MakeTool<Everything>("book", "Books a room",
                                    [this](const Everything& given) -> absl::StatusOr<std::string> {
                                      got_ = given;
                                      return "done";
                                    });
};

TEST_F(ToolTest, TheSchemaSaysWhatTheStructHolds) {
  EXPECT_EQ(
      tool_.parameters_json,
      R"({"type":"object","properties":{)"
      R"("room":{"type":"string","description":"Type of room","enum":["single","double"]},)"
      R"("nights":{"type":"integer","description":"How many nights","minimum":1,"maximum":30},)"
      R"("budget":{"type":"number"},"breakfast":{"type":"boolean"},)"
      R"("extras":{"type":"array","items":{"type":"string","enum":["view","balcony"]}}},)"
      R"("required":["room","nights"],"additionalProperties":false})");
}

TEST_F(ToolTest, ArgumentsArriveInTheStruct) {
  const auto result =
      tool_.run(R"({"room":"double","nights":2,"budget":99.5,"breakfast":true,"extras":["view"]})");
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(*result, "done");
  EXPECT_EQ(got_.room, "double");
  EXPECT_EQ(got_.nights, 2);
  EXPECT_EQ(got_.budget, 99.5);
  EXPECT_EQ(got_.breakfast, true);
  EXPECT_THAT(*got_.extras, ElementsAre("view"));
}

TEST_F(ToolTest, WhatIsOptionalMayBeLeftOutOrNull) {
  ASSERT_TRUE(tool_.run(R"({"room":"single","nights":1,"budget":null})").ok());
  EXPECT_FALSE(got_.budget.has_value());
  EXPECT_FALSE(got_.extras.has_value());
}

TEST_F(ToolTest, ModelsWriteWholeNumbersWithAPoint) {
  ASSERT_TRUE(tool_.run(R"({"room":"single","nights":3.0})").ok());
  EXPECT_EQ(got_.nights, 3);
}

TEST_F(ToolTest, WhatDoesNotFitIsNamed) {
  EXPECT_THAT(Refused("[]"), HasSubstr("JSON object"));
  EXPECT_THAT(Refused("{"), HasSubstr("JSON object"));
  EXPECT_THAT(Refused(R"({"nights":1})"), HasSubstr("room: is missing"));
  EXPECT_THAT(Refused(R"({"room":"suite","nights":1})"),
              HasSubstr("room: \"suite\" is none of single, double"));
  EXPECT_THAT(Refused(R"({"room":1,"nights":1})"), HasSubstr("room: a string"));
  EXPECT_THAT(Refused(R"({"room":"single","nights":1.5})"), HasSubstr("nights: a whole number"));
  EXPECT_THAT(Refused(R"({"room":"single","nights":1e300})"), HasSubstr("nights: a whole number"));
  EXPECT_THAT(Refused(R"({"room":"single","nights":31})"), HasSubstr("nights: 31 is out of range"));
  EXPECT_THAT(Refused(R"({"room":"single","nights":18446744073709551615})"), HasSubstr("nights"));
  EXPECT_THAT(Refused(R"({"room":"single","nights":1,"extras":["pool"]})"), HasSubstr("extras"));
  EXPECT_THAT(Refused(R"({"room":"single","nights":1,"breakfast":"yes"})"), HasSubstr("breakfast"));
}

}  // namespace
}  // namespace parley::agent
