#pragma once
// The model gateway: language models behind parley.llm.v1.LanguageModelService.
#include <absl/time/time.h>

#include <functional>
#include <string>

#include "gateway/provider.h"
#include "gateway/shared.h"
#include "service/service.h"

namespace parley {

struct LlmGatewayConfig {
  service::CommonConfig common;
  int max_chats = 128;
  absl::Duration timeout = absl::Minutes(2);
  gateway::SharedConfig shared;
  gateway::ProviderConfig openai;
  std::string script;

  void Bind(config::Table& table);
};

namespace llm_gateway {

// Serves until a stop is asked for. The exit code of main.
int Run(const LlmGatewayConfig& config, service::Context& context);
// As above; `started` hears the ports (they may be 0 in the configuration).
int Run(const LlmGatewayConfig& config, service::Context& context,
        std::function<void(int grpc_port, int admin_port)> started);

}  // namespace llm_gateway
}  // namespace parley
