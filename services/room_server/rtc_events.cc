// What a client hears of its room.
#include <absl/time/clock.h>

#include <algorithm>
#include <variant>

#include "room_server/rtc_session.h"

namespace parley::room_server {
namespace {

// SDKs read it as a version of LiveKit's server, and refuse RPCs below 1.8.
constexpr auto kServerVersion = "1.9.0";
constexpr int kProtocol = 16;
// Of the client's signalling connection, should its api_server vanish: two pings may be lost.
constexpr int kPingTimeoutSeconds = 8;
constexpr int kPingIntervalSeconds = 3;

lk::ServerInfo ServerInfo() {
  lk::ServerInfo info;
  info.set_version(kServerVersion);
  info.set_protocol(kProtocol);
  info.set_node_id("parley");
  return info;
}

template <typename... Handlers>
struct Overloaded : Handlers... {
  using Handlers::operator()...;
};

}  // namespace

void RtcSession::SendJoin(const room::Joined& joined) {
  own_sid_ = joined.self.sid;
  sessions_->Add(own_sid_, weak_from_this());
  room_ = ToLiveKit(joined.room);
  lk::SignalResponse response;
  lk::JoinResponse& join = *response.mutable_join();
  *join.mutable_room() = room_;
  *join.mutable_participant() = ToLiveKit(joined.self);
  others_[joined.self.identity] = join.participant();
  for (const room::ParticipantInfo& other : joined.others) {
    lk::ParticipantInfo& info = *join.add_other_participants();
    info = ToLiveKit(other);
    others_[other.identity] = info;
  }
  join.set_server_version(kServerVersion);
  *join.mutable_server_info() = ServerInfo();
  host_->turn().Tell(own_identity_, absl::Now(), &join);
  join.set_subscriber_primary(two_connections_);
  join.set_ping_timeout(kPingTimeoutSeconds);
  join.set_ping_interval(kPingIntervalSeconds);
  for (const char* mime : {"audio/opus", "video/VP8", "video/VP9", "video/H264"}) {
    join.add_enabled_publish_codecs()->set_mime(mime);
  }
  Send(response);
  SendToken();
}

// All that may have been said while the client was away.
void RtcSession::SendResumed() {
  lk::SignalResponse response;
  *response.mutable_reconnect()->mutable_server_info() = ServerInfo();
  host_->turn().Tell(own_identity_, absl::Now(), response.mutable_reconnect());
  Send(response);
  *response.mutable_room_update()->mutable_room() = room_;
  Send(response);
  lk::ParticipantUpdate& update = *response.mutable_update();
  for (const auto& [identity, info] : others_) *update.add_participants() = info;
  Send(response);
  SendToken();
}

void RtcSession::Tell(const room::Event& event) {
  if (over_) return;
  std::visit(Overloaded{
                 [&](const room::ParticipantJoined& e) {
                   TellParticipant(others_[e.participant.identity] = ToLiveKit(e.participant));
                 },
                 [&](const room::ParticipantUpdated& e) {
                   TellParticipant(others_[e.participant.identity] = ToLiveKit(e.participant));
                 },
                 [&](const room::ParticipantLeft& e) { TellLeft(e); },
                 [&](const room::TrackPublished& e) { TellPublished(e); },
                 [&](const room::TrackUnpublished& e) { TellUnpublished(e); },
                 [&](const room::TrackMuted& e) { TellMuted(e); },
                 [&](const room::TrackSubscribed& e) {
                   lk::SignalResponse response;
                   response.mutable_track_subscribed()->set_track_sid(e.track_sid);
                   Send(response);
                 },
                 [&](const room::SubscriptionStarted& e) { TellSubscription(e); },
                 [&](const room::DataPacket& e) { TellData(e); },
                 [&](const room::TextPacket& e) {
                   for (const auto& packet : streams_.ToClient(e, absl::Now())) {
                     SendPacket(packet, true);
                   }
                 },
                 [&](const room::BytePacket& e) {
                   for (const auto& packet : streams_.ToClient(e, absl::Now())) {
                     SendPacket(packet, true);
                   }
                 },
                 [&](const room::RpcPacket& e) { SendPacket(ToClient(e), true); },
                 [&](const room::SpeakersChanged& e) { TellSpeakers(e); },
                 [&](const room::QualityChanged& e) { TellQuality(e); },
                 [&](const room::RoomUpdated& e) {
                   lk::SignalResponse response;
                   *response.mutable_room_update()->mutable_room() = room_ = ToLiveKit(e.room);
                   Send(response);
                 },
                 [&](const room::Disconnected& e) { TellDisconnected(e); },
             },
             event);
}

lk::ParticipantInfo* RtcSession::Known(const std::string& identity) {
  const auto found = others_.find(identity);
  return found == others_.end() ? nullptr : &found->second;
}

void RtcSession::TellParticipant(const lk::ParticipantInfo& info) {
  lk::SignalResponse response;
  *response.mutable_update()->add_participants() = info;
  Send(response);
}

void RtcSession::TellLeft(const room::ParticipantLeft& event) {
  lk::ParticipantInfo info;
  info.set_sid(event.sid);
  info.set_identity(event.identity);
  info.set_state(lk::ParticipantInfo::DISCONNECTED);
  info.set_disconnect_reason(ToLiveKit(event.reason));
  if (const auto* known = Known(event.identity); known != nullptr && known->sid() == event.sid) {
    for (const lk::TrackInfo& track : known->tracks()) Unhear(track.sid());
    others_.erase(event.identity);
  }
  TellParticipant(info);
  Renegotiate();
}

void RtcSession::TellSpeakers(const room::SpeakersChanged& event) {
  lk::SignalResponse response;
  for (const room::Speaker& speaker : event.speakers) {
    lk::SpeakerInfo& info = *response.mutable_speakers_changed()->add_speakers();
    info.set_sid(speaker.sid);
    info.set_level(speaker.level);
    info.set_active(speaker.active);
  }
  Send(response);
}

void RtcSession::TellQuality(const room::QualityChanged& event) {
  lk::SignalResponse response;
  lk::ConnectionQualityInfo& info = *response.mutable_connection_quality()->add_updates();
  info.set_participant_sid(event.sid);
  info.set_quality(ToLiveKit(event.quality));
  info.set_score(event.score);
  Send(response);
}

void RtcSession::TellSubscription(const room::SubscriptionStarted& event) {
  const lk::ParticipantInfo* publisher = Known(event.participant_identity);
  if (publisher == nullptr) return;
  Hear(event.track_number, event.track, publisher->sid() + "|" + event.track.sid);
  Renegotiate();
}

void RtcSession::TellPublished(const room::TrackPublished& event) {
  const lk::TrackInfo track = ToLiveKit(event.track);
  if (!event.cid.empty()) {
    lk::SignalResponse response;
    response.mutable_track_published()->set_cid(event.cid);
    *response.mutable_track_published()->mutable_track() = track;
    Send(response);
  }
  lk::ParticipantInfo* publisher = Known(event.participant_identity);
  if (publisher == nullptr) return;
  *publisher->add_tracks() = track;
  publisher->set_is_publisher(true);
  TellParticipant(*publisher);
}

void RtcSession::TellUnpublished(const room::TrackUnpublished& event) {
  if (event.participant_identity == own_identity_) {
    lk::SignalResponse response;
    response.mutable_track_unpublished()->set_track_sid(event.track_sid);
    Send(response);
  }
  Unhear(event.track_sid);
  if (lk::ParticipantInfo* publisher = Known(event.participant_identity)) {
    auto& tracks = *publisher->mutable_tracks();
    tracks.erase(std::remove_if(tracks.begin(), tracks.end(),
                                [&](const auto& track) { return track.sid() == event.track_sid; }),
                 tracks.end());
    publisher->set_is_publisher(!tracks.empty());
    TellParticipant(*publisher);
  }
  Renegotiate();
}

void RtcSession::TellMuted(const room::TrackMuted& event) {
  const auto asked = own_muted_.find(event.track_sid);
  // Only what somebody else decided: an echo could overtake the client's next click.
  if (event.participant_identity == own_identity_ &&
      (asked == own_muted_.end() || asked->second != event.muted)) {
    lk::SignalResponse response;
    response.mutable_mute()->set_sid(event.track_sid);
    response.mutable_mute()->set_muted(event.muted);
    Send(response);
  }
  lk::ParticipantInfo* publisher = Known(event.participant_identity);
  if (publisher == nullptr) return;
  for (lk::TrackInfo& track : *publisher->mutable_tracks()) {
    if (track.sid() == event.track_sid) track.set_muted(event.muted);
  }
  TellParticipant(*publisher);
}

void RtcSession::TellData(const room::DataPacket& event) {
  lk::DataPacket packet;
  packet.set_participant_identity(event.from_identity);
  if (event.encrypted) {
    packet.set_encrypted_packet(event.payload);
    return SendPacket(packet, event.reliable);
  }
  if (const auto key = KeyToClient(event)) return SendPacket(*key, true);
  lk::UserPacket& user = *packet.mutable_user();
  user.set_payload(event.payload);
  user.set_participant_identity(event.from_identity);
  if (!event.topic.empty()) user.set_topic(event.topic);
  SendPacket(packet, event.reliable);
}

void RtcSession::TellDisconnected(const room::Disconnected& event) {
  over_ = true;
  sessions_->Remove(own_sid_);
  for (const auto& media : {down_media_, up_media_}) media->Seat(nullptr);
  for (const auto& peer : {down_, up_}) peer->Close();
  if (stream_ == nullptr) return;
  // Whoever lost its connection, or its server, may come back by itself.
  const bool again = event.reason == room::LeaveReason::kConnectionLost ||
                     event.reason == room::LeaveReason::kServerShutdown;
  stream_->Dismiss(ToLiveKit(event.reason),
                   again ? lk::LeaveRequest::RECONNECT : lk::LeaveRequest::DISCONNECT);
}

}  // namespace parley::room_server
