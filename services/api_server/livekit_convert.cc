#include "api_server/livekit_convert.h"

#include <algorithm>

#include "api_server/livekit/frames.h"
#include "base/status.h"

namespace parley::api_server {
namespace {

constexpr size_t kMaxDeployment = 64;
constexpr int64_t kNanos = 1'000'000'000;

int64_t Nanoseconds(const google::protobuf::Timestamp& time) {
  return time.seconds() * kNanos + time.nanos();
}

absl::Status CheckDeployment(std::string_view deployment) {
  const bool plain = std::ranges::none_of(deployment, [](unsigned char letter) {
    return letter <= 0x20 || letter == 0x7f || letter == '_';
  });
  if (plain && deployment.size() <= kMaxDeployment) return absl::OkStatus();
  return InvalidArgument("deployment is at most {} letters, without blanks and _", kMaxDeployment);
}

lk::ParticipantInfo::Kind KindOf(room::v1::ParticipantKind kind) {
  switch (kind) {
    case room::v1::PARTICIPANT_KIND_AGENT:
      return lk::ParticipantInfo::AGENT;
    case room::v1::PARTICIPANT_KIND_SIP:
      return lk::ParticipantInfo::SIP;
    case room::v1::PARTICIPANT_KIND_RECORDER:
      return lk::ParticipantInfo::EGRESS;
    default:
      return lk::ParticipantInfo::STANDARD;
  }
}

lk::ParticipantInfo::State StateOf(room::v1::ParticipantState state) {
  switch (state) {
    case room::v1::PARTICIPANT_STATE_JOINED:
      return lk::ParticipantInfo::JOINED;
    case room::v1::PARTICIPANT_STATE_DISCONNECTED:
      return lk::ParticipantInfo::DISCONNECTED;
    default:
      return lk::ParticipantInfo::ACTIVE;
  }
}

lk::JobStatus StatusOf(const dispatch::v1::Job& job) {
  switch (job.state()) {
    case dispatch::v1::JOB_STATE_RUNNING:
      return lk::JS_RUNNING;
    case dispatch::v1::JOB_STATE_SUCCEEDED:
    case dispatch::v1::JOB_STATE_CANCELLED:
      return lk::JS_SUCCESS;
    case dispatch::v1::JOB_STATE_FAILED:
      return job.reason() == dispatch::v1::JOB_REASON_REJECTED ? lk::JS_SUCCESS : lk::JS_FAILED;
    default:
      return lk::JS_PENDING;
  }
}

// For people: what the job said, else the reason's name.
std::string ErrorOf(const dispatch::v1::Job& job) {
  if (StatusOf(job) != lk::JS_FAILED || !job.error().empty()) {
    return job.error();
  }
  constexpr std::string_view kPrefix = "JOB_REASON_";
  return dispatch::v1::JobReason_Name(job.reason()).substr(kPrefix.size());
}

void Fill(const dispatch::v1::Dispatch& dispatch, const dispatch::v1::Job& job, lk::Job* out) {
  out->set_id(job.id());
  out->set_dispatch_id(dispatch.id());
  out->set_type(ToLiveKit(job.job_type()));
  out->set_agent_name(job.agent_name());
  out->set_metadata(dispatch.metadata());
  out->set_deployment(dispatch.selector().deployment());
  out->mutable_attributes()->insert(dispatch.attributes().begin(), dispatch.attributes().end());
  out->mutable_room()->set_name(job.room());
  out->mutable_room()->set_sid(dispatch.room_sid());
  if (!job.participant_identity().empty()) {
    out->mutable_participant()->set_identity(job.participant_identity());
  }
  lk::JobState& state = *out->mutable_state();
  state.set_status(StatusOf(job));
  state.set_error(ErrorOf(job));
  state.set_worker_id(job.worker_id());
  state.set_agent_id(job.agent_id());
  if (job.has_start_time()) state.set_started_at(Nanoseconds(job.start_time()));
  if (job.has_end_time()) state.set_ended_at(Nanoseconds(job.end_time()));
  if (job.has_update_time()) state.set_updated_at(Nanoseconds(job.update_time()));
}

}  // namespace

lk::Room ToLiveKit(const room::v1::Room& room) {
  lk::Room out;
  out.set_sid(room.sid());
  out.set_name(room.name());
  out.set_metadata(room.metadata());
  out.set_empty_timeout(static_cast<uint32_t>(room.empty_timeout().seconds()));
  out.set_departure_timeout(static_cast<uint32_t>(room.departure_timeout().seconds()));
  out.set_max_participants(static_cast<uint32_t>(room.max_participants()));
  out.set_creation_time(room.create_time().seconds());
  out.set_num_participants(static_cast<uint32_t>(room.num_participants()));
  return out;
}

lk::TrackInfo ToLiveKit(const room::v1::Track& track) {
  lk::TrackInfo out;
  out.set_sid(track.sid());
  out.set_name(track.name());
  out.set_type(track.kind() == room::v1::TRACK_KIND_VIDEO ? lk::VIDEO : lk::AUDIO);
  out.set_source(static_cast<lk::TrackSource>(track.source()));  // the numbers are the same
  out.set_muted(track.muted());
  if (out.type() == lk::VIDEO) return out;  // of which codec it is only the room server knows
  out.set_mime_type("audio/opus");          // PCM is coded on its way to such clients
  out.set_disable_red(true);
  return out;
}

lk::ParticipantInfo ToLiveKit(const room::v1::Participant& participant) {
  lk::ParticipantInfo out;
  out.set_sid(participant.sid());
  out.set_identity(participant.identity());
  out.set_name(participant.name());
  out.set_metadata(participant.metadata());
  out.mutable_attributes()->insert(participant.attributes().begin(),
                                   participant.attributes().end());
  out.set_state(StateOf(participant.state()));
  out.set_kind(KindOf(participant.kind()));
  out.set_joined_at(participant.join_time().seconds());
  out.set_is_publisher(!participant.tracks().empty());
  for (const auto& track : participant.tracks()) *out.add_tracks() = ToLiveKit(track);
  const room::v1::Permission& from = participant.permission();
  lk::ParticipantPermission& permission = *out.mutable_permission();
  permission.set_can_subscribe(from.can_subscribe());
  permission.set_can_publish(from.can_publish());
  permission.set_can_publish_data(from.can_publish_data());
  permission.set_can_update_metadata(from.can_update_metadata());
  permission.set_hidden(from.hidden());
  for (const int source : from.can_publish_sources()) {
    permission.add_can_publish_sources(static_cast<lk::TrackSource>(source));
  }
  return out;
}

lk::AgentDispatch ToLiveKit(const dispatch::v1::Dispatch& dispatch) {
  lk::AgentDispatch out;
  out.set_id(dispatch.id());
  out.set_agent_name(dispatch.agent_name());
  out.set_room(dispatch.room());
  out.set_metadata(dispatch.metadata());
  out.set_deployment(dispatch.selector().deployment());
  out.mutable_attributes()->insert(dispatch.attributes().begin(), dispatch.attributes().end());
  if (dispatch.restart_policy() == dispatch::v1::RESTART_POLICY_NEVER) {
    out.set_restart_policy(lk::JRP_NEVER);
  }
  lk::AgentDispatchState& state = *out.mutable_state();
  state.set_created_at(Nanoseconds(dispatch.create_time()));
  for (const auto& job : dispatch.jobs()) Fill(dispatch, job, state.add_jobs());
  return out;
}

room::v1::Permission FromLiveKit(const lk::ParticipantPermission& permission) {
  room::v1::Permission out;
  out.set_can_subscribe(permission.can_subscribe());
  out.set_can_publish(permission.can_publish());
  out.set_can_publish_data(permission.can_publish_data());
  out.set_can_update_metadata(permission.can_update_metadata());
  out.set_hidden(permission.hidden());
  for (const int source : permission.can_publish_sources()) {
    if (room::v1::TrackSource_IsValid(source)) {
      out.add_can_publish_sources(static_cast<room::v1::TrackSource>(source));
    }
  }
  return out;
}

absl::StatusOr<room::v1::AgentDispatch> FromLiveKit(const lk::RoomAgentDispatch& agent) {
  PARLEY_RETURN_IF_ERROR(CheckDeployment(agent.deployment()));
  room::v1::AgentDispatch out;
  out.set_agent_name(agent.agent_name());
  out.set_metadata(agent.metadata());
  out.set_deployment(agent.deployment());
  out.set_never_restart(agent.restart_policy() == lk::JRP_NEVER);
  out.mutable_attributes()->insert(agent.attributes().begin(), agent.attributes().end());
  return out;
}

absl::StatusOr<dispatch::v1::CreateDispatchRequest> FromLiveKit(
    const lk::CreateAgentDispatchRequest& request) {
  PARLEY_RETURN_IF_ERROR(CheckDeployment(request.deployment()));
  dispatch::v1::CreateDispatchRequest out;
  out.set_agent_name(request.agent_name());
  out.set_room(request.room());
  out.set_metadata(request.metadata());
  out.mutable_attributes()->insert(request.attributes().begin(), request.attributes().end());
  out.set_restart_policy(request.restart_policy() == lk::JRP_NEVER
                             ? dispatch::v1::RESTART_POLICY_NEVER
                             : dispatch::v1::RESTART_POLICY_ON_FAILURE);
  if (!request.deployment().empty()) out.mutable_selector()->set_deployment(request.deployment());
  return out;
}

}  // namespace parley::api_server
