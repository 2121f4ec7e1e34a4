#pragma once
// One Lua script per decision. KEYS are always: 1 replicas, 2 holders, 3 summaries (keys.h), of one
// project.
#include "redis/redis.h"

namespace parley::room_redis {

extern const redis::Script kTakeRoom;
extern const redis::Script kHolder;
extern const redis::Script kFreeRooms;
extern const redis::Script kHeartbeat;
extern const redis::Script kList;
extern const redis::Script kLeave;

}  // namespace parley::room_redis
