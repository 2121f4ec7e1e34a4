#pragma once
// `connect --room NAME`: this program's agent in one room, now, without anybody asking for it.
#include <string>

#include "agent/server/config.h"
#include "service/service.h"

namespace parley::agent {

// Asks the broker for the one agent that `config` serves, in `room`, and returns when that dispatch
// is over or `context` is asked to stop. Blocks; a broker that cannot be reached for a while is
// asked again.
//   as DispatchService.CreateDispatch; Unavailable: the dispatch failed (says why)
absl::Status RunInRoom(const AgentServerConfig& config, service::Context& context,
                       const std::string& room);

}  // namespace parley::agent
