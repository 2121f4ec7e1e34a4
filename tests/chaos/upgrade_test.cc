// A node that is drained, and a cluster that is upgraded, under live calls, with processes for
// pods. Two nodes with a broker, the three gateways and an agent server each; registry, rooms and
// API stand beside them. A call counts as uncut only if its caller gets, afterwards and in the same
// room, an answer that depends on what it said before, from the job's first attempt.
#include <absl/time/clock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <thread>

#include "base/ids.h"
#include "base/ip.h"
#include "base/status.h"
#include "job_redis/keys.h"
#include "redis/redis.h"
#include "testing/calls.h"

namespace parley::testing {
namespace {

using nlohmann::json;

constexpr std::array<const char*, 3> kGateways = {"stt", "tts", "llm"};
// Flags that say how others reach a replica.
const std::map<std::string, std::string> kTold = {{"dispatch-broker", "--broker-peer-address"},
                                                  {"room-server", "--media-url"},
                                                  {"tts-gateway", "--tts-peer-address"}};

#define ASSERT_OK(expression)                                                     \
  do {                                                                            \
    const absl::Status parley_test_status = (expression);                         \
    ASSERT_TRUE(parley_test_status.ok()) << parley_test_status << "\n" << Logs(); \
  } while (false)

// One process of a service, and where it is reached.
struct Pod {
  std::unique_ptr<Process> process;
  int grpc_port = 0;
  int http_port = 0;
};

struct Node {
  Pod broker;
  std::map<std::string, Pod> gateways;  // by kind
  std::unique_ptr<Process> agents;
};

class NodesTest : public ::testing::Test {
 protected:
  void StartAll(const std::string& binaries, const std::string& drain) {
    binaries_ = binaries;
    drain_ = drain;
    std::string pattern = ::testing::TempDir() + "nodes-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    std::ofstream(folder_ + "/script.json") << MemoryCall::kScript;
    auto redis = redis::PrivateServer::Start(folder_);
    ASSERT_OK(redis.status());
    redis_ = *std::move(redis);
    for (Node& node : nodes_) {
      ASSERT_OK(StartBroker(node));
      for (const std::string kind : kGateways) ASSERT_OK(StartGateway(node, kind));
    }
    ASSERT_OK(StartPod(registry_, "agent-registry", {"--redis-address", redis_->address()}));
    ASSERT_OK(StartRooms());
    ASSERT_OK(StartApi());
    for (Node& node : nodes_) ASSERT_OK(StartAgents(node));
    api_ = std::make_unique<Api>("http://" + ReachableAddress(address_, edge_.http_port));
    ASSERT_OK(api_->Register(MemoryCall::kAgent));
  }
  void TearDown() override {
    calls_.clear();
    for (Node& node : nodes_) node = Node();
    for (Pod* pod : {&edge_, &rooms_, &registry_}) *pod = Pod();
    redis_.reset();
    std::error_code ignored;
    if (!folder_.empty()) std::filesystem::remove_all(folder_, ignored);
  }

  // Starts a service, on the port that it had before, if it had one.
  absl::Status StartPod(Pod& pod, const std::string& service,
                        const std::vector<std::string>& arguments) {
    std::vector<std::string> command = {
        binaries_ + "/parley-" + service, "--dev",        "--grpc-port",
        std::to_string(pod.grpc_port),    "--admin-port", "0"};
    command.insert(command.end(), {"--address", address_});
    const auto told = kTold.find(service);
    if (told != kTold.end() && !told_.empty()) command.insert(command.end(), {told->second, told_});
    command.insert(command.end(), arguments.begin(), arguments.end());
    auto process = Process::Start(command, folder_ + "/" + service + "." + RandomHex(4) + ".log");
    PARLEY_RETURN_IF_ERROR(process.status());
    pod.process = *std::move(process);
    PARLEY_ASSIGN_OR_RETURN(const std::string serving,
                            pod.process->WaitForLine("\"msg\":\"serving\"", kStart));
    pod.grpc_port = json::parse(serving).value("grpc_port", 0);
    return pod.process->WaitForLine("\"msg\":\"ready\"", kStart).status();
  }
  absl::Status StartBroker(Node& node) {
    return StartPod(node.broker, "dispatch-broker", {"--redis-address", redis_->address()});
  }
  absl::Status StartGateway(Node& node, const std::string& kind) {
    return StartPod(node.gateways[kind], kind + "-gateway",
                    {"--" + kind + "-script", folder_ + "/script.json", "--drain", "2s"});
  }
  absl::Status StartRooms() {
    std::vector<std::string> arguments = {"--redis-address",    redis_->address(), "--drain", "2s",
                                          "--dispatch-address", Brokers()};
    PARLEY_ASSIGN_OR_RETURN(const bool browsers, Knows("room-server", "--rtc-udp-port"));
    if (browsers) arguments.insert(arguments.end(), {"--rtc-udp-port", "0"});
    return StartPod(rooms_, "room-server", arguments);
  }
  // Older versions have fewer flags.
  absl::StatusOr<bool> Knows(const std::string& service, const std::string& flag) {
    PARLEY_ASSIGN_OR_RETURN(auto process,
                            Process::Start({binaries_ + "/parley-" + service, "--help"},
                                           folder_ + "/help." + RandomHex(4)));
    PARLEY_RETURN_IF_ERROR(process->Wait(kStart).status());
    return process->Log().find(flag) != std::string::npos;
  }
  absl::Status StartApi() {
    PARLEY_RETURN_IF_ERROR(
        StartPod(edge_, "api-server",
                 {"--http-ports", std::to_string(edge_.http_port), "--registry-address",
                  At(registry_), "--dispatch-address", Brokers(), "--rooms-address", At(rooms_),
                  "--stt-address", Gateways("stt"), "--tts-address", Gateways("tts")}));
    PARLEY_ASSIGN_OR_RETURN(const std::string listening,
                            edge_.process->WaitForLine("\"msg\":\"listening\"", kStart));
    edge_.http_port = json::parse(listening).value("http_port", 0);
    return absl::OkStatus();
  }
  absl::StatusOr<std::unique_ptr<Process>> NewAgents() {
    std::vector<std::string> command = {binaries_ + "/parley-agent-server",
                                        "--dev",
                                        "--address",
                                        address_,
                                        "--health-port",
                                        "0",
                                        "--load-threshold",
                                        "1",
                                        "--slots",
                                        "100",
                                        "--drain",
                                        drain_,
                                        "--dispatch-address",
                                        Brokers(),
                                        "--rooms-address",
                                        At(rooms_)};
    for (const std::string kind : kGateways) {
      command.push_back("--" + kind + "-address");
      command.push_back(Gateways(kind));
    }
    PARLEY_ASSIGN_OR_RETURN(auto process,
                            Process::Start(command, folder_ + "/agents." + RandomHex(4) + ".log"));
    PARLEY_RETURN_IF_ERROR(process->WaitForLine("\"msg\":\"registered\"", kStart).status());
    return process;
  }
  absl::Status StartAgents(Node& node) {
    PARLEY_ASSIGN_OR_RETURN(node.agents, NewAgents());
    return absl::OkStatus();
  }
  absl::StatusOr<redis::Reply> Redis(const std::vector<std::string>& command) const {
    redis::Config config;
    config.address = redis_->address();
    redis::Pool redis(config, log::Logger());
    return redis.Command(command);
  }
  static absl::Status End(Process& process) {
    process.Signal(SIGTERM);
    return Ended(process);
  }
  static absl::Status Ended(Process& process) {
    PARLEY_ASSIGN_OR_RETURN(const int code, process.Wait(absl::Seconds(120)));
    return code == 0 ? absl::OkStatus() : Internal("ended with {}", code);
  }
  std::string At(const Pod& pod) const { return ReachableAddress(address_, pod.grpc_port); }
  std::string Both(const Pod& one, const Pod& other) const {
    const std::string first = At(one);
    return (first.starts_with('[') ? "ipv6:" : "ipv4:") + first + "," + At(other);
  }
  std::string Brokers() const { return Both(nodes_[0].broker, nodes_[1].broker); }
  std::string Gateways(const std::string& kind) const {
    return Both(nodes_[0].gateways.at(kind), nodes_[1].gateways.at(kind));
  }

  absl::Status Place() {
    std::string word = "w";
    for (size_t i = 0, number = calls_.size(); i < 3; ++i, number /= 26) {
      word += static_cast<char>('a' + number % 26);
    }
    PARLEY_ASSIGN_OR_RETURN(auto call, MemoryCall::Place(*api_, word));
    PARLEY_RETURN_IF_ERROR(call->Tell());
    calls_.push_back(std::move(call));
    return absl::OkStatus();
  }
  // After all of one service were away: whoever calls it may not have noticed that they are back.
  template <typename Attempt>
  static auto Soon(Attempt attempt) {
    auto result = attempt();
    for (const absl::Time until = absl::Now() + absl::Seconds(15);
         !result.ok() && absl::Now() < until;) {
      absl::SleepFor(absl::Milliseconds(100));
      result = attempt();
    }
    return result;
  }
  absl::StatusOr<json> JobSoon(const std::string& dispatch) {
    return Soon([&] { return api_->Job(dispatch); });
  }
  void PlaceMany(int count) {
    for (int i = 0; i < count; ++i) ASSERT_OK(Place());
  }
  void ExpectAllUncut(const char* when) {
    int cut = 0;
    for (auto& call : calls_) {
      const auto job = JobSoon(call->dispatch_id());
      const bool first = job.ok() && (*job)["state"] == "RUNNING" && (*job)["attempt"] == 1;
      const absl::Status asked = call->Ask();
      if (first && asked.ok()) continue;
      ++cut;
      ADD_FAILURE() << when << ": " << asked << " " << job.status() << " "
                    << job.value_or(json::object());
    }
    std::printf("%s: %zu calls, %d cut\n", when, calls_.size(), cut);
    if (cut > 0) std::printf("%s\n", Logs().c_str());
  }
  std::string Logs() {
    std::string text;
    if (folder_.empty()) return text;
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
      if (entry.path().extension() != ".log") continue;
      std::ifstream file(entry.path());
      const std::string log{std::istreambuf_iterator<char>(file), {}};
      text += "--- " + entry.path().filename().string() + "\n" +
              log.substr(log.size() > 1500 ? log.size() - 1500 : 0);
    }
    return text;
  }

  static constexpr absl::Duration kStart = absl::Seconds(30);
  static std::string OwnBinaries() {
    const char* folder = std::getenv("PARLEY_BIN_DIR");
    return folder != nullptr
               ? folder
               : std::filesystem::read_symlink("/proc/self/exe").parent_path().string();
  }
  std::string binaries_ = OwnBinaries();
  std::string address_ = "127.0.0.1";  // that everything listens on
  std::string told_;                   // what services are told of how others reach them
  std::string drain_;
  std::string folder_;
  std::unique_ptr<redis::PrivateServer> redis_;
  std::array<Node, 2> nodes_;
  Pod registry_, rooms_, edge_;
  std::unique_ptr<Api> api_;
  std::vector<std::unique_ptr<MemoryCall>> calls_;
};

// Everything on a node is told to end at once. Its calls move, new ones go to the other node.
class NodeDrainTest : public NodesTest {
 protected:
  void Run(int calls, const std::string& drain) {
    ASSERT_NO_FATAL_FAILURE(StartAll(binaries_, drain));
    ASSERT_NO_FATAL_FAILURE(PlaceMany(calls));
    Node& node = nodes_[0];
    node.agents->Signal(SIGTERM);
    node.broker.process->Signal(SIGTERM);
    for (auto& [kind, pod] : node.gateways) pod.process->Signal(SIGTERM);
    ASSERT_OK(Place());
    ASSERT_OK(Ended(*node.agents));
    ASSERT_OK(Ended(*node.broker.process));
    for (auto& [kind, pod] : node.gateways) ASSERT_OK(Ended(*pod.process));
    ExpectAllUncut("node drained");
  }
};
TEST_F(NodeDrainTest, ShortForm) { Run(8, "500ms"); }
TEST_F(NodeDrainTest, DISABLED_Full) { Run(60, "5s"); }

// Everything listens on an IPv6 address alone, and tells others where it is reached in a spelling
// of its own, so that it shows who goes by what was told.
class Ipv6Test : public NodesTest {};
TEST_F(Ipv6Test, ACallAndItsHandOver) {
  address_ = "::1";
  told_ = "0:0:0:0:0:0:0:1";
  ASSERT_NO_FATAL_FAILURE(StartAll(binaries_, "500ms"));
  const auto session = api_->Call("POST", "/api/sessions", {{"agent", "memory"}});
  ASSERT_OK(session.status());
  EXPECT_EQ((*session)["mediaUrl"], ReachableAddress(told_, rooms_.grpc_port));
  ASSERT_OK(Place());
  ASSERT_OK(api_->Migrate(calls_[0]->dispatch_id(), absl::Seconds(10)));
  ExpectAllUncut("handed over");
}

// A backup of Redis is put back while calls go on, as docs/operations.md says.
class RestoreTest : public NodesTest {
 protected:
  absl::Status BackUp() const {
    const std::string socket = redis_->address().substr(std::string_view("unix:").size());
    PARLEY_ASSIGN_OR_RETURN(auto cli, Process::Start({"redis-cli", "-s", socket, "--rdb", Backup()},
                                                     folder_ + "/redis-cli.log"));
    return Ended(*cli);
  }
  absl::Status PutBack() {
    redis_->Kill();
    redis_.reset();
    namespace fs = std::filesystem;
    fs::rename(folder_ + "/appendonlydir", folder_ + "/appendonlydir.lost");
    fs::copy_file(Backup(), folder_ + "/dump.rdb", fs::copy_options::overwrite_existing);
    PARLEY_ASSIGN_OR_RETURN(redis_, redis::PrivateServer::Start(folder_, {"--appendonly", "no"}));
    return Redis({"CONFIG", "SET", "appendonly", "yes"}).status();
  }
  // Blocks until the dispatch's job is over, at most 30 s.
  std::string EndOf(const std::string& dispatch) {
    json job;
    for (int i = 0; i < 300; ++i) {
      job = JobSoon(dispatch).value_or(json::object());
      if (!job.value("endTime", json()).is_null()) break;
      absl::SleepFor(absl::Milliseconds(100));
    }
    return job.value("state", "?") + " " + job.value("reason", json()).dump() + " attempt " +
           job.value("attempt", json()).dump();
  }
  std::string Backup() const { return folder_ + "/backup.rdb"; }
};
TEST_F(RestoreTest, CallsGoOnOverIt) {
  ASSERT_NO_FATAL_FAILURE(StartAll(binaries_, "500ms"));
  ASSERT_NO_FATAL_FAILURE(PlaceMany(4));
  ASSERT_OK(BackUp());
  ASSERT_OK(
      api_->Register(R"({"id": "later", "instructions": "x", "llm": [{"engine": "scripted"}]})"));
  ASSERT_NO_FATAL_FAILURE(PlaceMany(2));
  const std::string over = calls_[0]->dispatch_id();
  calls_.erase(calls_.begin());
  ASSERT_EQ(EndOf(over), "SUCCEEDED \"PARTICIPANTS_LEFT\" attempt 1");

  for (Node& node : nodes_) ASSERT_OK(End(*node.broker.process));
  ASSERT_OK(End(*registry_.process));
  ASSERT_OK(PutBack());
  for (Node& node : nodes_) ASSERT_OK(StartBroker(node));
  ASSERT_OK(StartPod(registry_, "agent-registry", {"--redis-address", redis_->address()}));

  ASSERT_OK(Soon([this] { return Place(); }));
  ExpectAllUncut("restored");
  EXPECT_TRUE(api_->Call("GET", "/api/agents/memory").ok());
  EXPECT_FALSE(api_->Call("GET", "/api/agents/later").ok()) << "younger than the backup";
  // The backup knows it as a running one; its agent server knows better.
  EXPECT_EQ(EndOf(over), "SUCCEEDED \"PARTICIPANTS_LEFT\" attempt 1");
}

// From the binaries of PARLEY_OLD_BIN_DIR to those of this build, as docs/operations.md says:
// brokers first, one at a time if both versions know each other's records, else all at once;
// registry and API; gateways, one at a time; agent servers, new ones before old ones are drained,
// which hand their calls over from version to version.
class UpgradeTest : public NodesTest {
 protected:
  // Old brokers keep records of the form that ours do; who says none keeps the first.
  // PARLEY_UPGRADE_BROKERS, rolling or at-once, decides otherwise.
  bool RecordsAreOurs() {
    if (const char* given = std::getenv("PARLEY_UPGRADE_BROKERS"))
      return std::string_view(given) == "rolling";
    const auto form = Redis({"HGET", std::string(job::keys::kPools), "form"});
    if (!form.ok()) return false;
    if (form->nil()) {  // before scripts were functions they wrote in another way
      const auto libraries = Redis({"FUNCTION", "LIST"});
      if (!libraries.ok() || libraries->elements.empty()) return false;
    }
    return (form->nil() ? "1" : form->text) == std::to_string(job::keys::kRecordForm);
  }
  void RollBrokers() {
    for (Node& node : nodes_) {
      ASSERT_OK(End(*node.broker.process));
      ASSERT_OK(StartBroker(node));
      ASSERT_OK(Place());  // with one broker of each version, the first time
      ASSERT_OK(Place());
      ExpectAllUncut(&node == &nodes_[0] ? "one new broker, one old" : "new brokers");
    }
  }
  void ReplaceBrokers() {
    for (Node& node : nodes_) node.broker.process->Signal(SIGTERM);
    for (Node& node : nodes_) ASSERT_OK(Ended(*node.broker.process));
    for (Node& node : nodes_) ASSERT_OK(StartBroker(node));
    ASSERT_OK(Soon([this] { return Place(); }));
    ExpectAllUncut("new brokers");
  }
  void Run(int calls, const std::string& drain) {
    const char* old = std::getenv("PARLEY_OLD_BIN_DIR");
    if (old == nullptr) GTEST_SKIP() << "PARLEY_OLD_BIN_DIR names no older version's binaries";
    const std::string now = binaries_;
    ASSERT_NO_FATAL_FAILURE(StartAll(old, drain));
    ASSERT_NO_FATAL_FAILURE(PlaceMany(calls));
    binaries_ = now;
    const bool rolling = RecordsAreOurs();
    std::printf("brokers: %s\n", rolling ? "one at a time" : "all at once");
    ASSERT_NO_FATAL_FAILURE(rolling ? RollBrokers() : ReplaceBrokers());
    ASSERT_OK(End(*registry_.process));
    ASSERT_OK(StartPod(registry_, "agent-registry", {"--redis-address", redis_->address()}));
    ASSERT_OK(End(*edge_.process));
    ASSERT_OK(StartApi());
    ExpectAllUncut("new brokers, registry and API, old agent servers");
    ASSERT_OK(Place());
    for (Node& node : nodes_) {
      for (const std::string kind : kGateways) {
        ASSERT_OK(End(*node.gateways[kind].process));
        ASSERT_OK(StartGateway(node, kind));
      }
    }
    ExpectAllUncut("new gateways");
    for (Node& node : nodes_) {
      const std::unique_ptr<Process> before = std::move(node.agents);
      ASSERT_OK(StartAgents(node));
      ASSERT_OK(End(*before));
    }
    ExpectAllUncut("new agent servers");
    ASSERT_OK(Place());
    // A room is on one room server and cannot move: its replica is replaced once its calls are
    // over, and the only one leaves a gap until it is connected to again.
    calls_.clear();
    ASSERT_OK(End(*rooms_.process));
    ASSERT_OK(StartRooms());
    ASSERT_OK(Soon([this] { return Place(); }));
    ASSERT_NO_FATAL_FAILURE(PlaceMany(3));
    ExpectAllUncut("everything new");
  }
};
TEST_F(UpgradeTest, ShortForm) { Run(8, "500ms"); }
TEST_F(UpgradeTest, DISABLED_Full) { Run(60, "5s"); }

}  // namespace
}  // namespace parley::testing
