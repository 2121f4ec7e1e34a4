// keys.yaml of a real process, rotated while it serves: the new key is added, then the old one
// removed.
#include <gtest/gtest.h>
#include <parley/registry/v1/registry.grpc.pb.h>
#include <sys/stat.h>

#include <cstdio>
#include <fstream>

#include "auth/token.h"
#include "rpc/channel.h"
#include "rpc/status.h"
#include "testing/cluster.h"
#include "testing/matchers.h"
#include "testing/redis_fixture.h"

namespace parley::testing {
namespace {

const std::string kOld =
    "  - {key: APIold, secret: " + std::string(64, 'o') + ", project: default}\n";
const std::string kNew =
    "  - {key: APInew, secret: " + std::string(64, 'n') + ", project: default}\n";

class KeysReloadTest : public ::testing::Test {
 protected:
  // As a mounted secret changes: at once.
  void WriteKeys(const std::string& keys) {
    const std::string next = path() + ".next";
    std::ofstream(next) << "cluster_key: " << std::string(64, 'c') << "\nkeys:\n" << keys;
    ASSERT_EQ(chmod(next.c_str(), 0600), 0);
    ASSERT_EQ(std::rename(next.c_str(), path().c_str()), 0);
  }
  std::string path() const { return folder_.path() + "/keys.yaml"; }
  absl::Status AskWith(const std::string& key, char letter) {
    auth::ApiKey signer;
    signer.key = key;
    signer.secret = std::string(64, letter);
    auth::Claims claims;
    claims.agent_admin = true;
    grpc::ClientContext context;
    rpc::SetBearer(context, auth::Sign(claims, signer, absl::Hours(1)));
    rpc::SetTimeout(context, absl::Seconds(20));
    registry::v1::ListAgentsResponse response;
    return rpc::FromGrpcStatus(stub_->ListAgents(&context, {}, &response));
  }
  absl::Status AskWithOld() { return AskWith("APIold", 'o'); }
  absl::Status AskWithNew() { return AskWith("APInew", 'n'); }

  TemporaryDirectory folder_;
  std::unique_ptr<Cluster> cluster_;
  std::unique_ptr<registry::v1::AgentRegistryService::Stub> stub_;
};

TEST_F(KeysReloadTest, KeysAreRotatedUnderCallsAndAFaultyFileChangesNothing) {
  WriteKeys(kOld);
  ClusterOptions options;
  options.services = {"agent-registry"};
  options.agent_servers = 0;
  options.extra_arguments["agent-registry"] = {"--keys-file", path()};
  auto cluster = Cluster::Start(options);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  cluster_ = *std::move(cluster);
  stub_ = registry::v1::AgentRegistryService::NewStub(
      rpc::MakeChannel(cluster_->Address("agent-registry")));
  PARLEY_ASSERT_OK(AskWithOld());
  EXPECT_THAT(AskWithNew(), HasCode(absl::StatusCode::kUnauthenticated));

  WriteKeys(kOld + kNew);
  EXPECT_TRUE(Eventually([&] { return AskWithNew().ok(); }));
  PARLEY_EXPECT_OK(AskWithOld());

  WriteKeys("this is no list\n");
  EXPECT_TRUE(Eventually(
      [&] {
        return cluster_->Service("agent-registry").Log().find("keys file not taken") !=
               std::string::npos;
      },
      absl::Seconds(30)));
  PARLEY_EXPECT_OK(AskWithNew());

  WriteKeys(kNew);
  EXPECT_TRUE(Eventually([&] { return absl::IsUnauthenticated(AskWithOld()); }));
  PARLEY_EXPECT_OK(AskWithNew());
}

}  // namespace
}  // namespace parley::testing
