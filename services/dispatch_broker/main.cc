#include "dispatch_broker/dispatch_broker.h"

int main(int argc, char** argv) {
  return parley::service::Main<parley::DispatchBrokerConfig>(
      argc, argv, "dispatch-broker",
      "Dispatches agents into rooms: durable jobs, leases, and the agent servers that run them.",
      [](const parley::DispatchBrokerConfig& config, parley::service::Context& context) {
        return parley::dispatch_broker::Run(config, context);
      });
}
