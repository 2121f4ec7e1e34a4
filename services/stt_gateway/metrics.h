#pragma once
#include <absl/status/status.h>
#include <prometheus/registry.h>

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "metrics/metrics.h"

namespace parley {

struct SttGatewayMetrics {  // every metric of the service, in one place
  // `engines`: those that exist, the closed set of the label `engine`.
  SttGatewayMetrics(prometheus::Registry& registry, const std::vector<std::string>& engines);

  struct Engine {
    prometheus::Histogram* open_seconds;          // parley_stt_open_seconds{engine}
    prometheus::Histogram* first_result_seconds;  // parley_stt_first_result_seconds{engine}
    prometheus::Histogram* final_seconds;         // parley_stt_final_seconds{engine}
  };
  const Engine& engine(std::string_view name) const { return engines_.find(name)->second; }
  void CountError(absl::StatusCode code);  // parley_stt_errors_total{code}

  prometheus::Gauge& streams_active;   // parley_stt_streams_active
  prometheus::Counter& audio_seconds;  // parley_stt_audio_seconds_total
  prometheus::Counter& utterances;     // parley_stt_utterances_total
  prometheus::Counter& fallbacks;      // parley_stt_fallbacks_total

 private:
  std::map<std::string, Engine, std::less<>> engines_;
  std::vector<prometheus::Counter*> errors_;  // by code
};

}  // namespace parley
