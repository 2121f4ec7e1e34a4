#pragma once
#include <string>

#include "auth/token.h"
#include "dispatch_broker/broker.h"
#include "dispatch_broker/convert.h"
#include "parley/dispatch/v1/dispatch.grpc.pb.h"

namespace parley::dispatch_broker {

// What clients ask of dispatching. See dispatch.proto. Each call runs on the executor, since the
// store blocks.
class DispatchServiceImpl : public v1::DispatchService::CallbackService {
 public:
  explicit DispatchServiceImpl(Broker& broker) : broker_(broker) {}

  grpc::ServerUnaryReactor* CreateDispatch(grpc::CallbackServerContext* context,
                                           const v1::CreateDispatchRequest* request,
                                           v1::CreateDispatchResponse* response) override;
  grpc::ServerUnaryReactor* CreateDispatches(grpc::CallbackServerContext* context,
                                             const v1::CreateDispatchesRequest* request,
                                             v1::CreateDispatchesResponse* response) override;
  grpc::ServerUnaryReactor* GetDispatch(grpc::CallbackServerContext* context,
                                        const v1::GetDispatchRequest* request,
                                        v1::GetDispatchResponse* response) override;
  grpc::ServerUnaryReactor* ListDispatches(grpc::CallbackServerContext* context,
                                           const v1::ListDispatchesRequest* request,
                                           v1::ListDispatchesResponse* response) override;
  grpc::ServerUnaryReactor* DeleteDispatch(grpc::CallbackServerContext* context,
                                           const v1::DeleteDispatchRequest* request,
                                           v1::DeleteDispatchResponse* response) override;
  grpc::ServerUnaryReactor* GetJob(grpc::CallbackServerContext* context,
                                   const v1::GetJobRequest* request,
                                   v1::GetJobResponse* response) override;
  grpc::ServerUnaryReactor* ListJobs(grpc::CallbackServerContext* context,
                                     const v1::ListJobsRequest* request,
                                     v1::ListJobsResponse* response) override;
  grpc::ServerUnaryReactor* TerminateJob(grpc::CallbackServerContext* context,
                                         const v1::TerminateJobRequest* request,
                                         v1::TerminateJobResponse* response) override;
  grpc::ServerUnaryReactor* MigrateJob(grpc::CallbackServerContext* context,
                                       const v1::MigrateJobRequest* request,
                                       v1::MigrateJobResponse* response) override;
  grpc::ServerUnaryReactor* ListWorkers(grpc::CallbackServerContext* context,
                                        const v1::ListWorkersRequest* request,
                                        v1::ListWorkersResponse* response) override;
  grpc::ServerUnaryReactor* DrainWorker(grpc::CallbackServerContext* context,
                                        const v1::DrainWorkerRequest* request,
                                        v1::DrainWorkerResponse* response) override;
  grpc::ServerWriteReactor<v1::WatchEventsResponse>* WatchEvents(
      grpc::CallbackServerContext* context, const v1::WatchEventsRequest* request) override;
  grpc::ServerWriteReactor<v1::ReadJobLogsResponse>* ReadJobLogs(
      grpc::CallbackServerContext* context, const v1::ReadJobLogsRequest* request) override;
  grpc::ServerUnaryReactor* ListSessions(grpc::CallbackServerContext* context,
                                         const v1::ListSessionsRequest* request,
                                         v1::ListSessionsResponse* response) override;
  grpc::ServerUnaryReactor* GetSession(grpc::CallbackServerContext* context,
                                       const v1::GetSessionRequest* request,
                                       v1::GetSessionResponse* response) override;
  grpc::ServerUnaryReactor* DeleteSession(grpc::CallbackServerContext* context,
                                          const v1::DeleteSessionRequest* request,
                                          v1::DeleteSessionResponse* response) override;
  grpc::ServerUnaryReactor* ReportPresence(grpc::CallbackServerContext* context,
                                           const v1::ReportPresenceRequest* request,
                                           v1::ReportPresenceResponse* response) override;

 private:
  absl::StatusOr<auth::Claims> Caller(const grpc::CallbackServerContext& context) const;
  // Everything of a create but the store's decision.
  absl::StatusOr<job::NewDispatch> Prepare(const auth::Claims& caller,
                                           const v1::CreateDispatchRequest& request);
  // The dispatches of those requests that could be prepared, created and counted; one answer per
  // request.
  std::vector<absl::StatusOr<job::Dispatch>> Create(
      const std::vector<const v1::CreateDispatchRequest*>& requests,
      std::vector<absl::StatusOr<job::NewDispatch>> prepared);
  // NotFound: none of the caller's project.
  absl::StatusOr<job::Dispatch> FindDispatch(const auth::Claims& caller, std::string_view id);
  absl::StatusOr<job::Job> FindJob(const auth::Claims& caller, std::string_view id);
  absl::StatusOr<v1::Session> ToSession(const job::SessionRecord& record);

  Broker& broker_;
};

// The project of a call; FailedPrecondition when a service's token names none.
absl::StatusOr<std::string> ProjectOf(const auth::Claims& caller);
// The registry's store is the same Redis: its absence gets the same reason and hint.
absl::Status StoreError(const absl::Status& status);
// 100 when unset; InvalidArgument outside 1 to 500.
absl::StatusOr<int> PageSize(int32_t asked);

}  // namespace parley::dispatch_broker
