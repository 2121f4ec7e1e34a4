#include "dispatch_broker/worker_service.h"

#include "base/status.h"
#include "dispatch_broker/worker_session.h"

namespace parley::dispatch_broker {

grpc::ServerBidiReactor<v1::ConnectRequest, v1::ConnectResponse>* WorkerServiceImpl::Connect(
    grpc::CallbackServerContext* context) {
  return WorkerSession::Start<WorkerSession>(broker_, broker_.context().Authenticate(*context));
}

grpc::ServerUnaryReactor* WorkerServiceImpl::ReportDeath(grpc::CallbackServerContext* context,
                                                         const v1::ReportDeathRequest* request,
                                                         v1::ReportDeathResponse* response) {
  return rpc::Unary(
      broker_.context().executor(), context, [this, context, request, response]() -> absl::Status {
        PARLEY_ASSIGN_OR_RETURN(const auth::Claims caller,
                                broker_.context().Authenticate(*context));
        PARLEY_RETURN_IF_ERROR(auth::RequireWorker(caller));
        PARLEY_RETURN_IF_ERROR(broker_.CheckStore());
        const absl::StatusOr<std::string> pool = broker_.store().PoolOfWorker(request->worker_id());
        if (absl::IsNotFound(pool.status())) return absl::OkStatus();  // ended before
        PARLEY_RETURN_IF_ERROR(pool.status());
        PARLEY_ASSIGN_OR_RETURN(const bool ended, broker_.store().EndSession(
                                                      *pool, request->worker_id(),
                                                      request->instance(), request->connect_seq()));
        response->set_ended(ended);
        if (!ended) return absl::OkStatus();
        broker_.metrics().deaths_reported.Increment();
        broker_.context().log().Info("worker ended",
                                     {{"worker_id", request->worker_id()}, {"pool", *pool}});
        return absl::OkStatus();
      });
}

}  // namespace parley::dispatch_broker
