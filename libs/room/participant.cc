// What a participant may do: commands of its own connection.
#include <algorithm>

#include "base/ids.h"
#include "base/strings.h"
#include "room/room.h"
#include "room/state.h"

namespace parley::room {
namespace {

absl::Status Gone() { return FailedPrecondition("the participant has left the room"); }

absl::Status CheckPublish(const PublishRequest& request, const Permission& permission,
                          bool takes_opaque) {
  PARLEY_RETURN_IF_ERROR(CheckName("cid", request.cid, true));
  PARLEY_RETURN_IF_ERROR(CheckName("track name", request.name, true));
  const bool video = request.kind == TrackKind::kVideo;
  if (video && !takes_opaque) {
    return Error(absl::StatusCode::kUnimplemented, "video goes over WebRTC only");
  }
  const bool video_codec = request.codec != Codec::kOpus && request.codec != Codec::kPcm16;
  if (video != video_codec) return InvalidArgument("the codec is of another kind of track");
  if (request.picture.layers.size() > kMaxLayers) {
    return InvalidArgument("a track has {} layers; the limit is {}", request.picture.layers.size(),
                           kMaxLayers);
  }
  if (!permission.can_publish) {
    return PermissionDenied("the token does not grant canPublish");
  }
  if (permission.hidden) return PermissionDenied("hidden participants cannot publish tracks");
  const auto& sources = permission.can_publish_sources;
  if (!sources.empty() && std::ranges::find(sources, request.source) == sources.end()) {
    return PermissionDenied("the token's canPublishSources does not name this track's source");
  }
  return absl::OkStatus();
}

absl::Status CheckPayload(std::string_view payload, std::string_view topic) {
  if (payload.size() > kMaxDataBytes) {
    return InvalidArgument("a packet of {} bytes; the limit is {}", payload.size(), kMaxDataBytes);
  }
  return CheckName("topic", topic, true);
}

}  // namespace

Participant::Participant(std::shared_ptr<Room> room, const JoinRequest& request, std::string sid)
    : room_(std::move(room)),
      sid_(std::move(sid)),
      identity_(request.identity),
      kind_(request.kind),
      state_(std::make_unique<State>()) {}

Participant::~Participant() = default;

absl::StatusOr<Track> Participant::Publish(const PublishRequest& request) {
  MutexLock lock(&room_->mutex_);
  if (state_->gone) return Gone();
  PARLEY_RETURN_IF_ERROR(
      CheckPublish(request, state_->info.permission, state_->sink->TakesOpaque()));
  const size_t live = static_cast<size_t>(
      std::ranges::count_if(state_->tracks, [](const auto& track) { return track->live; }));
  if (live >= kMaxTracks || state_->tracks.size() >= 64 * kMaxTracks) {
    return ResourceExhausted("a participant may publish {} tracks", kMaxTracks);
  }
  auto& published = *state_->tracks.emplace_back(std::make_unique<Room::Published>());
  published.track = {.sid = NewId(kTrackPrefix),
                     .name = request.name,
                     .kind = request.kind,
                     .source = request.source,
                     .codec = request.codec,
                     .encryption = request.encryption,
                     .picture = request.picture};
  state_->sink->OnEvent(TrackPublished{identity_, published.track, request.cid});
  room_->BroadcastLocked(TrackPublished{identity_, published.track, {}}, this);
  for (const auto& other : room_->participants_) {
    if (other.get() != this && other->state_->auto_subscribe) {
      room_->SubscribeLocked(*this, published, *other);
    }
  }
  return published.track;
}

absl::Status Participant::Unpublish(std::string_view track_sid) {
  MutexLock lock(&room_->mutex_);
  if (state_->gone) return Gone();
  Room::Published* published = state_->Track(track_sid);
  if (published == nullptr) return NotFound("no track {} of this participant", track_sid);
  room_->UnpublishLocked(*this, *published);
  return absl::OkStatus();
}

absl::Status Participant::SetMuted(std::string_view track_sid, bool muted) {
  MutexLock lock(&room_->mutex_);
  if (state_->gone) return Gone();
  Room::Published* published = state_->Track(track_sid);
  if (published == nullptr) return NotFound("no track {} of this participant", track_sid);
  room_->SetMutedLocked(*this, *published, muted);
  return absl::OkStatus();
}

absl::Status Participant::SetSubscribed(std::string_view track_sid, bool subscribed) {
  MutexLock lock(&room_->mutex_);
  if (state_->gone) return Gone();
  return room_->SetSubscribedLocked(*this, track_sid, subscribed);
}

void Participant::NowHears(uint32_t track_number) {
  MutexLock lock(&room_->mutex_);
  if (state_->gone) return;
  for (const auto& other : room_->participants_) {
    for (const auto& track : other->state_->tracks) {
      for (const auto& listener : track->listeners) {
        if (listener.participant != this || listener.number != track_number) continue;
        return room_->HearsLocked(*other, *track, *this);
      }
    }
  }
}

absl::Status Participant::Update(const ParticipantChange& change) {
  MutexLock lock(&room_->mutex_);
  if (state_->gone) return Gone();
  if (!state_->info.permission.can_update_metadata) {
    return PermissionDenied("the token does not grant canUpdateOwnMetadata");
  }
  ParticipantChange own = change;
  own.permission.reset();
  return room_->ChangeLocked(*this, own);
}

absl::Status Participant::CheckMaySendLocked() const {
  if (state_->gone) return Gone();
  if (state_->info.permission.can_publish_data) return absl::OkStatus();
  return PermissionDenied("the token does not grant canPublishData");
}

std::string Participant::ShownIdentityLocked() const {
  return state_->info.permission.hidden ? std::string() : identity_;
}

absl::Status Participant::SendData(DataPacket packet) {
  PARLEY_RETURN_IF_ERROR(CheckPayload(packet.payload, packet.topic));
  MutexLock lock(&room_->mutex_);
  PARLEY_RETURN_IF_ERROR(CheckMaySendLocked());
  packet.from_identity = ShownIdentityLocked();
  const std::vector<std::string> destinations = packet.destination_identities;
  room_->DeliverLocked(std::move(packet), destinations, this);
  return absl::OkStatus();
}

absl::Status Participant::SendText(TextPacket packet) {
  PARLEY_RETURN_IF_ERROR(CheckPayload(packet.text, packet.topic));
  PARLEY_RETURN_IF_ERROR(CheckName("stream_id", packet.stream_id, true));
  PARLEY_RETURN_IF_ERROR(CheckName("from_identity", packet.from_identity, true));
  PARLEY_RETURN_IF_ERROR(CheckAttributes(packet.attributes));
  if (!IsValidUtf8(packet.text)) return InvalidArgument("text is not valid UTF-8");
  MutexLock lock(&room_->mutex_);
  PARLEY_RETURN_IF_ERROR(CheckMaySendLocked());
  if (kind_ != Kind::kAgent || packet.from_identity.empty()) {
    packet.from_identity = ShownIdentityLocked();
  }
  const std::vector<std::string> destinations = packet.destination_identities;
  room_->DeliverLocked(std::move(packet), destinations, this);
  return absl::OkStatus();
}

absl::Status Participant::SendBytes(BytePacket packet) {
  PARLEY_RETURN_IF_ERROR(CheckPayload(packet.content, packet.topic));
  PARLEY_RETURN_IF_ERROR(CheckName("stream_id", packet.stream_id, true));
  PARLEY_RETURN_IF_ERROR(CheckName("name", packet.name, true));
  PARLEY_RETURN_IF_ERROR(CheckName("mime_type", packet.mime_type, true));
  PARLEY_RETURN_IF_ERROR(CheckAttributes(packet.attributes));
  MutexLock lock(&room_->mutex_);
  PARLEY_RETURN_IF_ERROR(CheckMaySendLocked());
  packet.from_identity = ShownIdentityLocked();
  const std::vector<std::string> destinations = packet.destination_identities;
  room_->DeliverLocked(std::move(packet), destinations, this);
  return absl::OkStatus();
}

absl::Status Participant::SendRpc(RpcPacket packet) {
  PARLEY_RETURN_IF_ERROR(CheckPayload(packet.payload, packet.method));
  PARLEY_RETURN_IF_ERROR(CheckPayload(packet.error_data, packet.error_message));
  PARLEY_RETURN_IF_ERROR(CheckName("request_id", packet.request_id, false));
  if (!IsValidUtf8(packet.payload) || !IsValidUtf8(packet.error_data)) {
    return InvalidArgument("a call's payload is not valid UTF-8");
  }
  MutexLock lock(&room_->mutex_);
  PARLEY_RETURN_IF_ERROR(CheckMaySendLocked());
  packet.from_identity = identity_;
  const bool request = packet.step == RpcPacket::Step::kRequest;
  if (request && room_->FindLocked(packet.destination_identity) == nullptr) {
    RpcPacket refused;
    refused.step = RpcPacket::Step::kAck;  // SDKs hear of no error before it
    refused.request_id = packet.request_id;
    refused.from_identity = packet.destination_identity;
    refused.destination_identity = identity_;
    state_->sink->OnEvent(refused);
    refused.step = RpcPacket::Step::kResponse;
    refused.error_code = kRpcRecipientNotFound;
    refused.error_message = "Recipient not found";
    state_->sink->OnEvent(std::move(refused));
  } else {
    room_->DeliverRpcLocked(packet);
  }
  return absl::OkStatus();
}

void Participant::SetQuality(Quality quality, float score) {
  MutexLock lock(&room_->mutex_);
  if (state_->gone || quality == state_->quality) return;
  state_->quality = quality;
  state_->quality_score = score;
  if (!state_->info.permission.hidden) {
    room_->BroadcastLocked(QualityChanged{sid_, quality, score});
  }
}

void Participant::Leave(LeaveReason reason, std::string_view message) {
  MutexLock lock(&room_->mutex_);
  if (state_->gone) return;
  const auto self =
      std::ranges::find_if(room_->participants_, [this](const auto& p) { return p.get() == this; });
  room_->RemoveLocked(*self, reason, message);
}

FrameResult Participant::SendFrame(uint32_t index, const Frame& frame) {
  if (frame.data.empty() || frame.data.size() > kMaxFrameBytes) return FrameResult::kInvalid;
  MutexLock lock(&room_->mutex_);
  if (state_->gone || index >= state_->tracks.size()) return FrameResult::kNoTrack;
  Room::Published& published = *state_->tracks[index];
  if (!published.live) return FrameResult::kNoTrack;
  if (published.track.codec == Codec::kPcm16 && frame.data.size() != kPcm16FrameBytes) {
    return FrameResult::kInvalid;
  }
  if (published.track.muted) return FrameResult::kMuted;
  if (published.track.kind == TrackKind::kAudio) {
    room_->HearLocked(*this, frame.level);
    room_->KeepEarlySpeechLocked(*this, published, frame);
  }
  if (published.listeners.empty()) return FrameResult::kUnheard;
  for (const Room::Published::Listener& listener : published.listeners) {
    listener.sink->OnFrame(listener.number, frame);
  }
  return FrameResult::kForwarded;
}

void Participant::WantPicture(uint32_t track_number, uint8_t layer) {
  MutexLock lock(&room_->mutex_);
  if (state_->gone) return;
  for (const auto& other : room_->participants_) {
    for (size_t i = 0; i < other->state_->tracks.size(); ++i) {
      for (const auto& listener : other->state_->tracks[i]->listeners) {
        if (listener.participant != this || listener.number != track_number) continue;
        return other->state_->sink->OnPictureWanted(static_cast<uint32_t>(i), layer);
      }
    }
  }
}

std::optional<uint32_t> Participant::TrackIndex(std::string_view track_sid) const {
  MutexLock lock(&room_->mutex_);
  for (size_t i = 0; i < state_->tracks.size(); ++i) {
    if (state_->tracks[i]->live && state_->tracks[i]->track.sid == track_sid) {
      return static_cast<uint32_t>(i);
    }
  }
  return std::nullopt;
}

}  // namespace parley::room
