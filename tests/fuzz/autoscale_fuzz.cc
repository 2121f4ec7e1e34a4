// Manifests and traces of calls come from files that anybody wrote.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "autoscale/simulation.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto manifests = parley::autoscale::ParseManifests(text); manifests.ok()) {
    for (const parley::autoscale::Manifest& manifest : *manifests) {
      parley::autoscale::Autoscaler autoscaler(manifest);
      int replicas = manifest.min;
      for (int i = 0; i < 20; ++i) {
        replicas = autoscaler.Decide(
            15.0 * i, replicas,
            std::vector<std::optional<double>>(manifest.metrics.size(), i % 3 * 100.0));
        if (replicas < manifest.min || replicas > manifest.max) std::abort();
      }
    }
  }
  if (const auto calls = parley::autoscale::ParseTrace(text); calls.ok()) {
    for (const auto& call : *calls)
      if (call.start_s < 0 || call.duration_s < 0) std::abort();
  }
  return 0;
}
