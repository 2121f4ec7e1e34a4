#pragma once
// The server half of an agent program: takes jobs from the broker, runs each in a process forked by
// the zygote, and connects it to its room, its gateways and its tools.
#include <functional>

#include "agent/server/config.h"
#include "service/service.h"
#include "supervise/zygote.h"

namespace parley::agent {

// Serves until `context` is asked to stop and the drain is over: no new job from then on, running
// ones may finish until the drain's deadline (config.common.drain), then they are told to end.
// Returns the exit code. Blocks; call it once per process, from any thread. `zygote` comes from
// supervise::Split() at the start of main() and is used by this call alone. `on_registered` is
// called once, on the loop: it must not block.
int ServeAgents(supervise::ZygoteClient& zygote, const AgentServerConfig& config,
                service::Context& context, std::function<void()> on_registered = {});

// The hidden mode in which the zygote runs this program to report the death of its agent server:
// true when these arguments ask for it, and then `exit_code` is what main() returns. Call it before
// Split() in every program whose server half is ServeAgents().
bool HandledDeathReport(int argc, char** argv, int* exit_code);

}  // namespace parley::agent
