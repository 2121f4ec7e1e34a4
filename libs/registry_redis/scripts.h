#pragma once
// One Lua script per decision. KEYS are always: 1 heads, 2 index, 3 names, 4 counters, 5 changes,
// 6 sequence, 7 versions of the agent (keys.h), of one project.
#include "redis/redis.h"

namespace parley::registry_redis {

extern const redis::Script kRegister;
extern const redis::Script kDelete;
extern const redis::Script kClaimForProgram;

}  // namespace parley::registry_redis
