#include "tts_gateway/tts_gateway.h"

int main(int argc, char** argv) {
  return parley::service::Main<parley::TtsGatewayConfig>(
      argc, argv, "tts-gateway", "Text to speech: voices behind one streaming interface.",
      [](const parley::TtsGatewayConfig& config, parley::service::Context& context) {
        return parley::tts_gateway::Run(config, context);
      });
}
