#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "http/client.h"
#include "speech/llm.h"
#include "speech/provider_keys.h"

namespace parley::engines {

// Where the provider is and what it may do: set by the operator, never by an agent's definition.
struct OpenAiOptions {
  std::string base_url = "https://api.openai.com/v1";
  speech::ProviderKeys keys;
  std::string default_model;  // for requests that name none
  absl::Duration first_token_timeout = absl::Seconds(15);
  absl::Duration timeout = absl::Seconds(120);
};

// Any server that speaks OpenAI's streaming chat completions, with tools.
class OpenAiEngine : public speech::LlmEngine {
 public:
  explicit OpenAiEngine(OpenAiOptions options);

  std::string_view name() const override { return "openai"; }
  bool embedded() const override { return false; }
  std::vector<speech::LlmModelInfo> Models() const override;
  absl::StatusOr<speech::ChatDone> Chat(const speech::ChatPrompt& prompt,
                                        const speech::ChatSink& sink,
                                        const speech::Cancellation& cancel) override;

 private:
  const OpenAiOptions options_;
  http::Client client_;
};

}  // namespace parley::engines
