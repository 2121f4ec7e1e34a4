#include "gateway/usage.h"

#include <string>

#include "auth/token.h"
#include "base/status.h"
#include "rpc/bidi.h"
#include "rpc/channel.h"

namespace parley::gateway {

absl::Status UsageService::Read(const std::string& bearer,
                                const speech::v1::GetUsageRequest& request,
                                speech::v1::GetUsageResponse& response) {
  PARLEY_ASSIGN_OR_RETURN(const auth::Claims claims, context_.AuthenticateToken(bearer));
  PARLEY_RETURN_IF_ERROR(auth::RequireAgentAdmin(claims));
  speech_redis::Ledger* const ledger = shared_.ledger();
  if (ledger == nullptr)
    return FailedPrecondition("this gateway writes nothing down: it has no --redis-address");
  std::string project = request.project();
  if (!claims.project.empty()) {
    if (!project.empty() && project != claims.project)
      return PermissionDenied("the token is of project {}", claims.project);
    project = claims.project;
  }
  if (project.empty()) project = "default";
  PARLEY_ASSIGN_OR_RETURN(const speech_redis::Ledger::Book book,
                          ledger->Read(project, request.session_id()));
  response.set_project(project);
  for (const auto& [unit, amount] : book.day) (*response.mutable_day())[unit] = amount;
  for (const auto& [unit, amount] : book.session) (*response.mutable_session())[unit] = amount;
  for (const speech_redis::Ledger::CapUse& use : ledger->CapsOf(project, book)) {
    if (use.cap.of_session && request.session_id().empty()) continue;
    speech::v1::SpendCap& cap = *response.add_caps();
    cap.set_gateway(shared_.kind());
    cap.set_project(use.cap.project);
    cap.set_limit(use.cap.limit);
    cap.set_period(std::string(use.cap.period()));
    cap.set_most(use.cap.most);
    cap.set_used(use.used);
  }
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* UsageService::GetUsage(grpc::CallbackServerContext* context,
                                                 const speech::v1::GetUsageRequest* request,
                                                 speech::v1::GetUsageResponse* response) {
  return rpc::Unary(context_.executor(), context,
                    [this, bearer = rpc::BearerOf(*context), request, response] {
                      return Read(bearer, *request, *response);
                    });
}

}  // namespace parley::gateway
