// The agent that chaos dispatches to: enters its room, stays for a while, and ends by itself.
//
// metadata: {"hold_ms": 500, "end": "shutdown" | "fail"}
#include <nlohmann/json.hpp>

#include "agent/run_agent.h"

namespace {

absl::Status Entrypoint(parley::agent::JobContext& job) {
  const auto wish = nlohmann::json::parse(job.info().metadata, nullptr, false);
  if (!wish.is_object()) return absl::InvalidArgumentError("the metadata is not JSON");
  if (absl::Status status = job.Connect(); !status.ok()) return status;
  if (job.WaitForShutdown(absl::Milliseconds(wish.value("hold_ms", 0)))) return absl::OkStatus();
  if (wish.value("end", "") == "fail") return absl::InternalError("as it was told");
  job.Shutdown();
  return absl::OkStatus();
}

}  // namespace

int main(int argc, char** argv) {
  parley::agent::AgentOptions options;
  options.agent_name = "chaos";
  options.entrypoint = Entrypoint;
  return parley::agent::RunAgent(argc, argv, options);
}
