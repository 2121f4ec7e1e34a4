#pragma once
// Between our services and the messages of LiveKit's server API.
#include <absl/status/statusor.h>
#include <parley/dispatch/v1/dispatch.pb.h>
#include <parley/livekit/v1/server.pb.h>
#include <parley/room/v1/room.pb.h>

namespace parley::api_server {

namespace lk = ::parley::livekit::v1;

lk::Room ToLiveKit(const room::v1::Room& room);
lk::TrackInfo ToLiveKit(const room::v1::Track& track);
lk::ParticipantInfo ToLiveKit(const room::v1::Participant& participant);
// Jobs that wait are JS_PENDING, whatever they wait for; a cancelled one and one that every agent
// server turned down for good are JS_SUCCESS, as LiveKit has it.
lk::AgentDispatch ToLiveKit(const dispatch::v1::Dispatch& dispatch);

room::v1::Permission FromLiveKit(const lk::ParticipantPermission& permission);
//   InvalidArgument  deployment: above 64 bytes, or with blanks, control characters or _
absl::StatusOr<room::v1::AgentDispatch> FromLiveKit(const lk::RoomAgentDispatch& agent);
absl::StatusOr<dispatch::v1::CreateDispatchRequest> FromLiveKit(
    const lk::CreateAgentDispatchRequest& request);

}  // namespace parley::api_server
