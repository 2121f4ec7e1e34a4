#include "room/room.h"

#include <algorithm>
#include <cmath>

#include "base/ids.h"
#include "base/strings.h"
#include "room/state.h"

namespace parley::room {
namespace {

constexpr absl::Duration kMaxTimeout = absl::Hours(24 * 7);
constexpr size_t kMaxLeft = 64;
// An agent that was lost comes back within this, or its words are not waited for.
constexpr int64_t kLostAgentUs = 60'000'000;

// Who speaks: as LiveKit's servers decide it, so that clients show the same people.
constexpr int64_t kLookUs = 400'000;
constexpr uint32_t kLoudLevel = 35;      // -dBov; softer frames do not count
constexpr int kLoudFrames = 8;           // of the 20 between two looks
constexpr int kQuietLooks = 2;           // a breath between words is no silence
constexpr float kTellLevel = 0.1F;       // a smaller change of loudness is not worth a message
constexpr float kLevelSmoothing = 0.5F;  // share of the newest look

absl::Status Stale(std::string_view why, const JobClaim& job, uint64_t highest) {
  return WithReason(FailedPrecondition("{}: token {} of job {}, the room knows {}", why, job.token,
                                       job.job_id, highest),
                    "STALE_TOKEN", {{"highest_token", fmt::format("{}", highest)}});
}

}  // namespace

absl::Status CheckName(std::string_view what, std::string_view name, bool may_be_empty) {
  if (name.empty() && !may_be_empty) return InvalidArgument("{} is empty", what);
  if (name.size() > kMaxNameBytes) {
    return InvalidArgument("{} has {} bytes; the limit is {}", what, name.size(), kMaxNameBytes);
  }
  if (!IsValidUtf8(name)) return InvalidArgument("{} is not valid UTF-8", what);
  return absl::OkStatus();
}

absl::Status CheckMetadata(std::string_view metadata) {
  if (metadata.size() > kMaxMetadataBytes) {
    return InvalidArgument("metadata has {} bytes; the limit is {}", metadata.size(),
                           kMaxMetadataBytes);
  }
  if (!IsValidUtf8(metadata)) return InvalidArgument("metadata is not valid UTF-8");
  return absl::OkStatus();
}

absl::Status CheckAttributes(const Attributes& attributes) {
  size_t bytes = 0;
  for (const auto& [key, value] : attributes) {
    PARLEY_RETURN_IF_ERROR(CheckName("attribute key", key, false));
    if (!IsValidUtf8(value)) return InvalidArgument("attribute {} is not valid UTF-8", key);
    bytes += key.size() + value.size();
  }
  if (bytes > kMaxAttributesBytes) {
    return InvalidArgument("attributes have {} bytes; the limit is {}", bytes, kMaxAttributesBytes);
  }
  return absl::OkStatus();
}

absl::Status Check(const JoinRequest& request) {
  PARLEY_RETURN_IF_ERROR(CheckName("identity", request.identity, false));
  PARLEY_RETURN_IF_ERROR(CheckName("name", request.name, true));
  PARLEY_RETURN_IF_ERROR(CheckMetadata(request.metadata));
  return CheckAttributes(request.attributes);
}

absl::StatusOr<std::shared_ptr<Room>> Room::Create(RoomOptions options, Clock& clock,
                                                   AdmissionObserver observer, JobFences fences) {
  PARLEY_RETURN_IF_ERROR(CheckName("room name", options.name, false));
  PARLEY_RETURN_IF_ERROR(CheckMetadata(options.metadata));
  for (const auto& [what, timeout] : {std::pair("empty_timeout", options.empty_timeout),
                                      std::pair("departure_timeout", options.departure_timeout)}) {
    if (timeout < absl::ZeroDuration() || timeout > kMaxTimeout) {
      return InvalidArgument("{} is outside 0 to {}", what, DurationText(kMaxTimeout));
    }
  }
  if (options.max_participants < 0) return InvalidArgument("max_participants is negative");
  return std::shared_ptr<Room>(
      new Room(std::move(options), clock, std::move(observer), std::move(fences)));
}

Room::Room(RoomOptions options, Clock& clock, AdmissionObserver observer, JobFences fences)
    : sid_(options.sid.empty() ? NewId(kRoomPrefix) : std::move(options.sid)),
      name_(std::move(options.name)),
      project_(std::move(options.project)),
      empty_timeout_(options.empty_timeout),
      departure_timeout_(options.departure_timeout),
      max_participants_(options.max_participants),
      create_time_(clock.Now()),
      clock_(clock),
      observer_(std::move(observer)),
      metadata_(std::move(options.metadata)),
      fences_(std::move(fences)),
      a_person_came_(options.had_people),
      no_people_since_us_(clock.MonotonicMicros()) {}

Room::~Room() = default;

absl::StatusOr<std::shared_ptr<Participant>> Room::Join(const JoinRequest& wanted,
                                                        std::shared_ptr<ParticipantSink> sink) {
  JoinRequest request = wanted;
  MutexLock lock(&mutex_);
  if (request.job && TakenByAnotherLocked(request)) request.identity += "-" + request.job->job_id;
  PARLEY_RETURN_IF_ERROR(Check(request));
  if (closed_) {
    return WithReason(Aborted("the room \"{}\" has closed; join again", name_), "ROOM_CLOSED");
  }
  PARLEY_RETURN_IF_ERROR(CheckCapacityLocked(request));
  const bool expected =
      request.job && std::ranges::none_of(participants_, [&](const auto& one) {
        return one->state_->job && one->state_->job->job_id == request.job->job_id;
      });
  PARLEY_RETURN_IF_ERROR(AdmitLocked(request));
  if (auto older = FindLocked(request.identity); older != nullptr) {
    RemoveLocked(older, LeaveReason::kDuplicateIdentity, "somebody joined with the same identity");
  }

  std::shared_ptr<Participant> joining(
      new Participant(shared_from_this(), request, NewId(kParticipantPrefix)));
  Participant::State& state = *joining->state_;
  state.info = {.sid = joining->sid_,
                .identity = request.identity,
                .name = request.name,
                .metadata = request.metadata,
                .attributes = request.attributes,
                .kind = request.kind,
                .state = State::kActive,
                .tracks = {},
                .join_time = clock_.Now(),
                .permission = request.permission,
                .job_id = request.job ? request.job->job_id : std::string()};
  state.sink = std::move(sink);
  state.auto_subscribe = request.auto_subscribe;
  state.job = request.job;

  Joined joined;
  for (const auto& other : participants_) {
    if (!other->state_->info.permission.hidden) joined.others.push_back(other->state_->Info());
  }
  participants_.push_back(joining);
  if (IsPerson(request.kind)) a_person_came_ = true;
  joined.room = InfoLocked();
  joined.self = state.info;
  state.sink->OnJoined(joined);
  if (!request.permission.hidden) BroadcastLocked(ParticipantJoined{state.info}, joining.get());
  if (request.auto_subscribe) {
    for (const auto& other : participants_) {
      if (other == joining) continue;
      for (const auto& track : other->state_->tracks) {
        if (track->live) SubscribeLocked(*other, *track, *joining);
      }
    }
  }
  TellStateLocked(state);
  if (request.job) GiveEarlySpeechLocked(*joining, expected);
  return joining;
}

// By anybody but an attempt of the same job.
bool Room::TakenByAnotherLocked(const JoinRequest& request) const {
  const auto older = FindLocked(request.identity);
  return older != nullptr &&
         (!older->state_->job || older->state_->job->job_id != request.job->job_id);
}

// What others learnt from events before the newcomer was there.
void Room::TellStateLocked(Participant::State& newcomer) {
  SpeakersChanged speakers;
  for (const auto& participant : participants_) {
    const Participant::State& state = *participant->state_;
    if (state.info.permission.hidden) continue;
    if (state.quality != Quality::kUnknown) {
      newcomer.sink->OnEvent(QualityChanged{participant->sid_, state.quality, state.quality_score});
    }
    if (state.voice.active) {
      speakers.speakers.push_back(
          {participant->sid_, participant->identity_, state.voice.told, true});
    }
  }
  if (!speakers.speakers.empty()) newcomer.sink->OnEvent(speakers);
}

absl::Status Room::CheckCapacityLocked(const JoinRequest& request) const {
  const auto older = FindLocked(request.identity);
  const size_t after = participants_.size() - (older != nullptr ? 1 : 0);
  const int people_after = PeopleLocked() - (older != nullptr && IsPerson(older->kind_) ? 1 : 0);
  if (after >= kMaxParticipants ||
      (IsPerson(request.kind) && max_participants_ > 0 && people_after >= max_participants_)) {
    return WithReason(
        ResourceExhausted(
            "the room \"{}\" is full ({} people may be in it)", name_,
            max_participants_ > 0 ? static_cast<size_t>(max_participants_) : kMaxParticipants),
        "ROOM_FULL");
  }
  return absl::OkStatus();
}

// Decides by fencing token, and removes the older attempt: afterwards the newcomer is the only one.
absl::Status Room::AdmitLocked(const JoinRequest& request) {
  if (!request.job) return absl::OkStatus();
  const JobClaim& job = *request.job;
  JobFence& fence = fences_[job.job_id];
  const bool lower = job.token < fence.lowest;
  const bool other_holder = job.token == fence.lowest && !fence.worker_id.empty() &&
                            (fence.worker_id != job.worker_id || fence.instance != job.instance);
  if (lower || other_holder) {
    ObserveLocked(AdmissionRecord::Outcome::kRefuse, request.identity, job, fence.lowest);
    return Stale(lower ? "a newer attempt of this job exists"
                       : "another worker holds this attempt of the job",
                 job, fence.lowest);
  }
  const bool newer = job.token > fence.lowest;
  fence = {job.token, job.worker_id, job.instance};
  for (size_t i = participants_.size(); i-- > 0;) {
    const auto participant = participants_[i];
    if (!participant->state_->job || participant->state_->job->job_id != job.job_id) continue;
    RemoveLocked(participant, newer ? LeaveReason::kReplaced : LeaveReason::kDuplicateIdentity,
                 newer ? "a newer attempt of the same job was admitted"
                       : "the same attempt connected again");
  }
  ObserveLocked(AdmissionRecord::Outcome::kAdmit, request.identity, job, fence.lowest);
  return absl::OkStatus();
}

// ---- what is said before an agent is there ----

void Room::ExpectAgents(int more) {
  MutexLock lock(&mutex_);
  expected_agents_ = std::max(expected_agents_ + more, 0);
  if (!KeepsEarlySpeechLocked()) ForgetEarlySpeechLocked();
}

bool Room::KeepsEarlySpeechLocked() const {
  return expected_agents_ > 0 ||
         (agent_lost_until_us_ != 0 && clock_.MonotonicMicros() < agent_lost_until_us_);
}

void Room::KeepEarlySpeechLocked(const Participant& speaker, Published& track, const Frame& frame) {
  if (expected_agents_ == 0 && agent_lost_until_us_ == 0) return;
  if (!KeepsEarlySpeechLocked()) return ForgetEarlySpeechLocked();
  if (!IsPerson(speaker.kind_) || track.track.encryption != Encryption::kNone) return;
  if (track.early == nullptr) {
    size_t kept = 0;
    for (const auto& one : participants_) {
      kept += static_cast<size_t>(std::ranges::count_if(
          one->state_->tracks, [](const auto& other) { return other->early != nullptr; }));
    }
    if (kept >= EarlySpeech::kMostTracks) return;
    track.early = std::make_unique<EarlySpeech>();
  }
  track.early->Add(frame);
}

void Room::GiveEarlySpeechLocked(Participant& joining, bool expected) {
  ParticipantSink& sink = *joining.state_->sink;
  for (const auto& speaker : participants_) {
    if (!sink.TakesEarlySpeech()) break;
    for (const auto& track : speaker->state_->tracks) {
      if (track->early == nullptr) continue;
      const auto listener = std::ranges::find_if(
          track->listeners, [&](const auto& one) { return one.participant == &joining; });
      if (listener == track->listeners.end()) continue;
      for (size_t i = 0; i < track->early->size(); ++i) {
        sink.OnFrame(listener->number, track->early->At(i));
      }
    }
  }
  if (expected && agent_lost_until_us_ == 0) expected_agents_ = std::max(expected_agents_ - 1, 0);
  agent_lost_until_us_ = 0;
  if (expected_agents_ == 0) ForgetEarlySpeechLocked();
}

void Room::ForgetEarlySpeechLocked() {
  agent_lost_until_us_ = 0;
  for (const auto& participant : participants_) {
    for (const auto& track : participant->state_->tracks) track->early.reset();
  }
}

void Room::Fence(std::string_view job_id, uint64_t lowest_token) {
  MutexLock lock(&mutex_);
  JobFence& fence = fences_[std::string(job_id)];
  if (lowest_token > fence.lowest) fence = {lowest_token, {}, {}};
  for (size_t i = participants_.size(); i-- > 0;) {
    const auto participant = participants_[i];
    const auto& job = participant->state_->job;
    if (!job || job->job_id != job_id || job->token >= lowest_token) continue;
    RemoveLocked(participant, LeaveReason::kParticipantRemoved, "this attempt of the job is over");
  }
}

// NOLINTNEXTLINE(performance-unnecessary-value-param)
void Room::RemoveLocked(std::shared_ptr<Participant> participant, LeaveReason reason,
                        std::string_view message) {
  Participant::State& state = *participant->state_;
  for (const auto& track : state.tracks) {
    if (track->live) UnpublishLocked(*participant, *track);
  }
  for (const auto& other : participants_) {
    for (const auto& track : other->state_->tracks) UnsubscribeLocked(*track, *participant);
  }
  std::erase(participants_, participant);
  state.gone = true;
  state.sink->OnEvent(Disconnected{reason, std::string(message)});
  state.sink.reset();
  if (!state.info.permission.hidden) {
    BroadcastLocked(ParticipantLeft{participant->sid_, participant->identity_, reason});
  }
  FailCallsLocked(participant->identity_);
  if (state.job && (reason == LeaveReason::kConnectionLost || reason == LeaveReason::kAgentError)) {
    agent_lost_until_us_ = clock_.MonotonicMicros() + kLostAgentUs;
  }
  left_.emplace_back(participant->identity_, reason);
  if (left_.size() > kMaxLeft) left_.pop_front();
  if (IsPerson(participant->kind_) && PeopleLocked() == 0) {
    no_people_since_us_ = clock_.MonotonicMicros();
  }
  if (state.job) {
    const auto fence = fences_.find(state.job->job_id);
    ObserveLocked(AdmissionRecord::Outcome::kRemove, participant->identity_, *state.job,
                  fence == fences_.end() ? 0 : fence->second.lowest);
  }
}

void Room::HearLocked(Participant& speaker, uint32_t level) {
  Voice& voice = speaker.state_->voice;
  if (level <= kLoudLevel) {
    ++voice.loud;
    voice.loudest = std::min(voice.loudest, level);
  }
  if (const int64_t now_us = clock_.MonotonicMicros(); now_us >= look_at_speakers_us_) {
    LookWhoSpeaksLocked(now_us);
  }
}

void Room::LookWhoSpeaksLocked(int64_t now_us) {
  look_at_speakers_us_ = now_us + kLookUs;
  SpeakersChanged changed;
  for (const auto& participant : participants_) {
    Participant::State& state = *participant->state_;
    Voice& voice = state.voice;
    const bool loud = voice.loud >= kLoudFrames;
    voice.quiet_looks = loud ? 0 : std::min(voice.quiet_looks + 1, kQuietLooks);
    const bool active = loud || (voice.active && voice.quiet_looks < kQuietLooks);
    const float now = loud ? std::pow(10.0F, -static_cast<float>(voice.loudest) / 20.0F) : 0.0F;
    voice.level += (now - voice.level) * kLevelSmoothing;
    if (!active) voice.level = 0;
    voice.loud = 0;
    voice.loudest = 127;
    if (active == voice.active && std::abs(voice.level - voice.told) < kTellLevel) continue;
    voice.active = active;
    voice.told = voice.level;
    if (state.info.permission.hidden) continue;
    changed.speakers.push_back(
        {participant->sid_, participant->identity_, voice.level, voice.active});
  }
  if (!changed.speakers.empty()) BroadcastLocked(changed);
}

void Room::HushLocked(Participant& speaker) {
  Participant::State& state = *speaker.state_;
  const bool spoke = std::exchange(state.voice, {}).active;
  if (spoke && !state.info.permission.hidden) {
    BroadcastLocked(SpeakersChanged{{{speaker.sid_, speaker.identity_, 0, false}}});
  }
}

void Room::UnpublishLocked(Participant& publisher, Published& track) {
  if (track.track.kind == TrackKind::kAudio) HushLocked(publisher);
  track.live = false;
  track.early.reset();
  track.listeners.clear();
  BroadcastLocked(TrackUnpublished{publisher.identity_, track.track.sid});
}

void Room::SubscribeLocked(Participant& publisher, Published& track, Participant& subscriber) {
  Participant::State& state = *subscriber.state_;
  if (!state.info.permission.can_subscribe) return;
  const bool opaque =
      track.track.kind == TrackKind::kVideo || track.track.encryption != Encryption::kNone;
  if (opaque && !state.sink->TakesOpaque()) return;
  for (const auto& listener : track.listeners) {
    if (listener.participant == &subscriber) return;
  }
  const uint32_t number = state.next_track_number++;
  track.listeners.push_back({&subscriber, state.sink.get(), number});
  track.track.subscribed = true;
  state.sink->OnEvent(SubscriptionStarted{publisher.identity_, track.track, number});
  if (!state.sink->SaysWhenItHears()) HearsLocked(publisher, track, subscriber);
}

void Room::HearsLocked(Participant& publisher, Published& track, const Participant& subscriber) {
  const bool first = std::ranges::none_of(track.listeners, &Published::Listener::hears);
  for (auto& listener : track.listeners) {
    if (listener.participant == &subscriber) listener.hears = true;
  }
  if (!first) return;
  publisher.state_->sink->OnEvent(
      TrackSubscribed{track.track.sid, subscriber.ShownIdentityLocked()});
}

absl::Status Room::SetSubscribedLocked(Participant& subscriber, std::string_view track_sid,
                                       bool subscribed) {
  for (const auto& other : participants_) {
    if (other.get() == &subscriber) continue;
    Published* published = other->state_->Track(track_sid);
    if (published == nullptr) continue;
    if (!subscribed) {
      UnsubscribeLocked(*published, subscriber);
      return absl::OkStatus();
    }
    if (!subscriber.state_->info.permission.can_subscribe) {
      return PermissionDenied("the token does not grant canSubscribe");
    }
    SubscribeLocked(*other, *published, subscriber);
    return absl::OkStatus();
  }
  return NotFound("nobody else publishes track {}", track_sid);
}

void Room::UnsubscribeLocked(Published& track, const Participant& subscriber) {
  std::erase_if(track.listeners,
                [&](const auto& listener) { return listener.participant == &subscriber; });
  track.track.subscribed = !track.listeners.empty();
}

void Room::ApplyPermissionLocked(Participant& participant, const Permission& permission) {
  Participant::State& state = *participant.state_;
  const Permission before = std::exchange(state.info.permission, permission);
  // Who sees whom was settled when it joined.
  state.info.permission.hidden = before.hidden;
  const auto& sources = permission.can_publish_sources;
  for (const auto& track : state.tracks) {
    const bool allowed =
        permission.can_publish &&
        (sources.empty() || std::ranges::find(sources, track->track.source) != sources.end());
    if (track->live && !allowed) UnpublishLocked(participant, *track);
  }
  if (before.can_subscribe == permission.can_subscribe) return;
  for (const auto& other : participants_) {
    if (other.get() == &participant) continue;
    for (const auto& track : other->state_->tracks) {
      if (!permission.can_subscribe) {
        UnsubscribeLocked(*track, participant);
      } else if (track->live && state.auto_subscribe) {
        SubscribeLocked(*other, *track, participant);
      }
    }
  }
}

absl::Status Room::ChangeLocked(Participant& participant, const ParticipantChange& change) {
  ParticipantInfo& info = participant.state_->info;
  if (change.name) PARLEY_RETURN_IF_ERROR(CheckName("name", *change.name, true));
  if (change.metadata) PARLEY_RETURN_IF_ERROR(CheckMetadata(*change.metadata));
  Attributes attributes = info.attributes;
  for (const auto& [key, value] : change.attributes) {
    if (value.empty()) {
      attributes.erase(key);
    } else {
      attributes[key] = value;
    }
  }
  PARLEY_RETURN_IF_ERROR(CheckAttributes(attributes));
  info.attributes = std::move(attributes);
  if (change.name) info.name = *change.name;
  if (change.metadata) info.metadata = *change.metadata;
  if (change.permission) ApplyPermissionLocked(participant, *change.permission);
  const ParticipantUpdated updated{participant.state_->Info()};
  if (info.permission.hidden) {
    participant.state_->sink->OnEvent(updated);
  } else {
    BroadcastLocked(updated);
  }
  return absl::OkStatus();
}

void Room::SetMutedLocked(Participant& publisher, Published& track, bool muted) {
  if (track.track.muted == muted) return;
  track.track.muted = muted;
  if (muted && track.track.kind == TrackKind::kAudio) HushLocked(publisher);
  BroadcastLocked(TrackMuted{publisher.identity_, track.track.sid, muted});
}

void Room::BroadcastLocked(const Event& event, const Participant* except) {
  for (const auto& participant : participants_) {
    if (participant.get() != except) participant->state_->sink->OnEvent(event);
  }
}

void Room::DeliverLocked(const Event& event, const std::vector<std::string>& destinations,
                         const Participant* from) {
  const auto* data = std::get_if<DataPacket>(&event);
  const bool opaque = data != nullptr && data->encrypted;
  for (const auto& participant : participants_) {
    if (opaque && !participant->state_->sink->TakesOpaque()) continue;
    if (destinations.empty()) {
      if (participant.get() != from) participant->state_->sink->OnEvent(event);
      continue;
    }
    if (std::ranges::find(destinations, participant->identity_) != destinations.end()) {
      participant->state_->sink->OnEvent(event);
    }
  }
}

void Room::DeliverRpcLocked(const RpcPacket& packet) {
  if (const auto receiver = FindLocked(packet.destination_identity)) {
    receiver->state_->sink->OnEvent(packet);
    return;
  }
  const auto call = calls_.find(packet.request_id);
  if (call == calls_.end() || packet.step == RpcPacket::Step::kRequest) return;
  if (packet.destination_identity == packet.request_id &&
      packet.from_identity == call->second.identity) {
    call->second.answered(packet);
  }
}

void Room::FailCallsLocked(std::string_view identity) {
  for (const auto& [id, call] : calls_) {
    if (call.identity != identity) continue;
    call.answered({.step = RpcPacket::Step::kResponse,
                   .request_id = id,
                   .error_code = kRpcRecipientLeft,
                   .error_message = "Recipient disconnected"});
  }
}

std::shared_ptr<Participant> Room::FindLocked(std::string_view identity) const {
  const auto found =
      std::ranges::find_if(participants_, [&](const auto& p) { return p->identity_ == identity; });
  return found == participants_.end() ? nullptr : *found;
}

int Room::PeopleLocked() const {
  return static_cast<int>(
      std::ranges::count_if(participants_, [](const auto& p) { return IsPerson(p->kind_); }));
}

RoomInfo Room::InfoLocked() const {
  const int people = PeopleLocked();
  return {.sid = sid_,
          .name = name_,
          .project = project_,
          .metadata = metadata_,
          .empty_timeout = empty_timeout_,
          .departure_timeout = departure_timeout_,
          .max_participants = max_participants_,
          .create_time = create_time_,
          .num_participants = people,
          .num_agents = static_cast<int>(std::ranges::count_if(
              participants_, [](const auto& p) { return p->kind_ == Kind::kAgent; }))};
}

void Room::ObserveLocked(AdmissionRecord::Outcome outcome, std::string_view identity,
                         const JobClaim& job, uint64_t highest) const {
  if (observer_) observer_({outcome, project_, name_, sid_, identity, job, highest});
}

RoomInfo Room::info() const {
  MutexLock lock(&mutex_);
  return InfoLocked();
}

std::vector<ParticipantInfo> Room::participants() const {
  MutexLock lock(&mutex_);
  std::vector<ParticipantInfo> all;
  for (const auto& participant : participants_) all.push_back(participant->state_->Info());
  return all;
}

absl::StatusOr<ParticipantInfo> Room::Find(std::string_view identity) const {
  MutexLock lock(&mutex_);
  const auto participant = FindLocked(identity);
  if (participant != nullptr) return participant->state_->Info();
  const absl::Status nobody = NotFound("nobody is \"{}\" in room \"{}\"", identity, name_);
  const auto left = std::find_if(left_.rbegin(), left_.rend(),
                                 [identity](const auto& one) { return one.first == identity; });
  if (left == left_.rend()) return nobody;
  return WithReason(nobody, "PARTICIPANT_LEFT", {{"left", std::string(Name(left->second))}});
}

absl::Status Room::UpdateMetadata(std::string metadata) {
  PARLEY_RETURN_IF_ERROR(CheckMetadata(metadata));
  MutexLock lock(&mutex_);
  metadata_ = std::move(metadata);
  BroadcastLocked(RoomUpdated{InfoLocked()});
  return absl::OkStatus();
}

absl::StatusOr<ParticipantInfo> Room::UpdateParticipant(std::string_view identity,
                                                        const ParticipantChange& change) {
  MutexLock lock(&mutex_);
  const auto participant = FindLocked(identity);
  if (participant == nullptr) return NotFound("nobody is \"{}\" in room \"{}\"", identity, name_);
  PARLEY_RETURN_IF_ERROR(ChangeLocked(*participant, change));
  return participant->state_->Info();
}

absl::Status Room::Remove(std::string_view identity, LeaveReason reason, std::string_view message) {
  MutexLock lock(&mutex_);
  const auto participant = FindLocked(identity);
  if (participant == nullptr) return NotFound("nobody is \"{}\" in room \"{}\"", identity, name_);
  RemoveLocked(participant, reason, message);
  return absl::OkStatus();
}

absl::StatusOr<Track> Room::MuteTrack(std::string_view identity, std::string_view track_sid,
                                      bool muted) {
  MutexLock lock(&mutex_);
  const auto participant = FindLocked(identity);
  if (participant == nullptr) return NotFound("nobody is \"{}\" in room \"{}\"", identity, name_);
  Published* track = participant->state_->Track(track_sid);
  if (track == nullptr) return NotFound("\"{}\" publishes no track {}", identity, track_sid);
  if (!muted && track->track.muted) {
    return FailedPrecondition("only its publisher may unmute a track");
  }
  SetMutedLocked(*participant, *track, muted);
  return track->track;
}

absl::Status Room::SendData(DataPacket packet) {
  if (packet.payload.size() > kMaxDataBytes) {
    return InvalidArgument("a packet of {} bytes; the limit is {}", packet.payload.size(),
                           kMaxDataBytes);
  }
  PARLEY_RETURN_IF_ERROR(CheckName("topic", packet.topic, true));
  packet.from_identity.clear();
  MutexLock lock(&mutex_);
  const std::vector<std::string> destinations = packet.destination_identities;
  DeliverLocked(std::move(packet), destinations, nullptr);
  return absl::OkStatus();
}

absl::Status Room::SetSubscribed(std::string_view identity,
                                 const std::vector<std::string>& track_sids, bool subscribed) {
  MutexLock lock(&mutex_);
  const auto subscriber = FindLocked(identity);
  if (subscriber == nullptr) return NotFound("nobody is \"{}\" in room \"{}\"", identity, name_);
  for (const std::string& sid : track_sids) {
    const absl::Status status = SetSubscribedLocked(*subscriber, sid, subscribed);
    if (!status.ok() && !absl::IsNotFound(status)) return status;
  }
  return absl::OkStatus();
}

absl::Status Room::Call(RpcPacket request, std::function<void(const RpcPacket&)> answered) {
  PARLEY_RETURN_IF_ERROR(CheckName("request_id", request.request_id, false));
  PARLEY_RETURN_IF_ERROR(CheckName("method", request.method, false));
  if (request.payload.size() > kMaxRpcBytes) {
    return InvalidArgument("a call with {} bytes; the limit is {}", request.payload.size(),
                           kMaxRpcBytes);
  }
  if (!IsValidUtf8(request.payload)) return InvalidArgument("the payload is not valid UTF-8");
  request.from_identity = request.request_id;
  MutexLock lock(&mutex_);
  if (calls_.size() >= kMaxCalls) return ResourceExhausted("{} calls wait in this room", kMaxCalls);
  const Waiting& call =
      calls_.insert_or_assign(request.request_id, Waiting{request.destination_identity, answered})
          .first->second;
  if (FindLocked(call.identity) != nullptr) {
    DeliverRpcLocked(request);
  } else {
    call.answered({.step = RpcPacket::Step::kResponse,
                   .request_id = request.request_id,
                   .error_code = kRpcRecipientNotFound,
                   .error_message = "Recipient not found"});
  }
  return absl::OkStatus();
}

void Room::EndCall(std::string_view request_id) {
  MutexLock lock(&mutex_);
  if (const auto call = calls_.find(request_id); call != calls_.end()) calls_.erase(call);
}

void Room::Close(LeaveReason reason, std::string_view message) {
  MutexLock lock(&mutex_);
  closed_ = true;
  while (!participants_.empty()) RemoveLocked(participants_.back(), reason, message);
}

bool Room::CloseIfDue() {
  MutexLock lock(&mutex_);
  if (closed_) return true;
  if (const int64_t now_us = clock_.MonotonicMicros(); now_us >= look_at_speakers_us_) {
    LookWhoSpeaksLocked(now_us);
  }
  if (PeopleLocked() > 0) return false;
  const absl::Duration timeout = a_person_came_ ? departure_timeout_ : empty_timeout_;
  if (absl::Microseconds(clock_.MonotonicMicros() - no_people_since_us_) < timeout) return false;
  closed_ = true;
  while (!participants_.empty()) {
    RemoveLocked(participants_.back(), LeaveReason::kRoomClosed,
                 a_person_came_ ? "the last person left" : "nobody came");
  }
  return true;
}

bool Room::closed() const {
  MutexLock lock(&mutex_);
  return closed_;
}

JobFences Room::fences() const {
  MutexLock lock(&mutex_);
  return fences_;
}

}  // namespace parley::room
