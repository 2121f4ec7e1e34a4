#include "dispatch_broker/worker_session.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/status.h"
#include "dispatch_broker/log_stream.h"
#include "dispatch_broker/session_record.h"
#include "job/limits.h"

namespace parley::dispatch_broker {
namespace {

constexpr size_t kOutbox = 4096;
constexpr size_t kMaxHeld = 10'000;
constexpr size_t kWordsPerCall = 200;
constexpr absl::Duration kLease = absl::Seconds(12);
constexpr absl::Duration kHeartbeat = absl::Seconds(1);
constexpr absl::Duration kStopGrace = absl::Seconds(10);
constexpr absl::Duration kNameClaim = absl::Seconds(60);

absl::Status Replaced(std::string_view worker_id) {
  return WithReason(
      Aborted("worker {}: a newer connection exists or its session has ended", worker_id),
      "WORKER_REPLACED");
}

}  // namespace

WorkerSession::WorkerSession(Broker& broker, absl::StatusOr<auth::Claims> caller)
    : BidiSession(broker.context().executor(), kOutbox),
      broker_(broker),
      caller_(std::move(caller)) {
  broker_.metrics().streams.Increment();
}

WorkerSession::~WorkerSession() { broker_.metrics().streams.Decrement(); }

void WorkerSession::OnStart() {
  if (!caller_.ok()) return Fail(caller_.status());
  if (absl::Status status = auth::RequireWorker(*caller_); !status.ok()) Fail(status);
}

void WorkerSession::Fail(const absl::Status& status) {
  if (!registered_) broker_.metrics().workers_refused.Increment();
  Close(rpc::ToGrpcStatus(status));
}

void WorkerSession::SendOrClose(v1::ConnectResponse response) {
  if (Send(std::move(response))) return;
  Close(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED,
                     "the agent server does not read its stream; connect again"));
}

void WorkerSession::OnMessage(const v1::ConnectRequest& message) {
  if (!registered_ && !message.has_register_()) {
    return Fail(FailedPrecondition("the first message of a stream is `register`"));
  }
  switch (message.message_case()) {
    case v1::ConnectRequest::kRegister:
      if (registered_) return Fail(FailedPrecondition("this stream is registered already"));
      return OnRegister(message.register_());
    case v1::ConnectRequest::kHeartbeat:
      return OnHeartbeat(message.heartbeat());
    case v1::ConnectRequest::kWords:
      return OnWords(message.words());
    case v1::ConnectRequest::kDrain:
      if (absl::Status status = broker_.store().Drain(pool_, worker_id_, std::nullopt);
          !status.ok()) {
        broker_.context().log().Warn("drain not stored; its heartbeats say the same",
                                     {{"worker_id", worker_id_}, {"error", Message(status)}});
      }
      return;
    case v1::ConnectRequest::kReport:
      return OnReport(message.report());
    case v1::ConnectRequest::kCheckpoints:
      return OnCheckpoints(message.checkpoints());
    case v1::ConnectRequest::kLog:
      return OnLog(message.log());
    case v1::ConnectRequest::kHeldRecordings:
      return OnHeldRecordings(message.held_recordings());
    case v1::ConnectRequest::kStalls:
      return OnStalls(message.stalls());
    case v1::ConnectRequest::kAskHandOver:
      return OnAskHandOver(message.ask_hand_over());
    default:
      return;  // of a newer worker
  }
}

void WorkerSession::OnClosed() {
  for (const auto& [request, reader] : std::exchange(readers_, {})) {
    if (const auto stream = reader.stream.lock()) {
      stream->End(grpc::Status(grpc::StatusCode::UNAVAILABLE,
                               "the stream of the job's agent server broke; ask again"));
    }
  }
  if (!registered_) return;
  broker_.workers().Remove(worker_id_, this);
  broker_.Reported(pool_, worker_id_);
  broker_.context().log().Info("worker stream closed; its lease runs on",
                               {{"worker_id", worker_id_}, {"pool", pool_}});
}

// ---- register ----

absl::Status WorkerSession::Authorise(const job::Registration& registration) const {
  const std::vector<std::string>& allowed = caller_->agent_names;
  if (allowed.empty()) return absl::OkStatus();
  if (registration.serves_configured) {
    return PermissionDenied("this key may serve only agents of its list, not all configured ones");
  }
  for (const std::string& name : registration.agent_names) {
    if (std::find(allowed.begin(), allowed.end(), name) == allowed.end()) {
      return PermissionDenied("this key may not serve the agent name \"{}\"", name);
    }
  }
  return absl::OkStatus();
}

absl::Status WorkerSession::ClaimNames() {
  if (registration_.project.empty()) return absl::OkStatus();
  for (const std::string& name : registration_.agent_names) {
    if (name.empty()) continue;
    PARLEY_RETURN_IF_ERROR(
        broker_.agents().ClaimForProgram(registration_.project, name, kNameClaim));
  }
  names_claimed_ = broker_.context().clock().Now();
  return absl::OkStatus();
}

void WorkerSession::OnRegister(const v1::Register& request) {
  registration_ = FromProto(request);
  registration_.project = caller_->project;
  worker_id_ = registration_.worker_id;
  pool_ = registration_.pool;
  absl::Status status = job::Validate(registration_);
  if (status.ok()) status = Authorise(registration_);
  if (status.ok()) status = broker_.CheckStore();
  if (status.ok()) status = ClaimNames();
  if (!status.ok()) return Fail(status);
  // In the table first: the match that registering brings is told to this stream. What is told
  // waits on the strand behind us.
  const auto self = Self<WorkerSession>();
  std::shared_ptr<WorkerSession> older = broker_.workers().Put(worker_id_, self);
  HoldEnds(request.report());
  registered_ = true;
  status = RegisterWith(registration_);
  if (!status.ok()) {
    registered_ = false;
    broker_.workers().Remove(worker_id_, this);
    if (older != nullptr) broker_.workers().Put(worker_id_, std::move(older));
    return Fail(status);
  }
  registration_.report.clear();
  if (older != nullptr) older->Close(rpc::ToGrpcStatus(Replaced(worker_id_)));
  broker_.context().log().Info("worker registered", {{"worker_id", worker_id_},
                                                     {"pool", pool_},
                                                     {"project", registration_.project},
                                                     {"slots", registration_.slots},
                                                     {"connect_seq", registration_.connect_seq},
                                                     {"jobs", request.report().jobs_size()}});
}

absl::Status WorkerSession::RegisterWith(const job::Registration& registration) {
  PARLEY_ASSIGN_OR_RETURN(const job::JobStore::Registered registered,
                          broker_.store().Register(registration));
  broker_.Touch(pool_);
  broker_.Reported(pool_, worker_id_);
  v1::ConnectResponse response;
  v1::Registered& answer = *response.mutable_registered();
  SetDuration(kLease, answer.mutable_lease_ttl());
  SetDuration(kHeartbeat, answer.mutable_heartbeat_interval());
  for (const job::ResumeVerdict& verdict : registered.verdicts) {
    *answer.add_jobs() = ToProto(verdict);
  }
  answer.set_pool(pool_);
  answer.set_load_threshold(registration_.load_threshold);
  SendOrClose(std::move(response));
  awaiting_report_ = false;
  // While the store recovers, reported ends were kept back; else they are recorded already, and
  // saying them once more only brings their session's record.
  ApplyHeld();
  return absl::OkStatus();
}

// A report says all that words said before it.
void WorkerSession::HoldEnds(const v1::Report& report) {
  held_.clear();
  for (const v1::ReportedJob& job : report.jobs()) {
    const bool over =
        job.status() == v1::ReportedJob::ENDED || job.status() == v1::ReportedJob::RELEASED;
    if (!over || job.recorded() || held_.size() >= kMaxHeld) continue;
    v1::Word word;
    word.set_job_id(job.job_id());
    word.set_fencing_token(job.fencing_token());
    word.set_kind(job.status() == v1::ReportedJob::ENDED ? v1::Word::ENDED : v1::Word::RELEASED);
    word.set_reason(job.reason());
    word.set_error(job.error());
    if (auto held = FromProto(word); held.ok()) {
      held_.push_back({*std::move(held), job.session().SerializeAsString()});
    }
  }
}

void WorkerSession::AskForReport() {
  strand().Post([self = Self<WorkerSession>()] {
    if (std::exchange(self->awaiting_report_, true) && !self->report_due_) return;
    self->report_due_ = false;
    v1::ConnectResponse response;
    response.mutable_report_request();
    self->SendOrClose(std::move(response));
  });
}

void WorkerSession::OnReport(const v1::Report& report) {
  job::Registration again = registration_;
  again.report = FromProto(report);
  HoldEnds(report);
  const absl::Status status = RegisterWith(again);
  if (status.ok()) return;
  if (absl::IsUnavailable(status)) {  // it went away once more
    report_due_ = true;
    return NoteBehind();
  }
  Fail(status);
}

// ---- heartbeats ----

double WorkerSession::MedianLoad(double load) {
  if (std::isfinite(load) && load >= 0 && load <= 1) loads_.push_back(load);
  if (loads_.size() > 5) loads_.pop_front();
  if (loads_.empty()) return 0;
  std::vector<double> sorted(loads_.begin(), loads_.end());
  std::sort(sorted.begin(), sorted.end());
  return sorted[sorted.size() / 2];
}

void WorkerSession::OnHeartbeat(const v1::Heartbeat& heartbeat) {
  job::Renewal renewal;
  renewal.worker_id = worker_id_;
  renewal.connect_seq = registration_.connect_seq;
  renewal.load = MedianLoad(heartbeat.load());
  renewal.accepting = heartbeat.accepting() && renewal.load <= registration_.load_threshold;
  broker_.QueueRenewal(Self<WorkerSession>(), renewal, heartbeat.seq());
  if (broker_.store_available() &&
      broker_.context().clock().Now() - names_claimed_ > kNameClaim / 3) {
    if (absl::Status status = ClaimNames(); absl::IsAlreadyExists(status)) Fail(status);
  }
}

void WorkerSession::HeartbeatDone(uint64_t seq, bool store_available, bool replaced) {
  if (replaced) return Close(rpc::ToGrpcStatus(Replaced(worker_id_)));
  v1::ConnectResponse response;
  response.mutable_heartbeat_ack()->set_seq(seq);
  response.mutable_heartbeat_ack()->set_store_available(store_available);
  SendOrClose(std::move(response));
  // Only who has something to catch up: thousands of heartbeats are answered at once.
  if (!store_available || !behind_) return;
  strand().Post([self = Self<WorkerSession>()] { self->CatchUp(); });
}

void WorkerSession::OnStoreBack() {
  strand().Post([self = Self<WorkerSession>()] { self->CatchUp(); });
}

// What waited for the store. While a report is awaited words wait for it.
void WorkerSession::CatchUp() {
  if (report_due_) AskForReport();
  if (!held_.empty() && !awaiting_report_) ApplyHeld();
  for (const job::Message& message : std::exchange(untold_, {})) Handle(message);
  NoteBehind();
}

void WorkerSession::NoteBehind() { behind_ = report_due_ || !held_.empty() || !untold_.empty(); }

void WorkerSession::KeepUntold(const job::Message& message) {
  if (untold_.size() < kMaxHeld) untold_.push_back(message);
  NoteBehind();
}

// ---- words ----

void WorkerSession::OnWords(const v1::Words& words) {
  if (awaiting_report_) return;  // the report says them
  for (const v1::Word& word : words.words()) {
    absl::StatusOr<job::Word> taken = FromProto(word);
    if (!taken.ok()) return Fail(taken.status());
    std::string report = word.has_session() ? word.session().SerializeAsString() : "";
    if (report.size() > job::kMaxSessionReportBytes) report.clear();
    held_.push_back({*std::move(taken), std::move(report)});
  }
  if (held_.size() > kMaxHeld) {
    return Fail(
        ResourceExhausted("{} words wait for the store; connect again and report", held_.size()));
  }
  ApplyHeld();
}

void WorkerSession::ApplyHeld() {
  std::deque<HeldWord> kept;  // the store recovers: to be said again
  while (!held_.empty()) {
    const size_t count = std::min(held_.size(), kWordsPerCall);
    std::vector<job::Word> words;
    for (size_t i = 0; i < count; ++i) {
      SaveReport(held_[i]);
      words.push_back(held_[i].word);
    }
    absl::StatusOr<std::vector<job::WordVerdict>> verdicts =
        broker_.store().Apply(pool_, worker_id_, words);
    if (!verdicts.ok()) {
      if (absl::IsUnavailable(verdicts.status())) break;
      return Fail(verdicts.status());
    }
    v1::ConnectResponse response;
    std::vector<job::SessionRecord> ended;
    for (size_t i = 0; i < count; ++i) {
      job::WordVerdict& verdict = (*verdicts)[i];
      if (verdict.outcome == job::WordVerdict::Outcome::kHeld) {
        kept.push_back(std::move(held_.front()));
      } else {
        NoteVerdict(held_.front(), verdict);
        *response.mutable_verdicts()->add_verdicts() = ToProto(verdict);
        if (verdict.session.has_value()) ended.push_back(*std::move(verdict.session));
      }
      held_.pop_front();
    }
    if (!ended.empty()) broker_.sessions().Add(std::move(ended));
    if (response.has_verdicts()) SendOrClose(std::move(response));
  }
  held_.insert(held_.begin(), std::make_move_iterator(kept.begin()),
               std::make_move_iterator(kept.end()));
  NoteBehind();
}

void WorkerSession::NoteVerdict(const HeldWord& held, const job::WordVerdict& verdict) {
  if (verdict.outcome == job::WordVerdict::Outcome::kStale) {
    broker_.metrics().stale_words.Increment();
    starting_.erase(held.word.job_id);
    return;
  }
  NoteOutcome(held, verdict);
  const auto it = starting_.find(held.word.job_id);
  if (it != starting_.end() && it->second.token == held.word.fencing_token) {
    if (held.word.kind == job::WordKind::kStarted) {
      broker_.metrics().created_to_running_seconds.Observe(
          absl::ToDoubleSeconds(broker_.context().clock().Now() - it->second.create_time));
    }
    if (held.word.kind != job::WordKind::kAccepted) starting_.erase(it);
  }
}

void WorkerSession::NoteOutcome(const HeldWord& held, const job::WordVerdict& verdict) {
  if (held.word.kind == job::WordKind::kRejected) broker_.metrics().rejections.Increment();
  const bool lost = held.word.kind == job::WordKind::kEnded && !job::IsTerminal(verdict.state);
  if (lost) broker_.metrics().attempts_lost.Increment();
}

namespace {

// What is kept of the session that `job` was: its facts as of now, and the worker's report of it.
job::SessionRecord RecordOf(const job::Job& job, const std::string& report) {
  job::SessionRecord record = SessionOf(job, job.dispatch_id);
  record.start_time = job.start_time;
  record.end_time = job.end_time;
  record.report = report;
  return record;
}

void KeepSessions(Broker& broker, const std::vector<job::SessionRecord>& records) {
  if (records.empty()) return;
  if (absl::Status status = broker.store().SaveSessions(records); !status.ok()) {
    broker.context().log().Warn("session records not kept",
                                {{"sessions", records.size()}, {"error", Message(status)}});
  }
}

}  // namespace

// Before the end itself is recorded: who sees that a session has ended finds its report there.
void WorkerSession::SaveReport(const HeldWord& held) {
  if (held.word.kind != job::WordKind::kEnded || held.session_report.empty()) return;
  const absl::StatusOr<job::Job> job = broker_.store().GetJob(held.word.job_id);
  if (!job.ok() || job->fencing_token != held.word.fencing_token) return;  // a stale copy's
  if (!job->session_id.empty()) KeepSessions(broker_, {RecordOf(*job, held.session_report)});
}

// Dispatches that stay have a session for each job.
void WorkerSession::SaveStart(const job::Assignment& assignment) {
  if (!assignment.stays() || assignment.attempt > 1) return;
  KeepSessions(broker_, {SessionOf(assignment, assignment.dispatch_id)});
}

void WorkerSession::OnCheckpoints(const v1::Checkpoints& checkpoints) {
  for (const v1::Checkpoint& checkpoint : checkpoints.checkpoints()) {
    const absl::Status status =
        checkpoint.final()
            ? broker_.store().SaveLastCheckpoint(checkpoint.job_id(), checkpoint.fencing_token(),
                                                 checkpoint.blob(),
                                                 FromTime(checkpoint.paused_at()))
            : broker_.store().SaveCheckpoint(checkpoint.job_id(), checkpoint.fencing_token(),
                                             checkpoint.blob());
    if (status.ok() || absl::IsUnavailable(status)) continue;  // the next turn brings a newer one
    broker_.context().log().Warn("checkpoint refused",
                                 {{"job_id", checkpoint.job_id()}, {"error", Message(status)}});
  }
}

void WorkerSession::OnHeldRecordings(const v1::HeldRecordings& held) {
  constexpr size_t kMaxRecordings = 200;  // as the message's comment says
  std::vector<job::JobStore::SessionEnd> sessions;
  for (const v1::HeldRecording& one : held.recordings()) {
    if (sessions.size() == kMaxRecordings) break;
    const std::string& own = registration_.project;
    if (!own.empty() && one.project() != own) continue;  // not theirs to ask about
    sessions.push_back({one.project(), one.session_id(), FromTime(one.ended())});
  }
  const absl::StatusOr<std::vector<bool>> gone = broker_.store().SessionsGone(sessions);
  if (!gone.ok()) return;  // asked again within minutes
  v1::ConnectResponse response;
  for (size_t i = 0; i < sessions.size(); ++i) {
    if ((*gone)[i]) response.mutable_erase_recordings()->add_session_ids(sessions[i].session_id);
  }
  if (response.has_erase_recordings()) SendOrClose(std::move(response));
}

// Best effort: who waits for it sees it in the room and in the metrics, too.
void WorkerSession::OnStalls(const v1::Stalls& stalls) {
  for (const v1::Stall& one : stalls.stalls()) {
    const absl::Status status =
        broker_.store().NoteStall(one.job_id(), one.fencing_token(), one.stage(), one.given_up());
    if (absl::IsUnavailable(status)) return;
  }
}

// ---- logs of jobs ----

void WorkerSession::ReadLogs(std::weak_ptr<LogStream> reader, v1::ReadLogs request) {
  strand().Post([self = Self<WorkerSession>(), reader = std::move(reader),
                 request = std::move(request)]() mutable {
    const std::shared_ptr<LogStream> stream = reader.lock();
    if (stream == nullptr) return;
    request.set_request(++self->log_requests_);
    v1::ConnectResponse response;
    *response.mutable_read_logs() = request;
    if (!self->registered_ || !self->Send(std::move(response))) {
      return stream->End(grpc::Status(grpc::StatusCode::UNAVAILABLE,
                                      "the job's agent server takes no questions; ask again"));
    }
    self->readers_[request.request()] = {stream.get(), reader};
  });
}

void WorkerSession::ForgetReader(const LogStream* reader) {
  strand().Post([self = Self<WorkerSession>(), reader] {
    for (auto it = self->readers_.begin(); it != self->readers_.end(); ++it) {
      if (it->second.key != reader) continue;
      v1::ConnectResponse response;
      response.mutable_read_logs()->set_request(it->first);
      response.mutable_read_logs()->set_cancel(true);
      self->Send(std::move(response));
      self->readers_.erase(it);
      return;
    }
  });
}

void WorkerSession::OnLog(const v1::JobLogChunk& chunk) {
  const auto it = readers_.find(chunk.request());
  if (it == readers_.end()) return;
  const std::shared_ptr<LogStream> stream = it->second.stream.lock();
  // One that was left cancels by itself.
  if (stream != nullptr) stream->OnChunk(chunk);
  if (chunk.end()) readers_.erase(it);
}

// ---- hand-over ----

void WorkerSession::OnAskHandOver(const v1::AskHandOver& ask) {
  for (const v1::JobToken& job : ask.jobs()) {
    const absl::Status status =
        broker_.store().Migrate(job.job_id(), job.fencing_token(), "").status();
    broker_.metrics().CountHandOver(status);
    if (status.ok()) continue;
    v1::ConnectResponse response;
    response.mutable_hand_over()->set_job_id(job.job_id());
    response.mutable_hand_over()->set_fencing_token(job.fencing_token());
    response.mutable_hand_over()->set_cancel(true);
    SendOrClose(std::move(response));
  }
}

// ---- to the worker ----

void WorkerSession::Tell(const job::Message& message) {
  strand().Post([self = Self<WorkerSession>(), message] { self->Handle(message); });
}

void WorkerSession::Handle(const job::Message& message) {
  if (!registered_) return;
  v1::ConnectResponse response;
  switch (message.kind) {
    case job::Message::Kind::kOffer:
      return SendOffer(message);
    case job::Message::Kind::kGo:
      return SendGo(message);
    case job::Message::Kind::kStop:
      response.mutable_stop()->set_job_id(message.job_id);
      response.mutable_stop()->set_fencing_token(message.fencing_token);
      SetDuration(kStopGrace, response.mutable_stop()->mutable_grace());
      break;
    case job::Message::Kind::kRevoke:
      response.mutable_revoke()->set_job_id(message.job_id);
      response.mutable_revoke()->set_fencing_token(message.fencing_token);
      break;
    case job::Message::Kind::kHandOver:
      return SendHandOver(message);
    case job::Message::Kind::kGoOn:
      response.mutable_hand_over()->set_job_id(message.job_id);
      response.mutable_hand_over()->set_fencing_token(message.fencing_token);
      response.mutable_hand_over()->set_cancel(true);
      break;
    case job::Message::Kind::kTakeOver:
      return SendTakeOver(message);
    case job::Message::Kind::kDrain:
      response.mutable_drain();
      if (message.fencing_token > 0) {
        SetTime(broker_.context().clock().Now() +
                    absl::Milliseconds(static_cast<int64_t>(message.fencing_token)),
                response.mutable_drain()->mutable_deadline());
      }
      break;
    case job::Message::Kind::kReplaced:
      // The token is the connect_seq that was replaced.
      if (message.fencing_token < registration_.connect_seq) return;
      return Close(rpc::ToGrpcStatus(Replaced(worker_id_)));
  }
  SendOrClose(std::move(response));
}

void WorkerSession::SendOffer(const job::Message& message) {
  const absl::StatusOr<job::Assignment> assignment =
      broker_.store().GetAssignment(message.job_id, message.fencing_token);
  if (absl::IsUnavailable(assignment.status())) return KeepUntold(message);
  if (!assignment.ok()) return;  // over already
  broker_.metrics().matches.Increment();
  broker_.metrics().offers.Increment();
  v1::ConnectResponse response;
  *response.mutable_offer()->mutable_assignment() = ToProto(*assignment);
  SendOrClose(std::move(response));
}

void WorkerSession::SendHandOver(const job::Message& message) {
  const absl::StatusOr<job::Job> job = broker_.store().GetJob(message.job_id);
  // Without the store nothing is handed over: its timer calls it off.
  if (!job.ok() || job->fencing_token != message.fencing_token || job->next_worker_id.empty()) {
    return;
  }
  v1::ConnectResponse response;
  response.mutable_hand_over()->set_job_id(message.job_id);
  response.mutable_hand_over()->set_fencing_token(message.fencing_token);
  response.mutable_hand_over()->set_to_worker_id(job->next_worker_id);
  SendOrClose(std::move(response));
}

void WorkerSession::SendTakeOver(const job::Message& message) {
  const absl::StatusOr<job::Assignment> assignment =
      broker_.store().GetAssignment(message.job_id, message.fencing_token);
  if (absl::IsUnavailable(assignment.status())) return KeepUntold(message);
  if (!assignment.ok()) return;  // called off already
  v1::ConnectResponse response;
  v1::TakeOver& take_over = *response.mutable_take_over();
  take_over.set_job_id(message.job_id);
  take_over.set_fencing_token(message.fencing_token);
  take_over.set_checkpoint(assignment->checkpoint);
  if (assignment->paused_at != absl::InfinitePast()) {
    SetTime(assignment->paused_at, take_over.mutable_paused_at());
  }
  SendOrClose(std::move(response));
}

std::string WorkerSession::RoomToken(const job::Assignment& assignment) const {
  auth::Claims claims;
  claims.identity = "agent-" + assignment.job_id;
  claims.name = assignment.agent_name;
  claims.kind = "agent";
  claims.attributes["lk.agent_name"] = assignment.agent_name;
  claims.project = assignment.project;
  claims.session_id = assignment.session_id;
  claims.video.room_join = true;
  claims.video.agent = true;
  claims.video.room = assignment.room;
  claims.video.can_publish = true;
  claims.video.can_subscribe = true;
  claims.video.can_publish_data = true;
  claims.video.can_update_own_metadata = true;
  claims.job = auth::JobGrant{assignment.job_id, assignment.fencing_token, worker_id_,
                              registration_.instance};
  return auth::SignService(claims, *broker_.context().keys(), broker_.config().room_token_ttl);
}

void WorkerSession::SendGo(const job::Message& message) {
  const absl::StatusOr<job::Assignment> assignment =
      broker_.store().GetAssignment(message.job_id, message.fencing_token);
  if (absl::IsUnavailable(assignment.status())) return KeepUntold(message);
  if (!assignment.ok()) return;  // over already
  std::string definition;
  if (assignment->configured()) {
    absl::StatusOr<std::string> found = broker_.resolver().Definition(
        assignment->project, assignment->agent_id, assignment->agent_version);
    if (absl::IsNotFound(found.status())) {
      job::Word word;
      word.job_id = message.job_id;
      word.fencing_token = message.fencing_token;
      word.kind = job::WordKind::kEnded;
      word.reason = job::Reason::kDefinitionInvalid;
      word.error = fmt::format("version {} of agent {} was deleted", assignment->agent_version,
                               assignment->agent_id);
      held_.push_back({word, ""});
      return ApplyHeld();
    }
    if (!found.ok()) return KeepUntold(message);
    definition = *std::move(found);
  }
  if (registration_.accepts_all) broker_.metrics().matches.Increment();
  SaveStart(*assignment);
  const absl::Duration waited = broker_.context().clock().Now() - assignment->create_time;
  if (assignment->take_over) {
    // Counted when it began.
  } else if (assignment->attempt > 1) {
    broker_.metrics().redispatches.Increment();
  } else {
    broker_.metrics().queue_wait_seconds.Observe(absl::ToDoubleSeconds(waited));
    if (const trace::Tracer& tracer = broker_.context().tracer(); tracer.enabled()) {
      tracer.Record("wait for an agent server", trace::Kind::kInternal,
                    TraceContext::Parse(assignment->traceparent), assignment->create_time,
                    broker_.context().clock().Now(), {{"job_id", assignment->job_id}});
    }
    if (starting_.size() < kMaxHeld) {
      starting_[message.job_id] = {message.fencing_token, assignment->create_time};
    }
  }
  v1::ConnectResponse response;
  v1::Go& go = *response.mutable_go();
  go.set_job_id(message.job_id);
  go.set_fencing_token(message.fencing_token);
  *go.mutable_assignment() = ToProto(*assignment);
  go.set_room_token(RoomToken(*assignment));
  go.set_definition_json(std::move(definition));
  SendOrClose(std::move(response));
}

}  // namespace parley::dispatch_broker
