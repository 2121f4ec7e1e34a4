#pragma once
#include <absl/time/time.h>

#include <string>
#include <thread>

#include "base/mutex.h"
#include "log/log.h"
#include "redis/redis.h"
#include "speech/breakers.h"

namespace parley::speech_redis {

// Carries the state of circuit breakers between the replicas of a gateway: what one found down is
// left alone by all, one of them probes, and its success lets all come back. While Redis is away
// each replica goes by what it sees itself.
class HealthBoard {
 public:
  // `kind`: stt, tts or llm. Both outlive it.
  HealthBoard(redis::Pool& pool, std::string_view kind, speech::Breakers& breakers, log::Logger log,
              absl::Duration every = absl::Milliseconds(250));
  ~HealthBoard();

 private:
  void Run();
  void Exchange();

  redis::Pool& pool_;
  const std::string key_;
  speech::Breakers& breakers_;
  const log::Logger log_;
  const absl::Duration every_;
  Mutex mutex_;
  CondVar changed_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace parley::speech_redis
