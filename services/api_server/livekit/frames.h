#pragma once
// LiveKit's worker messages: reading what workers send, and saying in them what the broker says.
#include <absl/status/statusor.h>
#include <parley/dispatch/v1/worker.pb.h>
#include <parley/livekit/v1/agent.pb.h>

#include <optional>
#include <string>
#include <string_view>

#include "http/websocket.h"

namespace parley::api_server {

namespace lk = ::parley::livekit::v1;

// One frame of a worker. Fields that are not known here are passed over; of a message that is not,
// message_case() is MESSAGE_NOT_SET.
//   InvalidArgument  malformed
absl::StatusOr<lk::WorkerMessage> ReadWorkerMessage(const http::WebSocketMessage& frame);
http::WebSocketMessage WriteServerMessage(const lk::ServerMessage& message, bool text);

//   InvalidArgument  names the field
absl::Status Check(const lk::RegisterWorkerRequest& request);
//   InvalidArgument  too long for a participant
absl::Status Check(const lk::AvailabilityResponse& answer);

// A job as workers know it. Its id there is that of one attempt, since a worker knows no tokens:
// what it says later is then never taken for a word about another attempt.
struct WireJob {
  std::string job_id;
  int attempt = 1;
};
std::string WireId(std::string_view job_id, int attempt);  // "AJ_x", "AJ_x-2", …
std::optional<WireJob> ReadWireId(std::string_view id);

lk::JobType ToLiveKit(dispatch::v1::JobType type);
dispatch::v1::JobType FromLiveKit(lk::JobType type);
// `state` is left out.
lk::Job ToLiveKit(const dispatch::v1::Assignment& assignment);

}  // namespace parley::api_server
