#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/status.h"
#include "tools/http_tool.h"
#include "tools/json_path.h"
#include "tools/template.h"

namespace parley::tools {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

std::string At(std::string_view path, const json& document) {
  auto parsed = JsonPath::Parse(path);
  if (!parsed.ok()) return std::string(Message(parsed.status()));
  const json* value = parsed->Find(document);
  return value == nullptr ? "nothing" : value->dump();
}

TEST(JsonPathTest, FindsOneValue) {
  const json document =
      json::parse(R"({"rate": 89, "rooms": [{"no": 1}, {"no": 2}], "a b": true})");
  EXPECT_EQ(At("$.rate", document), "89");
  EXPECT_EQ(At("$.rooms[1].no", document), "2");
  EXPECT_EQ(At("$.rooms[-1].no", document), "2");
  EXPECT_EQ(At("$['a b']", document), "true");
  EXPECT_EQ(At("$[\"rate\"]", document), "89");
  EXPECT_EQ(At("$", json(7)), "7");
}

TEST(JsonPathTest, NothingThere) {
  const json document = json::parse(R"({"rate": 89, "rooms": [1]})");
  for (const char* path : {"$.none", "$.rate.deeper", "$.rooms[1]", "$.rooms[-2]", "$.rooms.no"}) {
    EXPECT_EQ(At(path, document), "nothing") << path;
  }
}

TEST(JsonPathTest, RefusesWhatItDoesNotSpeak) {
  for (const char* path : {"", "rate", "$rate", "$.", "$..rate", "$.*", "$[", "$[]", "$[x]", "$['a",
                           "$['a'", "$[1", "$.a[?(@.b)]", "$[99999999999999999999]"}) {
    EXPECT_FALSE(JsonPath::Parse(path).ok()) << path;
  }
}

TEST(TemplateTest, FillsPlaces) {
  auto parsed = Template::Parse("/{room}?n={nights}&{{x}}");
  ASSERT_TRUE(parsed.ok());
  EXPECT_THAT(parsed->names(), ElementsAre("room", "nights"));
  const auto filled = parsed->Fill(json{{"room", "a/b"}, {"nights", 2}}, http::UrlEncode);
  EXPECT_EQ(*filled, "/a%2Fb?n=2&{x}");
}

TEST(TemplateTest, RefusesBadBracesAndArguments) {
  for (const char* text : {"{", "}", "a{", "{}", "a}b", "{a"}) {
    EXPECT_FALSE(Template::Parse(text).ok()) << text;
  }
  auto parsed = Template::Parse("{room}");
  EXPECT_FALSE(parsed->Fill(json::object(), http::UrlEncode).ok());
  EXPECT_FALSE(parsed->Fill(json{{"room", nullptr}}, http::UrlEncode).ok());
  EXPECT_FALSE(parsed->Fill(json{{"room", json::array()}}, http::UrlEncode).ok());
}

absl::StatusOr<HttpTool> Tool(const char* http) {
  return HttpTool::Parse(json{{"name", "room_rate"}, {"http", json::parse(http)}});
}

TEST(HttpToolTest, MakesTheCall) {
  auto tool = Tool(R"({"url": "https://rates.example/{room}", "timeout": "2s",
                       "headers": {"X-Room": "{room}"}})");
  ASSERT_TRUE(tool.ok()) << tool.status();
  const auto call = tool->MakeCall(R"({"room": "single & quiet"})");
  ASSERT_TRUE(call.ok());
  EXPECT_EQ(call->method, "GET");
  EXPECT_EQ(call->url, "https://rates.example/single%20%26%20quiet");
  EXPECT_EQ(call->timeout, absl::Seconds(2));
  EXPECT_THAT(call->headers, ElementsAre(Pair("X-Room", "single & quiet")));
  EXPECT_EQ(call->body, "");
  EXPECT_EQ(call->max_redirects, 0);
}

TEST(HttpToolTest, PostSendsTheArguments) {
  auto tool = Tool(R"({"method": "POST", "url": "https://book.example/"})");
  ASSERT_TRUE(tool.ok());
  const auto call = tool->MakeCall(R"({"nights": 2})");
  EXPECT_EQ(call->body, R"({"nights":2})");
  EXPECT_THAT(call->headers, ElementsAre(Pair("Content-Type", "application/json")));
}

TEST(HttpToolTest, RefusesHostsFromArgumentsAndSplitHeaders) {
  EXPECT_THAT(std::string(Message(Tool(R"({"url": "https://{host}/x"})").status())),
              HasSubstr("the host must not come from an argument"));
  EXPECT_FALSE(Tool(R"({"url": "file:///etc/passwd"})").ok());
  EXPECT_FALSE(Tool(R"({"url": "https:///x"})").ok());
  EXPECT_FALSE(Tool(R"({"method": "TRACE", "url": "https://a.example/"})").ok());
  EXPECT_FALSE(Tool(R"({"url": "https://a.example/", "timeout": "soon"})").ok());
  auto tool = Tool(R"({"url": "https://a.example/", "headers": {"X": "{x}"}})");
  ASSERT_TRUE(tool.ok());
  EXPECT_FALSE(tool->MakeCall(R"({"x": "a\r\nHost: evil"})").ok());
  EXPECT_FALSE(tool->MakeCall("[]").ok());
  EXPECT_FALSE(tool->MakeCall("{").ok());
}

TEST(HttpToolTest, MapsTheAnswer) {
  auto tool = Tool(R"({"url": "https://a.example/", "result": "$.rate"})");
  ASSERT_TRUE(tool.ok());
  http::Reply reply;
  reply.status = 200;
  reply.body = R"({"rate": 89})";
  EXPECT_EQ(*tool->ReadReply(reply), "89");
  reply.body = R"({"rate": "eighty-nine"})";
  EXPECT_EQ(*tool->ReadReply(reply), "eighty-nine");
  reply.body = R"({"price": 1})";
  EXPECT_FALSE(tool->ReadReply(reply).ok());
  reply.body = "<html>";
  EXPECT_FALSE(tool->ReadReply(reply).ok());
  reply.status = 503;
  EXPECT_THAT(std::string(Message(tool->ReadReply(reply).status())), HasSubstr("503"));
}

TEST(HttpToolTest, RefusesJsonThatNestsWithoutEnd) {
  const std::string deep =
      R"({"rate":)" + std::string(200'000, '[') + std::string(200'000, ']') + "}";
  auto tool = Tool(R"({"method": "POST", "url": "https://a.example/", "result": "$.rate"})");
  ASSERT_TRUE(tool.ok());
  http::Reply reply;
  reply.status = 200;
  reply.body = deep;
  EXPECT_FALSE(tool->ReadReply(reply).ok());
  EXPECT_FALSE(tool->MakeCall(deep).ok());
  EXPECT_FALSE(ToolSet::FromDefinition(deep).ok());
}

TEST(ToolSetTest, TakesTheHttpToolsOfADefinition) {
  const auto set = ToolSet::FromDefinition(R"({"tools": [
      {"name": "room_rate", "http": {"url": "https://a.example/"}}, {"name": "local"}]})");
  ASSERT_TRUE(set.ok());
  EXPECT_TRUE(set->Has("room_rate"));
  EXPECT_FALSE(set->Has("local"));
  EXPECT_EQ(ToolSet::FromDefinition("")->size(), 0U);
  EXPECT_EQ(ToolSet::FromDefinition("{}")->size(), 0U);
}

TEST(ToolSetTest, WrongTypesAreErrorsNotCrashes) {
  for (const char* text :
       {"[", "[]", R"({"tools": 3})", R"({"tools": [{"http": {}}]})",
        R"({"tools": [{"name": "x", "http": {"url": 3}}]})",
        R"({"tools": [{"name": "x", "http": {"url": "https://a/", "method": 1}}]})",
        R"({"tools": [{"name": "x", "http": {"url": "https://a/", "headers": 1}}]})"}) {
    EXPECT_FALSE(ToolSet::FromDefinition(text).ok()) << text;
  }
}

}  // namespace
}  // namespace parley::tools
