#include "call_cluster.h"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <utility>
#include <vector>

#include "base/status.h"
#include "checkout.h"

namespace parley::bench {

absl::StatusOr<std::unique_ptr<testing::Cluster>> StartForCalls(testing::ClusterOptions options,
                                                                const std::string& script) {
  const std::filesystem::path path =
      std::filesystem::temp_directory_path() / fmt::format("parley-bench-{}.json", getpid());
  std::ofstream(path) << script;
  const auto add = [&options](const std::string& service, std::vector<std::string> more) {
    std::vector<std::string>& arguments = options.extra_arguments[service];
    arguments.insert(arguments.end(), more.begin(), more.end());
  };
  options.agent_arguments.emplace_back("--tools-allow-loopback");
  add("api-server", {"--demo"});
  add("agent-registry", {"--tools-allow-loopback"});
  for (const char* kind : {"stt", "llm", "tts"}) {
    add(fmt::format("{}-gateway", kind), {fmt::format("--{}-script", kind), path.string()});
  }
  auto cluster = testing::Cluster::Start(options);
  std::filesystem::remove(path);
  return cluster;
}

absl::Status RegisterFrontDesk(testing::Api& api, bool embedded, const std::string& scripted) {
  if (!embedded) return api.Register(scripted);
  PARLEY_ASSIGN_OR_RETURN(const std::string path, Example("front-desk.yaml"));
  return api.RegisterFile(path);
}

Packets QuietRoom() {
  std::vector<int16_t> noise(size_t{testing::kSpeechRateHz});
  uint32_t state = 1;
  for (int16_t& sample : noise) {
    state = state * 1'664'525 + 1'013'904'223;
    sample = static_cast<int16_t>(static_cast<int32_t>(state >> 28) - 8);
  }
  return Encode(noise, testing::kSpeechRateHz);
}

}  // namespace parley::bench
