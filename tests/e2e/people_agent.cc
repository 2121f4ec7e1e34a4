// An agent among several people: hears keys and sends each back, answers a method and calls one,
// and writes down what everybody says.
#include <string>

#include "agent/run_agent.h"
#include "base/status.h"

namespace {

using namespace parley::agent;  // NOLINT(google-build-using-namespace)

absl::Status Entrypoint(JobContext& job) {
  SessionConfig config;
  config.stt = {{.engine = "scripted"}};
  config.llm = {{.engine = "scripted"}};
  config.tts = {{.engine = "scripted"}};
  config.transcribe_everybody = true;
  config.on_dtmf = [&job](const std::string& identity, char key) {
    const absl::Status sent = job.SendDtmf(std::string(1, key), {identity});
    if (!sent.ok()) job.log().Error("a key was not sent", {{"error", sent.ToString()}});
  };
  job.RegisterRpc("greet", [](const std::string& caller, const std::string& payload) {
    return absl::StatusOr<std::string>(payload + ", " + caller + "!");
  });
  PARLEY_ASSIGN_OR_RETURN(AgentSession * session, job.StartSession(std::move(config)));
  PARLEY_RETURN_IF_ERROR(job.WaitForParticipant("phone", absl::Seconds(30)).status());
  const auto answer = job.PerformRpc("phone", "name", "who?", absl::Seconds(10));
  const auto nobody = job.PerformRpc("nobody", "name", "who?", absl::Seconds(10));
  const parley::ErrorReason reason = parley::ReasonOf(nobody.status());
  const auto code = reason.metadata.find("code");
  PARLEY_RETURN_IF_ERROR(
      job.SendData((answer.ok() ? *answer : answer.status().ToString()) + " " +
                       (code == reason.metadata.end() ? "no code" : code->second),
                   "answers"));
  return session->Wait();
}

}  // namespace

int main(int argc, char** argv) {
  return RunAgent(argc, argv, {.agent_name = "people", .entrypoint = Entrypoint});
}
