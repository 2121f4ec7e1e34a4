#pragma once
// The books of all gateways, for whoever pays.
#include "gateway/shared.h"
#include "parley/speech/v1/usage.grpc.pb.h"
#include "service/service.h"

namespace parley::gateway {

class UsageService final : public speech::v1::UsageService::CallbackService {
 public:
  // Both outlive it.
  UsageService(service::Context& context, Shared& shared) : context_(context), shared_(shared) {}

  grpc::ServerUnaryReactor* GetUsage(grpc::CallbackServerContext* context,
                                     const speech::v1::GetUsageRequest* request,
                                     speech::v1::GetUsageResponse* response) override;

 private:
  absl::Status Read(const std::string& bearer, const speech::v1::GetUsageRequest& request,
                    speech::v1::GetUsageResponse& response);

  service::Context& context_;
  Shared& shared_;
};

}  // namespace parley::gateway
