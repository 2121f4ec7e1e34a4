#include "llm_gateway/metrics.h"

#include "base/strings.h"

namespace parley {
namespace {

constexpr int kCodes = 17;
constexpr const char* kTokens = "parley_llm_tokens_total";
constexpr const char* kTokensHelp = "Tokens, as the providers count them";

}  // namespace

LlmGatewayMetrics::LlmGatewayMetrics(prometheus::Registry& registry,
                                     const std::vector<std::string>& engines)
    : chats_active(
          metrics::Gauge(registry, "parley_llm_chats_active", "Answers that are being made")),
      realtime_active(metrics::Gauge(registry, "parley_llm_realtime_active",
                                     "Conversations with models that hear and speak")),
      input_tokens(metrics::Counter(registry, kTokens, kTokensHelp, {{"direction", "input"}})),
      output_tokens(metrics::Counter(registry, kTokens, kTokensHelp, {{"direction", "output"}})),
      fallbacks(metrics::Counter(registry, "parley_llm_fallbacks_total",
                                 "Models that failed and were passed over")) {
  for (const std::string& name : engines) {
    first_piece_[name] =
        &metrics::Histogram(registry, "parley_llm_first_piece_seconds",
                            "From the request to the first text or tool call", {{"engine", name}});
  }
  for (int code = 0; code < kCodes; ++code) {
    const std::string name = ToLower(absl::StatusCodeToString(static_cast<absl::StatusCode>(code)));
    errors_.push_back(&metrics::Counter(registry, "parley_llm_errors_total",
                                        "Chats that ended with an error", {{"code", name}}));
  }
}

void LlmGatewayMetrics::CountError(absl::StatusCode code) {
  const auto index = static_cast<size_t>(code);
  if (code != absl::StatusCode::kOk && index < errors_.size()) errors_[index]->Increment();
}

}  // namespace parley
