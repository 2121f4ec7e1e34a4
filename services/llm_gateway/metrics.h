#pragma once
#include <absl/status/status.h>
#include <prometheus/registry.h>

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "metrics/metrics.h"

namespace parley {

struct LlmGatewayMetrics {  // every metric of the service, in one place
  // `engines`: those that exist, the closed set of the label `engine`.
  LlmGatewayMetrics(prometheus::Registry& registry, const std::vector<std::string>& engines);

  // parley_llm_first_piece_seconds{engine}
  prometheus::Histogram& first_piece_seconds(std::string_view engine) const {
    return *first_piece_.find(engine)->second;
  }
  void CountError(absl::StatusCode code);  // parley_llm_errors_total{code}

  prometheus::Gauge& chats_active;     // parley_llm_chats_active
  prometheus::Gauge& realtime_active;  // parley_llm_realtime_active
  prometheus::Counter& input_tokens;   // parley_llm_tokens_total{direction="input"}
  prometheus::Counter& output_tokens;  // …{direction="output"}
  prometheus::Counter& fallbacks;      // parley_llm_fallbacks_total

 private:
  std::map<std::string, prometheus::Histogram*, std::less<>> first_piece_;
  std::vector<prometheus::Counter*> errors_;  // by code
};

}  // namespace parley
