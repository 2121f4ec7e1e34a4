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
constexpr int kPingTimeoutSeconds = 15;
constexpr int kPingIntervalSeconds = 5;

template <typename... Handlers>
struct Overloaded : Handlers... {
  using Handlers::operator()...;
};

}  // namespace

void RtcSession::SendJoin(const room::Joined& joined) {
  lk::SignalResponse response;
  lk::JoinResponse& join = *response.mutable_join();
  *join.mutable_room() = ToLiveKit(joined.room);
  *join.mutable_participant() = ToLiveKit(joined.self);
  others_[joined.self.identity] = join.participant();
  for (const room::ParticipantInfo& other : joined.others) {
    lk::ParticipantInfo& info = *join.add_other_participants();
    info = ToLiveKit(other);
    others_[other.identity] = info;
  }
  join.set_server_version(kServerVersion);
  join.mutable_server_info()->set_version(kServerVersion);
  join.mutable_server_info()->set_protocol(kProtocol);
  join.mutable_server_info()->set_node_id("parley");
  join.set_ping_timeout(kPingTimeoutSeconds);
  join.set_ping_interval(kPingIntervalSeconds);
  join.add_enabled_publish_codecs()->set_mime("audio/opus");
  SendResponse(response);
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
                   SendResponse(response);
                 },
                 [&](const room::SubscriptionStarted& e) { TellSubscription(e); },
                 [&](const room::DataPacket& e) { TellData(e); },
                 [&](const room::TextPacket& e) {
                   for (const lk::DataPacket& packet : text_.ToClient(e, absl::Now())) {
                     SendPacket(packet, true);
                   }
                 },
                 [&](const room::RoomUpdated& e) {
                   lk::SignalResponse response;
                   *response.mutable_room_update()->mutable_room() = ToLiveKit(e.room);
                   SendResponse(response);
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
  SendResponse(response);
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
  AskForOffer();
}

void RtcSession::TellSubscription(const room::SubscriptionStarted& event) {
  const lk::ParticipantInfo* publisher = Known(event.participant_identity);
  if (publisher == nullptr) return;
  heard_by_sid_[event.track.sid] = event.track_number;
  negotiation_.AddTrack(event.track_number, event.track.sid,
                        publisher->sid() + "|" + event.track.sid);
  AskForOffer();
}

void RtcSession::TellPublished(const room::TrackPublished& event) {
  const lk::TrackInfo track = ToLiveKit(event.track);
  if (!event.cid.empty()) {
    lk::SignalResponse response;
    response.mutable_track_published()->set_cid(event.cid);
    *response.mutable_track_published()->mutable_track() = track;
    SendResponse(response);
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
    SendResponse(response);
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
  AskForOffer();
}

void RtcSession::Unhear(const std::string& track_sid) {
  const auto heard = heard_by_sid_.find(track_sid);
  if (heard == heard_by_sid_.end()) return;
  negotiation_.RemoveTrack(heard->second);
  heard_by_sid_.erase(heard);
}

void RtcSession::TellMuted(const room::TrackMuted& event) {
  const auto asked = own_muted_.find(event.track_sid);
  // Only what somebody else decided: an echo could overtake the client's next click.
  if (event.participant_identity == own_identity_ &&
      (asked == own_muted_.end() || asked->second != event.muted)) {
    lk::SignalResponse response;
    response.mutable_mute()->set_sid(event.track_sid);
    response.mutable_mute()->set_muted(event.muted);
    SendResponse(response);
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
  lk::UserPacket& user = *packet.mutable_user();
  user.set_payload(event.payload);
  user.set_participant_identity(event.from_identity);
  if (!event.topic.empty()) user.set_topic(event.topic);
  SendPacket(packet, event.reliable);
}

void RtcSession::TellDisconnected(const room::Disconnected& event) {
  over_ = true;
  media_->Seat(nullptr);
  peer_->Close();
  // Whoever lost its connection, or its server, may come back by itself.
  const bool again = event.reason == room::LeaveReason::kConnectionLost ||
                     event.reason == room::LeaveReason::kServerShutdown;
  Dismiss(ToLiveKit(event.reason),
          again ? lk::LeaveRequest::RECONNECT : lk::LeaveRequest::DISCONNECT);
}

}  // namespace parley::room_server
