#pragma once
#include <string>

#include "agent/server/config.h"
#include "service/service.h"

namespace parley::agent {

// Opens the broker's, the room servers' and the gateways' streams. The stock program is a service
// of the cluster and works for all projects; a program signs with its API key and belongs to that
// key's project. Thread-safe.
std::string WorkerToken(const AgentServerConfig& config, service::Context& context,
                        const std::string& worker_id);

}  // namespace parley::agent
