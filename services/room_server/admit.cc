// How a token becomes a participant.
#include "base/status.h"
#include "base/strings.h"
#include "room_server/host.h"

namespace parley::room_server {
namespace {

constexpr size_t kMaxAgents = 32;  // named by one token

room::Kind KindOf(const auth::Claims& claims) {
  if (claims.job || claims.video.agent || claims.kind == "agent") return room::Kind::kAgent;
  if (claims.video.recorder || claims.kind == "egress" || claims.kind == "recorder") {
    return room::Kind::kRecorder;
  }
  return claims.kind == "sip" ? room::Kind::kSip : room::Kind::kStandard;
}

room::TrackSource SourceOf(std::string_view name) {
  if (name == "camera") return room::TrackSource::kCamera;
  if (name == "microphone") return room::TrackSource::kMicrophone;
  if (name == "screen_share") return room::TrackSource::kScreenShare;
  if (name == "screen_share_audio") return room::TrackSource::kScreenShareAudio;
  return room::TrackSource::kUnknown;
}

room::Permission PermissionOf(const auth::VideoGrant& video) {
  room::Permission permission;
  permission.can_subscribe = video.can_subscribe.value_or(true);
  permission.can_publish = video.can_publish.value_or(true);
  permission.can_publish_data = video.can_publish_data.value_or(permission.can_publish);
  permission.can_update_metadata = video.can_update_own_metadata.value_or(false);
  permission.hidden = video.hidden;
  for (const std::string& source : video.can_publish_sources) {
    permission.can_publish_sources.push_back(SourceOf(ToLower(source)));
  }
  return permission;
}

}  // namespace

Wish MakeWish(std::string project, std::string room, const auth::RoomAgent& agent) {
  Wish wish;
  wish.project = std::move(project);
  wish.room = std::move(room);
  wish.agent_name = agent.agent_name;
  wish.metadata = agent.metadata;
  wish.attributes = agent.attributes;
  wish.deployment = agent.deployment;
  wish.never_restart = agent.never_restart;
  return wish;
}

absl::StatusOr<Ticket> Host::ReadToken(std::string_view token) const {
  PARLEY_ASSIGN_OR_RETURN(const auth::Claims claims, context_.AuthenticateToken(token));
  PARLEY_RETURN_IF_ERROR(auth::RequireRoomJoin(claims));
  if (claims.room_agents.size() > kMaxAgents) {
    return InvalidArgument("the token names {} agents; the limit is {}", claims.room_agents.size(),
                           kMaxAgents);
  }
  Ticket ticket;
  ticket.trace = CurrentTrace();
  ticket.room.project = claims.project;
  ticket.room.name = claims.video.room;
  ticket.room.empty_timeout = config_.empty_timeout;
  ticket.room.departure_timeout = config_.departure_timeout;
  PARLEY_ASSIGN_OR_RETURN(const RoomPreset* const preset, presets_.Find(claims.room_preset));
  ApplyRoomConfig(preset->json, ticket.room);
  ApplyRoomConfig(claims.room_config_json, ticket.room);

  room::JoinRequest& join = ticket.join;
  join.identity = claims.identity;
  join.name = claims.name;
  join.metadata = claims.metadata;
  join.attributes = {claims.attributes.begin(), claims.attributes.end()};
  join.kind = KindOf(claims);
  join.permission = PermissionOf(claims.video);
  if (claims.job) {
    join.job = room::JobClaim{claims.job->job_id, claims.job->fencing_token, claims.job->worker_id,
                              claims.job->instance};
  }
  for (const auth::RoomAgent& agent :
       claims.room_agents.empty() ? preset->agents : claims.room_agents) {
    Wish wish = MakeWish(claims.project, claims.video.room, agent);
    if (ticket.agents.empty()) wish.session_id = claims.session_id;
    ticket.agents.push_back(std::move(wish));
  }
  ticket.claims = claims;
  return ticket;
}

void Host::Admit(Ticket ticket, std::shared_ptr<room::ParticipantSink> sink, Admitted done) {
  const int64_t begin_us = context_.clock().MonotonicMicros();
  const auto span = std::make_shared<trace::Span>();
  if (room::IsPerson(ticket.join.kind)) {
    *span = context_.tracer().Start("join room", trace::Kind::kServer, ticket.trace);
    ticket.trace = span->context();
  }
  const auto finish = [this, begin_us, span, done = std::move(done)](
                          absl::StatusOr<std::shared_ptr<room::Participant>> result) {
    span->Fail(result.status());
    span->End();
    (result.ok() ? metrics_.joins : metrics_.joins_refused).Increment();
    metrics_.admission_wait_seconds.Observe(
        static_cast<double>(context_.clock().MonotonicMicros() - begin_us) * 1e-6);
    done(std::move(result));
  };
  // Before anything is opened: a join that cannot succeed leaves no room behind.
  if (absl::Status status = room::Check(ticket.join); !status.ok()) return finish(status);
  if (auto room = rooms_.Find(ticket.room.project, ticket.room.name)) {
    auto joined = JoinHere(ticket, room, false, sink);
    if (ReasonOf(joined.status()).reason != "ROOM_CLOSED") return finish(std::move(joined));
  }
  // The claim blocks on the store. Holding ourselves is not needed: Stop() runs what is queued.
  if (!admissions_.Post([this, ticket = std::move(ticket), sink = std::move(sink), finish] {
        finish(OpenAndJoin(ticket, sink));
      })) {
    finish(ResourceExhausted("the room server is busy; try again shortly"));
  }
}

absl::StatusOr<std::shared_ptr<room::Participant>> Host::OpenAndJoin(
    const Ticket& ticket, const std::shared_ptr<room::ParticipantSink>& sink) {
  absl::Status status;
  for (int attempt = 0; attempt < 3; ++attempt) {  // a room may close between the two steps
    PARLEY_ASSIGN_OR_RETURN(const room::Rooms::Opened opened, Open(ticket.room));
    auto joined = JoinHere(ticket, opened.room, opened.created, sink);
    if (ReasonOf(joined.status()).reason != "ROOM_CLOSED") return joined;
    status = joined.status();
  }
  return status;
}

absl::StatusOr<std::shared_ptr<room::Participant>> Host::JoinHere(
    const Ticket& ticket, const std::shared_ptr<room::Room>& room, bool created,
    const std::shared_ptr<room::ParticipantSink>& sink) {
  auto joined = room->Join(ticket.join, sink);
  // Agents never trigger dispatches.
  if (!joined.ok() || !room::IsPerson(ticket.join.kind)) return joined;
  const TraceScope scope(ticket.trace);
  if (!ticket.agents.empty()) {
    std::vector<Wish> wishes = ticket.agents;
    for (Wish& wish : wishes) {
      if (IsForEachJoin(wish.attributes)) wish.instance = (*joined)->sid();
    }
    WantAgents(*room, wishes);
  } else if (created) {
    Wish automatic;
    automatic.project = room->project();
    automatic.room = room->name();
    automatic.metadata = ticket.room.metadata.empty() ? ticket.join.metadata : ticket.room.metadata;
    WantAgents(*room, {automatic});
  }
  return joined;
}

}  // namespace parley::room_server
