#pragma once
// One Lua script per decision. KEYS are always: 1 heads, 2 index, 3 names, 4 counters, 5 changes,
// 6 sequence, 7 versions of the agent, 8 its pinned versions, 9 deployments, 10 what of the agent
// was deployed before (keys.h), of one project.
#include "redis/redis.h"

namespace parley::registry_redis {

extern const redis::Script kRegister;
extern const redis::Script kDelete;
extern const redis::Script kClaimForProgram;
extern const redis::Script kDeploy;
extern const redis::Script kRollBack;

}  // namespace parley::registry_redis
