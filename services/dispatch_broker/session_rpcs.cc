// ListSessions, GetSession, DeleteSession: what is kept of sessions, and what of them still runs.
#include "base/status.h"
#include "dispatch_broker/dispatch_service.h"
#include "rpc/bidi.h"

namespace parley::dispatch_broker {
namespace {

std::string_view StateOf(const job::SessionRecord& record, const absl::StatusOr<job::Dispatch>& d) {
  if (!d.ok() || d->ended || record.end_time != absl::InfinitePast()) return "ENDED";
  const bool runs = !d->jobs.empty() && d->jobs[0].attempt > 0;
  return runs ? "RUNNING" : "PENDING";
}

}  // namespace

absl::StatusOr<v1::Session> DispatchServiceImpl::ToSession(const job::SessionRecord& record) {
  const absl::StatusOr<job::Dispatch> dispatch = broker_.store().GetDispatch(record.dispatch_id);
  if (!dispatch.ok() && !absl::IsNotFound(dispatch.status())) return dispatch.status();
  v1::Session out;
  out.set_id(record.id);
  out.set_project(record.project);
  out.set_room(record.room);
  out.set_dispatch_id(record.dispatch_id);
  out.set_agent_name(record.agent_name);
  out.set_agent_id(record.agent_id);
  out.set_agent_version(record.agent_version);
  out.set_state(std::string(StateOf(record, dispatch)));
  absl::Time start = record.start_time, end = record.end_time;
  if (dispatch.ok()) {
    for (const job::Job& job : dispatch->jobs) {
      *out.add_jobs() = ToProto(job);
      if (start == absl::InfinitePast()) start = job.start_time;
      if (end == absl::InfinitePast()) end = job.end_time;
    }
  }
  if (record.create_time != absl::InfinitePast()) {
    SetTime(record.create_time, out.mutable_create_time());
  }
  if (start != absl::InfinitePast()) SetTime(start, out.mutable_start_time());
  if (end != absl::InfinitePast()) SetTime(end, out.mutable_end_time());
  v1::SessionReport report;
  if (!record.report.empty() && report.ParseFromString(record.report)) {
    *out.mutable_usage() = report.usage();
    *out.mutable_transcript() = report.transcript();
  }
  return out;
}

grpc::ServerUnaryReactor* DispatchServiceImpl::ListSessions(grpc::CallbackServerContext* context,
                                                            const v1::ListSessionsRequest* request,
                                                            v1::ListSessionsResponse* response) {
  return rpc::Unary(
      broker_.context().executor(), context, [this, context, request, response]() -> absl::Status {
        PARLEY_ASSIGN_OR_RETURN(const auth::Claims caller, Caller(*context));
        PARLEY_RETURN_IF_ERROR(auth::RequireRoomList(caller));
        PARLEY_ASSIGN_OR_RETURN(const std::string project, ProjectOf(caller));
        PARLEY_ASSIGN_OR_RETURN(const int limit, PageSize(request->page_size()));
        PARLEY_ASSIGN_OR_RETURN(
            const auto page, broker_.store().ListSessions(project, limit, request->page_token()));
        for (const job::SessionRecord& record : page.items) {
          PARLEY_ASSIGN_OR_RETURN(v1::Session session, ToSession(record));
          if (session.state() == "ENDED" && !request->include_ended()) continue;
          *response->add_sessions() = std::move(session);
        }
        response->set_next_page_token(page.next);
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* DispatchServiceImpl::GetSession(grpc::CallbackServerContext* context,
                                                          const v1::GetSessionRequest* request,
                                                          v1::GetSessionResponse* response) {
  return rpc::Unary(
      broker_.context().executor(), context, [this, context, request, response]() -> absl::Status {
        PARLEY_ASSIGN_OR_RETURN(const auth::Claims caller, Caller(*context));
        PARLEY_ASSIGN_OR_RETURN(const std::string project, ProjectOf(caller));
        PARLEY_ASSIGN_OR_RETURN(const job::SessionRecord record,
                                broker_.store().GetSession(project, request->session_id()));
        PARLEY_RETURN_IF_ERROR(auth::RequireRoomAdmin(caller, record.room));
        PARLEY_ASSIGN_OR_RETURN(*response->mutable_session(), ToSession(record));
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* DispatchServiceImpl::DeleteSession(
    grpc::CallbackServerContext* context, const v1::DeleteSessionRequest* request,
    v1::DeleteSessionResponse*) {
  return rpc::Unary(broker_.context().executor(), context,
                    [this, context, request]() -> absl::Status {
                      PARLEY_ASSIGN_OR_RETURN(const auth::Claims caller, Caller(*context));
                      PARLEY_ASSIGN_OR_RETURN(const std::string project, ProjectOf(caller));
                      const absl::StatusOr<job::SessionRecord> record =
                          broker_.store().GetSession(project, request->session_id());
                      if (absl::IsNotFound(record.status()))
                        return absl::OkStatus();  // erased before
                      PARLEY_RETURN_IF_ERROR(record.status());
                      PARLEY_RETURN_IF_ERROR(auth::RequireRoomAdmin(caller, record->room));
                      absl::Status ended = broker_.store().Terminate(record->dispatch_id).status();
                      if (!ended.ok() && !absl::IsNotFound(ended)) return ended;
                      return broker_.store().EraseSession(project, request->session_id());
                    });
}

}  // namespace parley::dispatch_broker
