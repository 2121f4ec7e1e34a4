#include "speech_redis/health_board.h"

#include <charconv>
#include <utility>
#include <vector>

#include "base/status.h"
#include "speech_redis/keys.h"
#include "speech_redis/scripts.h"

namespace parley::speech_redis {
namespace {

std::string Ms(absl::Duration duration) {
  return std::to_string(absl::ToInt64Milliseconds(duration));
}

}  // namespace

HealthBoard::HealthBoard(redis::Pool& pool, std::string_view kind, speech::Breakers& breakers,
                         log::Logger log, absl::Duration every)
    : pool_(pool),
      key_(HealthKey(kind)),
      breakers_(breakers),
      log_(std::move(log)),
      every_(every),
      thread_([this] { Run(); }) {}

HealthBoard::~HealthBoard() {
  {
    MutexLock lock(&mutex_);
    stop_ = true;
    changed_.SignalAll();
  }
  thread_.join();
}

void HealthBoard::Run() {
  MutexLock lock(&mutex_);
  while (!stop_) {
    mutex_.Unlock();
    Exchange();
    mutex_.Lock();
    if (!stop_) changed_.WaitFor(&mutex_, every_);
  }
}

void HealthBoard::Exchange() {
  std::vector<speech::Breakers::Health> changes = breakers_.TakeChanges();
  std::vector<std::string> arguments;
  for (const speech::Breakers::Health& change : changes) {
    for (std::string part : {change.key, std::string(change.down ? "1" : "0"), Ms(change.wait),
                             Ms(change.cool_down), Ms(change.probe)})
      arguments.push_back(std::move(part));
  }
  const absl::StatusOr<redis::Reply> reply = pool_.Call(scripts::health, {key_}, arguments);
  if (!reply.ok()) {
    breakers_.GiveBack(std::move(changes));
    if (!absl::IsUnavailable(reply.status()))
      log_.Error("the health of engines cannot be shared", {{"error", Message(reply.status())}});
    return;
  }
  std::vector<speech::Breakers::Health> board;
  for (size_t i = 0; i + 3 < reply->elements.size(); i += 4) {
    speech::Breakers::Health health;
    health.key = reply->elements[i].text;
    health.down = true;
    health.wait = absl::Milliseconds(reply->elements[i + 1].integer);
    health.cool_down = absl::Milliseconds(reply->elements[i + 2].integer);
    health.probe = absl::Milliseconds(reply->elements[i + 3].integer);
    board.push_back(std::move(health));
  }
  breakers_.Adopt(board);
}

}  // namespace parley::speech_redis
