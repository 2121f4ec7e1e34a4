#include "api_server/livekit/frames.h"

#include <google/protobuf/util/json_util.h>

#include <charconv>

#include "base/ids.h"
#include "base/status.h"
#include "base/strings.h"

namespace parley::api_server {
namespace {

namespace v1 = ::parley::dispatch::v1;

constexpr int kMaxNesting = 32;
constexpr size_t kMaxDeployment = 64;
constexpr size_t kMaxName = 256;
constexpr size_t kMaxMetadata = 512 << 10;
constexpr size_t kMaxAttributes = 64 << 10;
constexpr size_t kMaxIdBytes = 64;

absl::Status CheckDeployment(std::string_view deployment) {
  if (deployment.size() > kMaxDeployment) {
    return InvalidArgument("deployment: at most {} bytes", kMaxDeployment);
  }
  for (const char c : deployment) {
    if (c == '_' || static_cast<unsigned char>(c) <= 0x20 || c == 0x7f) {
      return InvalidArgument("deployment: no underscore, no space, no control character");
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<lk::WorkerMessage> ReadWorkerMessage(const http::WebSocketMessage& frame) {
  lk::WorkerMessage message;
  if (!frame.text) {
    if (message.ParseFromString(frame.data)) return message;
    return InvalidArgument("this is not a worker's message");
  }
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;
  if (!JsonNestsWithin(frame.data, kMaxNesting) ||
      !google::protobuf::util::JsonStringToMessage(frame.data, &message, options).ok()) {
    return InvalidArgument("this is not a worker's message in JSON");
  }
  return message;
}

http::WebSocketMessage WriteServerMessage(const lk::ServerMessage& message, bool text) {
  if (!text) return {message.SerializeAsString(), false};
  http::WebSocketMessage frame{{}, true};
  (void)google::protobuf::util::MessageToJsonString(message, &frame.data);
  return frame;
}

absl::Status Check(const lk::RegisterWorkerRequest& request) {
  if (!lk::JobType_IsValid(request.type())) {
    return InvalidArgument("type: {} is no job type", static_cast<int>(request.type()));
  }
  if (request.agent_name().size() > kMaxName) {
    return InvalidArgument("agent_name: at most {} bytes", kMaxName);
  }
  if (request.version().size() > kMaxName) {
    return InvalidArgument("version: at most {} bytes", kMaxName);
  }
  return CheckDeployment(request.deployment());
}

absl::Status Check(const lk::AvailabilityResponse& answer) {
  if (answer.participant_identity().size() > kMaxName ||
      answer.participant_name().size() > kMaxName) {
    return InvalidArgument("participant_identity and participant_name: at most {} bytes", kMaxName);
  }
  if (answer.participant_metadata().size() > kMaxMetadata) {
    return InvalidArgument("participant_metadata: at most {} bytes", kMaxMetadata);
  }
  size_t bytes = 0;
  for (const auto& [key, value] : answer.participant_attributes())
    bytes += key.size() + value.size();
  if (bytes <= kMaxAttributes) return absl::OkStatus();
  return InvalidArgument("participant_attributes: at most {} bytes", kMaxAttributes);
}

std::string WireId(std::string_view job_id, int attempt) {
  return attempt <= 1 ? std::string(job_id) : fmt::format("{}-{}", job_id, attempt);
}

std::optional<WireJob> ReadWireId(std::string_view id) {
  if (id.size() > kMaxIdBytes || !id.starts_with(kJobPrefix)) return std::nullopt;
  const size_t dash = id.rfind('-');
  WireJob job{std::string(id.substr(0, dash))};
  if (dash == std::string_view::npos) return job;
  const std::string_view number = id.substr(dash + 1);
  const auto [end, error] =
      std::from_chars(number.data(), number.data() + number.size(), job.attempt);
  if (error != std::errc() || end != number.data() + number.size() || job.attempt < 2) {
    return std::nullopt;
  }
  return job;
}

lk::JobType ToLiveKit(v1::JobType type) {
  switch (type) {
    case v1::JOB_TYPE_PUBLISHER:
      return lk::JT_PUBLISHER;
    case v1::JOB_TYPE_PARTICIPANT:
      return lk::JT_PARTICIPANT;
    default:
      return lk::JT_ROOM;
  }
}

v1::JobType FromLiveKit(lk::JobType type) {
  switch (type) {
    case lk::JT_PUBLISHER:
      return v1::JOB_TYPE_PUBLISHER;
    case lk::JT_PARTICIPANT:
      return v1::JOB_TYPE_PARTICIPANT;
    default:
      return v1::JOB_TYPE_ROOM;
  }
}

lk::Job ToLiveKit(const v1::Assignment& assignment) {
  lk::Job job;
  job.set_id(WireId(assignment.job_id(), assignment.attempt()));
  job.set_type(ToLiveKit(assignment.job_type()));
  job.mutable_room()->set_sid(assignment.room_sid());
  job.mutable_room()->set_name(assignment.room());
  if (!assignment.participant_identity().empty()) {
    job.mutable_participant()->set_identity(assignment.participant_identity());
  }
  job.set_metadata(assignment.metadata());
  job.set_agent_name(assignment.agent_name());
  job.set_dispatch_id(assignment.dispatch_id());
  job.set_deployment(assignment.selector().deployment());
  job.mutable_attributes()->insert(assignment.attributes().begin(), assignment.attributes().end());
  return job;
}

}  // namespace parley::api_server
