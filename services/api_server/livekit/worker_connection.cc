#include "api_server/livekit/worker_connection.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "api_server/livekit/workers.h"
#include "base/ids.h"
#include "base/status.h"

namespace parley::api_server {
namespace {

namespace v1 = ::parley::dispatch::v1;
namespace roomv1 = ::parley::room::v1;
using agent::JobKey;

constexpr int kMalformed = 1007;
constexpr int kRefused = 1008;
constexpr int kTryAgain = 1013;
constexpr size_t kMaxWaiting = 1024;  // messages
constexpr size_t kMaxEarly = 64;
constexpr int64_t kRegisterUs = 10'000'000;
constexpr int64_t kEndUs = 15'000'000;  // for a job that was told to end
constexpr int64_t kNever = INT64_MAX;
constexpr int64_t kShortestPauseUs = 250'000;
constexpr int kMostDoublings = 4;  // 4 s: its next status comes before that
constexpr absl::Duration kWorkerToken = absl::Minutes(10);
constexpr absl::Duration kCall = absl::Seconds(5);
// Of workers that do not say how their jobs are, which is seen in the room.
constexpr int64_t kFirstLookUs = 1'000'000;
constexpr int64_t kLookUs = 500'000;
constexpr int64_t kLookAgainUs = 2'000'000;
constexpr int64_t kMissingUs = 4'000'000;      // a reconnect is shorter
constexpr int64_t kSilentStartUs = 8'000'000;  // before the broker would take it back
constexpr int64_t kJoinUs = 60'000'000;

int CloseCode(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsAborted(status) ||
                 absl::IsResourceExhausted(status) || absl::IsDeadlineExceeded(status)
             ? kTryAgain
             : kRefused;
}

std::string NameOf(lk::TrackSource source) {
  switch (source) {
    case lk::CAMERA:
      return "camera";
    case lk::MICROPHONE:
      return "microphone";
    case lk::SCREEN_SHARE:
      return "screen_share";
    case lk::SCREEN_SHARE_AUDIO:
      return "screen_share_audio";
    default:
      return "";
  }
}

// What the agent may do in its room, as its worker registered.
void Permit(const lk::RegisterWorkerRequest& request, auth::VideoGrant& video) {
  const lk::ParticipantPermission& allowed = request.allowed_permissions();
  const bool all = !request.has_allowed_permissions();
  video.can_publish = all || allowed.can_publish();
  video.can_subscribe = all || allowed.can_subscribe();
  video.can_publish_data = all || allowed.can_publish_data();
  video.can_update_own_metadata = all || allowed.can_update_metadata();
  video.hidden = allowed.hidden();
  for (const int source : allowed.can_publish_sources()) {
    const std::string name = NameOf(static_cast<lk::TrackSource>(source));
    if (!name.empty()) video.can_publish_sources.push_back(name);
  }
}

}  // namespace

WorkerConnection::WorkerConnection(LivekitWorkers& workers, auth::Claims caller, std::string peer,
                                   std::shared_ptr<http::WebSocket> socket)
    : workers_(workers),
      caller_(std::move(caller)),
      peer_(std::move(peer)),
      socket_(std::move(socket)) {}

// ---- the WebSocket ----

void WorkerConnection::OnMessage(http::WebSocketMessage message) {
  if (waiting_.fetch_add(1) >= kMaxWaiting) {
    return socket_->Close(kTryAgain, "too many messages at once");
  }
  workers_.loop()->Post([self = shared_from_this(), message = std::move(message)] {
    self->waiting_.fetch_sub(1);
    self->Handle(message);
  });
}

void WorkerConnection::OnClosed() {
  workers_.loop()->Post([self = shared_from_this()] { self->Close(); });
}

void WorkerConnection::Open(int64_t now_us) { register_by_us_ = now_us + kRegisterUs; }

void WorkerConnection::Close() {
  deaf_ = true;
  registered_ = false;
  for (const auto& [id, held] : held_) {
    if (held.step == Step::kAsked || held.step == Step::kAccepted) {
      held.side->Reject(held.key, false, "the worker's connection is gone");
    }
  }
  held_.clear();
  if (primary_ != nullptr) workers_.Part(std::exchange(primary_, nullptr));
  for (const auto& side : std::exchange(inherited_, {})) workers_.Part(side);
  workers_.Forget(shared_from_this());
}

void WorkerConnection::Refuse(int code, std::string_view reason) {
  if (std::exchange(deaf_, true)) return;
  workers_.metrics().refused.Increment();
  workers_.backend().context.log().Info("closing a LiveKit worker",
                                        {{"peer", peer_}, {"code", code}, {"reason", reason}});
  socket_->Close(code, reason);
}

void WorkerConnection::Send(const lk::ServerMessage& message) {
  if (deaf_ || socket_->Send(WriteServerMessage(message, text_))) return;
  Refuse(kTryAgain, "the worker does not read");
}

void WorkerConnection::Handle(const http::WebSocketMessage& frame) {
  if (deaf_) return;
  text_ = frame.text;
  const absl::StatusOr<lk::WorkerMessage> message = ReadWorkerMessage(frame);
  if (!message.ok()) return Refuse(kMalformed, Message(message.status()));
  if (message->has_ping()) {
    lk::ServerMessage answer;
    answer.mutable_pong()->set_last_timestamp(message->ping().timestamp());
    answer.mutable_pong()->set_timestamp(absl::ToUnixMillis(absl::Now()));
    return Send(answer);
  }
  if (message->has_register_() == request_.has_value()) {
    return Refuse(kRefused, request_ ? "this worker is registered already"
                                     : "the first message of a worker is `register`");
  }
  if (message->has_register_()) return Register(message->register_());
  if (registered_) return Do(*message);
  if (early_.size() >= kMaxEarly) return Refuse(kRefused, "too many messages at once");
  early_.push_back(frame);
}

void WorkerConnection::Do(const lk::WorkerMessage& message) {
  switch (message.message_case()) {
    case lk::WorkerMessage::kAvailability:
      return OnAvailability(message.availability());
    case lk::WorkerMessage::kUpdateWorker:
      return OnWorkerStatus(message.update_worker());
    case lk::WorkerMessage::kUpdateJob:
      return OnJobStatus(message.update_job());
    case lk::WorkerMessage::kSimulateJob:
      return OnSimulate(message.simulate_job());
    case lk::WorkerMessage::kMigrateJob:
      return OnMigrate(message.migrate_job());
    default:
      return;  // of a newer worker
  }
}

// ---- registration ----

std::shared_ptr<BrokerSide> WorkerConnection::MakeSide(std::string worker_id, int slots) {
  BrokerSide::Facts facts;
  facts.instance = workers_.InstanceOf(worker_id);
  facts.agent_name = request_->agent_name();
  facts.deployment = request_->deployment();
  facts.version = request_->version();
  facts.hostname = peer_;
  facts.labels[std::string(kWorkerLabel)] = worker_id;
  facts.slots = slots;
  facts.worker_id = std::move(worker_id);
  // What its key may do, and no more; the worker's own token may be too old by then.
  auto token = [&context = workers_.backend().context, key = caller_.issuer] {
    const auto ring = context.keys();
    const auth::ApiKey* found = ring->Find(key);
    auth::Claims claims;
    claims.video.agent = true;
    return found == nullptr ? std::string() : auth::Sign(claims, *found, kWorkerToken);
  };
  // A clock's number is higher than any other replica's for the same id before.
  return std::make_shared<BrokerSide>(
      workers_.loop(), workers_.channel(), std::move(token), std::move(facts),
      static_cast<uint64_t>(absl::ToUnixMicros(absl::Now())), *this);
}

void WorkerConnection::Register(const lk::RegisterWorkerRequest& request) {
  if (const absl::Status status = Check(request); !status.ok()) {
    return Refuse(kRefused, Message(status));
  }
  request_ = request;
  primary_ = MakeSide(NewId(kWorkerPrefix), workers_.backend().config.livekit_worker_slots);
  primary_->Start();
}

void WorkerConnection::OnRegistered(BrokerSide& side) {
  if (&side != primary_.get()) {
    workers_.metrics().kept.Increment(side.jobs().active());
    return;
  }
  registered_ = true;
  workers_.metrics().registrations.Increment();
  lk::ServerMessage answer;
  answer.mutable_register_()->set_worker_id(side.worker_id());
  lk::RegisterWorkerResponse::Server& server = *answer.mutable_register_()->mutable_server_info();
  server.set_version("1.13.5");  // SDKs read it as x.y.z of LiveKit's server
  server.set_protocol(17);
  server.set_agent_protocol(1);
  Send(answer);
  for (const http::WebSocketMessage& frame : std::exchange(early_, {})) Handle(frame);
}

void WorkerConnection::OnLost(BrokerSide& side, const absl::Status& why) {
  if (&side == primary_.get()) {
    // Its session is over, or another connection speaks for it: it may come back and say what runs.
    return Refuse(CloseCode(why), Message(why));
  }
  // What it was to keep is somebody else's by now.
  std::vector<std::string> lost;
  for (const auto& [id, held] : held_) {
    if (held.side.get() == &side) lost.push_back(id);
  }
  for (const std::string& id : lost) {
    Terminate(id);
    held_.erase(id);
  }
  std::erase_if(inherited_, [&](const auto& one) {
    if (one.get() != &side) return false;
    workers_.Part(one);
    return true;
  });
}

// ---- its status ----

bool WorkerConnection::accepting(int64_t now_us) const {
  return available_ && !draining_ && now_us >= pause_until_us_;
}

void WorkerConnection::TellStatus() {
  if (primary_ != nullptr) primary_->SetStatus(load_, accepting(workers_.loop()->NowMicros()));
}

void WorkerConnection::OnWorkerStatus(const lk::UpdateWorkerStatus& status) {
  if (status.has_status()) available_ = status.status() == lk::WS_AVAILABLE;
  if (std::isfinite(status.load())) load_ = std::clamp<double>(status.load(), 0, 1);
  TellStatus();
}

void WorkerConnection::OnDrain(BrokerSide& side, absl::Duration deadline) {
  if (&side != primary_.get()) return;
  draining_ = true;
  drain_by_us_ = deadline == absl::InfiniteDuration()
                     ? 0
                     : workers_.loop()->NowMicros() + absl::ToInt64Microseconds(deadline);
  TellStatus();
}

// ---- offers ----

std::string WorkerConnection::WhyNot(const v1::Assignment& assignment) const {
  if (deaf_ || !accepting(workers_.loop()->NowMicros())) return "the worker is full";
  if (ToLiveKit(assignment.job_type()) != request_->type()) {
    return "the worker takes jobs of another type";
  }
  if (assignment.selector().deployment() != request_->deployment()) {
    return fmt::format("the worker belongs to deployment \"{}\"", request_->deployment());
  }
  return "";
}

void WorkerConnection::OnOffer(BrokerSide& side, const v1::Assignment& assignment) {
  const JobKey key{assignment.job_id(), assignment.fencing_token()};
  const auto known = held_.find(WireId(assignment.job_id(), assignment.attempt()));
  if (known != held_.end() && known->second.side.get() == &side) {
    Held& held = known->second;
    const bool open = held.step == Step::kAsked || held.step == Step::kAccepted;
    if (!open && held.key == key) return;
    if (!open) return side.Reject(key, false, "an earlier copy of it still runs here");
    held.key = key;  // offered again, after a broken stream: the answer is the same
    if (held.step == Step::kAccepted) side.Accept(key);
    return;
  }
  const std::string why_not =
      &side == primary_.get() ? WhyNot(assignment) : std::string("the worker has another id now");
  if (!why_not.empty()) return side.Reject(key, false, why_not);
  Held held;
  held.side = side.shared_from_this();
  held.key = key;
  Ask(assignment, std::move(held));
}

void WorkerConnection::Ask(const v1::Assignment& assignment, Held held) {
  lk::ServerMessage message;
  lk::AvailabilityRequest& request = *message.mutable_availability();
  *request.mutable_job() = ToLiveKit(assignment);
  request.mutable_job()->mutable_state()->set_status(lk::JS_PENDING);
  request.set_resuming(assignment.resuming());
  held.room = assignment.room();
  held_[request.job().id()] = std::move(held);
  Send(message);
}

void WorkerConnection::OnAvailability(const lk::AvailabilityResponse& answer) {
  if (const absl::Status status = Check(answer); !status.ok()) {
    return Refuse(kRefused, Message(status));
  }
  const auto it = held_.find(answer.job_id());
  // Late: it is offered elsewhere by now.
  if (it == held_.end() || it->second.step != Step::kAsked) return;
  Held& held = it->second;
  if (answer.available()) {
    rejections_ = 0;
    held.answer = answer;
    held.step = Step::kAccepted;
    if (held.go) return Assign(it->first, held, *std::exchange(held.go, std::nullopt));
    return held.side->Accept(held.key);
  }
  held.side->Reject(held.key, answer.terminate(),
                    answer.terminate() ? "the agent will not have it" : "the worker is busy");
  held.side->Released(held.key);
  held_.erase(it);
  if (answer.terminate()) return;
  // Refusals in a row are those of a busy worker, which its status says only later. What it was
  // asked before the pause began counts once, however much it was.
  const int64_t now_us = workers_.loop()->NowMicros();
  if (now_us < pause_until_us_ || ++rejections_ < 2) return;
  pause_until_us_ = now_us + (kShortestPauseUs << std::min(rejections_ - 2, kMostDoublings));
  TellStatus();
}

// ---- jobs ----

void WorkerConnection::OnGo(BrokerSide& side, const v1::Go& go) {
  const JobKey key{go.job_id(), go.fencing_token()};
  const auto it = held_.find(WireId(go.job_id(), go.assignment().attempt()));
  if (it == held_.end()) {  // taken before the stream broke, or without an offer
    const std::string why_not = WhyNot(go.assignment());
    if (why_not.empty()) {
      Held held;
      held.side = side.shared_from_this();
      held.key = key;
      held.go = go;
      return Ask(go.assignment(), std::move(held));
    }
    side.Reject(key, false, why_not);
    return side.Released(key);
  }
  Held& held = it->second;
  if (held.step == Step::kAsked) {
    held.key = key;
    held.go = go;
  } else if (held.step == Step::kAccepted) {
    held.key = key;
    Assign(it->first, held, go);
  } else {
    side.Released(key);
  }
}

absl::StatusOr<std::string> WorkerConnection::RoomToken(const Held& held, const v1::Go& go) const {
  const auto ring = workers_.backend().context.keys();
  PARLEY_ASSIGN_OR_RETURN(auth::Claims claims, auth::Verify(go.room_token(), *ring));
  claims.identity = held.identity;
  if (!held.answer.participant_name().empty()) claims.name = held.answer.participant_name();
  claims.metadata = held.answer.participant_metadata();
  for (const auto& [name, value] : held.answer.participant_attributes()) {
    claims.attributes[name] = value;
  }
  Permit(*request_, claims.video);
  return auth::SignService(claims, *ring, claims.expires - absl::Now());
}

void WorkerConnection::Assign(const std::string& id, Held& held, const v1::Go& go) {
  held.identity = held.answer.participant_identity().empty() ? "agent-" + id
                                                             : held.answer.participant_identity();
  absl::StatusOr<std::string> token = RoomToken(held, go);
  if (!token.ok()) {
    workers_.backend().context.log().Error(
        "no room token for a LiveKit worker's job",
        {{"job_id", go.job_id()}, {"error", Message(token.status())}});
    held.side->Released(held.key);
    held_.erase(id);
    return;
  }
  held.step = Step::kAssigned;
  held.assigned_us = workers_.loop()->NowMicros();
  held.look_us = held.assigned_us + kFirstLookUs;
  lk::ServerMessage message;
  lk::JobAssignment& assignment = *message.mutable_assignment();
  *assignment.mutable_job() = ToLiveKit(go.assignment());
  lk::JobState& state = *assignment.mutable_job()->mutable_state();
  state.set_status(lk::JS_RUNNING);
  state.set_started_at(absl::ToUnixNanos(absl::Now()));
  state.set_updated_at(state.started_at());
  state.set_participant_identity(held.identity);
  state.set_worker_id(held.side->worker_id());
  assignment.set_token(*std::move(token));
  Send(message);
}

void WorkerConnection::OnJobStatus(const lk::UpdateJobStatus& update) {
  says_status_ = true;
  const auto it = held_.find(update.job_id());
  if (it == held_.end()) {
    Claim claim;
    claim.status = update.status();
    claim.error = update.error();
    return AddClaim(update.job_id(), std::move(claim));
  }
  Held& held = it->second;
  if (held.step == Step::kAsked || held.step == Step::kAccepted) return;
  if (update.status() == lk::JS_PENDING) return;
  if (update.status() == lk::JS_RUNNING) {
    held.seen = true;
    if (held.step == Step::kAssigned) {
      held.step = Step::kRunning;
      held.side->Started(held.key);
    }
    return;
  }
  const bool good = update.status() == lk::JS_SUCCESS;
  Over(it->first, good ? v1::JOB_REASON_SHUTDOWN : v1::JOB_REASON_ENTRYPOINT_ERROR,
       good || !update.error().empty() ? update.error() : "the LiveKit worker said that it failed");
}

// Its process is gone. `reason` unless it was told to end.
void WorkerConnection::Over(const std::string& id, v1::JobReason reason, std::string_view error) {
  const auto it = held_.find(id);
  const Held held = std::move(it->second);
  held_.erase(it);
  if (held.step == Step::kRevoked) return held.side->Released(held.key);
  if (held.step == Step::kStopping)
    return held.side->Ended(held.key, v1::JOB_REASON_TERMINATED, "");
  held.side->Ended(held.key, reason, error);
}

void WorkerConnection::Terminate(const std::string& id) {
  lk::ServerMessage message;
  message.mutable_termination()->set_job_id(id);
  Send(message);
}

std::map<std::string, WorkerConnection::Held>::iterator WorkerConnection::Find(const JobKey& key) {
  return std::find_if(held_.begin(), held_.end(),
                      [&](const auto& entry) { return entry.second.key == key; });
}

void WorkerConnection::OnStop(BrokerSide& side, const JobKey& key) {
  const auto it = Find(key);
  if (it == held_.end()) return side.Released(key);
  Held& held = it->second;
  if (held.step == Step::kAsked || held.step == Step::kAccepted) return OnRevoke(side, key);
  Terminate(it->first);
  if (held.step == Step::kStopping || held.step == Step::kRevoked) return;
  held.step = Step::kStopping;
  held.until_us = workers_.loop()->NowMicros() + kEndUs;
  side.Stopping(key);
}

void WorkerConnection::OnRevoke(BrokerSide& side, const JobKey& key) {
  const auto it = Find(key);
  if (it == held_.end()) return side.Released(key);
  Held& held = it->second;
  if (held.step == Step::kAsked || held.step == Step::kAccepted) {
    held_.erase(it);
    side.Reject(key, false, "taken back");
    return side.Released(key);
  }
  Terminate(it->first);
  if (held.step != Step::kRevoked) held.until_us = workers_.loop()->NowMicros() + kEndUs;
  held.step = Step::kRevoked;
}

// ---- deadlines ----

void WorkerConnection::Sweep(int64_t now_us) {
  if (deaf_) return;
  if (!registered_ && now_us >= register_by_us_) {
    return request_ ? Refuse(kTryAgain, "the broker is out of reach")
                    : Refuse(kRefused, "no `register` within 10 s");
  }
  if (pause_until_us_ != 0 && now_us >= pause_until_us_) {
    pause_until_us_ = 0;
    TellStatus();
  }
  std::vector<std::string> ids;
  ids.reserve(held_.size());
  for (const auto& [id, held] : held_) ids.push_back(id);
  for (const std::string& id : ids) SweepJob(id, held_.at(id), now_us);
  if (claim_us_ != 0 && now_us >= claim_us_) AskClaims();
  SweepInherited();
}

void WorkerConnection::SweepJob(const std::string& id, Held& held, int64_t now_us) {
  if (held.step == Step::kAsked || held.step == Step::kAccepted) return;
  if (held.until_us != 0 && now_us >= held.until_us) {
    return Over(id, v1::JOB_REASON_TERMINATED, "");
  }
  if (drain_by_us_ != 0 && now_us >= drain_by_us_) {
    Terminate(id);
    return Over(id, v1::JOB_REASON_DRAIN_DEADLINE, "the worker's drain is over");
  }
  if (held.look_us == kNever) return;
  // Also of one that says how its jobs are: many at once wait in it for their processes.
  if (held.step == Step::kAssigned && now_us - held.assigned_us >= kSilentStartUs) {
    held.step = Step::kRunning;
    held.side->Started(held.key);
  }
  if (held.step == Step::kRunning && !held.seen && now_us - held.assigned_us >= kJoinUs) {
    Terminate(id);
    return Over(id, v1::JOB_REASON_START_TIMEOUT, "the agent never came into its room");
  }
  if (says_status_ && held.seen) return;
  if (!held.looking && now_us >= held.look_us) Look(id, held);
}

void WorkerConnection::Look(const std::string& id, Held& held) {
  struct Call {
    grpc::ClientContext context;
    roomv1::GetParticipantRequest request;
    roomv1::GetParticipantResponse response;
  };
  held.looking = true;
  auto call = std::make_shared<Call>();
  Backend& backend = workers_.backend();
  Prepare(call->context, backend.context.ServiceToken(caller_.project), kCall);
  call->request.set_room(held.room);
  call->request.set_identity(held.identity);
  backend.rooms->async()->GetParticipant(&call->context, &call->request, &call->response,
                                         [call, id, key = held.key, loop = workers_.loop(),
                                          weak = weak_from_this()](const grpc::Status& status) {
                                           loop->Post([id, key, weak, status] {
                                             if (const auto self = weak.lock())
                                               self->OnLook(id, key, rpc::FromGrpcStatus(status));
                                           });
                                         });
}

void WorkerConnection::OnLook(const std::string& id, const JobKey& key,
                              const absl::Status& status) {
  const auto it = held_.find(id);
  if (it == held_.end() || it->second.key != key) return;
  Held& held = it->second;
  const int64_t now_us = workers_.loop()->NowMicros();
  held.looking = false;
  held.look_us = now_us + (held.seen ? kLookAgainUs : kLookUs);
  if (status.ok()) {
    held.seen = true;
    held.missing_us = 0;
    if (held.step != Step::kAssigned) return;
    held.step = Step::kRunning;
    return held.side->Started(held.key);
  }
  if (says_status_ || !absl::IsNotFound(status) || !held.seen) return;
  if (held.missing_us == 0) held.missing_us = now_us;
  if (now_us - held.missing_us < kMissingUs) return;
  Terminate(id);
  // Who leaves says so; what does not, and does not come back, has died.
  const ErrorReason why = ReasonOf(status);
  const auto left = why.metadata.find("left");
  const bool died = left != why.metadata.end() && left->second == "connection_lost";
  if (died) return Over(id, v1::JOB_REASON_PROCESS_CRASHED, "its agent's connection broke");
  Over(id, v1::JOB_REASON_SHUTDOWN, "");
}

// ---- simulation ----

void WorkerConnection::OnSimulate(const lk::SimulateJobRequest& request) {
  struct Call {
    grpc::ClientContext context;
    v1::CreateDispatchRequest request;
    v1::CreateDispatchResponse response;
  };
  auto call = std::make_shared<Call>();
  Backend& backend = workers_.backend();
  Prepare(call->context, backend.context.ServiceToken(caller_.project), kCall);
  call->request.set_project(caller_.project);
  call->request.set_agent_name(request_->agent_name());
  call->request.set_room(request.room().name());
  call->request.set_job_type(FromLiveKit(request.type()));
  call->request.set_participant_identity(request.participant().identity());
  v1::Selector& selector = *call->request.mutable_selector();
  selector.set_deployment(request_->deployment());
  (*selector.mutable_labels())[std::string(kWorkerLabel)] = primary_->worker_id();
  backend.dispatch->async()->CreateDispatch(
      &call->context, &call->request, &call->response,
      [call, log = backend.context.log()](const grpc::Status& status) {
        if (status.ok()) return;
        log.Warn("a simulated job was not made",
                 {{"room", call->request.room()}, {"error", status.error_message()}});
      });
}

}  // namespace parley::api_server
