#include "llm_gateway/llm_gateway.h"

int main(int argc, char** argv) {
  return parley::service::Main<parley::LlmGatewayConfig>(
      argc, argv, "llm-gateway", "Language models behind one streaming interface.",
      [](const parley::LlmGatewayConfig& config, parley::service::Context& context) {
        return parley::llm_gateway::Run(config, context);
      });
}
