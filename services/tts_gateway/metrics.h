#pragma once
#include <absl/status/status.h>
#include <prometheus/registry.h>

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "metrics/metrics.h"

namespace parley {

struct TtsGatewayMetrics {  // every metric of the service, in one place
  // `engines`: those that exist, the closed set of the label `engine`.
  TtsGatewayMetrics(prometheus::Registry& registry, const std::vector<std::string>& engines);

  // parley_tts_first_audio_seconds{engine}
  prometheus::Histogram& first_audio_seconds(std::string_view engine) const {
    return *first_audio_.find(engine)->second;
  }
  void CountError(absl::StatusCode code);  // parley_tts_errors_total{code}

  prometheus::Gauge& streams_active;   // parley_tts_streams_active
  prometheus::Counter& characters;     // parley_tts_characters_total
  prometheus::Counter& audio_seconds;  // parley_tts_audio_seconds_total
  prometheus::Counter& cancelled;      // parley_tts_cancelled_total
  prometheus::Counter& fallbacks;      // parley_tts_fallbacks_total
  // Sentences by where they came from: parley_tts_cache_total{outcome="hit"}, this replica's disk;
  prometheus::Counter& cache_hits;
  prometheus::Counter& cache_copied;  // {outcome="copied"}: from another replica
  prometheus::Counter& cache_made;    // {outcome="made"}: for all
  prometheus::Counter& cache_passed;  // {outcome="passed"}: for one caller, kept by nobody
  prometheus::Gauge& cache_bytes;     // parley_tts_cache_bytes

 private:
  std::map<std::string, prometheus::Histogram*, std::less<>> first_audio_;
  std::vector<prometheus::Counter*> errors_;  // by code
};

}  // namespace parley
