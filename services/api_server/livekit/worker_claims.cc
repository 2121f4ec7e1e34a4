// What a worker says of jobs that it got over an earlier connection, perhaps to another replica.
// The broker knows whose they are; a job's id on the wire names the attempt, so that nobody claims
// what has been given to somebody else since.
#include <algorithm>
#include <utility>

#include "api_server/livekit/worker_connection.h"
#include "api_server/livekit/workers.h"
#include "base/status.h"

namespace parley::api_server {
namespace {

namespace v1 = ::parley::dispatch::v1;
using agent::JobKey;

constexpr size_t kMaxClaims = 1000;
constexpr int64_t kCollectUs = 250'000;  // what is said in one breath is looked at together
constexpr int64_t kRetryUs = 1'000'000;
constexpr int kMaxTries = 10;  // about a lease
constexpr int64_t kNever = INT64_MAX;
constexpr absl::Duration kCall = absl::Seconds(5);

template <typename Request, typename Response>
struct Call {
  grpc::ClientContext context;
  Request request;
  Response response;
};

bool Unheard(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) ||
         absl::IsResourceExhausted(status);
}

}  // namespace

void WorkerConnection::OnMigrate(const lk::MigrateJobRequest& request) {
  for (const std::string& id : request.job_ids()) {
    if (!held_.contains(id)) AddClaim(id, {});
  }
}

void WorkerConnection::AddClaim(const std::string& id, Claim claim) {
  const auto known = claims_.find(id);
  if (known != claims_.end()) {  // it ran, and now it has ended
    known->second.status = claim.status;
    known->second.error = std::move(claim.error);
    return;
  }
  if (claims_.size() >= kMaxClaims) return;
  claims_.emplace(id, std::move(claim));
  if (claim_us_ == 0 && claims_asked_ == 0) {
    claim_us_ = workers_.loop()->NowMicros() + kCollectUs;
  }
}

void WorkerConnection::AskClaims() {
  claim_us_ = 0;
  claims_unheard_ = false;
  claims_asked_ = 1;  // for the loop below
  Backend& backend = workers_.backend();
  for (auto& [id, claim] : claims_) {
    const std::optional<WireJob> wire = ReadWireId(id);
    if (!wire || std::exchange(claim.asked, true)) continue;
    ++claims_asked_;
    auto call = std::make_shared<Call<v1::GetJobRequest, v1::GetJobResponse>>();
    Prepare(call->context, backend.context.ServiceToken(caller_.project), kCall);
    call->request.set_job_id(wire->job_id);
    backend.dispatch->async()->GetJob(&call->context, &call->request, &call->response,
                                      [call, id = id, loop = workers_.loop(),
                                       weak = weak_from_this()](const grpc::Status& status) {
                                        loop->Post([call, id, weak, status] {
                                          const auto self = weak.lock();
                                          if (self != nullptr) {
                                            self->OnClaimJob(id, rpc::FromGrpcStatus(status),
                                                             call->response.job());
                                          }
                                        });
                                      });
  }
  ClaimAnswered(absl::OkStatus());
}

// Is it the very attempt that this worker had?
bool WorkerConnection::IsKept(const WireJob& wire, const v1::Job& job) const {
  const bool runs = job.state() == v1::JOB_STATE_ASSIGNED || job.state() == v1::JOB_STATE_RUNNING;
  const auto is_it = [&](const std::shared_ptr<BrokerSide>& side) {
    return side != nullptr && side->worker_id() == job.worker_id();
  };
  return runs && job.project() == caller_.project && job.agent_name() == request_->agent_name() &&
         job.attempt() == wire.attempt && !job.worker_id().empty() && !is_it(primary_) &&
         std::none_of(inherited_.begin(), inherited_.end(), is_it);
}

void WorkerConnection::OnClaimJob(const std::string& id, const absl::Status& status,
                                  const v1::Job& job) {
  const auto it = claims_.find(id);
  if (deaf_ || it == claims_.end()) return;
  if (Unheard(status)) it->second.asked = false;
  if (!status.ok() || !IsKept(*ReadWireId(id), job)) return ClaimAnswered(status);
  Claim& claim = it->second;
  claim.worker_id = job.worker_id();
  v1::Assignment& assignment = claim.assignment;
  assignment.set_job_id(job.id());
  assignment.set_fencing_token(job.fencing_token());
  assignment.set_attempt(job.attempt());
  assignment.set_dispatch_id(job.dispatch_id());
  assignment.set_project(job.project());
  assignment.set_agent_name(job.agent_name());
  assignment.set_room(job.room());
  assignment.set_job_type(job.job_type());
  assignment.set_participant_identity(job.participant_identity());
  assignment.set_session_id(job.session_id());
  assignment.set_pool(job.pool());
  *assignment.mutable_create_time() = job.create_time();
  if (job.has_deadline()) *assignment.mutable_deadline() = job.deadline();
  AskDispatch(id, job);
}

// The rest of the record, for a report that may have to bring the job back.
void WorkerConnection::AskDispatch(const std::string& id, const v1::Job& job) {
  Backend& backend = workers_.backend();
  auto call = std::make_shared<Call<v1::GetDispatchRequest, v1::GetDispatchResponse>>();
  Prepare(call->context, backend.context.ServiceToken(caller_.project), kCall);
  call->request.set_dispatch_id(job.dispatch_id());
  backend.dispatch->async()->GetDispatch(
      &call->context, &call->request, &call->response,
      [call, id, loop = workers_.loop(), weak = weak_from_this()](const grpc::Status& status) {
        loop->Post([call, id, weak, status] {
          const auto self = weak.lock();
          if (self != nullptr) {
            self->OnClaimDispatch(id, rpc::FromGrpcStatus(status), call->response.dispatch());
          }
        });
      });
}

void WorkerConnection::OnClaimDispatch(const std::string& id, const absl::Status& status,
                                       const v1::Dispatch& dispatch) {
  const auto it = claims_.find(id);
  if (deaf_ || it == claims_.end()) return;
  if (Unheard(status)) it->second.asked = false;
  if (!status.ok()) return ClaimAnswered(status);
  v1::Assignment& assignment = it->second.assignment;
  assignment.set_room_sid(dispatch.room_sid());
  assignment.set_metadata(dispatch.metadata());
  *assignment.mutable_attributes() = dispatch.attributes();
  assignment.set_restart_policy(dispatch.restart_policy());
  assignment.set_priority(dispatch.priority());
  assignment.set_idempotency_key(dispatch.idempotency_key());
  *assignment.mutable_selector() = dispatch.selector();
  assignment.set_while_present(dispatch.while_present());
  assignment.set_unique_in_room(dispatch.unique_in_room());
  it->second.kept = true;
  ClaimAnswered(status);
}

void WorkerConnection::ClaimAnswered(const absl::Status& status) {
  claims_unheard_ |= Unheard(status);
  if (--claims_asked_ > 0) return;
  if (claims_unheard_ && ++claim_tries_ < kMaxTries) {
    claim_us_ = workers_.loop()->NowMicros() + kRetryUs;
    return;
  }
  claim_tries_ = 0;
  TakeClaims();
}

void WorkerConnection::TakeClaims() {
  std::map<std::string, std::vector<std::string>> by_worker;
  const std::map<std::string, Claim> claims = std::exchange(claims_, {});
  for (const auto& [id, claim] : claims) {
    const bool runs = claim.status == lk::JS_RUNNING || claim.status == lk::JS_PENDING;
    if (claim.kept) {
      by_worker[claim.worker_id].push_back(id);
    } else if (runs && !held_.contains(id)) {
      Terminate(id);  // it is over, or somebody else's
    }
  }
  for (const auto& [worker_id, ids] : by_worker) {
    const auto side = MakeSide(worker_id, static_cast<int>(ids.size()));
    side->SetStatus(0, false);
    for (const std::string& id : ids) {
      const Claim& claim = claims.at(id);
      const JobKey key{claim.assignment.job_id(), claim.assignment.fencing_token()};
      side->Inherit(claim.assignment);
      if (claim.status == lk::JS_SUCCESS || claim.status == lk::JS_FAILED) {
        side->Ended(key,
                    claim.status == lk::JS_SUCCESS ? v1::JOB_REASON_SHUTDOWN
                                                   : v1::JOB_REASON_ENTRYPOINT_ERROR,
                    claim.error);
        continue;
      }
      Held& held = held_[id];
      held.side = side;
      held.key = key;
      held.step = Step::kRunning;
      held.room = claim.assignment.room();
      held.look_us = kNever;
    }
    inherited_.push_back(side);
    side->Start();
  }
}

void WorkerConnection::SweepInherited() {
  std::erase_if(inherited_, [this](const std::shared_ptr<BrokerSide>& side) {
    if (side->jobs().active() > 0 || side->jobs().has_unanswered()) return false;
    workers_.Part(side);
    return true;
  });
}

}  // namespace parley::api_server
