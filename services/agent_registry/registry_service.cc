#include "agent_registry/registry_service.h"

#include <deque>

#include "base/status.h"
#include "rpc/bidi.h"
#include "rpc/status.h"

namespace parley::agent_registry {
namespace {

namespace pb = ::parley::registry::v1;

constexpr size_t kOutbox = 256;  // changes waiting for a slow watcher; more wait in the store

pb::Agent ToProto(const registry::AgentRecord& record) {
  pb::Agent agent;
  agent.set_id(record.id);
  agent.set_name(record.name);
  agent.set_agent_name(record.agent_name);
  agent.set_pool(record.pool);
  agent.set_version(record.version);
  agent.mutable_labels()->insert(record.labels.begin(), record.labels.end());
  agent.set_definition_json(record.definition_json);
  agent.set_content_hash(record.content_hash);
  agent.set_project(record.project);
  if (record.version > 0) {
    const int64_t micros = absl::ToUnixMicros(record.create_time);
    agent.mutable_create_time()->set_seconds(micros / 1'000'000);
    agent.mutable_create_time()->set_nanos(static_cast<int32_t>(micros % 1'000'000 * 1'000));
  }
  return agent;
}

void ToProto(std::string_view id, const registry::Deployment& deployment, pb::Deployment* out) {
  out->set_agent_id(std::string(id));
  for (const registry::VersionShare& share : deployment.versions) {
    pb::VersionShare& one = *out->add_versions();
    one.set_version(share.version);
    one.set_percent(share.percent);
  }
  out->set_sticky(deployment.sticky);
  out->set_revision(deployment.revision);
  if (deployment.revision > 0) {
    out->mutable_time()->set_seconds(absl::ToUnixSeconds(deployment.time));
  }
}

// One watch stream. gRPC and the feed both hold it; it ends when gRPC is done with it.
class WatchStream : public grpc::ServerWriteReactor<pb::WatchAgentsResponse>, public Watcher {
 public:
  static std::shared_ptr<WatchStream> Make(prometheus::Gauge& open) {
    auto stream = std::make_shared<WatchStream>(open);
    stream->self_ = stream;
    return stream;
  }
  explicit WatchStream(prometheus::Gauge& open) : open_(open) { open_.Increment(); }

  bool OnChange(const registry::Change& change) override {
    MutexLock lock(&mutex_);
    if (ending_ || outbox_.size() >= kOutbox) return false;
    pb::WatchAgentsResponse& response = outbox_.emplace_back();
    response.set_sequence(change.sequence);
    response.set_id(change.id);
    response.set_deleted(change.deleted);
    if (!change.deleted) *response.mutable_agent() = ToProto(change.record);
    if (outbox_.size() == 1) StartWrite(&outbox_.front());
    return true;
  }
  void OnEnd(const absl::Status& status) override { End(rpc::ToGrpcStatus(status)); }

  // What is being written is still written; the rest comes again when the client watches on.
  void End(const grpc::Status& status) {
    MutexLock lock(&mutex_);
    if (ending_) return;
    ending_ = true;
    status_ = status;
    if (outbox_.empty()) Finish(status_);
  }

 private:
  void OnWriteDone(bool ok) override {
    MutexLock lock(&mutex_);
    outbox_.pop_front();
    if (!ok && !ending_) {
      ending_ = true;
      status_ = grpc::Status(grpc::StatusCode::CANCELLED, "the stream was cut");
    }
    if (ending_) {
      outbox_.clear();
      Finish(status_);
    } else if (!outbox_.empty()) {
      StartWrite(&outbox_.front());
    }
  }
  void OnCancel() override {
    End(grpc::Status(grpc::StatusCode::CANCELLED, "cancelled by the client"));
  }
  void OnDone() override {
    open_.Decrement();
    self_.reset();  // the feed sees it gone
  }

  prometheus::Gauge& open_;
  Mutex mutex_;
  std::deque<pb::WatchAgentsResponse> outbox_ ABSL_GUARDED_BY(mutex_);
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::Status status_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<WatchStream> self_;  // until OnDone
};

absl::Status CheckPageSize(int32_t size) {
  if (size >= 0 && size <= 500) return absl::OkStatus();
  return InvalidArgument("page_size must be from 1 to 500");
}

}  // namespace

RegistryService::RegistryService(registry::AgentStore& store, ChangeFeed& feed,
                                 AgentRegistryMetrics& metrics, service::Context& context,
                                 registry::ParseOptions options)
    : store_(store), feed_(feed), metrics_(metrics), context_(context), options_(options) {}

absl::StatusOr<std::string> RegistryService::Project(
    const grpc::CallbackServerContext& call) const {
  PARLEY_ASSIGN_OR_RETURN(const auth::Claims claims, context_.Authenticate(call));
  PARLEY_RETURN_IF_ERROR(auth::RequireAgentAdmin(claims));
  return claims.project.empty() ? "default" : claims.project;
}

template <typename Work>
grpc::ServerUnaryReactor* RegistryService::Admin(grpc::CallbackServerContext* context, Work work) {
  return rpc::Unary(context_.executor(), context,
                    [this, context, work = std::move(work)]() -> absl::Status {
                      PARLEY_ASSIGN_OR_RETURN(const std::string project, Project(*context));
                      return work(project);
                    });
}

absl::Status RegistryService::Register(const std::string& project,
                                       const pb::RegisterAgentRequest& request,
                                       pb::RegisterAgentResponse* response) {
  const std::string source = request.source_name().empty() ? "definition" : request.source_name();
  const auto definition = registry::ParseDefinition(request.definition(), source, options_);
  if (!definition.ok()) {
    metrics_.refused.Increment();
    return definition.status();
  }
  const registry::AgentRecord record = registry::MakeRecord(project, *definition);
  if (request.validate_only()) {
    *response->mutable_agent() = ToProto(record);
    return absl::OkStatus();
  }
  PARLEY_ASSIGN_OR_RETURN(const registry::RegisterOutcome outcome, store_.Register(record));
  *response->mutable_agent() = ToProto(outcome.record);
  response->set_created(outcome.created);
  if (outcome.created) {
    metrics_.registered.Increment();
    context_.log().Info(
        "agent registered",
        {{"project", project}, {"agent_id", record.id}, {"version", outcome.record.version}});
  }
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* RegistryService::RegisterAgent(grpc::CallbackServerContext* context,
                                                         const pb::RegisterAgentRequest* request,
                                                         pb::RegisterAgentResponse* response) {
  return Admin(context, [this, request, response](const std::string& project) {
    return Register(project, *request, response);
  });
}

grpc::ServerUnaryReactor* RegistryService::GetAgent(grpc::CallbackServerContext* context,
                                                    const pb::GetAgentRequest* request,
                                                    pb::GetAgentResponse* response) {
  return Admin(context, [this, request, response](const std::string& project) -> absl::Status {
    if (request->id().empty() == request->agent_name().empty()) {
      return InvalidArgument("name either id or agent_name");
    }
    if (!request->agent_name().empty() && request->version() != 0) {
      return InvalidArgument("version goes with id, not with agent_name");
    }
    PARLEY_ASSIGN_OR_RETURN(const registry::AgentRecord record,
                            request->id().empty()
                                ? store_.GetByAgentName(project, request->agent_name())
                                : store_.Get(project, request->id(), request->version()));
    *response->mutable_agent() = ToProto(record);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* RegistryService::ListAgents(grpc::CallbackServerContext* context,
                                                      const pb::ListAgentsRequest* request,
                                                      pb::ListAgentsResponse* response) {
  return Admin(context, [this, request, response](const std::string& project) -> absl::Status {
    PARLEY_RETURN_IF_ERROR(CheckPageSize(request->page_size()));
    registry::ListQuery query;
    if (request->page_size() > 0) query.page_size = request->page_size();
    query.page_token = request->page_token();
    query.pool = request->pool();
    query.labels = {request->labels().begin(), request->labels().end()};
    PARLEY_ASSIGN_OR_RETURN(const registry::ListPage page, store_.List(project, query));
    for (const registry::AgentRecord& record : page.agents) {
      *response->add_agents() = ToProto(record);
    }
    response->set_next_page_token(page.next_page_token);
    response->set_sequence(page.sequence);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* RegistryService::DeleteAgent(grpc::CallbackServerContext* context,
                                                       const pb::DeleteAgentRequest* request,
                                                       pb::DeleteAgentResponse*) {
  return Admin(context, [this, request](const std::string& project) -> absl::Status {
    PARLEY_RETURN_IF_ERROR(store_.Delete(project, request->id()));
    context_.log().Info("agent deleted", {{"project", project}, {"agent_id", request->id()}});
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* RegistryService::ListAgentVersions(
    grpc::CallbackServerContext* context, const pb::ListAgentVersionsRequest* request,
    pb::ListAgentVersionsResponse* response) {
  return Admin(context, [this, request, response](const std::string& project) -> absl::Status {
    PARLEY_ASSIGN_OR_RETURN(const std::vector<registry::AgentRecord> versions,
                            store_.Versions(project, request->id()));
    for (const registry::AgentRecord& record : versions) {
      *response->add_versions() = ToProto(record);
    }
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* RegistryService::SetDeployment(grpc::CallbackServerContext* context,
                                                         const pb::SetDeploymentRequest* request,
                                                         pb::SetDeploymentResponse* response) {
  return Admin(context, [this, request, response](const std::string& project) -> absl::Status {
    registry::Deployment wanted;
    wanted.sticky = request->sticky();
    for (const pb::VersionShare& share : request->versions()) {
      wanted.versions.push_back({share.version(), share.percent()});
    }
    PARLEY_RETURN_IF_ERROR(registry::Settle(wanted));
    PARLEY_ASSIGN_OR_RETURN(const registry::Deployment now,
                            store_.SetDeployment(project, request->id(), wanted));
    ToProto(request->id(), now, response->mutable_deployment());
    context_.log().Info("agent deployed", {{"project", project},
                                           {"agent_id", request->id()},
                                           {"revision", now.revision},
                                           {"shares", registry::SharesText(now)}});
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* RegistryService::GetDeployment(grpc::CallbackServerContext* context,
                                                         const pb::GetDeploymentRequest* request,
                                                         pb::GetDeploymentResponse* response) {
  return Admin(context, [this, request, response](const std::string& project) -> absl::Status {
    PARLEY_RETURN_IF_ERROR(store_.Get(project, request->id(), 0).status());
    PARLEY_ASSIGN_OR_RETURN(const registry::Deployment now,
                            store_.GetDeployment(project, request->id()));
    ToProto(request->id(), now, response->mutable_deployment());
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* RegistryService::RollbackDeployment(
    grpc::CallbackServerContext* context, const pb::RollbackDeploymentRequest* request,
    pb::RollbackDeploymentResponse* response) {
  return Admin(context, [this, request, response](const std::string& project) -> absl::Status {
    PARLEY_ASSIGN_OR_RETURN(const registry::Deployment now,
                            store_.RollBack(project, request->id()));
    ToProto(request->id(), now, response->mutable_deployment());
    context_.log().Info("agent rolled back", {{"project", project},
                                              {"agent_id", request->id()},
                                              {"revision", now.revision},
                                              {"shares", registry::SharesText(now)}});
    return absl::OkStatus();
  });
}

grpc::ServerWriteReactor<pb::WatchAgentsResponse>* RegistryService::WatchAgents(
    grpc::CallbackServerContext* context, const pb::WatchAgentsRequest* request) {
  const std::shared_ptr<WatchStream> stream = WatchStream::Make(metrics_.watchers);
  const absl::StatusOr<std::string> project = Project(*context);
  if (project.ok()) {
    stream->StartSendInitialMetadata();
    feed_.Add(*project, request->after_sequence(), stream);
  } else {
    stream->End(rpc::ToGrpcStatus(project.status()));
  }
  return stream.get();
}

}  // namespace parley::agent_registry
