// The agent of the dispatch, start, memory and compare benchmarks: it tells the benchmark when its
// entrypoint ran, by its own clock, in a datagram to the unix socket that the job's metadata names,
// "<job id> <clock, us> <pid> ran <room> <worker>", and then does as the metadata says.
//
// metadata: {"report": "/path/of/socket", "mode": "wait" | "join" | "exit" | "raise" | "talk"}
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "agent/run_agent.h"
#include "base/clock.h"

namespace {

void Tell(const std::string& path, const std::string& text) {
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  if (fd >= 0) {
    sendto(fd, text.data(), text.size(), 0, reinterpret_cast<sockaddr*>(&address), sizeof address);
    close(fd);
  }
}

// Hears the caller, and says a second of a tone every 2.5 s. The engines are there to be named: the
// caller's turns are nobody's business here.
absl::Status Talk(parley::agent::JobContext& job) {
  parley::agent::SessionConfig config;
  config.stt = {{.engine = "scripted"}};
  config.llm = {{.engine = "scripted"}};
  config.tts = {{.engine = "scripted"}};
  config.options.turn_detection = parley::session::TurnDetection::kManual;
  const auto session = job.StartSession(std::move(config));
  if (!session.ok()) return session.status();
  std::vector<int16_t> tone(24'000);
  for (size_t i = 0; i < tone.size(); ++i) {
    tone[i] = static_cast<int16_t>(8000 * std::sin(2 * M_PI * 440 * static_cast<double>(i) / 24e3));
  }
  while (!job.WaitForShutdown(absl::Milliseconds(2500))) {
    if (auto said = (*session)->SayAudio(tone, {}, {.allow_interruptions = false}); !said.ok()) {
      return said.status();
    }
  }
  return absl::OkStatus();
}

absl::Status Entrypoint(parley::agent::JobContext& job) {
  const int64_t entered_us = parley::Clock::Real().MonotonicMicros();
  const auto metadata = nlohmann::json::parse(job.info().metadata, nullptr, false);
  if (!metadata.is_object())
    return absl::InvalidArgumentError("the benchmark's metadata is not JSON");
  const char* const worker = std::getenv("WORKER");
  Tell(metadata.value("report", ""), job.info().job_id + " " + std::to_string(entered_us) + " " +
                                         std::to_string(getpid()) + " ran " + job.info().room +
                                         " " + (worker == nullptr ? "-" : worker));
  const std::string mode = metadata.value("mode", "wait");
  if (mode == "exit") {
    job.Shutdown();
    return absl::OkStatus();
  }
  if (mode == "raise") return absl::InternalError("as asked");
  if (mode == "talk") return Talk(job);
  if (mode == "join") {
    if (absl::Status status = job.Connect(); !status.ok()) return status;
  }
  while (!job.WaitForShutdown(absl::Hours(1))) {
  }
  return absl::OkStatus();
}

// As much as PARLEY_BENCH_PREWARM_MIB says, touched, for all jobs to share.
absl::Status Prewarm() {
  const char* const mib = std::getenv("PARLEY_BENCH_PREWARM_MIB");
  static std::string* const loaded = new std::string();
  if (mib != nullptr) loaded->assign(static_cast<size_t>(std::atoi(mib)) << 20, 'x');
  return absl::OkStatus();
}

}  // namespace

int main(int argc, char** argv) {
  parley::agent::AgentOptions options;
  options.agent_name = "bench";
  options.entrypoint = Entrypoint;
  options.prewarm = Prewarm;
  return parley::agent::RunAgent(argc, argv, options);
}
