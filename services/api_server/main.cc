#include "api_server/api_server.h"

int main(int argc, char** argv) {
  return parley::service::Main<parley::ApiServerConfig>(
      argc, argv, "api-server", "The HTTP/JSON edge: agents, sessions, what runs, tokens, speech.",
      [](const parley::ApiServerConfig& config, parley::service::Context& context) {
        return parley::api_server::Run(config, context);
      });
}
