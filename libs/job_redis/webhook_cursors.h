#pragma once
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <optional>
#include <string>
#include <string_view>

#include "redis/redis.h"

namespace parley::job {

// How far each webhook has been told of a pool's events, and which broker tells it: a lease without
// a leader. Thread-safe. Calls block for a round trip. Unavailable: the store is out of reach.
class WebhookCursors {
 public:
  // `owner`: this broker. A lease ends `lease` after its last call here.
  WebhookCursors(redis::Pool& redis, std::string owner, absl::Duration lease);

  // The position behind which to go on, once the lease is ours; nullopt while another broker has
  // it. A webhook that is new begins at `start`.
  absl::StatusOr<std::optional<std::string>> Take(std::string_view pool, std::string_view webhook,
                                                  std::string_view start);
  // Everything up to `position` is told; the lease goes on. False: it is not ours any more, and
  // nothing was changed.
  absl::StatusOr<bool> Advance(std::string_view pool, std::string_view webhook,
                               std::string_view position);
  // Ours no more: another may go on at once. Nothing when it was not.
  absl::Status Release(std::string_view pool, std::string_view webhook);

 private:
  redis::Pool& redis_;
  const std::string owner_;
  const std::string lease_ms_;
};

}  // namespace parley::job
