#pragma once
// LiveKit's signalling messages: reading what clients send, and saying in them what a room says.
#include <absl/status/statusor.h>
#include <parley/livekit/v1/rtc.pb.h>

#include <map>
#include <string>
#include <string_view>

#include "room/room.h"

namespace parley::room_server {

namespace lk = ::parley::livekit::v1;

inline constexpr size_t kMaxJoinRequestBytes = 1 << 20;  // unpacked

// The query parameter `join_request` of /rtc/v1: base64url of a WrappedJoinRequest.
//   InvalidArgument  none of that
absl::StatusOr<lk::JoinRequest> ReadJoinRequest(std::string_view parameter);

// The query parameters of /rtc: the same said differently. Others are passed over.
//   InvalidArgument  `attributes` is not base64url of a JSON object of strings
absl::StatusOr<lk::JoinRequest> ReadJoinQuery(const std::map<std::string, std::string>& query);

// One frame. Fields that are not known here are passed over.
//   InvalidArgument  malformed
absl::StatusOr<lk::SignalRequest> ReadSignalRequest(std::string_view data, bool json);
std::string WriteSignalResponse(const lk::SignalResponse& response, bool json);

lk::Room ToLiveKit(const room::RoomInfo& info);
lk::ParticipantInfo ToLiveKit(const room::ParticipantInfo& info);
lk::TrackInfo ToLiveKit(const room::Track& track);
lk::DisconnectReason ToLiveKit(room::LeaveReason reason);
lk::ConnectionQuality ToLiveKit(room::Quality quality);
room::TrackSource FromLiveKit(lk::TrackSource source);
room::Encryption FromLiveKit(lk::EncryptionType encryption);
// What a client says of the video that it is about to send.
void ReadVideo(const lk::AddTrackRequest& request, room::PublishRequest* publish);
// As session descriptions name it: "opus", "vp8".
std::string_view SdpName(room::Codec codec);
// The highest of the track's layers that is of use to a client that asks for this; -1: none.
int HighestLayer(const lk::UpdateTrackSettings& wish, const lk::TrackInfo& track);

}  // namespace parley::room_server
