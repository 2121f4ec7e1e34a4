#pragma once
// Where recordings of phrases are: which replica keeps one, and which makes one.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/mutex.h"
#include "redis/redis.h"

namespace parley::speech_redis {

// Thread-safe. Calls block for one round trip; Unavailable: Redis is out of reach.
class VoiceIndex {
 public:
  struct Keeper {
    std::string id;
    std::string address;  // host:port of its gRPC, "" = it lends to nobody
  };
  struct Ready {
    std::string id;  // of the recording
    std::vector<Keeper> keepers;
  };
  struct Make {  // the caller makes it, then Publish() or Forget()
    std::string id;
  };
  struct Wait {  // another makes it, for so long at most
    absl::Duration at_most;
  };
  using Answer = std::variant<Ready, Make, Wait>;

  // `id`: of this replica, drawn at each start. `pool` outlives it.
  VoiceIndex(redis::Pool& pool, std::string id) : pool_(pool), id_(std::move(id)) {}
  // Where others reach this replica, once that is known; until then it lends to nobody.
  void SetAddress(std::string address);

  // `phrase`: a digest of what is said and by whom. `within`: how long making it may take.
  absl::StatusOr<Answer> Claim(std::string_view project, std::string_view phrase,
                               absl::Duration within);
  // This replica keeps the recording. `lifetime`: from now, for what it made; zero for a copy.
  // False: it was flushed, or is over: do not keep it.
  absl::StatusOr<bool> Publish(std::string_view project, std::string_view phrase,
                               std::string_view id, absl::Duration lifetime);
  // `keeper` ("" = this replica) does not keep it any more, or does not make it after all.
  absl::Status Forget(std::string_view project, std::string_view phrase, std::string_view id,
                      std::string_view keeper = {});
  // Nothing that was recorded for the project so far is found again.
  absl::Status Flush(std::string_view project);

  const std::string& id() const { return id_; }

 private:
  redis::Pool& pool_;
  const std::string id_;
  mutable Mutex mutex_;
  std::string address_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace parley::speech_redis
