#pragma once
// Between parley.room.v1 and libs/room. Values of newer clients that we do not know become the
// default of their field.
#include <parley/room/v1/room.pb.h>

#include "room/room.h"
#include "room/types.h"

namespace parley::room_server {

namespace pb = ::parley::room::v1;

room::TrackSource FromProto(pb::TrackSource source);
room::LeaveReason FromProto(pb::DisconnectReason reason);
room::Permission FromProto(const pb::Permission& permission);
room::DataPacket FromProto(const pb::DataPacket& packet);
room::TextPacket FromProto(const pb::TextPacket& packet);
room::BytePacket FromProto(const pb::BytePacket& packet);
// InvalidArgument: no step.
absl::StatusOr<room::RpcPacket> FromProto(const pb::RpcPacket& packet);
room::ParticipantChange FromProto(const pb::UpdateSelf& update);
room::ParticipantChange FromProto(const pb::UpdateParticipantRequest& update);
// InvalidArgument: no kind or no codec.
absl::StatusOr<room::PublishRequest> FromProto(const pb::PublishTrack& publish);

pb::Codec ToProto(room::Codec codec);
pb::DisconnectReason ToProto(room::LeaveReason reason);
void ToProto(const room::Track& track, pb::Track* out);
void ToProto(const room::ParticipantInfo& participant, pb::Participant* out);
void ToProto(const room::RoomInfo& room, const std::string& media_url, pb::Room* out);
// The settings under which a room was, for it to go on.
void ApplyHeritage(const pb::Room& before, room::RoomOptions& options);
void ToProto(const room::Joined& joined, const std::string& media_url, pb::Joined* out);
void ToProto(const room::Event& event, const std::string& media_url, pb::RoomEvent* out);

}  // namespace parley::room_server
