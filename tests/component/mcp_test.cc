// MCP clients against a scripted server (mcp_server.py), over both transports.
#include <absl/time/clock.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <thread>

#include "base/status.h"
#include "testing/matchers.h"
#include "testing/process.h"
#include "tools/mcp_hub.h"

namespace parley::tools {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
constexpr absl::Duration kTimeout = absl::Seconds(30);

std::string Script() {
  return std::string(std::getenv("PARLEY_SOURCE_DIR")) + "/tests/component/mcp_server.py";
}

std::vector<std::string> NamesOf(const absl::StatusOr<std::vector<McpTool>>& tools) {
  if (!tools.ok()) return {std::string(Message(tools.status()))};
  std::vector<std::string> names;
  for (const McpTool& tool : *tools) names.push_back(tool.name);
  return names;
}

// The HTTP form; its URL.
std::string UrlOf(testing::Process& process) {
  const auto line = process.WaitForLine("port ", kTimeout);
  return line.ok() ? fmt::format("http://127.0.0.1:{}/mcp", line->substr(5))
                   : std::string(Message(line.status()));
}

void UseAll(McpServer& server) {
  const auto tools = server.List(kTimeout);
  EXPECT_THAT(NamesOf(tools), ElementsAre("add", "slow", "fail", "env", "exit", "given_up"));
  ASSERT_TRUE(tools.ok());
  EXPECT_EQ((*tools)[0].description, "Adds two numbers");
  EXPECT_THAT((*tools)[0].parameters_json, HasSubstr(R"("required":["a","b"])"));

  const auto sum = server.Call("add", R"({"a": 2, "b": 3})", kTimeout, {});
  ASSERT_TRUE(sum.ok()) << sum.status();
  EXPECT_EQ(*sum, "5");
  const auto failed = server.Call("fail", "{}", kTimeout, {});
  EXPECT_EQ(failed.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Message(failed.status()), "no room is free");
  EXPECT_EQ(Message(server.Call("nothing", "{}", kTimeout, {}).status()), "unknown tool nothing");
  EXPECT_TRUE(absl::IsInvalidArgument(server.Call("add", "[]", kTimeout, {}).status()));
}

// A call that nobody waits for any more does not keep others from theirs.
void CancelOne(McpServer& server) {
  std::atomic<bool> cancelled{false};
  absl::StatusOr<std::string> slow = std::string();
  std::thread caller([&] {
    slow = server.Call("slow", "{}", absl::Seconds(25), [&] { return cancelled.load(); });
  });
  EXPECT_EQ(server.Call("add", R"({"a": 1, "b": 1})", kTimeout, {}).value_or("nothing"), "2");
  const absl::Time start = absl::Now();
  cancelled = true;
  caller.join();
  EXPECT_TRUE(absl::IsCancelled(slow.status())) << slow.status();
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
  const auto late = server.Call("slow", "{}", absl::Milliseconds(300), {});
  EXPECT_TRUE(absl::IsDeadlineExceeded(late.status())) << late.status();
  // Both were told to the server, perhaps a moment later.
  std::string given_up;
  for (const absl::Time until = absl::Now() + kTimeout; given_up != "2" && absl::Now() < until;) {
    given_up = server.Call("given_up", "{}", kTimeout, {}).value_or("no answer");
  }
  EXPECT_EQ(given_up, "2");
}

TEST(McpTest, AProgram) {
  const auto server = NewStdioMcpServer({{"python3", Script(), "stdio"}, {{"MENU", "/srv/menu"}}});
  UseAll(*server);
  CancelOne(*server);
  EXPECT_EQ(server->Call("env", R"({"name": "MENU"})", kTimeout, {}).value_or(""), "/srv/menu");
  // What else the agent server has in its environment is not the program's business.
  setenv("PARLEY_TEST_SECRET", "secret", 1);
  EXPECT_EQ(server->Call("env", R"({"name": "PARLEY_TEST_SECRET"})", kTimeout, {}).value_or(""),
            "unset");
}

TEST(McpTest, AProgramThatEndsIsStartedAgain) {
  const auto server = NewStdioMcpServer({{"python3", Script(), "stdio"}, {}});
  ASSERT_TRUE(server->List(kTimeout).ok());
  EXPECT_TRUE(absl::IsUnavailable(server->Call("exit", "{}", kTimeout, {}).status()));
  absl::StatusOr<std::string> sum = absl::UnavailableError("");
  for (const absl::Time until = absl::Now() + kTimeout; !sum.ok() && absl::Now() < until;) {
    sum = server->Call("add", R"({"a": 2, "b": 2})", kTimeout, {});
    if (!sum.ok()) absl::SleepFor(absl::Milliseconds(100));  // it starts once a second at most
  }
  EXPECT_EQ(sum.value_or(std::string(Message(sum.status()))), "4");
}

TEST(McpTest, AProgramThatIsNotThere) {
  const auto server = NewStdioMcpServer({{"/no/such/program"}, {}});
  EXPECT_THAT(std::string(Message(server->List(kTimeout).status())),
              HasSubstr("cannot be started"));
  const auto mute = NewStdioMcpServer({{"sleep", "60"}, {}});
  EXPECT_TRUE(absl::IsDeadlineExceeded(mute->List(absl::Milliseconds(200)).status()));
  const auto nonsense = NewStdioMcpServer({{"yes"}, {}});
  EXPECT_TRUE(absl::IsDeadlineExceeded(nonsense->List(absl::Milliseconds(200)).status()));
}

TEST(McpTest, OverHttpAsJsonAndAsEvents) {
  for (const char* mode : {"json", "events"}) {
    const std::string log = ::testing::TempDir() + fmt::format("mcp-{}-{}.log", mode, getpid());
    const auto process = testing::Process::Start({"python3", Script(), "http", mode}, log);
    ASSERT_TRUE(process.ok()) << process.status();
    const std::string url = UrlOf(**process);
    const auto client = std::make_shared<http::Client>();
    const auto server = NewHttpMcpServer(client, {url, {}, http::Reach::kLoopbackToo});
    UseAll(*server);
    CancelOne(*server);
    // The server forgets all sessions: the next call begins a new one.
    EXPECT_FALSE(server->Call("exit", "{}", kTimeout, {}).ok());
    EXPECT_EQ(server->Call("add", R"({"a": 2, "b": 2})", kTimeout, {}).value_or(""), "4") << mode;

    const auto stranger =
        NewHttpMcpServer(client, {url, {{"X-Key", "wrong"}}, http::Reach::kLoopbackToo});
    EXPECT_TRUE(absl::IsPermissionDenied(stranger->List(kTimeout).status()));
    const auto outside = NewHttpMcpServer(client, {url, {}, http::Reach::kPublicOnly});
    EXPECT_TRUE(absl::IsPermissionDenied(outside->List(kTimeout).status()));
    unlink(log.c_str());
  }
}

TEST(McpTest, TheHubServesWhatDefinitionsName) {
  McpHub hub({{"sums", {{"python3", Script(), "stdio"}, {}}}}, std::make_shared<http::Client>(),
             http::Reach::kPublicOnly);
  const auto uses = McpUse::FromDefinition(
      R"({"mcp_servers": [{"name": "sums", "allowed_tools": ["add"], "timeout": "8s"},
                          {"name": "others"}]})");
  ASSERT_TRUE(uses.ok()) << uses.status();
  ASSERT_EQ(uses->size(), 2U);
  EXPECT_THAT(NamesOf(hub.Tools("hotel", (*uses)[0])), ElementsAre("add"));
  EXPECT_EQ(hub.Call("hotel", (*uses)[0], "add", R"({"a": 2, "b": 5})", kTimeout, {}).value_or(""),
            "7");
  EXPECT_THAT(std::string(Message(hub.Tools("hotel", (*uses)[1]).status())),
              HasSubstr("no MCP server \"others\""));
}

// A server that does not answer costs one call its time, not all of them.
TEST(McpTest, TheHubDoesNotWaitTwiceForADeadServer) {
  McpHub hub({{"mute", {{"sleep", "60"}, {}}}}, std::make_shared<http::Client>(),
             http::Reach::kPublicOnly);
  const McpUse use = {.name = "mute", .timeout = absl::Milliseconds(300)};
  EXPECT_TRUE(absl::IsDeadlineExceeded(hub.Tools("hotel", use).status()));
  EXPECT_LT(
      testing::Quickest(
          5, [&] { EXPECT_TRUE(absl::IsDeadlineExceeded(hub.Tools("hotel", use).status())); }),
      absl::Milliseconds(200));
}

}  // namespace
}  // namespace parley::tools
