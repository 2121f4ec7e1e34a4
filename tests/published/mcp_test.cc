// MCP servers that others have published: mcp-server-time (PyPI) as a program, and
// @modelcontextprotocol/server-everything (npm) over streamable HTTP.
#include "tools/mcp.h"

#include <absl/time/clock.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "base/status.h"
#include "testing/free_port.h"
#include "testing/process.h"

namespace parley::tools {
namespace {

using ::testing::HasSubstr;
constexpr absl::Duration kTimeout = absl::Seconds(30);  // a JavaScript engine starts

std::string Folder() { return std::getenv("PARLEY_PUBLISHED"); }

const McpTool* Find(const std::vector<McpTool>& tools, const std::string& name) {
  const auto found = std::find_if(tools.begin(), tools.end(),
                                  [&](const McpTool& tool) { return tool.name == name; });
  return found == tools.end() ? nullptr : &*found;
}

TEST(PublishedMcpTest, AProgramFromPyPi) {
  const auto server = NewStdioMcpServer(
      {{Folder() + "/venv/bin/mcp-server-time", "--local-timezone", "Europe/Berlin"}, {}});
  const auto tools = server->List(kTimeout);
  ASSERT_TRUE(tools.ok()) << tools.status();
  const McpTool* const convert = Find(*tools, "convert_time");
  ASSERT_NE(convert, nullptr);
  EXPECT_THAT(convert->parameters_json, HasSubstr("target_timezone"));
  const auto time = server->Call(
      "convert_time",
      R"({"source_timezone": "Asia/Tokyo", "time": "09:00", "target_timezone": "UTC"})", kTimeout,
      {});
  ASSERT_TRUE(time.ok()) << time.status();
  EXPECT_THAT(*time, HasSubstr("T00:00:00+00:00"));
  const auto wrong =
      server->Call("convert_time",
                   R"({"source_timezone": "Atlantis", "time": "09:00", "target_timezone": "UTC"})",
                   kTimeout, {});
  EXPECT_EQ(wrong.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(Message(wrong.status())), HasSubstr("timezone"));
}

TEST(PublishedMcpTest, AServerFromNpmOverHttp) {
  const int port = testing::FreePort();
  const std::string log = ::testing::TempDir() + fmt::format("everything-{}.log", getpid());
  const auto process = testing::Process::Start(
      {"node", Folder() + "/npm/node_modules/@modelcontextprotocol/server-everything/dist/index.js",
       "streamableHttp"},
      log, {{"PORT", std::to_string(port)}});
  ASSERT_TRUE(process.ok()) << process.status();
  const auto server = NewHttpMcpServer(
      std::make_shared<http::Client>(),
      {fmt::format("http://127.0.0.1:{}/mcp", port), {}, http::Reach::kLoopbackToo});
  absl::StatusOr<std::vector<McpTool>> tools = absl::UnavailableError("");
  for (const absl::Time until = absl::Now() + kTimeout; !tools.ok() && absl::Now() < until;) {
    tools = server->List(kTimeout);
    if (!tools.ok()) absl::SleepFor(absl::Milliseconds(100));  // it does not listen yet
  }
  ASSERT_TRUE(tools.ok()) << tools.status() << (*process)->Log();
  ASSERT_NE(Find(*tools, "echo"), nullptr);
  const auto echo = server->Call("echo", R"({"message": "good day"})", kTimeout, {});
  ASSERT_TRUE(echo.ok()) << echo.status();
  EXPECT_THAT(*echo, HasSubstr("good day"));
  const auto wrong = server->Call("echo", R"({"message": 7})", kTimeout, {});
  EXPECT_FALSE(wrong.ok());
  EXPECT_THAT(std::string(Message(wrong.status())), HasSubstr("message"));
  unlink(log.c_str());
}

}  // namespace
}  // namespace parley::tools
