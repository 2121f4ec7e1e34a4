#include "dispatch_broker/dispatch_service.h"

#include "base/ids.h"
#include "base/status.h"
#include "base/strings.h"
#include "dispatch_broker/log_stream.h"
#include "dispatch_broker/session_record.h"
#include "dispatch_broker/watch.h"
#include "job/limits.h"
#include "rpc/bidi.h"

namespace parley::dispatch_broker {

absl::StatusOr<std::string> ProjectOf(const auth::Claims& caller) {
  if (!caller.project.empty()) return caller.project;
  return FailedPrecondition("a service's token must name a project (claim parley.project) here");
}

absl::Status StoreError(const absl::Status& status) {
  if (!absl::IsUnavailable(status) || !parley::ReasonOf(status).reason.empty()) return status;
  return WithReason(status, "STORE_UNAVAILABLE", {{"retry_after_ms", "1000"}});
}

absl::StatusOr<int> PageSize(int32_t asked) {
  if (asked == 0) return 100;
  if (asked < 1 || asked > 500) return InvalidArgument("page_size is 1 to 500, not {}", asked);
  return asked;
}

absl::StatusOr<auth::Claims> DispatchServiceImpl::Caller(
    const grpc::CallbackServerContext& context) const {
  PARLEY_ASSIGN_OR_RETURN(auth::Claims caller, broker_.context().Authenticate(context));
  PARLEY_RETURN_IF_ERROR(broker_.CheckStore());
  return caller;
}

// ---- create ----

absl::StatusOr<job::NewDispatch> DispatchServiceImpl::Prepare(
    const auth::Claims& caller, const v1::CreateDispatchRequest& request) {
  job::NewDispatch dispatch = FromProto(request);
  if (!request.project().empty() && !caller.is_service() && request.project() != caller.project) {
    return PermissionDenied("the token's project is \"{}\", not \"{}\"", caller.project,
                            request.project());
  }
  dispatch.project = request.project().empty() ? caller.project : request.project();
  if (dispatch.project.empty()) return InvalidArgument("project is missing");
  PARLEY_RETURN_IF_ERROR(auth::RequireRoomAdmin(caller, dispatch.room));
  PARLEY_RETURN_IF_ERROR(job::Validate(dispatch, broker_.context().clock().Now()));
  absl::Status resolved = broker_.resolver().Resolve(dispatch);
  if (parley::ReasonOf(resolved).reason == "UNSERVED") {
    broker_.metrics().automatic_unserved.Increment();
  }
  PARLEY_RETURN_IF_ERROR(resolved);
  PARLEY_ASSIGN_OR_RETURN(dispatch.dispatch_id, broker_.store().NewDispatchId(dispatch.pool));
  PARLEY_ASSIGN_OR_RETURN(dispatch.job_id, broker_.store().NewJobId(dispatch.pool));
  dispatch.request_hash = RequestHash(request);
  dispatch.traceparent = CurrentTrace().Traceparent();
  if (dispatch.session_id.empty()) dispatch.session_id = NewId(kSessionPrefix);
  return dispatch;
}

namespace {

// Perhaps it was written: whoever asked may look, or say the same again under its key.
absl::Status WithDispatchId(const absl::Status& status, const std::string& dispatch_id) {
  if (!absl::IsUnavailable(status)) return status;
  ErrorReason why = parley::ReasonOf(status);
  why.metadata["dispatch_id"] = dispatch_id;
  return WithReason(status, why.reason, why.metadata);
}

}  // namespace

std::vector<absl::StatusOr<job::Dispatch>> DispatchServiceImpl::Create(
    const std::vector<const v1::CreateDispatchRequest*>& requests,
    std::vector<absl::StatusOr<job::NewDispatch>> prepared) {
  std::vector<job::NewDispatch> wanted;
  for (const auto& one : prepared) {
    if (one.ok()) wanted.push_back(*one);
  }
  const auto created = broker_.store().CreateMany(wanted);
  std::vector<absl::StatusOr<job::Dispatch>> answers;
  std::vector<job::SessionRecord> now, soon;
  size_t at = 0;
  for (size_t i = 0; i < prepared.size(); ++i) {
    if (!prepared[i].ok()) {
      broker_.metrics().CountRefusal(prepared[i].status());
      answers.emplace_back(StoreError(prepared[i].status()));
      continue;
    }
    const job::NewDispatch& asked = wanted[at];
    const absl::StatusOr<job::JobStore::Created>& outcome = created[at++];
    if (!outcome.ok()) {
      broker_.metrics().CountRefusal(outcome.status());
      answers.emplace_back(StoreError(WithDispatchId(outcome.status(), asked.dispatch_id)));
      continue;
    }
    (outcome->existed ? broker_.metrics().existed : broker_.metrics().created).Increment();
    broker_.Touch(asked.pool);
    answers.emplace_back(outcome->dispatch);
    if (outcome->existed || asked.stays()) continue;  // jobs of those that stay have one each
    (requests[i]->session_id().empty() ? soon : now)
        .push_back(SessionOf(outcome->dispatch, outcome->dispatch.id));
  }
  if (!now.empty()) {  // somebody knows their ids already and may ask at once
    if (absl::Status status = broker_.store().SaveSessions(now); !status.ok()) {
      broker_.context().log().Warn("session records not kept", {{"error", Message(status)}});
    }
  }
  if (!soon.empty()) broker_.sessions().Add(std::move(soon));
  return answers;
}

grpc::ServerUnaryReactor* DispatchServiceImpl::CreateDispatch(
    grpc::CallbackServerContext* context, const v1::CreateDispatchRequest* request,
    v1::CreateDispatchResponse* response) {
  return rpc::Unary(
      broker_.context().executor(), context, [this, context, request, response]() -> absl::Status {
        const int64_t start_us = Clock::Real().MonotonicMicros();
        const absl::StatusOr<auth::Claims> caller = Caller(*context);
        if (!caller.ok()) {
          broker_.metrics().CountRefusal(caller.status());
          return StoreError(caller.status());
        }
        trace::Span span = broker_.context().tracer().Start("CreateDispatch", trace::Kind::kServer);
        const TraceScope scope(span.context());
        const auto answers = Create({request}, {Prepare(*caller, *request)});
        span.Fail(answers[0].status());
        PARLEY_RETURN_IF_ERROR(answers[0].status());
        span.Set("dispatch_id", answers[0]->id);
        span.Set("room", answers[0]->room);
        *response->mutable_dispatch() = ToProto(*answers[0]);
        broker_.metrics().create_seconds.Observe(
            static_cast<double>(Clock::Real().MonotonicMicros() - start_us) / 1e6);
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* DispatchServiceImpl::CreateDispatches(
    grpc::CallbackServerContext* context, const v1::CreateDispatchesRequest* request,
    v1::CreateDispatchesResponse* response) {
  return rpc::Unary(
      broker_.context().executor(), context, [this, context, request, response]() -> absl::Status {
        PARLEY_ASSIGN_OR_RETURN(const auth::Claims caller, Caller(*context));
        trace::Span span =
            broker_.context().tracer().Start("CreateDispatches", trace::Kind::kServer);
        span.Set("dispatches", int64_t{request->requests_size()});
        const TraceScope scope(span.context());
        if (request->requests_size() > static_cast<int>(job::kMaxCreates)) {
          return InvalidArgument("at most {} requests in one call, not {}", job::kMaxCreates,
                                 request->requests_size());
        }
        std::vector<const v1::CreateDispatchRequest*> requests;
        std::vector<absl::StatusOr<job::NewDispatch>> prepared;
        for (const v1::CreateDispatchRequest& one : request->requests()) {
          requests.push_back(&one);
          prepared.push_back(Prepare(caller, one));
        }
        for (const auto& answer : Create(requests, std::move(prepared))) {
          v1::CreateDispatchesResponse::Result& result = *response->add_results();
          if (answer.ok()) {
            *result.mutable_dispatch() = ToProto(*answer);
            continue;
          }
          result.set_code(static_cast<int32_t>(answer.status().code()));
          result.set_message(std::string(Message(answer.status())));
          result.set_reason(parley::ReasonOf(answer.status()).reason);
        }
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* DispatchServiceImpl::ReportPresence(
    grpc::CallbackServerContext* context, const v1::ReportPresenceRequest* request,
    v1::ReportPresenceResponse* response) {
  return rpc::Unary(broker_.context().executor(), context,
                    [this, context, request, response]() -> absl::Status {
                      PARLEY_ASSIGN_OR_RETURN(const auth::Claims caller, Caller(*context));
                      PARLEY_RETURN_IF_ERROR(auth::RequireService(caller));
                      if (request->rooms_size() > static_cast<int>(job::kMaxPresenceRooms)) {
                        return InvalidArgument("at most {} rooms in one report, not {}",
                                               job::kMaxPresenceRooms, request->rooms_size());
                      }
                      std::vector<job::RoomPresence> rooms;
                      for (const v1::RoomPresence& room : request->rooms()) {
                        rooms.push_back(FromProto(room));
                        PARLEY_RETURN_IF_ERROR(job::Validate(rooms.back()));
                      }
                      PARLEY_ASSIGN_OR_RETURN(const std::vector<bool> watched,
                                              broker_.store().SetPresence(rooms));
                      for (size_t i = 0; i < rooms.size(); ++i) {
                        if (watched[i]) response->add_watched_room_sids(rooms[i].room_sid);
                      }
                      return absl::OkStatus();
                    });
}

// ---- read, delete ----

absl::StatusOr<job::Dispatch> DispatchServiceImpl::FindDispatch(const auth::Claims& caller,
                                                                std::string_view id) {
  PARLEY_ASSIGN_OR_RETURN(job::Dispatch dispatch, broker_.store().GetDispatch(id));
  const bool ours =
      dispatch.project == caller.project || (caller.is_service() && caller.project.empty());
  if (!ours) return NotFound("dispatch {} does not exist", id);
  PARLEY_RETURN_IF_ERROR(auth::RequireRoomAdmin(caller, dispatch.room));
  return dispatch;
}

grpc::ServerUnaryReactor* DispatchServiceImpl::GetDispatch(grpc::CallbackServerContext* context,
                                                           const v1::GetDispatchRequest* request,
                                                           v1::GetDispatchResponse* response) {
  return rpc::Unary(broker_.context().executor(), context,
                    [this, context, request, response]() -> absl::Status {
                      PARLEY_ASSIGN_OR_RETURN(const auth::Claims caller, Caller(*context));
                      PARLEY_ASSIGN_OR_RETURN(const job::Dispatch dispatch,
                                              FindDispatch(caller, request->dispatch_id()));
                      *response->mutable_dispatch() = ToProto(dispatch);
                      return absl::OkStatus();
                    });
}

grpc::ServerUnaryReactor* DispatchServiceImpl::ListDispatches(
    grpc::CallbackServerContext* context, const v1::ListDispatchesRequest* request,
    v1::ListDispatchesResponse* response) {
  return rpc::Unary(
      broker_.context().executor(), context, [this, context, request, response]() -> absl::Status {
        PARLEY_ASSIGN_OR_RETURN(const auth::Claims caller, Caller(*context));
        PARLEY_RETURN_IF_ERROR(auth::RequireRoomList(caller));
        job::JobStore::ListQuery query;
        PARLEY_ASSIGN_OR_RETURN(query.project, ProjectOf(caller));
        PARLEY_ASSIGN_OR_RETURN(query.limit, PageSize(request->page_size()));
        query.room = request->room();
        query.agent_name = request->agent_name();
        query.include_ended = request->include_ended();
        query.after = request->page_token();
        PARLEY_ASSIGN_OR_RETURN(const auto page, broker_.store().ListDispatches(query));
        for (const job::Dispatch& dispatch : page.items) {
          *response->add_dispatches() = ToProto(dispatch);
        }
        response->set_next_page_token(page.next);
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* DispatchServiceImpl::DeleteDispatch(
    grpc::CallbackServerContext* context, const v1::DeleteDispatchRequest* request,
    v1::DeleteDispatchResponse* response) {
  return rpc::Unary(broker_.context().executor(), context,
                    [this, context, request, response]() -> absl::Status {
                      PARLEY_ASSIGN_OR_RETURN(const auth::Claims caller, Caller(*context));
                      PARLEY_RETURN_IF_ERROR(FindDispatch(caller, request->dispatch_id()).status());
                      PARLEY_ASSIGN_OR_RETURN(const job::Dispatch dispatch,
                                              broker_.store().Terminate(request->dispatch_id()));
                      *response->mutable_dispatch() = ToProto(dispatch);
                      return absl::OkStatus();
                    });
}

// ---- jobs ----

absl::StatusOr<job::Job> DispatchServiceImpl::FindJob(const auth::Claims& caller,
                                                      std::string_view id) {
  PARLEY_ASSIGN_OR_RETURN(job::Job job, broker_.store().GetJob(id));
  const absl::Status status = FindDispatch(caller, job.dispatch_id).status();
  if (absl::IsNotFound(status)) return NotFound("job {} does not exist", id);
  PARLEY_RETURN_IF_ERROR(status);
  return job;
}

grpc::ServerUnaryReactor* DispatchServiceImpl::GetJob(grpc::CallbackServerContext* context,
                                                      const v1::GetJobRequest* request,
                                                      v1::GetJobResponse* response) {
  return rpc::Unary(
      broker_.context().executor(), context, [this, context, request, response]() -> absl::Status {
        PARLEY_ASSIGN_OR_RETURN(const auth::Claims caller, Caller(*context));
        PARLEY_ASSIGN_OR_RETURN(const job::Job job, FindJob(caller, request->job_id()));
        *response->mutable_job() = ToProto(job);
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* DispatchServiceImpl::ListJobs(grpc::CallbackServerContext* context,
                                                        const v1::ListJobsRequest* request,
                                                        v1::ListJobsResponse* response) {
  return rpc::Unary(
      broker_.context().executor(), context, [this, context, request, response]() -> absl::Status {
        PARLEY_ASSIGN_OR_RETURN(const auth::Claims caller, Caller(*context));
        PARLEY_RETURN_IF_ERROR(auth::RequireRoomList(caller));
        job::JobStore::ListQuery query;
        PARLEY_ASSIGN_OR_RETURN(query.project, ProjectOf(caller));
        PARLEY_ASSIGN_OR_RETURN(query.limit, PageSize(request->page_size()));
        query.room = request->room();
        query.include_ended = true;
        query.after = request->page_token();
        PARLEY_ASSIGN_OR_RETURN(const auto page, broker_.store().ListDispatches(query));
        for (const job::Dispatch& dispatch : page.items) {
          for (const job::Job& job : dispatch.jobs) {
            if (!request->worker_id().empty() && job.worker_id != request->worker_id()) continue;
            v1::Job proto = ToProto(job);
            if (request->state() != 0 && proto.state() != request->state()) continue;
            *response->add_jobs() = std::move(proto);
          }
        }
        response->set_next_page_token(page.next);
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* DispatchServiceImpl::TerminateJob(grpc::CallbackServerContext* context,
                                                            const v1::TerminateJobRequest* request,
                                                            v1::TerminateJobResponse* response) {
  return rpc::Unary(
      broker_.context().executor(), context, [this, context, request, response]() -> absl::Status {
        PARLEY_ASSIGN_OR_RETURN(const auth::Claims caller, Caller(*context));
        PARLEY_RETURN_IF_ERROR(FindJob(caller, request->job_id()).status());
        PARLEY_RETURN_IF_ERROR(broker_.store().Terminate(request->job_id()).status());
        PARLEY_ASSIGN_OR_RETURN(const job::Job after, broker_.store().GetJob(request->job_id()));
        *response->mutable_job() = ToProto(after);
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* DispatchServiceImpl::MigrateJob(grpc::CallbackServerContext* context,
                                                          const v1::MigrateJobRequest* request,
                                                          v1::MigrateJobResponse* response) {
  return rpc::Unary(broker_.context().executor(), context,
                    [this, context, request, response]() -> absl::Status {
                      PARLEY_ASSIGN_OR_RETURN(const auth::Claims caller, Caller(*context));
                      PARLEY_RETURN_IF_ERROR(FindJob(caller, request->job_id()).status());
                      const absl::StatusOr<job::Job> after =
                          broker_.store().Migrate(request->job_id(), 0, request->to_worker_id());
                      broker_.metrics().CountHandOver(after.status());
                      PARLEY_RETURN_IF_ERROR(after.status());
                      *response->mutable_job() = ToProto(*after);
                      return absl::OkStatus();
                    });
}

// ---- workers, events ----

grpc::ServerUnaryReactor* DispatchServiceImpl::ListWorkers(grpc::CallbackServerContext* context,
                                                           const v1::ListWorkersRequest* request,
                                                           v1::ListWorkersResponse* response) {
  return rpc::Unary(
      broker_.context().executor(), context, [this, context, request, response]() -> absl::Status {
        PARLEY_ASSIGN_OR_RETURN(const auth::Claims caller, Caller(*context));
        PARLEY_RETURN_IF_ERROR(auth::RequireRoomList(caller));
        PARLEY_ASSIGN_OR_RETURN(const std::vector<job::Worker> workers,
                                broker_.store().ListWorkers(request->pool()));
        for (const job::Worker& worker : workers) {
          const bool visible =
              caller.project.empty() || worker.project.empty() || worker.project == caller.project;
          if (visible) *response->add_workers() = ToProto(worker);
        }
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* DispatchServiceImpl::DrainWorker(grpc::CallbackServerContext* context,
                                                           const v1::DrainWorkerRequest* request,
                                                           v1::DrainWorkerResponse*) {
  return rpc::Unary(
      broker_.context().executor(), context, [this, context, request]() -> absl::Status {
        PARLEY_ASSIGN_OR_RETURN(const auth::Claims caller, Caller(*context));
        PARLEY_RETURN_IF_ERROR(auth::RequireRoomCreate(caller));
        const absl::Duration deadline =
            request->has_deadline() ? FromDuration(request->deadline()) : absl::ZeroDuration();
        if (request->has_deadline() &&
            (deadline < absl::Milliseconds(1) || deadline > absl::Hours(24))) {
          return InvalidArgument("deadline is 1 ms to 24 h, not {}", DurationText(deadline));
        }
        PARLEY_ASSIGN_OR_RETURN(const std::string pool,
                                broker_.store().PoolOfWorker(request->worker_id()));
        PARLEY_ASSIGN_OR_RETURN(const std::vector<job::Worker> workers,
                                broker_.store().ListWorkers(pool));
        for (const job::Worker& worker : workers) {
          if (worker.id != request->worker_id()) continue;
          const bool ours =
              worker.project == caller.project || (caller.is_service() && caller.project.empty());
          if (ours) return broker_.store().Drain(pool, worker.id, deadline);
          // One that serves every project belongs to the operator.
          if (worker.project.empty()) {
            return PermissionDenied(
                "worker {} serves all projects: draining it needs a service's token", worker.id);
          }
        }
        return NotFound("worker {} does not exist or has ended", request->worker_id());
      });
}

grpc::ServerWriteReactor<v1::ReadJobLogsResponse>* DispatchServiceImpl::ReadJobLogs(
    grpc::CallbackServerContext* context, const v1::ReadJobLogsRequest* request) {
  absl::StatusOr<auth::Claims> caller = Caller(*context);
  absl::Status status = caller.status();
  if (status.ok()) status = auth::RequireAgentAdmin(*caller);
  return LogStream::Start(broker_, status, status.ok() ? caller->project : "", *request,
                          LogStream::IsRelayed(*context));
}

grpc::ServerWriteReactor<v1::WatchEventsResponse>* DispatchServiceImpl::WatchEvents(
    grpc::CallbackServerContext* context, const v1::WatchEventsRequest* request) {
  absl::StatusOr<auth::Claims> caller = Caller(*context);
  absl::Status status = caller.status();
  if (status.ok()) status = auth::RequireRoomList(*caller);
  return EventStream::Start(broker_, status, status.ok() ? caller->project : "", *request);
}

}  // namespace parley::dispatch_broker
