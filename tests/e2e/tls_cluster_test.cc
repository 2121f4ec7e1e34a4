// A cluster of real processes that speak mutual TLS with each other: an agent gets into its room,
// and nobody gets in without a certificate.
#include <gtest/gtest.h>
#include <parley/dispatch/v1/dispatch.grpc.pb.h>

#include <cstdlib>
#include <fstream>

#include "base/status.h"
#include "rpc/channel.h"
#include "testing/calls.h"
#include "testing/matchers.h"
#include "testing/redis_fixture.h"

namespace parley::testing {
namespace {

using nlohmann::json;

void Sh(const std::string& folder, const std::string& command) {
  ASSERT_EQ(std::system(fmt::format("cd {} && {} >log 2>&1", folder, command).c_str()), 0)
      << command;
}

TEST(TlsClusterTest, ServicesSpeakMutualTlsAndLetNobodyElseIn) {
  const TemporaryDirectory folder;
  const std::string key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes ";
  Sh(folder.path(), "openssl req -x509 " + key + "-days 2 -subj /CN=ca -keyout ca.key -out ca.crt");
  Sh(folder.path(), "openssl req " + key +
                        "-subj /CN=parley -addext subjectAltName=DNS:parley.internal -keyout "
                        "tls.key -out tls.csr");
  Sh(folder.path(),
     "openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -copy_extensions "
     "copyall -days 1 -out tls.crt");
  const std::vector<std::string> tls = {
      "--tls-certificate", folder.path() + "/tls.crt", "--tls-key",    folder.path() + "/tls.key",
      "--tls-authorities", folder.path() + "/ca.crt",  "--tls-mutual", "true",
      "--tls-server-name", "parley.internal"};
  ClusterOptions options;
  for (const std::string& service : options.services) options.extra_arguments[service] = tls;
  options.agent_arguments = tls;
  const auto cluster = Cluster::Start(options);
  ASSERT_TRUE(cluster.ok()) << cluster.status();

  Api api(**cluster);
  PARLEY_ASSERT_OK(api.Register(MemoryCall::kAgent));
  const auto made = api.Call("POST", "/api/dispatches",
                             {{"room", "lobby"}, {"metadata", R"({"agentId":"memory"})"}});
  ASSERT_TRUE(made.ok()) << made.status();
  const std::string path = "/api/dispatches/" + (*made)["id"].get<std::string>();
  json now;
  EXPECT_TRUE(Eventually(
      [&] {
        now = api.Call("GET", path).value_or(json());
        return now.contains("jobs") && now["jobs"].at(0)["state"] == "RUNNING";
      },
      absl::Seconds(20)))
      << now << (*cluster)->AgentServer(0).Log();

  // This program has no certificate.
  const auto stub = dispatch::v1::DispatchService::NewStub(
      rpc::MakeChannel((*cluster)->Address("dispatch-broker")));
  grpc::ClientContext context;
  rpc::SetTimeout(context, absl::Seconds(5));
  dispatch::v1::GetDispatchResponse response;
  const grpc::Status refused = stub->GetDispatch(&context, {}, &response);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNAVAILABLE) << refused.error_message();
}

}  // namespace
}  // namespace parley::testing
