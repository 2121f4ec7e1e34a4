// A host that is cut off from the network in the midst of calls: its link goes down for good, no
// connection is closed, and nobody on it is told. On it are the room server that has the rooms and
// the agents of half of them; the other half's are elsewhere. Everybody comes back at another room
// server: to the agent of before where that one lives, else to a second attempt that goes on from
// the checkpoint.
//
// The host is a network namespace, the link a pair of virtual interfaces. To make them takes rights
// that not every machine gives: then the test is skipped. The addresses are of the loopback block,
// because the development keys are not served on others.
#include <sched.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "room_calls.h"

namespace parley::testing {
namespace {

constexpr auto kNear = "127.9.0.1";
constexpr auto kFar = "127.9.0.2";
constexpr auto kRedisPort = "6379";

std::string NetworkOf(pid_t pid) {
  std::error_code ignored;
  return std::filesystem::read_symlink(fmt::format("/proc/{}/ns/net", pid), ignored);
}

class CutOffTest : public RoomCallsTest {
 protected:
  void SetUp() override {
    // Before there is any other thread: each has a network of its own.
    if (unshare(CLONE_NEWNET) != 0) {
      GTEST_SKIP() << "no network namespace may be made here: " << std::strerror(errno);
    }
    if (const absl::Status made = MakeHost(); !made.ok()) {
      GTEST_SKIP() << "no host of its own can be made here: " << made;
    }
    std::ofstream(directory_.path() + "/llm.json") << MemoryCall::kScript;
    ClusterOptions options;
    options.address = kNear;
    options.redis_arguments = {"--port", kRedisPort, "--bind", kNear, "--protected-mode", "no"};
    options.extra_arguments["llm-gateway"] = {"--llm-script", directory_.path() + "/llm.json"};
    ASSERT_NO_FATAL_FAILURE(StartCluster(options));
    ASSERT_OK(api_->Register(MemoryCall::kAgent));
  }
  void TearDown() override {
    far_agents_.reset();
    near_agents_.reset();
    far_rooms_.reset();
    RoomCallsTest::TearDown();
    host_.reset();
  }

  absl::Status MakeHost() {
    PARLEY_ASSIGN_OR_RETURN(
        host_, Process::Start({"unshare", "--net", "sleep", "infinity"}, LogOf("host")));
    if (!Eventually([&] { return NetworkOf(host_->pid()) != NetworkOf(getpid()); })) {
      return Unavailable("unshare: {}", host_->Log());
    }
    constexpr auto kLoopback =
        "ip address add 127.0.0.1/16 dev lo; ip link set lo up; "
        "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet; ";
    PARLEY_RETURN_IF_ERROR(
        Shell({}, kLoopback + fmt::format("ip link add near type veth peer name far netns {}; "
                                          "ip address add {}/24 dev near; ip link set near up",
                                          host_->pid(), kNear)));
    return Shell(OnHost(), kLoopback + fmt::format("ip address add {}/24 dev far; "
                                                   "ip link set far up",
                                                   kFar));
  }
  absl::Status Shell(std::vector<std::string> argv, const std::string& commands) {
    argv.insert(argv.end(), {"sh", "-ec", "PATH=$PATH:/usr/sbin:/sbin; " + commands});
    const std::string log = LogOf(fmt::format("shell-{}", ++shells_));
    PARLEY_ASSIGN_OR_RETURN(const auto shell, Process::Start(argv, log));
    PARLEY_ASSIGN_OR_RETURN(const int code, shell->Wait(absl::Seconds(10)));
    return code == 0 ? absl::OkStatus() : Unavailable("{}: {}", commands, shell->Log());
  }
  std::vector<std::string> OnHost() const {
    return {"nsenter", "--target", std::to_string(host_->pid()), "--net"};
  }
  std::string LogOf(const std::string& name) const { return directory_.path() + "/" + name; }

  // Starts a program of ours there or here, and waits until it says so.
  absl::StatusOr<std::unique_ptr<Process>> Run(bool there, const std::string& program,
                                               const std::vector<std::string>& arguments,
                                               const std::string& up) {
    std::vector<std::string> argv = there ? OnHost() : std::vector<std::string>();
    argv.insert(argv.end(), {std::string(std::getenv("PARLEY_BIN_DIR")) + "/" + program, "--dev",
                             "--log-level", "info", "--address", there ? kFar : kNear});
    argv.insert(argv.end(), arguments.begin(), arguments.end());
    PARLEY_ASSIGN_OR_RETURN(auto process,
                            Process::Start(argv, LogOf(program + (there ? "-there" : "-here"))));
    PARLEY_RETURN_IF_ERROR(process->WaitForLine(up, absl::Seconds(30)).status());
    return process;
  }
  absl::StatusOr<std::unique_ptr<Process>> RunRooms() {
    PARLEY_ASSIGN_OR_RETURN(auto process,
                            Run(true, "parley-room-server",
                                {"--grpc-port", "0", "--admin-port", "0", "--rtc-udp-port", "0",
                                 "--redis-address", fmt::format("{}:{}", kNear, kRedisPort),
                                 "--dispatch-address", cluster_->Address("dispatch-broker")},
                                "\"msg\":\"ready\""));
    PARLEY_ASSIGN_OR_RETURN(const std::string line,
                            process->WaitForLine("\"msg\":\"serving\"", absl::Seconds(1)));
    far_url_ = fmt::format("{}:{}", kFar, json::parse(line)["grpc_port"].get<int>());
    return process;
  }
  absl::StatusOr<std::unique_ptr<Process>> RunAgents(bool there, int slots) {
    std::vector<std::string> arguments = {
        "--health-port", "0", "--load-threshold", "1", "--slots", std::to_string(slots)};
    const std::map<std::string, std::string> services = {{"dispatch", "dispatch-broker"},
                                                         {"rooms", "room-server"},
                                                         {"stt", "stt-gateway"},
                                                         {"tts", "tts-gateway"},
                                                         {"llm", "llm-gateway"}};
    for (const auto& [name, service] : services) {
      arguments.insert(arguments.end(), {"--" + name + "-address", cluster_->Address(service)});
    }
    return Run(there, "parley-agent-server", arguments, "\"msg\":\"registered\"");
  }

  std::string RoomLogs() override {
    std::string text = Logs();
    for (const auto* process : {far_rooms_.get(), &cluster_->Service("room-server"),
                                far_agents_.get(), near_agents_.get()}) {
      const std::string log = process->Log();
      text += "--- " + process->log_path() + "\n" +
              log.substr(log.size() > 2500 ? log.size() - 2500 : 0);
    }
    return text;
  }

  std::unique_ptr<Process> host_;  // keeps its network
  int shells_ = 0;
  std::unique_ptr<Process> far_rooms_;
  std::string far_url_;
  std::unique_ptr<Process> far_agents_;
  std::unique_ptr<Process> near_agents_;
};

TEST_F(CutOffTest, EverybodyComesBackElsewhereToAnAgentThatRemembers) {
  PARLEY_ASSERT_OK_AND_ASSIGN(far_rooms_, RunRooms());
  PARLEY_ASSERT_OK_AND_ASSIGN(far_agents_, RunAgents(true, 2));
  for (const char* room : {"r0", "r1"}) ASSERT_OK(Enter(room, far_url_));
  PARLEY_ASSERT_OK_AND_ASSIGN(near_agents_, RunAgents(false, 10));
  for (const char* room : {"r2", "r3"}) ASSERT_OK(Enter(room, far_url_));

  const absl::Time cut = absl::Now();
  ASSERT_OK(Shell(OnHost(), "ip link set far down"));
  const std::string elsewhere = cluster_->Address("room-server");
  const std::vector<double> seconds = AllComeBack(cut, elsewhere);
  ASSERT_EQ(seconds.size(), 4u);
  fmt::print(
      "answered again after {:.1f} and {:.1f} s by agents on the host that was cut off, "
      "after {:.1f} and {:.1f} s by others\n",
      seconds[0], seconds[1], seconds[2], seconds[3]);
  // A worker is missed once its lease of 12 s is over.
  EXPECT_LT(std::max(seconds[0], seconds[1]), 25);
  EXPECT_LT(std::max(seconds[2], seconds[3]), 15);
  ASSERT_NO_FATAL_FAILURE(ExpectOneAgentEach(elsewhere));
  for (size_t i = 0; i < people_.size(); ++i) {
    Person& person = *people_[i];
    ASSERT_OK(Say(person, "my word is " + person.word, "Noted"));  // to ask is to say, too
    ExpectAgentOfAttempt(person, i < 2 ? 2 : 1);
  }
}

}  // namespace
}  // namespace parley::testing
