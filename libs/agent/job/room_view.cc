#include "agent/job/room_view.h"

#include <algorithm>
#include <utility>

namespace parley::agent {
namespace {

namespace roomv1 = parley::room::v1;

Participant FromProto(const roomv1::Participant& in) {
  Participant out{
      .sid = in.sid(), .identity = in.identity(), .name = in.name(), .metadata = in.metadata()};
  out.attributes.insert(in.attributes().begin(), in.attributes().end());
  out.is_person = !in.permission().hidden() && (in.kind() == roomv1::PARTICIPANT_KIND_STANDARD ||
                                                in.kind() == roomv1::PARTICIPANT_KIND_SIP ||
                                                in.kind() == roomv1::PARTICIPANT_KIND_UNSPECIFIED);
  return out;
}

}  // namespace

void RoomView::OnJoined(const roomv1::Joined& joined) {
  joined_ = true;
  own_identity_ = joined.participant().identity();
  seats_.clear();
  tracks_.clear();
  for (const roomv1::Participant& other : joined.others()) Add(other);
}

void RoomView::OnEvent(const roomv1::RoomEvent& event) {
  switch (event.event_case()) {
    case roomv1::RoomEvent::kParticipantJoined:
      return Add(event.participant_joined().participant());
    case roomv1::RoomEvent::kParticipantUpdated:
      return Add(event.participant_updated().participant());
    case roomv1::RoomEvent::kParticipantLeft: {
      const std::string& identity = event.participant_left().identity();
      const auto seat = seats_.find(identity);
      if (seat == seats_.end()) return;
      const std::string& sid = event.participant_left().sid();
      if (!sid.empty() && sid != seat->second.participant.sid)
        return;  // back already, under a new sid
      seats_.erase(seat);
      std::erase_if(tracks_, [&](const auto& track) { return track.second.identity == identity; });
      return;
    }
    case roomv1::RoomEvent::kTrackPublished:
      if (event.track_published().participant_identity() == own_identity_ &&
          event.track_published().cid() == kVoiceCid) {
        own_track_ = event.track_published().track().sid();
      }
      return;
    case roomv1::RoomEvent::kTrackUnpublished: {
      const std::string& sid = event.track_unpublished().track_sid();
      std::erase_if(tracks_, [&](const auto& track) { return track.second.sid == sid; });
      return;
    }
    case roomv1::RoomEvent::kSubscriptionStarted: {
      const auto& started = event.subscription_started();
      if (started.track().kind() == roomv1::TRACK_KIND_VIDEO) return;
      tracks_[started.track_number()] = {
          started.participant_identity(), started.track().sid(),
          started.track().source() == roomv1::TRACK_SOURCE_MICROPHONE};
      return;
    }
    default:
      return;
  }
}

void RoomView::Add(const roomv1::Participant& participant) {
  if (participant.identity() == own_identity_) return;
  Seat& seat = seats_[participant.identity()];
  seat.participant = FromProto(participant);
  if (seat.order == 0) seat.order = ++order_;
}

std::vector<Participant> RoomView::participants() const {
  std::vector<const Seat*> seats;
  for (const auto& [identity, seat] : seats_) seats.push_back(&seat);
  std::sort(seats.begin(), seats.end(),
            [](const Seat* a, const Seat* b) { return a->order < b->order; });
  std::vector<Participant> out;
  out.reserve(seats.size());
  for (const Seat* seat : seats) out.push_back(seat->participant);
  return out;
}

std::vector<session::Person> RoomView::people() const {
  std::vector<session::Person> people;
  for (Participant& one : participants()) {
    if (one.is_person) people.push_back({std::move(one.identity), std::move(one.name)});
  }
  return people;
}

bool RoomView::IsPerson(const std::string& identity) const {
  const auto found = seats_.find(identity);
  return found != seats_.end() && found->second.participant.is_person;
}

const std::pair<const uint32_t, RoomView::Track>* RoomView::VoiceOf(
    const std::string& identity) const {
  const std::pair<const uint32_t, Track>* found = nullptr;
  for (const auto& track : tracks_) {
    if (track.second.identity != identity) continue;
    if (found == nullptr || (track.second.microphone && !found->second.microphone)) found = &track;
  }
  return found;
}

bool RoomView::IsVoiceOf(const std::string& identity, uint32_t track_number) const {
  const auto* voice = VoiceOf(identity);
  return voice != nullptr && voice->first == track_number;
}

std::string RoomView::SpeakerOf(uint32_t track_number) const {
  const auto track = tracks_.find(track_number);
  if (track == tracks_.end() || !IsVoiceOf(track->second.identity, track_number)) return {};
  return track->second.identity;
}

std::string RoomView::TrackOf(const std::string& identity) const {
  const auto* voice = VoiceOf(identity);
  return voice == nullptr ? "" : voice->second.sid;
}

}  // namespace parley::agent
