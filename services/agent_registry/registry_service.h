#pragma once
// parley.registry.v1.AgentRegistryService over an AgentStore.
#include <parley/registry/v1/registry.grpc.pb.h>

#include "agent_registry/change_feed.h"
#include "agent_registry/metrics.h"
#include "registry/store.h"
#include "service/service.h"

namespace parley::agent_registry {

class RegistryService : public registry::v1::AgentRegistryService::CallbackService {
 public:
  // All references must outlive the service.
  RegistryService(registry::AgentStore& store, ChangeFeed& feed, AgentRegistryMetrics& metrics,
                  service::Context& context, registry::ParseOptions options);

  grpc::ServerUnaryReactor* RegisterAgent(grpc::CallbackServerContext* context,
                                          const registry::v1::RegisterAgentRequest* request,
                                          registry::v1::RegisterAgentResponse* response) override;
  grpc::ServerUnaryReactor* GetAgent(grpc::CallbackServerContext* context,
                                     const registry::v1::GetAgentRequest* request,
                                     registry::v1::GetAgentResponse* response) override;
  grpc::ServerUnaryReactor* ListAgents(grpc::CallbackServerContext* context,
                                       const registry::v1::ListAgentsRequest* request,
                                       registry::v1::ListAgentsResponse* response) override;
  grpc::ServerUnaryReactor* DeleteAgent(grpc::CallbackServerContext* context,
                                        const registry::v1::DeleteAgentRequest* request,
                                        registry::v1::DeleteAgentResponse* response) override;
  grpc::ServerUnaryReactor* ListAgentVersions(
      grpc::CallbackServerContext* context, const registry::v1::ListAgentVersionsRequest* request,
      registry::v1::ListAgentVersionsResponse* response) override;
  grpc::ServerUnaryReactor* SetDeployment(grpc::CallbackServerContext* context,
                                          const registry::v1::SetDeploymentRequest* request,
                                          registry::v1::SetDeploymentResponse* response) override;
  grpc::ServerUnaryReactor* GetDeployment(grpc::CallbackServerContext* context,
                                          const registry::v1::GetDeploymentRequest* request,
                                          registry::v1::GetDeploymentResponse* response) override;
  grpc::ServerUnaryReactor* RollbackDeployment(
      grpc::CallbackServerContext* context, const registry::v1::RollbackDeploymentRequest* request,
      registry::v1::RollbackDeploymentResponse* response) override;
  grpc::ServerWriteReactor<registry::v1::WatchAgentsResponse>* WatchAgents(
      grpc::CallbackServerContext* context,
      const registry::v1::WatchAgentsRequest* request) override;

 private:
  // The caller's project, when it may administer agents there.
  absl::StatusOr<std::string> Project(const grpc::CallbackServerContext& call) const;
  absl::Status Register(const std::string& project,
                        const registry::v1::RegisterAgentRequest& request,
                        registry::v1::RegisterAgentResponse* response);
  // Runs `work(project)` on the executor once the caller is known to be allowed.
  template <typename Work>
  grpc::ServerUnaryReactor* Admin(grpc::CallbackServerContext* context, Work work);

  registry::AgentStore& store_;
  ChangeFeed& feed_;
  AgentRegistryMetrics& metrics_;
  service::Context& context_;
  const registry::ParseOptions options_;
};

}  // namespace parley::agent_registry
