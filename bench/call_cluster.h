#pragma once
// What the benchmarks of whole calls share.
#include <absl/status/statusor.h>

#include <memory>
#include <string>

#include "crowd.h"
#include "testing/calls.h"

namespace parley::bench {

// `options` and what every such benchmark needs: the demo's tools, agents that may call them, and
// scripted engines in the three gateways that do what `script` says (JSON). Blocks until all run.
absl::StatusOr<std::unique_ptr<testing::Cluster>> StartForCalls(testing::ClusterOptions options,
                                                                const std::string& script);

// Registers the agent `front-desk`: the example's, with the embedded engines, or `scripted`.
absl::Status RegisterFrontDesk(testing::Api& api, bool embedded, const std::string& scripted);

// A second of a quiet room, as packets: a microphone sends no digital silence.
Packets QuietRoom();

}  // namespace parley::bench
