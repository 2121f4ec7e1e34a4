#include "room_server/convert.h"

#include <utility>

namespace parley::room_server {
namespace {

void ToProto(absl::Duration duration, google::protobuf::Duration* out) {
  out->set_seconds(absl::ToInt64Seconds(duration));
  out->set_nanos(static_cast<int32_t>(
      absl::ToInt64Nanoseconds(duration - absl::Seconds(absl::ToInt64Seconds(duration)))));
}

absl::Duration FromProto(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

void ToProto(absl::Time time, google::protobuf::Timestamp* out) {
  const int64_t micros = absl::ToUnixMicros(time);
  out->set_seconds(micros / 1'000'000);
  out->set_nanos(static_cast<int32_t>(micros % 1'000'000 * 1'000));
}

template <typename Map>
room::Attributes ToMap(const Map& map) {
  return {map.begin(), map.end()};
}

template <typename Map>
void CopyInto(const room::Attributes& attributes, Map* out) {
  for (const auto& [key, value] : attributes) (*out)[key] = value;
}

pb::TrackSource ToProto(room::TrackSource source) {
  switch (source) {
    case room::TrackSource::kCamera:
      return pb::TRACK_SOURCE_CAMERA;
    case room::TrackSource::kMicrophone:
      return pb::TRACK_SOURCE_MICROPHONE;
    case room::TrackSource::kScreenShare:
      return pb::TRACK_SOURCE_SCREEN_SHARE;
    case room::TrackSource::kScreenShareAudio:
      return pb::TRACK_SOURCE_SCREEN_SHARE_AUDIO;
    case room::TrackSource::kUnknown:
      break;
  }
  return pb::TRACK_SOURCE_UNSPECIFIED;
}

pb::ParticipantKind ToProto(room::Kind kind) {
  switch (kind) {
    case room::Kind::kAgent:
      return pb::PARTICIPANT_KIND_AGENT;
    case room::Kind::kSip:
      return pb::PARTICIPANT_KIND_SIP;
    case room::Kind::kRecorder:
      return pb::PARTICIPANT_KIND_RECORDER;
    case room::Kind::kStandard:
      break;
  }
  return pb::PARTICIPANT_KIND_STANDARD;
}

pb::ParticipantState ToProto(room::State state) {
  switch (state) {
    case room::State::kJoined:
      return pb::PARTICIPANT_STATE_JOINED;
    case room::State::kDisconnected:
      return pb::PARTICIPANT_STATE_DISCONNECTED;
    case room::State::kActive:
      break;
  }
  return pb::PARTICIPANT_STATE_ACTIVE;
}

void ToProto(const room::Permission& permission, pb::Permission* out) {
  out->set_can_subscribe(permission.can_subscribe);
  out->set_can_publish(permission.can_publish);
  out->set_can_publish_data(permission.can_publish_data);
  out->set_can_update_metadata(permission.can_update_metadata);
  out->set_hidden(permission.hidden);
  for (const auto source : permission.can_publish_sources) {
    out->add_can_publish_sources(ToProto(source));
  }
}

void ToProto(const room::DataPacket& packet, pb::DataPacket* out) {
  out->set_payload(packet.payload);
  out->set_topic(packet.topic);
  out->set_reliable(packet.reliable);
  out->set_from_identity(packet.from_identity);
  for (const auto& to : packet.destination_identities) out->add_destination_identities(to);
}

void ToProto(const room::TextPacket& packet, pb::TextPacket* out) {
  out->set_stream_id(packet.stream_id);
  out->set_topic(packet.topic);
  out->set_text(packet.text);
  out->set_final(packet.final);
  CopyInto(packet.attributes, out->mutable_attributes());
  out->set_from_identity(packet.from_identity);
  for (const auto& to : packet.destination_identities) out->add_destination_identities(to);
}

void ToProto(const room::BytePacket& packet, pb::BytePacket* out) {
  out->set_stream_id(packet.stream_id);
  out->set_topic(packet.topic);
  out->set_name(packet.name);
  out->set_mime_type(packet.mime_type);
  out->set_content(packet.content);
  out->set_final(packet.final);
  CopyInto(packet.attributes, out->mutable_attributes());
  out->set_total_bytes(packet.total_bytes);
  out->set_from_identity(packet.from_identity);
  for (const auto& to : packet.destination_identities) out->add_destination_identities(to);
}

void ToProto(const room::RpcPacket& packet, pb::RpcPacket* out) {
  out->set_request_id(packet.request_id);
  out->set_from_identity(packet.from_identity);
  out->set_destination_identity(packet.destination_identity);
  switch (packet.step) {
    case room::RpcPacket::Step::kRequest:
      out->mutable_request()->set_method(packet.method);
      out->mutable_request()->set_payload(packet.payload);
      out->mutable_request()->set_response_timeout_ms(
          static_cast<uint32_t>(absl::ToInt64Milliseconds(packet.response_timeout)));
      return;
    case room::RpcPacket::Step::kAck:
      out->mutable_ack();
      return;
    case room::RpcPacket::Step::kResponse:
      break;
  }
  pb::RpcResponse& response = *out->mutable_response();
  if (packet.error_code == 0) return response.set_payload(packet.payload);
  response.mutable_error()->set_code(packet.error_code);
  response.mutable_error()->set_message(packet.error_message);
  response.mutable_error()->set_data(packet.error_data);
}

// One overload per event.
struct EventWriter {
  const std::string& media_url;
  pb::RoomEvent* out;

  void operator()(const room::ParticipantJoined& event) {
    room_server::ToProto(event.participant,
                         out->mutable_participant_joined()->mutable_participant());
  }
  void operator()(const room::ParticipantLeft& event) {
    auto* left = out->mutable_participant_left();
    left->set_sid(event.sid);
    left->set_identity(event.identity);
    left->set_reason(room_server::ToProto(event.reason));
  }
  void operator()(const room::ParticipantUpdated& event) {
    room_server::ToProto(event.participant,
                         out->mutable_participant_updated()->mutable_participant());
  }
  void operator()(const room::TrackPublished& event) {
    auto* published = out->mutable_track_published();
    published->set_participant_identity(event.participant_identity);
    room_server::ToProto(event.track, published->mutable_track());
    published->set_cid(event.cid);
  }
  void operator()(const room::TrackUnpublished& event) {
    auto* unpublished = out->mutable_track_unpublished();
    unpublished->set_participant_identity(event.participant_identity);
    unpublished->set_track_sid(event.track_sid);
  }
  void operator()(const room::TrackMuted& event) {
    auto* muted = out->mutable_track_muted();
    muted->set_participant_identity(event.participant_identity);
    muted->set_track_sid(event.track_sid);
    muted->set_muted(event.muted);
  }
  void operator()(const room::TrackSubscribed& event) {
    out->mutable_track_subscribed()->set_track_sid(event.track_sid);
    out->mutable_track_subscribed()->set_subscriber_identity(event.subscriber_identity);
  }
  void operator()(const room::SubscriptionStarted& event) {
    auto* started = out->mutable_subscription_started();
    started->set_participant_identity(event.participant_identity);
    room_server::ToProto(event.track, started->mutable_track());
    started->set_track_number(event.track_number);
  }
  void operator()(const room::DataPacket& packet) { ToProto(packet, out->mutable_data()); }
  void operator()(const room::TextPacket& packet) { ToProto(packet, out->mutable_text()); }
  void operator()(const room::BytePacket& packet) { ToProto(packet, out->mutable_bytes()); }
  void operator()(const room::RpcPacket& packet) { ToProto(packet, out->mutable_rpc()); }
  void operator()(const room::SpeakersChanged& event) {
    for (const room::Speaker& speaker : event.speakers) {
      pb::Speaker& told = *out->mutable_speakers_changed()->add_speakers();
      told.set_sid(speaker.sid);
      told.set_identity(speaker.identity);
      told.set_level(speaker.level);
      told.set_active(speaker.active);
    }
  }
  void operator()(const room::QualityChanged&) {}  // of transports that have one
  void operator()(const room::RoomUpdated& event) {
    room_server::ToProto(event.room, media_url, out->mutable_room_updated()->mutable_room());
  }
  void operator()(const room::Disconnected& event) {
    out->mutable_disconnected()->set_reason(room_server::ToProto(event.reason));
    out->mutable_disconnected()->set_message(event.message);
  }
};

}  // namespace

room::TrackSource FromProto(pb::TrackSource source) {
  switch (source) {
    case pb::TRACK_SOURCE_CAMERA:
      return room::TrackSource::kCamera;
    case pb::TRACK_SOURCE_MICROPHONE:
      return room::TrackSource::kMicrophone;
    case pb::TRACK_SOURCE_SCREEN_SHARE:
      return room::TrackSource::kScreenShare;
    case pb::TRACK_SOURCE_SCREEN_SHARE_AUDIO:
      return room::TrackSource::kScreenShareAudio;
    default:
      return room::TrackSource::kUnknown;
  }
}

// The order of both enums is the same; the proto's has an unspecified zero.
room::LeaveReason FromProto(pb::DisconnectReason reason) {
  if (reason <= pb::DISCONNECT_REASON_UNSPECIFIED || reason > pb::DISCONNECT_REASON_AGENT_ERROR) {
    return room::LeaveReason::kClientInitiated;
  }
  return static_cast<room::LeaveReason>(reason - 1);
}

pb::DisconnectReason ToProto(room::LeaveReason reason) {
  static_assert(static_cast<int>(room::LeaveReason::kClientInitiated) + 1 ==
                pb::DISCONNECT_REASON_CLIENT_INITIATED);
  static_assert(static_cast<int>(room::LeaveReason::kRoomDeleted) + 1 ==
                pb::DISCONNECT_REASON_ROOM_DELETED);
  static_assert(static_cast<int>(room::LeaveReason::kAgentError) + 1 ==
                pb::DISCONNECT_REASON_AGENT_ERROR);
  return static_cast<pb::DisconnectReason>(static_cast<int>(reason) + 1);
}

room::Permission FromProto(const pb::Permission& permission) {
  room::Permission out{.can_subscribe = permission.can_subscribe(),
                       .can_publish = permission.can_publish(),
                       .can_publish_data = permission.can_publish_data(),
                       .can_update_metadata = permission.can_update_metadata(),
                       .hidden = permission.hidden(),
                       .can_publish_sources = {}};
  for (const int source : permission.can_publish_sources()) {
    out.can_publish_sources.push_back(FromProto(static_cast<pb::TrackSource>(source)));
  }
  return out;
}

room::DataPacket FromProto(const pb::DataPacket& packet) {
  return {.payload = packet.payload(),
          .topic = packet.topic(),
          .reliable = packet.reliable(),
          .from_identity = {},
          .destination_identities = {packet.destination_identities().begin(),
                                     packet.destination_identities().end()}};
}

room::TextPacket FromProto(const pb::TextPacket& packet) {
  return {.stream_id = packet.stream_id(),
          .topic = packet.topic(),
          .text = packet.text(),
          .final = packet.final(),
          .attributes = ToMap(packet.attributes()),
          .from_identity = packet.from_identity(),
          .destination_identities = {packet.destination_identities().begin(),
                                     packet.destination_identities().end()}};
}

room::BytePacket FromProto(const pb::BytePacket& packet) {
  return {.stream_id = packet.stream_id(),
          .topic = packet.topic(),
          .name = packet.name(),
          .mime_type = packet.mime_type(),
          .content = packet.content(),
          .final = packet.final(),
          .attributes = ToMap(packet.attributes()),
          .total_bytes = packet.total_bytes(),
          .from_identity = {},
          .destination_identities = {packet.destination_identities().begin(),
                                     packet.destination_identities().end()}};
}

absl::StatusOr<room::RpcPacket> FromProto(const pb::RpcPacket& packet) {
  room::RpcPacket out;
  out.request_id = packet.request_id();
  out.destination_identity = packet.destination_identity();
  switch (packet.step_case()) {
    case pb::RpcPacket::kRequest:
      out.method = packet.request().method();
      out.payload = packet.request().payload();
      out.response_timeout = absl::Milliseconds(packet.request().response_timeout_ms());
      return out;
    case pb::RpcPacket::kAck:
      out.step = room::RpcPacket::Step::kAck;
      return out;
    case pb::RpcPacket::kResponse:
      out.step = room::RpcPacket::Step::kResponse;
      out.payload = packet.response().payload();
      out.error_code = packet.response().error().code();
      out.error_message = packet.response().error().message();
      out.error_data = packet.response().error().data();
      return out;
    case pb::RpcPacket::STEP_NOT_SET:
      break;
  }
  return InvalidArgument("rpc.step is not set");
}

room::ParticipantChange FromProto(const pb::UpdateSelf& update) {
  room::ParticipantChange change;
  if (update.has_metadata()) change.metadata = update.metadata();
  if (update.has_name()) change.name = update.name();
  change.attributes = ToMap(update.attributes());
  return change;
}

room::ParticipantChange FromProto(const pb::UpdateParticipantRequest& update) {
  room::ParticipantChange change;
  if (update.has_metadata()) change.metadata = update.metadata();
  if (update.has_name()) change.name = update.name();
  change.attributes = ToMap(update.attributes());
  if (update.has_permission()) change.permission = FromProto(update.permission());
  return change;
}

absl::StatusOr<room::PublishRequest> FromProto(const pb::PublishTrack& publish) {
  room::PublishRequest request;
  request.cid = publish.cid();
  request.name = publish.name();
  request.source = FromProto(publish.source());
  if (publish.kind() == pb::TRACK_KIND_VIDEO) {
    request.kind = room::TrackKind::kVideo;
    request.codec = room::Codec::kVp8;
    return request;  // refused by the room, by name
  }
  if (publish.kind() != pb::TRACK_KIND_AUDIO) return InvalidArgument("publish.kind is not set");
  if (publish.codec() == pb::CODEC_OPUS) {
    request.codec = room::Codec::kOpus;
  } else if (publish.codec() == pb::CODEC_PCM16) {
    request.codec = room::Codec::kPcm16;
  } else {
    return InvalidArgument("publish.codec must be CODEC_OPUS or CODEC_PCM16");
  }
  return request;
}

pb::Codec ToProto(room::Codec codec) {
  return codec == room::Codec::kOpus    ? pb::CODEC_OPUS
         : codec == room::Codec::kPcm16 ? pb::CODEC_PCM16
                                        : pb::CODEC_UNSPECIFIED;  // video
}

void ToProto(const room::Track& track, pb::Track* out) {
  out->set_sid(track.sid);
  out->set_name(track.name);
  out->set_kind(track.kind == room::TrackKind::kAudio ? pb::TRACK_KIND_AUDIO
                                                      : pb::TRACK_KIND_VIDEO);
  out->set_source(ToProto(track.source));
  out->set_codec(ToProto(track.codec));
  out->set_muted(track.muted);
  out->set_subscribed(track.subscribed);
}

void ToProto(const room::ParticipantInfo& participant, pb::Participant* out) {
  out->set_sid(participant.sid);
  out->set_identity(participant.identity);
  out->set_name(participant.name);
  out->set_metadata(participant.metadata);
  CopyInto(participant.attributes, out->mutable_attributes());
  out->set_kind(ToProto(participant.kind));
  out->set_state(ToProto(participant.state));
  for (const auto& track : participant.tracks) ToProto(track, out->add_tracks());
  ToProto(participant.join_time, out->mutable_join_time());
  ToProto(participant.permission, out->mutable_permission());
  out->set_job_id(participant.job_id);
}

void ToProto(const room::RoomInfo& room, const std::string& media_url, pb::Room* out) {
  out->set_sid(room.sid);
  out->set_name(room.name);
  out->set_project(room.project);
  out->set_metadata(room.metadata);
  ToProto(room.empty_timeout, out->mutable_empty_timeout());
  ToProto(room.departure_timeout, out->mutable_departure_timeout());
  out->set_max_participants(room.max_participants);
  ToProto(room.create_time, out->mutable_create_time());
  out->set_num_participants(room.num_participants);
  out->set_num_agents(room.num_agents);
  out->set_media_url(media_url);
}

void ApplyHeritage(const pb::Room& before, room::RoomOptions& options) {
  options.sid = before.sid();
  options.metadata = before.metadata();
  options.empty_timeout = FromProto(before.empty_timeout());
  options.departure_timeout = FromProto(before.departure_timeout());
  options.max_participants = before.max_participants();
  options.had_people = before.num_participants() > 0;
}

void ToProto(const room::Joined& joined, const std::string& media_url, pb::Joined* out) {
  ToProto(joined.room, media_url, out->mutable_room());
  ToProto(joined.self, out->mutable_participant());
  for (const auto& other : joined.others) ToProto(other, out->add_others());
}

void ToProto(const room::Event& event, const std::string& media_url, pb::RoomEvent* out) {
  std::visit(EventWriter{media_url, out}, event);
}

}  // namespace parley::room_server
