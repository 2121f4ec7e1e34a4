#pragma once
#include <absl/status/statusor.h>

#include <functional>
#include <memory>
#include <string>

#include "api_server/api_server.h"
#include "http/body_stream.h"
#include "http/server.h"

namespace parley::api_server {

// Reads the broker's events as they come. Thread-safe.
class EventPump {
 public:
  struct Reader {
    // One call at a time, on gRPC's threads; must not block. False: no more.
    std::function<bool(const dispatch::v1::Event&)> on_event;
    std::function<void()> on_end;  // once, last; not when Start failed
  };

  // Blocks until the broker has taken the call, so that its refusal is the answer.
  // DeadlineExceeded: it did not answer within 5 s.
  static absl::StatusOr<std::shared_ptr<EventPump>> Start(
      Backend& backend, const std::string& bearer, const dispatch::v1::WatchEventsRequest& call,
      Reader reader);
  virtual ~EventPump() = default;

  virtual void Cancel() = 0;  // idempotent
};

// One server-sent event.
std::string ServerSentEvent(const std::string& data, const std::string& id = {});
// The answer whose body `stream` writes.
http::Response EventStream(std::shared_ptr<http::BodyStream> stream);

}  // namespace parley::api_server
