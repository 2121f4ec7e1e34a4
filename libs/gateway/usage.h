#pragma once
// The books of all gateways, for whoever pays.
#include "parley/speech/v1/usage.grpc.pb.h"
#include "service/service.h"
#include "speech_redis/ledger.h"

namespace parley::gateway {

class UsageService final : public speech::v1::UsageService::CallbackService {
 public:
  // Both outlive it. `ledger`: null without Redis.
  UsageService(service::Context& context, speech_redis::Ledger* ledger)
      : context_(context), ledger_(ledger) {}

  grpc::ServerUnaryReactor* GetUsage(grpc::CallbackServerContext* context,
                                     const speech::v1::GetUsageRequest* request,
                                     speech::v1::GetUsageResponse* response) override;

 private:
  absl::Status Read(const std::string& bearer, const speech::v1::GetUsageRequest& request,
                    speech::v1::GetUsageResponse& response);

  service::Context& context_;
  speech_redis::Ledger* const ledger_;
};

}  // namespace parley::gateway
