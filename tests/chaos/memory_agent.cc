// The agent of the outage tests: it remembers, in its own memory, what its caller wrote last, and
// says it when asked. An answer proves that this very process has been in the call all along.
#include "agent/run_agent.h"
#include "base/mutex.h"

namespace {

constexpr char kRules[] = R"([
  {"when": "before", "call": "recall", "say": "You said {result}."},
  {"otherwise": "Noted."}])";

absl::Status Entrypoint(parley::agent::JobContext& job) {
  parley::Mutex mutex;
  std::string said = "nothing";
  parley::agent::SessionConfig config;
  config.instructions = "Remember.";
  config.stt = {{.engine = "scripted"}};
  config.llm = {{.engine = "rules", .rules_json = kRules}};
  config.tts = {{.engine = "scripted"}};
  config.on_item = [&](const parley::session::ChatItem& item) {
    if (item.role != "user" || item.text.find("before") != std::string::npos) return;
    parley::MutexLock lock(&mutex);
    said = item.text;
  };
  config.tools.push_back({.name = "recall",
                          .description = "What the caller said before",
                          .run = [&](std::string_view) -> absl::StatusOr<std::string> {
                            parley::MutexLock lock(&mutex);
                            return said;
                          }});
  const auto session = job.StartSession(std::move(config));
  if (!session.ok()) return session.status();
  return (*session)->Wait();
}

}  // namespace

int main(int argc, char** argv) {
  parley::agent::AgentOptions options;
  options.agent_name = "memory";
  options.entrypoint = Entrypoint;
  return parley::agent::RunAgent(argc, argv, options);
}
