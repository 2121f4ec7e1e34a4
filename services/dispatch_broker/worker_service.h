#pragma once
#include "dispatch_broker/broker.h"
#include "parley/dispatch/v1/worker.grpc.pb.h"

namespace parley::dispatch_broker {

// Where agent servers connect. See worker.proto.
class WorkerServiceImpl : public ::parley::dispatch::v1::WorkerService::CallbackService {
 public:
  explicit WorkerServiceImpl(Broker& broker) : broker_(broker) {}

  grpc::ServerBidiReactor<::parley::dispatch::v1::ConnectRequest,
                          ::parley::dispatch::v1::ConnectResponse>*
  Connect(grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* ReportDeath(
      grpc::CallbackServerContext* context,
      const ::parley::dispatch::v1::ReportDeathRequest* request,
      ::parley::dispatch::v1::ReportDeathResponse* response) override;

 private:
  Broker& broker_;
};

}  // namespace parley::dispatch_broker
