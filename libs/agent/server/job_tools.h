#pragma once
// The tools that a job may call outside its process: HTTP and MCP, as its definition has them.
// Calls run on the server's threads; the job sends the call and gets the result.
#include <absl/status/statusor.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/trace_context.h"
#include "log/log.h"
#include "parley/job/v1/job.pb.h"
#include "tools/http_tool.h"
#include "tools/mcp_hub.h"

namespace parley::agent {

struct JobSurroundings;

// Loop thread only. What still runs when it goes is cancelled, and nobody hears of it.
class JobTools {
 public:
  struct Sinks {
    std::function<void(parley::job::v1::ToJob&)> send;
    // Something went wrong that the job's log should tell.
    std::function<void(std::string_view message, const std::vector<log::Field>& fields)> warn;
  };
  JobTools(JobSurroundings& around, Sinks sinks);
  ~JobTools();
  JobTools(const JobTools&) = delete;
  JobTools& operator=(const JobTools&) = delete;

  // Asks the definition's MCP servers what they offer, so that nobody waits for them later.
  static void LookUp(JobSurroundings& around, const std::string& project,
                     const std::string& definition_json);
  void Read(std::string project, const std::string& definition_json);
  // Sends the assignment, with what the MCP servers offer. Does not wait.
  void SendWith(parley::job::v1::ToJob assignment);
  // `parent`: the span that the call is made under.
  void OnCall(const parley::job::v1::ToolCall& call, const TraceContext& parent);

 private:
  void OnOffered(parley::job::v1::ToJob assignment,
                 const std::vector<absl::StatusOr<std::vector<tools::McpTool>>>& offered);
  void OnResult(uint32_t call, const std::string& name, const absl::StatusOr<std::string>& result);

  JobSurroundings& around_;
  const Sinks sinks_;
  std::string project_;
  std::shared_ptr<const tools::ToolSet> tools_ = std::make_shared<tools::ToolSet>();
  std::vector<tools::McpUse> mcp_;
  std::map<std::string, size_t, std::less<>> mcp_tools_;               // → place in mcp_
  std::map<uint32_t, std::shared_ptr<std::atomic<bool>>> tool_calls_;  // → cancelled
  std::shared_ptr<JobTools*> self_ = std::make_shared<JobTools*>(this);
};

}  // namespace parley::agent
