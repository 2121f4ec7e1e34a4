// The agent registry as its clients see it: a real service on a free port, a real redis-server.
#include "agent_registry/agent_registry.h"

#include <gtest/gtest.h>
#include <parley/registry/v1/registry.grpc.pb.h>

#include <thread>

#include "agent_registry/change_feed.h"
#include "agent_registry/metrics.h"
#include "agent_registry/registry_service.h"
#include "registry_redis/store.h"
#include "rpc/channel.h"
#include "rpc/status.h"
#include "testing/redis_fixture.h"

namespace parley::agent_registry {
namespace {

using ::parley::testing::HasCode;
using ::parley::testing::HasReason;
using registry::v1::AgentRegistryService;
using ::testing::HasSubstr;
using Watching = std::unique_ptr<grpc::ClientReader<registry::v1::WatchAgentsResponse>>;

constexpr char kDesk[] = "id: desk\nllm: [{engine: openai, model: m}]\n";

class AgentRegistryTest : public ::parley::testing::RedisTest {
 protected:
  void SetUp() override {
    RedisTest::SetUp();
    service::CommonConfig config;
    config.dev = true;
    PARLEY_ASSERT_OK_AND_ASSIGN(context_, service::Context::Create("agent-registry", config));
    store_ = std::make_unique<registry_redis::RedisAgentStore>(pool());
    metrics_ = std::make_unique<AgentRegistryMetrics>(context_->registry());
    feed_ = std::make_unique<ChangeFeed>(*store_, absl::Milliseconds(10), log::Logger());
    service_ = std::make_unique<RegistryService>(*store_, *feed_, *metrics_, *context_,
                                                 registry::ParseOptions{});
    PARLEY_ASSERT_OK(server_.Start({}, {service_.get()}));
    stub_ = AgentRegistryService::NewStub(
        rpc::MakeChannel(fmt::format("127.0.0.1:{}", server_.port())));
    auth::Claims admin;
    admin.agent_admin = true;
    token_ = auth::Sign(admin, *context_->keys()->Find("devkey"), absl::Hours(1));
  }
  void TearDown() override {
    feed_->Stop();
    server_.Stop(absl::ZeroDuration());
    context_.reset();
    RedisTest::TearDown();
  }

  template <typename Method, typename Request, typename Response>
  absl::Status Call(Method method, const Request& request, Response* response) {
    grpc::ClientContext context;
    rpc::SetBearer(context, token_);
    rpc::SetTimeout(context, absl::Seconds(20));
    return rpc::FromGrpcStatus((stub_.get()->*method)(&context, request, response));
  }
  absl::StatusOr<registry::v1::RegisterAgentResponse> Register(std::string definition,
                                                               bool validate_only = false) {
    registry::v1::RegisterAgentRequest request;
    request.set_definition(std::move(definition));
    request.set_source_name("desk.yaml");
    request.set_validate_only(validate_only);
    registry::v1::RegisterAgentResponse response;
    PARLEY_RETURN_IF_ERROR(Call(&AgentRegistryService::Stub::RegisterAgent, request, &response));
    return response;
  }
  absl::StatusOr<registry::v1::Agent> Get(const std::string& id) {
    registry::v1::GetAgentRequest request;
    request.set_id(id);
    registry::v1::GetAgentResponse response;
    PARLEY_RETURN_IF_ERROR(Call(&AgentRegistryService::Stub::GetAgent, request, &response));
    return response.agent();
  }
  Watching Watch(grpc::ClientContext& context, uint64_t after) {
    rpc::SetBearer(context, token_);
    rpc::SetTimeout(context, absl::Seconds(10));
    registry::v1::WatchAgentsRequest request;
    request.set_after_sequence(after);
    return stub_->WatchAgents(&context, request);
  }

  std::unique_ptr<service::Context> context_;
  std::unique_ptr<registry_redis::RedisAgentStore> store_;
  std::unique_ptr<AgentRegistryMetrics> metrics_;
  std::unique_ptr<ChangeFeed> feed_;
  std::unique_ptr<RegistryService> service_;
  rpc::Server server_;
  std::unique_ptr<AgentRegistryService::Stub> stub_;
  std::string token_;
};

TEST_F(AgentRegistryTest, RegistersReadsListsAndDeletes) {
  PARLEY_ASSERT_OK_AND_ASSIGN(auto first, Register(kDesk));
  EXPECT_TRUE(first.created());
  EXPECT_EQ(first.agent().version(), 1u);
  EXPECT_EQ(first.agent().project(), "default");
  EXPECT_GT(first.agent().create_time().seconds(), 0);
  PARLEY_ASSERT_OK_AND_ASSIGN(auto same, Register(kDesk));
  EXPECT_FALSE(same.created());
  PARLEY_ASSERT_OK_AND_ASSIGN(auto next, Register(std::string(kDesk) + "greeting: hi\n"));
  EXPECT_EQ(next.agent().version(), 2u);
  PARLEY_ASSERT_OK_AND_ASSIGN(auto agent, Get("desk"));
  EXPECT_THAT(agent.definition_json(), HasSubstr(R"("greeting":"hi")"));

  registry::v1::ListAgentVersionsRequest versions;
  versions.set_id("desk");
  registry::v1::ListAgentVersionsResponse listed;
  PARLEY_ASSERT_OK(Call(&AgentRegistryService::Stub::ListAgentVersions, versions, &listed));
  EXPECT_EQ(listed.versions_size(), 2);
  registry::v1::ListAgentsResponse agents;
  PARLEY_ASSERT_OK(
      Call(&AgentRegistryService::Stub::ListAgents, registry::v1::ListAgentsRequest(), &agents));
  EXPECT_EQ(agents.agents_size(), 1);
  EXPECT_EQ(agents.sequence(), 2u);

  registry::v1::DeleteAgentRequest gone;
  gone.set_id("desk");
  registry::v1::DeleteAgentResponse deleted;
  PARLEY_ASSERT_OK(Call(&AgentRegistryService::Stub::DeleteAgent, gone, &deleted));
  EXPECT_THAT(Get("desk"), HasCode(absl::StatusCode::kNotFound));
}

TEST_F(AgentRegistryTest, BadDefinitionsAreRefusedWithLineAndField) {
  const auto refused = Register(std::string(kDesk) + "limits: {memory: huge}\n");
  EXPECT_THAT(refused, HasReason("DEFINITION_INVALID"));
  EXPECT_THAT(std::string(Message(refused.status())), HasSubstr("desk.yaml:3: limits.memory: "));
  EXPECT_EQ(ReasonOf(refused.status()).metadata.at("line"), "3");
  EXPECT_EQ(ReasonOf(refused.status()).metadata.at("field"), "limits.memory");
  EXPECT_THAT(Get("desk"), HasCode(absl::StatusCode::kNotFound));
}

TEST_F(AgentRegistryTest, ValidatingStoresNothing) {
  PARLEY_ASSERT_OK_AND_ASSIGN(auto checked, Register(kDesk, /*validate_only=*/true));
  EXPECT_EQ(checked.agent().version(), 0u);
  EXPECT_EQ(checked.agent().id(), "desk");
  EXPECT_THAT(Get("desk"), HasCode(absl::StatusCode::kNotFound));
}

TEST_F(AgentRegistryTest, NeedsTheGrant) {
  token_ = "";
  EXPECT_THAT(Get("desk"), HasReason("TOKEN_MISSING"));
  auth::Claims caller;
  caller.video.room_join = true;
  token_ = auth::Sign(caller, *context_->keys()->Find("devkey"), absl::Hours(1));
  EXPECT_THAT(Get("desk"), HasReason("GRANT_MISSING"));
  EXPECT_THAT(Get("desk"), HasCode(absl::StatusCode::kUnauthenticated));
  token_ = context_->ServiceToken("default");
  EXPECT_THAT(Get("desk"), HasCode(absl::StatusCode::kNotFound));
  grpc::ClientContext context;
  token_ = "";
  Watching watching = Watch(context, 0);
  registry::v1::WatchAgentsResponse change;
  EXPECT_FALSE(watching->Read(&change));
  EXPECT_EQ(watching->Finish().error_code(), grpc::StatusCode::UNAUTHENTICATED);
}

TEST_F(AgentRegistryTest, WatchingGoesOnFromAnyPosition) {
  PARLEY_ASSERT_OK(Register(kDesk));
  registry::v1::WatchAgentsResponse change;
  {
    grpc::ClientContext context;
    Watching watching = Watch(context, 0);
    ASSERT_TRUE(watching->Read(&change));
    EXPECT_EQ(change.sequence(), 1u);
    EXPECT_EQ(change.agent().id(), "desk");
    PARLEY_ASSERT_OK(Register(std::string(kDesk) + "greeting: hi\n"));
    ASSERT_TRUE(watching->Read(&change));
    EXPECT_EQ(change.agent().version(), 2u);
    context.TryCancel();
    EXPECT_FALSE(watching->Read(&change));
  }
  registry::v1::DeleteAgentRequest gone;
  gone.set_id("desk");
  registry::v1::DeleteAgentResponse deleted;
  PARLEY_ASSERT_OK(Call(&AgentRegistryService::Stub::DeleteAgent, gone, &deleted));
  grpc::ClientContext context;
  Watching watching = Watch(context, 2);
  ASSERT_TRUE(watching->Read(&change));
  EXPECT_TRUE(change.deleted());
  EXPECT_EQ(change.sequence(), 3u);
  context.TryCancel();
}

TEST_F(AgentRegistryTest, LostPositionsAndTheEndOfTheServerEndAWatch) {
  registry::v1::WatchAgentsResponse change;
  grpc::ClientContext lost;
  Watching watching = Watch(lost, 99);
  EXPECT_FALSE(watching->Read(&change));
  EXPECT_EQ(watching->Finish().error_code(), grpc::StatusCode::OUT_OF_RANGE);
  grpc::ClientContext open;
  watching = Watch(open, 0);
  watching->WaitForInitialMetadata();
  feed_->Stop();
  EXPECT_FALSE(watching->Read(&change));
  EXPECT_EQ(watching->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(AgentRegistryTest, AStoreOutOfReachIsUnavailable) {
  PARLEY_ASSERT_OK(Register(kDesk));
  server().Kill();
  EXPECT_THAT(Get("desk"), HasCode(absl::StatusCode::kUnavailable));
  PARLEY_ASSERT_OK(server().Restart());
}

TEST_F(AgentRegistryTest, DeploymentsOverTheWire) {
  PARLEY_ASSERT_OK(Register(kDesk));
  PARLEY_ASSERT_OK(Register(std::string(kDesk) + "greeting: Hi.\n"));
  registry::v1::SetDeploymentRequest set;
  set.set_id("desk");
  set.set_sticky(true);
  for (const uint64_t version : {1, 2}) {
    set.add_versions()->set_version(version);
    set.mutable_versions()->rbegin()->set_percent(50);
  }
  registry::v1::SetDeploymentResponse done;
  PARLEY_ASSERT_OK(Call(&AgentRegistryService::Stub::SetDeployment, set, &done));
  EXPECT_EQ(done.deployment().versions(0).version(), 2u);
  EXPECT_TRUE(done.deployment().sticky());
  registry::v1::GetDeploymentRequest get;
  get.set_id("desk");
  registry::v1::GetDeploymentResponse got;
  PARLEY_ASSERT_OK(Call(&AgentRegistryService::Stub::GetDeployment, get, &got));
  EXPECT_EQ(got.deployment().SerializeAsString(), done.deployment().SerializeAsString());
  registry::v1::RollbackDeploymentRequest back;
  back.set_id("desk");
  registry::v1::RollbackDeploymentResponse rolled;
  PARLEY_ASSERT_OK(Call(&AgentRegistryService::Stub::RollbackDeployment, back, &rolled));
  EXPECT_EQ(rolled.deployment().versions_size(), 0);

  set.mutable_versions(0)->set_percent(51);
  EXPECT_THAT(Call(&AgentRegistryService::Stub::SetDeployment, set, &done),
              HasCode(absl::StatusCode::kInvalidArgument));
  set.mutable_versions(0)->set_percent(50);
  set.mutable_versions(0)->set_version(9);
  EXPECT_THAT(Call(&AgentRegistryService::Stub::SetDeployment, set, &done),
              HasReason("VERSION_UNKNOWN"));
  get.set_id("nobody");
  EXPECT_THAT(Call(&AgentRegistryService::Stub::GetDeployment, get, &got),
              HasReason("AGENT_UNKNOWN"));
  token_.clear();
  EXPECT_THAT(Call(&AgentRegistryService::Stub::SetDeployment, set, &done),
              HasCode(absl::StatusCode::kUnauthenticated));
}

}  // namespace
}  // namespace parley::agent_registry
