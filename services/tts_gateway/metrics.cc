#include "tts_gateway/metrics.h"

#include "base/strings.h"

namespace parley {
namespace {

constexpr int kCodes = 17;
constexpr const char* kCache = "parley_tts_cache_total";
constexpr const char* kCacheHelp =
    "Sentences that the cache was asked for, by where they came from";

}  // namespace

TtsGatewayMetrics::TtsGatewayMetrics(prometheus::Registry& registry,
                                     const std::vector<std::string>& engines)
    : streams_active(
          metrics::Gauge(registry, "parley_tts_streams_active", "Speaking streams that are open")),
      characters(metrics::Counter(registry, "parley_tts_characters_total",
                                  "Characters of text that were to be spoken")),
      audio_seconds(metrics::Counter(registry, "parley_tts_audio_seconds_total",
                                     "Audio that was made, in seconds")),
      cancelled(metrics::Counter(registry, "parley_tts_cancelled_total",
                                 "Segments that were cancelled before their end")),
      fallbacks(metrics::Counter(registry, "parley_tts_fallbacks_total",
                                 "Voices that failed and were passed over")),
      cache_hits(metrics::Counter(registry, kCache, kCacheHelp, {{"outcome", "hit"}})),
      cache_copied(metrics::Counter(registry, kCache, kCacheHelp, {{"outcome", "copied"}})),
      cache_made(metrics::Counter(registry, kCache, kCacheHelp, {{"outcome", "made"}})),
      cache_passed(metrics::Counter(registry, kCache, kCacheHelp, {{"outcome", "passed"}})),
      cache_bytes(metrics::Gauge(registry, "parley_tts_cache_bytes",
                                 "Recorded speech on this replica's disk")) {
  for (const std::string& name : engines) {
    first_audio_[name] =
        &metrics::Histogram(registry, "parley_tts_first_audio_seconds",
                            "From the flush of a segment to its first audio", {{"engine", name}});
  }
  for (int code = 0; code < kCodes; ++code) {
    const std::string name = ToLower(absl::StatusCodeToString(static_cast<absl::StatusCode>(code)));
    errors_.push_back(&metrics::Counter(registry, "parley_tts_errors_total",
                                        "Streams that ended with an error", {{"code", name}}));
  }
}

void TtsGatewayMetrics::CountError(absl::StatusCode code) {
  const auto index = static_cast<size_t>(code);
  if (code != absl::StatusCode::kOk && index < errors_.size()) errors_[index]->Increment();
}

}  // namespace parley
