#include "dispatch_broker/convert.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include "base/status.h"
#include "job/limits.h"

namespace parley::dispatch_broker {
namespace {

job::Selector FromProto(const v1::Selector& selector) {
  job::Selector out;
  out.deployment = selector.deployment();
  out.labels = {selector.labels().begin(), selector.labels().end()};
  out.preferred_region = selector.preferred_region();
  out.preferred_labels = {selector.preferred_labels().begin(), selector.preferred_labels().end()};
  return out;
}

void Fill(const job::Selector& selector, v1::Selector* out) {
  out->set_deployment(selector.deployment);
  out->mutable_labels()->insert(selector.labels.begin(), selector.labels.end());
  out->set_preferred_region(selector.preferred_region);
  out->mutable_preferred_labels()->insert(selector.preferred_labels.begin(),
                                          selector.preferred_labels.end());
}

v1::RestartPolicy ToProto(job::RestartPolicy policy) {
  return static_cast<v1::RestartPolicy>(policy);
}
v1::JobType ToProto(job::Type type) { return static_cast<v1::JobType>(type); }
v1::JobState ToProto(job::State state) { return static_cast<v1::JobState>(state); }
v1::JobReason ToProto(job::Reason reason) { return static_cast<v1::JobReason>(reason); }

job::RestartPolicy FromProto(v1::RestartPolicy policy) {
  return policy == v1::RESTART_POLICY_NEVER ? job::RestartPolicy::kNever
                                            : job::RestartPolicy::kOnFailure;
}

job::Type FromProto(v1::JobType type) {
  return type == v1::JOB_TYPE_PUBLISHER     ? job::Type::kPublisher
         : type == v1::JOB_TYPE_PARTICIPANT ? job::Type::kParticipant
                                            : job::Type::kRoom;
}

// Unknown numbers of newer peers become kUnspecified.
job::Reason FromProto(v1::JobReason reason) {
  const auto value = static_cast<job::Reason>(reason);
  return job::Text(value).empty() ? job::Reason::kUnspecified : value;
}

job::Assignment FromProto(const v1::Assignment& a) {
  job::Assignment out;
  out.job_id = a.job_id();
  out.dispatch_id = a.dispatch_id();
  out.fencing_token = a.fencing_token();
  out.attempt = a.attempt();
  out.project = a.project();
  out.agent_name = a.agent_name();
  out.room = a.room();
  out.room_sid = a.room_sid();
  out.metadata = a.metadata();
  out.attributes = {a.attributes().begin(), a.attributes().end()};
  out.type = FromProto(a.job_type());
  out.participant_identity = a.participant_identity();
  out.agent_id = a.agent_id();
  out.agent_version = a.agent_version();
  out.session_id = a.session_id();
  out.pool = a.pool();
  out.restart_policy = FromProto(a.restart_policy());
  out.priority = a.priority();
  out.selector = FromProto(a.selector());
  out.idempotency_key = a.idempotency_key();
  out.traceparent = a.traceparent();
  out.while_present = a.while_present();
  out.unique_in_room = a.unique_in_room();
  if (a.has_create_time()) out.create_time = FromTime(a.create_time());
  if (a.has_deadline()) out.deadline = FromTime(a.deadline());
  return out;
}

}  // namespace

void SetTime(absl::Time time, google::protobuf::Timestamp* out) {
  const int64_t seconds = absl::ToUnixSeconds(time);
  out->set_seconds(seconds);
  out->set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(seconds))));
}

absl::Time FromTime(const google::protobuf::Timestamp& time) {
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
}

void SetDuration(absl::Duration duration, google::protobuf::Duration* out) {
  const int64_t seconds = absl::ToInt64Seconds(duration);
  out->set_seconds(seconds);
  out->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(duration - absl::Seconds(seconds))));
}

absl::Duration FromDuration(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

v1::Job ToProto(const job::Job& job) {
  v1::Job out;
  out.set_id(job.id);
  out.set_dispatch_id(job.dispatch_id);
  out.set_project(job.project);
  out.set_agent_name(job.agent_name);
  out.set_room(job.room);
  out.set_state(ToProto(job.state));
  out.set_reason(ToProto(job.reason));
  out.set_previous_reason(ToProto(job.previous_reason));
  out.set_attempt(job.attempt);
  out.set_fencing_token(job.fencing_token);
  out.set_worker_id(job.worker_id);
  out.set_job_type(ToProto(job.type));
  out.set_participant_identity(job.participant_identity);
  out.set_pool(job.pool);
  out.set_agent_id(job.agent_id);
  out.set_agent_version(job.agent_version);
  out.set_error(job.error);
  out.set_session_id(job.session_id);
  out.set_next_worker_id(job.next_worker_id);
  SetTime(job.create_time, out.mutable_create_time());
  if (job.deadline != absl::InfiniteFuture()) SetTime(job.deadline, out.mutable_deadline());
  if (job.start_time != absl::InfinitePast()) SetTime(job.start_time, out.mutable_start_time());
  if (job.end_time != absl::InfinitePast()) SetTime(job.end_time, out.mutable_end_time());
  if (job.update_time != absl::InfinitePast()) SetTime(job.update_time, out.mutable_update_time());
  return out;
}

v1::Dispatch ToProto(const job::Dispatch& dispatch) {
  v1::Dispatch out;
  out.set_id(dispatch.id);
  out.set_project(dispatch.project);
  out.set_agent_name(dispatch.agent_name);
  out.set_room(dispatch.room);
  out.set_room_sid(dispatch.room_sid);
  out.set_metadata(dispatch.metadata);
  out.mutable_attributes()->insert(dispatch.attributes.begin(), dispatch.attributes.end());
  out.set_restart_policy(ToProto(dispatch.restart_policy));
  out.set_priority(dispatch.priority);
  out.set_job_type(ToProto(dispatch.type));
  Fill(dispatch.selector, out.mutable_selector());
  out.set_idempotency_key(dispatch.idempotency_key);
  if (dispatch.create_time != absl::InfinitePast()) {
    SetTime(dispatch.create_time, out.mutable_create_time());
  }
  if (dispatch.end_time != absl::InfinitePast()) {
    SetTime(dispatch.end_time, out.mutable_end_time());
  }
  out.set_state(dispatch.ended ? v1::DISPATCH_STATE_ENDED : v1::DISPATCH_STATE_ACTIVE);
  out.set_pool(dispatch.pool);
  out.set_agent_id(dispatch.agent_id);
  out.set_agent_version(dispatch.agent_version);
  out.set_while_present(dispatch.while_present);
  out.set_unique_in_room(dispatch.unique_in_room);
  out.set_participant_identity(dispatch.participant_identity);
  for (const job::Job& job : dispatch.jobs) *out.add_jobs() = ToProto(job);
  return out;
}

v1::Worker ToProto(const job::Worker& worker) {
  v1::Worker out;
  out.set_id(worker.id);
  out.set_pool(worker.pool);
  for (const std::string& name : worker.agent_names) out.add_agent_names(name);
  out.set_serves_configured(worker.serves_configured);
  out.set_slots(worker.slots);
  out.set_slots_used(worker.slots_used);
  out.set_load(worker.load);
  out.set_load_threshold(worker.load_threshold);
  out.set_draining(worker.draining);
  out.set_accepting(worker.accepting && !worker.draining);
  out.set_version(worker.version);
  out.set_region(worker.region);
  out.mutable_labels()->insert(worker.labels.begin(), worker.labels.end());
  out.set_deployment(worker.deployment);
  SetDuration(worker.heartbeat_age, out.mutable_heartbeat_age());
  out.set_state(worker.state);
  for (const std::string& id : worker.job_ids) out.add_job_ids(id);
  if (worker.register_time != absl::InfinitePast()) {
    SetTime(worker.register_time, out.mutable_register_time());
  }
  out.set_hostname(worker.hostname);
  out.set_project(worker.project);
  return out;
}

v1::Event ToProto(const job::Event& event) {
  v1::Event out;
  out.set_position(event.position);
  SetTime(event.time, out.mutable_time());
  out.set_type(event.type);
  out.set_project(event.project);
  out.set_dispatch_id(event.dispatch_id);
  out.set_job_id(event.job_id);
  out.set_worker_id(event.worker_id);
  out.set_room(event.room);
  out.set_agent_name(event.agent_name);
  out.set_state(ToProto(event.state));
  out.set_reason(ToProto(event.reason));
  out.set_fencing_token(event.fencing_token);
  out.set_attempt(event.attempt);
  out.set_pool(event.pool);
  return out;
}

v1::Assignment ToProto(const job::Assignment& a) {
  v1::Assignment out;
  out.set_job_id(a.job_id);
  out.set_fencing_token(a.fencing_token);
  out.set_attempt(a.attempt);
  out.set_resuming(a.resuming);
  out.set_take_over(a.take_over);
  out.set_checkpoint(a.checkpoint);
  out.set_dispatch_id(a.dispatch_id);
  out.set_project(a.project);
  out.set_agent_name(a.agent_name);
  out.set_room(a.room);
  out.set_room_sid(a.room_sid);
  out.set_metadata(a.metadata);
  out.mutable_attributes()->insert(a.attributes.begin(), a.attributes.end());
  out.set_job_type(ToProto(a.type));
  out.set_participant_identity(a.participant_identity);
  out.set_agent_id(a.agent_id);
  out.set_agent_version(a.agent_version);
  out.set_session_id(a.session_id);
  out.set_pool(a.pool);
  out.set_restart_policy(ToProto(a.restart_policy));
  out.set_priority(a.priority);
  SetTime(a.create_time, out.mutable_create_time());
  out.set_idempotency_key(a.idempotency_key);
  out.set_traceparent(a.traceparent);
  Fill(a.selector, out.mutable_selector());
  out.set_while_present(a.while_present);
  out.set_unique_in_room(a.unique_in_room);
  if (a.deadline != absl::InfiniteFuture()) SetTime(a.deadline, out.mutable_deadline());
  return out;
}

v1::ResumeVerdict ToProto(const job::ResumeVerdict& verdict) {
  v1::ResumeVerdict out;
  out.set_job_id(verdict.job_id);
  out.set_fencing_token(verdict.fencing_token);
  out.set_action(static_cast<v1::ResumeVerdict::Action>(verdict.action));
  out.set_recorded_state(ToProto(verdict.recorded_state));
  return out;
}

v1::WordVerdict ToProto(const job::WordVerdict& verdict) {
  v1::WordVerdict out;
  out.set_job_id(verdict.job_id);
  out.set_fencing_token(verdict.fencing_token);
  out.set_kind(static_cast<v1::Word::Kind>(verdict.kind));
  out.set_outcome(static_cast<v1::WordVerdict::Outcome>(verdict.outcome));
  out.set_newest_token(verdict.newest_token);
  out.set_state(ToProto(verdict.state));
  out.set_reason(ToProto(verdict.reason));
  return out;
}

job::RoomPresence FromProto(const v1::RoomPresence& presence) {
  job::RoomPresence out;
  out.project = presence.project();
  out.room = presence.room();
  out.room_sid = presence.room_sid();
  out.version = presence.version();
  out.closed = presence.closed();
  for (const v1::RoomPresence::Person& person : presence.people()) {
    out.people.push_back({person.identity(), person.publishing()});
  }
  return out;
}

job::NewDispatch FromProto(const v1::CreateDispatchRequest& request) {
  job::NewDispatch out;
  out.type = FromProto(request.job_type());
  out.while_present = request.while_present();
  out.unique_in_room = request.unique_in_room() || request.while_present();
  out.agent_name = request.agent_name();
  out.room = request.room();
  out.room_sid = request.room_sid();
  out.metadata = request.metadata();
  out.attributes = {request.attributes().begin(), request.attributes().end()};
  out.restart_policy = FromProto(request.restart_policy());
  out.priority = request.has_priority() ? request.priority() : job::kDefaultPriority;
  out.participant_identity = request.participant_identity();
  out.selector = FromProto(request.selector());
  out.idempotency_key = request.idempotency_key();
  // Without a key of its own, a request is known by its request_id.
  if (out.idempotency_key.empty() && !request.request_id().empty()) {
    out.idempotency_key = "request:" + request.request_id();
  }
  out.session_id = request.session_id();
  out.queue_deadline = request.has_queue_deadline() ? FromDuration(request.queue_deadline())
                                                    : job::kDefaultQueueDeadline;
  if (request.has_not_before()) out.not_before = FromTime(request.not_before());
  return out;
}

std::string RequestHash(const v1::CreateDispatchRequest& request) {
  v1::CreateDispatchRequest copy = request;
  copy.clear_request_id();
  copy.clear_session_id();
  copy.clear_project();
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);  // maps in order
    copy.SerializeToCodedStream(&coded);
  }
  // FNV-1a, 64 bits, over two seeds: enough against mistakes, and keys are not secrets.
  std::string hash;
  for (uint64_t seed : {0xcbf29ce484222325ULL, 0x9e3779b97f4a7c15ULL}) {
    for (const char byte : bytes) {
      seed = (seed ^ static_cast<unsigned char>(byte)) * 0x100000001b3ULL;
    }
    hash += fmt::format("{:016x}", seed);
  }
  return hash;
}

job::Registration FromProto(const v1::Register& request) {
  job::Registration out;
  out.worker_id = request.worker_id();
  out.instance = request.instance();
  out.connect_seq = request.connect_seq();
  out.pool = request.pool();
  out.serves_configured = request.serves_configured();
  out.agent_names = {request.agent_names().begin(), request.agent_names().end()};
  out.slots = request.slots();
  out.version = request.version();
  out.region = request.region();
  out.labels = {request.labels().begin(), request.labels().end()};
  out.deployment = request.deployment();
  out.accepts_all = request.accepts_all();
  out.hostname = request.hostname();
  out.load = request.load() >= 0 && request.load() <= 1 ? request.load() : 0;
  out.load_threshold =
      request.load_threshold() == 0 ? job::kDefaultLoadThreshold : request.load_threshold();
  out.accepting = !request.draining();
  out.report = FromProto(request.report());
  if (out.pool.empty()) {
    const bool one = !out.serves_configured && out.agent_names.size() == 1;
    out.pool = one && !out.agent_names[0].empty() ? out.agent_names[0] : "default";
  }
  return out;
}

std::vector<job::ReportedJob> FromProto(const v1::Report& report) {
  std::vector<job::ReportedJob> out;
  for (const v1::ReportedJob& reported : report.jobs()) {
    if (!v1::ReportedJob::Status_IsValid(reported.status()) || reported.status() == 0) continue;
    job::ReportedJob job;
    job.job_id = reported.job_id();
    job.fencing_token = reported.fencing_token();
    job.status = static_cast<job::ReportedStatus>(reported.status());
    job.reason = FromProto(reported.reason());
    job.error = reported.error().substr(0, 1024);
    job.recorded = reported.recorded();
    job.recorded_state = static_cast<job::State>(reported.recorded_state());
    if (reported.has_record()) job.record = FromProto(reported.record());
    out.push_back(std::move(job));
  }
  return out;
}

absl::StatusOr<job::Word> FromProto(const v1::Word& word) {
  if (!v1::Word::Kind_IsValid(word.kind()) || word.kind() == v1::Word::KIND_UNSPECIFIED) {
    return InvalidArgument("a word about job {} has no kind that this broker knows", word.job_id());
  }
  job::Word out;
  out.job_id = word.job_id();
  out.fencing_token = word.fencing_token();
  out.kind = static_cast<job::WordKind>(word.kind());
  out.reason = FromProto(word.reason());
  out.error = word.error().substr(0, 1024);
  out.final = word.final();
  return out;
}

}  // namespace parley::dispatch_broker
