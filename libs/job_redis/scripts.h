#pragma once
// The scripts of scripts/*.lua; what each takes, returns and keeps true stands in its first lines.
#include "redis/redis.h"

namespace parley::job::scripts {

extern const redis::Script begin_epoch;
extern const redis::Script checked_in;
extern const redis::Script checkpoint;
extern const redis::Script create;
extern const redis::Script drain;
extern const redis::Script end_session;
extern const redis::Script limits;
extern const redis::Script match;
extern const redis::Script migrate;
extern const redis::Script pool_tag;
extern const redis::Script presence;
extern const redis::Script register_worker;
extern const redis::Script renew;
extern const redis::Script replay;
extern const redis::Script save_session;
extern const redis::Script stats;
extern const redis::Script terminate;
extern const redis::Script tick;
extern const redis::Script words;

}  // namespace parley::job::scripts
