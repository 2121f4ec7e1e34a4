#include "stt_gateway/stt_gateway.h"

int main(int argc, char** argv) {
  return parley::service::Main<parley::SttGatewayConfig>(
      argc, argv, "stt-gateway", "Speech to text: recognisers behind one streaming interface.",
      [](const parley::SttGatewayConfig& config, parley::service::Context& context) {
        return parley::stt_gateway::Run(config, context);
      });
}
