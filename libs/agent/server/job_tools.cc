#include "agent/server/job_tools.h"

#include <algorithm>
#include <utility>

#include "agent/server/job_surroundings.h"
#include "agent/server/text.h"
#include "base/status.h"

namespace parley::agent {
namespace {

namespace jobv1 = parley::job::v1;

constexpr size_t kMaxToolCalls = 64;
constexpr absl::Duration kToolsWait = absl::Seconds(4);  // until a job starts without some
constexpr size_t kMaxToolBytes = 256 << 10;              // of what MCP servers describe

}  // namespace

JobTools::JobTools(JobSurroundings& around, Sinks sinks)
    : around_(around), sinks_(std::move(sinks)) {}

JobTools::~JobTools() {
  *self_ = nullptr;
  for (auto& [id, cancelled] : tool_calls_) cancelled->store(true);
}

void JobTools::LookUp(JobSurroundings& around, const std::string& project,
                      const std::string& definition_json) {
  auto uses = tools::McpUse::FromDefinition(definition_json);
  if (!uses.ok() || uses->empty()) return;
  (void)around.list_threads.Post([hub = around.mcp, uses = *std::move(uses), project] {
    for (const tools::McpUse& use : uses) (void)hub->Tools(project, use);
  });
}

void JobTools::Read(std::string project, const std::string& definition_json) {
  project_ = std::move(project);
  absl::StatusOr<tools::ToolSet> tools = tools::ToolSet::FromDefinition(definition_json);
  if (!tools.ok()) sinks_.warn("tools not usable", {{"error", Message(tools.status())}});
  tools_ = std::make_shared<tools::ToolSet>(tools.ok() ? *std::move(tools) : tools::ToolSet());
  absl::StatusOr<std::vector<tools::McpUse>> mcp = tools::McpUse::FromDefinition(definition_json);
  if (!mcp.ok()) sinks_.warn("MCP servers not usable", {{"error", Message(mcp.status())}});
  mcp_ = mcp.ok() ? *std::move(mcp) : std::vector<tools::McpUse>();
}

void JobTools::SendWith(jobv1::ToJob assignment) {
  if (mcp_.empty()) return sinks_.send(assignment);
  const absl::Time end = absl::Now() + kToolsWait;
  const bool queued = around_.list_threads.Post([loop = around_.loop, self = self_,
                                                 hub = around_.mcp, uses = mcp_, project = project_,
                                                 end, assignment]() mutable {
    std::vector<absl::StatusOr<std::vector<tools::McpTool>>> offered;
    for (tools::McpUse& use : uses) {
      use.timeout = std::min(use.timeout, end - absl::Now());
      offered.push_back(hub->Tools(project, use));
    }
    loop->Post([self, assignment = std::move(assignment), offered = std::move(offered)]() mutable {
      if (*self != nullptr) (*self)->OnOffered(std::move(assignment), offered);
    });
  });
  if (queued) return;
  sinks_.warn("no tools of MCP servers: too many jobs ask for theirs", {});
  sinks_.send(assignment);
}

// Without one of them a call is still a call.
void JobTools::OnOffered(jobv1::ToJob assignment,
                         const std::vector<absl::StatusOr<std::vector<tools::McpTool>>>& offered) {
  size_t bytes = 0;
  for (size_t i = 0; i < offered.size(); ++i) {
    const tools::McpUse& use = mcp_[i];
    if (!offered[i].ok()) {
      around_.metrics.tool_errors.Increment();
      sinks_.warn("an MCP server offers no tools",
                  {{"server", use.name.empty() ? use.url : use.name},
                   {"error", Message(offered[i].status())}});
      continue;
    }
    for (const tools::McpTool& tool : *offered[i]) {
      bytes += tool.description.size() + tool.parameters_json.size();
      if (bytes > kMaxToolBytes || !mcp_tools_.try_emplace(tool.name, i).second) continue;
      jobv1::ServerTool& out = *assignment.mutable_assignment()->add_tools();
      out.set_name(tool.name);
      out.set_description(ValidUtf8(tool.description));
      out.set_parameters_json(tool.parameters_json);
      out.set_timeout_ms(static_cast<int32_t>(absl::ToInt64Milliseconds(use.timeout)));
      for (const std::string& agent : use.agents) out.add_agents(agent);
    }
  }
  sinks_.send(assignment);
}

void JobTools::OnCall(const jobv1::ToolCall& call, const TraceContext& parent) {
  const uint32_t id = call.call();
  const auto running = tool_calls_.find(id);
  if (call.cancel()) {
    if (running != tool_calls_.end()) running->second->store(true);
    return;
  }
  if (running != tool_calls_.end()) return;
  if (tool_calls_.size() >= kMaxToolCalls) {
    return OnResult(id, call.name(), ResourceExhausted("too many tools run at the same time"));
  }
  auto cancelled = std::make_shared<std::atomic<bool>>(false);
  tool_calls_[id] = cancelled;
  const auto reach =
      around_.config.tools_allow_loopback ? http::Reach::kLoopbackToo : http::Reach::kPublicOnly;
  const auto offered = mcp_tools_.find(call.name());
  const bool remote = !tools_->Has(call.name()) && offered != mcp_tools_.end();
  const bool queued = around_.tool_threads.Post(
      [loop = around_.loop, self = self_, http = around_.http, tools = tools_, cancelled, call,
       reach, hub = around_.mcp, project = project_,
       use = remote ? mcp_[offered->second] : tools::McpUse(), remote,
       &seconds = around_.metrics.tool_seconds, tracer = around_.tracer, parent] {
        trace::Span span = tracer.Start("tool", trace::Kind::kClient, parent);
        const TraceScope scope(span.context());
        span.Set("tool", call.name());
        const int64_t start = loop->NowMicros();
        const auto stop = [&] { return cancelled->load(); };
        absl::StatusOr<std::string> result =
            remote ? hub->Call(project, use, call.name(), call.arguments_json(), use.timeout, stop)
                   : tools->Run(*http, call.name(), call.arguments_json(), reach,
                                absl::Milliseconds(call.timeout_ms()), stop);
        span.Fail(result.status());
        span.End();
        seconds.Observe(static_cast<double>(loop->NowMicros() - start) / 1e6);
        loop->Post([self, id = call.call(), name = call.name(), result = std::move(result)] {
          if (*self != nullptr) (*self)->OnResult(id, name, result);
        });
      });
  if (queued) return;
  OnResult(id, call.name(), ResourceExhausted("the agent server runs too many tools already"));
}

void JobTools::OnResult(uint32_t call, const std::string& name,
                        const absl::StatusOr<std::string>& result) {
  tool_calls_.erase(call);
  jobv1::ToJob message;
  message.mutable_tool_result()->set_call(call);
  message.mutable_tool_result()->set_is_error(!result.ok());
  message.mutable_tool_result()->set_output(result.ok() ? *result
                                                        : std::string(Message(result.status())));
  if (!result.ok()) {
    around_.metrics.tool_errors.Increment();
    sinks_.warn("a tool failed",
                {{"tool", name}, {"error", std::string(Message(result.status()))}});
  }
  sinks_.send(message);
}

}  // namespace parley::agent
