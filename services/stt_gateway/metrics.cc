#include "stt_gateway/metrics.h"

#include "base/strings.h"

namespace parley {
namespace {

constexpr int kCodes = 17;

}  // namespace

SttGatewayMetrics::SttGatewayMetrics(prometheus::Registry& registry,
                                     const std::vector<std::string>& engines)
    : streams_active(
          metrics::Gauge(registry, "parley_stt_streams_active", "Listening streams that are open")),
      audio_seconds(metrics::Counter(registry, "parley_stt_audio_seconds_total",
                                     "Audio that came in, in seconds")),
      utterances(
          metrics::Counter(registry, "parley_stt_utterances_total", "Finals that were answered")),
      fallbacks(metrics::Counter(registry, "parley_stt_fallbacks_total",
                                 "Engines that failed and were passed over")) {
  for (const std::string& name : engines) {
    engines_[name] = {
        &metrics::Histogram(registry, "parley_stt_open_seconds",
                            "From the config to a recogniser that is ready", {{"engine", name}}),
        &metrics::Histogram(registry, "parley_stt_first_result_seconds",
                            "From an utterance's first audio to its first result",
                            {{"engine", name}}),
        &metrics::Histogram(registry, "parley_stt_final_seconds",
                            "From the end of an utterance to its final", {{"engine", name}})};
  }
  for (int code = 0; code < kCodes; ++code) {
    const std::string name = ToLower(absl::StatusCodeToString(static_cast<absl::StatusCode>(code)));
    errors_.push_back(&metrics::Counter(registry, "parley_stt_errors_total",
                                        "Streams that ended with an error", {{"code", name}}));
  }
}

void SttGatewayMetrics::CountError(absl::StatusCode code) {
  const auto index = static_cast<size_t>(code);
  if (code != absl::StatusCode::kOk && index < errors_.size()) errors_[index]->Increment();
}

}  // namespace parley
