// The agent of the dispatch, start and memory benchmarks: it tells the benchmark when its
// entrypoint ran, by its own clock, in a datagram to the unix socket that the job's metadata names,
// and then does as the metadata says.
//
// metadata: {"report": "/path/of/socket", "mode": "wait" | "join" | "exit"}
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>

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

absl::Status Entrypoint(parley::agent::JobContext& job) {
  const int64_t entered_us = parley::Clock::Real().MonotonicMicros();
  const auto metadata = nlohmann::json::parse(job.info().metadata, nullptr, false);
  if (!metadata.is_object())
    return absl::InvalidArgumentError("the benchmark's metadata is not JSON");
  Tell(metadata.value("report", ""), job.info().job_id + " " + std::to_string(entered_us));
  const std::string mode = metadata.value("mode", "wait");
  if (mode == "exit") {
    job.Shutdown();
    return absl::OkStatus();
  }
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
