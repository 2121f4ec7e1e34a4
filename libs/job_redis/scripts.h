#pragma once
// The scripts of scripts/*.lua; what each takes, returns and keeps true stands in its first lines.
#include "redis/redis.h"

namespace parley::job::scripts {

// All but those that are called before an epoch is known, or on keys of a project.
extern const redis::Library library;

extern const redis::Script begin_epoch;
extern const redis::Function checked_in;
extern const redis::Function checkpoint;
extern const redis::Function create;
extern const redis::Function drain;
extern const redis::Function end_session;
extern const redis::Function limits;
extern const redis::Script mark_form;
extern const redis::Function match;
extern const redis::Function migrate;
extern const redis::Script note_presence;
extern const redis::Function note_stall;
extern const redis::Script pool_tag;
extern const redis::Function presence;
extern const redis::Function register_worker;
extern const redis::Function renew;
extern const redis::Function replay;
extern const redis::Script save_session;
extern const redis::Function settled;
extern const redis::Function stats;
extern const redis::Function terminate;
extern const redis::Function tick;
extern const redis::Function words;

}  // namespace parley::job::scripts
