#pragma once
// The scripts of scripts/*.lua; what each takes, returns and keeps true stands in its first lines.
#include "redis/redis.h"

namespace parley::speech_redis::scripts {

extern const redis::Library library;

extern const redis::Function charge;
extern const redis::Function claim;
extern const redis::Function exchange;
extern const redis::Function flush;
extern const redis::Function forget;
extern const redis::Function health;
extern const redis::Function leave;
extern const redis::Function publish;

}  // namespace parley::speech_redis::scripts
