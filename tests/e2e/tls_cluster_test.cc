// A cluster of real processes that speak mutual TLS with each other, and HTTPS with everybody: an
// agent gets into its room, the command line calls it and examines the cluster, and nobody gets in
// without a certificate.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <parley/dispatch/v1/dispatch.grpc.pb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "base/status.h"
#include "http/authority.h"
#include "rpc/channel.h"
#include "testing/calls.h"
#include "testing/certificates.h"
#include "testing/matchers.h"

namespace parley::testing {
namespace {

using nlohmann::json;

// The default gRPC ports of what `parley doctor` looks at.
const std::map<std::string, int>& Ports() {
  static const auto* ports = new std::map<std::string, int>{
      {"dispatch-broker", 7100}, {"agent-registry", 7101}, {"stt-gateway", 7102},
      {"tts-gateway", 7103},     {"llm-gateway", 7104},    {"room-server", 7105}};
  return *ports;
}
constexpr int kAdminAbove = 1000;

bool IsFree(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const bool free = bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  close(fd);
  return free;
}

// Added to each of them it leaves ports that nobody has.
int FreeOffset() {
  for (int offset = 12'000 + getpid() % 9'000; offset < 23'000; ++offset) {
    bool free = true;
    for (const auto& [service, port] : Ports()) {
      free = free && IsFree(port + offset) && IsFree(port + kAdminAbove + offset);
    }
    if (free) return offset;
  }
  return 0;
}

class TlsClusterTest : public ::testing::Test {
 protected:
  void SetUp() override {
    files_.MakeAuthority("ca");
    files_.Make("tls", "ca", "parley.internal");
    files_.Make("edge", "ca", "localhost");
    std::ofstream(files_["script.json"]) << MemoryCall::kScript;
    offset_ = FreeOffset();
    ASSERT_NE(offset_, 0);
    ClusterOptions options;
    std::vector<std::string> tls = Client();
    tls.insert(tls.end(), {"--tls-mutual", "true"});
    options.agent_arguments = tls;
    for (const std::string& service : options.services) {
      std::vector<std::string>& arguments = options.extra_arguments[service] = tls;
      if (const auto port = Ports().find(service); port != Ports().end()) {
        const int grpc = port->second + offset_;
        arguments.insert(arguments.end(), {"--grpc-port", std::to_string(grpc), "--admin-port",
                                           std::to_string(grpc + kAdminAbove)});
      }
      for (const std::string kind : {"stt", "tts", "llm"}) {
        if (service != kind + "-gateway") continue;
        arguments.insert(arguments.end(), {"--" + kind + "-script", files_["script.json"]});
      }
    }
    std::vector<std::string>& edge = options.extra_arguments["api-server"];
    edge.insert(edge.end(),
                {"--http-certificate", files_["edge.crt"], "--http-key", files_["edge.key"]});
    auto cluster = Cluster::Start(options);
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = *std::move(cluster);
    const std::string address = cluster_->Address("api-server");
    url_ = "https://localhost:" + address.substr(address.rfind(':') + 1);
    http::SetAuthority(url_, files_["ca.crt"]);
    api_ = std::make_unique<Api>(url_);
    PARLEY_ASSERT_OK(api_->Register(MemoryCall::kAgent));
  }
  // What a client needs to get in over gRPC.
  std::vector<std::string> Client() const {
    return {"--tls-certificate", files_["tls.crt"], "--tls-key",         files_["tls.key"],
            "--tls-authorities", files_["ca.crt"],  "--tls-server-name", "parley.internal"};
  }
  // Runs `parley`; its exit code, and what it printed.
  int Run(std::vector<std::string> arguments, std::string& out) {
    const char* folder = std::getenv("PARLEY_BIN_DIR");
    arguments.insert(arguments.begin(), {std::string(folder) + "/parley", "--server", url_,
                                         "--server-authorities", files_["ca.crt"]});
    const std::string log = files_["parley." + std::to_string(++runs_)];  // they append
    auto process = Process::Start(arguments, log);
    if (!process.ok()) return -1;
    const int code = (*process)->Wait(absl::Seconds(60)).value_or(-1);
    out = (*process)->Log();
    return code;
  }
  static std::vector<std::string> Join(std::vector<std::string> some,
                                       const std::vector<std::string>& more) {
    some.insert(some.end(), more.begin(), more.end());
    return some;
  }

  Certificates files_;
  int offset_ = 0;
  int runs_ = 0;
  std::unique_ptr<Cluster> cluster_;
  std::string url_;
  std::unique_ptr<Api> api_;
};

TEST_F(TlsClusterTest, ServicesAndTheCommandLineSpeakMutualTlsAndNobodyElseGetsIn) {
  const std::vector<std::string> call = {"call",
                                         "--agent",
                                         "memory",
                                         "--text",
                                         "my word is wax",
                                         "--text",
                                         "what did I say before",
                                         "--expect",
                                         "wax"};
  std::string out;
  EXPECT_EQ(Run(Join(call, Client()), out), 0) << out << cluster_->AgentServer(0).Log();
  EXPECT_NE(Run(call, out), 0) << out;  // without a certificate nobody gets into the room
  std::vector<std::string> nameless = {"--tls-authorities", files_["ca.crt"], "--tls-server-name",
                                       "parley.internal"};
  EXPECT_NE(Run(Join(call, nameless), out), 0) << out;
  EXPECT_EQ(Run({"--tls-certificate", files_["tls.crt"], "--tls-key", files_["edge.key"], "call",
                 "--agent", "memory"},
                out),
            2)
      << out;

  const std::vector<std::string> doctor = {"--json", "doctor", "--port-offset",
                                           std::to_string(offset_)};
  for (const bool certified : {true, false}) {
    Run(certified ? Join(doctor, Client()) : doctor, out);
    const size_t begin = out.find('{');  // errors stand beside it
    const json report = json::parse(
        out.substr(std::min(begin, out.size()), out.rfind('}') - begin + 1), nullptr, false);
    ASSERT_TRUE(report.is_object()) << out;
    size_t seen = 0;
    for (const json& check : report["checks"]) {
      if (check["check"].get<std::string>().find("over gRPC") == std::string::npos) continue;
      ++seen;
      EXPECT_EQ(check["level"], certified ? "ok" : "fail") << check;
    }
    EXPECT_EQ(seen, Ports().size()) << out;
  }

  // This program has no certificate.
  const auto stub = dispatch::v1::DispatchService::NewStub(
      rpc::MakeChannel(cluster_->Address("dispatch-broker")));
  grpc::ClientContext context;
  rpc::SetTimeout(context, absl::Seconds(20));
  dispatch::v1::GetDispatchResponse response;
  const grpc::Status refused = stub->GetDispatch(&context, {}, &response);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNAVAILABLE) << refused.error_message();
}

}  // namespace
}  // namespace parley::testing
