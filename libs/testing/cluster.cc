#include "testing/cluster.h"

#include <signal.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/ids.h"
#include "base/status.h"

namespace parley::testing {
namespace {

constexpr absl::Duration kStart = absl::Seconds(30);

std::string OwnFolder() { return std::filesystem::read_symlink("/proc/self/exe").parent_path(); }

// Where each service finds the others: flag → service.
const std::map<std::string, std::string>& Neighbours() {
  static const auto* neighbours = new std::map<std::string, std::string>{
      {"--registry-address", "agent-registry"}, {"--dispatch-address", "dispatch-broker"},
      {"--rooms-address", "room-server"},       {"--stt-address", "stt-gateway"},
      {"--tts-address", "tts-gateway"},         {"--llm-address", "llm-gateway"}};
  return *neighbours;
}

// "room-server-2" is another replica of "room-server".
std::string KindOf(std::string_view service) {
  const size_t last = service.find_last_not_of("0123456789");
  const bool numbered = last != service.npos && last + 1 < service.size() && service[last] == '-';
  return std::string(numbered ? service.substr(0, last) : service);
}

// Which of those flags, and whether --redis-address, a service takes.
struct Needs {
  bool redis = false;
  std::vector<std::string> neighbours;
};
Needs NeedsOf(std::string_view service) {
  if (service == "agent-registry") return {true, {}};
  if (service == "dispatch-broker") return {true, {}};
  if (service == "room-server") return {true, {"--dispatch-address"}};
  if (service == "api-server") {
    return {false,
            {"--registry-address", "--dispatch-address", "--rooms-address", "--stt-address",
             "--tts-address", "--llm-address"}};
  }
  if (service.ends_with("-gateway")) return {true, {}};
  if (service == "agent-server") {
    return {false,
            {"--dispatch-address", "--rooms-address", "--stt-address", "--tts-address",
             "--llm-address"}};
  }
  return {};
}

// Adds `--flag value` pairs; one that is there already is replaced.
void AddArguments(std::vector<std::string>& argv, const std::vector<std::string>& more) {
  for (const std::string& argument : more) {
    const auto old = std::find(argv.begin() + 1, argv.end(), argument);
    if (argument.starts_with("--") && old != argv.end() && old + 1 != argv.end() &&
        !(old + 1)->starts_with("--")) {
      argv.erase(old, old + 2);
    }
    argv.push_back(argument);
  }
}

int Field(const std::string& line, const char* name) {
  const auto json = nlohmann::json::parse(line, nullptr, false);
  return json.is_object() ? json.value(name, 0) : 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Cluster>> Cluster::Start(ClusterOptions options) {
  std::unique_ptr<Cluster> cluster(new Cluster);
  cluster->options_ = std::move(options);
  ClusterOptions& o = cluster->options_;
  if (o.bin_dir.empty()) {
    const char* folder = getenv("PARLEY_BIN_DIR");
    o.bin_dir = folder != nullptr ? folder : OwnFolder();
  }
  if (o.work_dir.empty()) {
    std::string pattern = std::filesystem::temp_directory_path() / "parley-cluster-XXXXXX";
    PARLEY_CHECK(mkdtemp(pattern.data()) != nullptr);
    o.work_dir = pattern;
    cluster->own_dir_ = true;
  }
  PARLEY_ASSIGN_OR_RETURN(cluster->redis_,
                          redis::PrivateServer::Start(o.work_dir, o.redis_arguments));
  for (const std::string& service : o.services)
    PARLEY_RETURN_IF_ERROR(cluster->StartService(service));
  for (int i = 0; i < o.agent_servers; ++i) PARLEY_RETURN_IF_ERROR(cluster->StartAgentServer());
  return cluster;
}

Cluster::~Cluster() {
  agent_servers_.clear();
  services_.clear();
  redis_.reset();
  if (own_dir_) {
    std::error_code ignored;
    std::filesystem::remove_all(options_.work_dir, ignored);
  }
}

std::vector<std::string> Cluster::CommonArguments() const {
  return {"--dev", "--log-level", "info", "--address", options_.address};
}

absl::Status Cluster::StartService(const std::string& name) {
  Running& running = services_[name];
  const std::string kind = KindOf(name);
  std::vector<std::string> argv = {options_.bin_dir + "/parley-" + kind};
  for (const std::string& argument : CommonArguments()) argv.push_back(argument);
  const std::string port = fmt::format("{}", running.port);
  const std::string port_flag = name == "api-server" ? "--http-ports" : "--grpc-port";
  if (name == "api-server") argv.insert(argv.end(), {"--grpc-port", "0"});
  if (kind == "room-server") argv.insert(argv.end(), {"--rtc-udp-port", "0"});
  argv.insert(argv.end(), {port_flag, port, "--admin-port", fmt::format("{}", running.admin_port)});
  const Needs needs = NeedsOf(kind);
  if (needs.redis) argv.insert(argv.end(), {"--redis-address", redis_->address()});
  AddNeighbours(needs.neighbours, argv);
  const auto extra = options_.extra_arguments.find(kind);
  if (extra != options_.extra_arguments.end()) AddArguments(argv, extra->second);
  const std::string log = fmt::format("{}/{}.{}.log", options_.work_dir, name, RandomHex(4));
  auto process = Process::Start(argv, log);
  if (!process.ok()) return Annotate(process.status(), name);
  running.process = *std::move(process);
  const bool http = name == "api-server";
  const auto serving = running.process->WaitForLine("\"msg\":\"serving\"", kStart);
  if (!serving.ok()) return Annotate(serving.status(), name);
  running.admin_port = Field(*serving, "admin_port");
  running.port = running.grpc_port = Field(*serving, "grpc_port");
  if (http) {
    const auto listening = running.process->WaitForLine("\"msg\":\"listening\"", kStart);
    if (!listening.ok()) return Annotate(listening.status(), name);
    running.port = Field(*listening, "http_port");
  }
  const auto ready = running.process->WaitForLine("\"msg\":\"ready\"", kStart);
  return ready.ok() ? absl::OkStatus() : Annotate(ready.status(), name);
}

absl::Status Cluster::StartAgentServer(const std::vector<std::string>& arguments) {
  std::vector<std::string> argv = {options_.bin_dir + "/" + options_.agent_binary, "start"};
  if (options_.agent_binary == "parley-agent-server") argv.pop_back();
  for (const std::string& argument : CommonArguments()) argv.push_back(argument);
  // Machines that run tests are busy: slots alone bound the jobs here.
  argv.insert(argv.end(), {"--health-port", "0", "--load-threshold", "1"});
  AddNeighbours(NeedsOf("agent-server").neighbours, argv);
  AddArguments(argv, options_.agent_arguments);
  AddArguments(argv, arguments);
  const std::string log =
      fmt::format("{}/agent-server-{}.log", options_.work_dir, agent_servers_.size());
  auto process = Process::Start(argv, log);
  if (!process.ok()) return Annotate(process.status(), "agent server");
  agent_servers_.push_back(*std::move(process));
  const auto line = agent_servers_.back()->WaitForLine("\"msg\":\"registered\"", kStart);
  return line.ok() ? absl::OkStatus() : Annotate(line.status(), "agent server");
}

void Cluster::AddNeighbours(const std::vector<std::string>& flags,
                            std::vector<std::string>& argv) const {
  for (const std::string& flag : flags) {
    std::vector<std::string> addresses;
    for (const auto& [name, running] : services_) {
      if (KindOf(name) == Neighbours().at(flag) && running.port != 0) {
        addresses.push_back(Address(name));
      }
    }
    if (addresses.empty()) continue;
    const bool replicas = addresses.size() > 1;
    argv.insert(argv.end(),
                {flag, (replicas ? "ipv4:" : "") + fmt::format("{}", fmt::join(addresses, ","))});
  }
}

absl::Status Cluster::Restart(std::string_view service) {
  services_.find(service)->second.process.reset();
  return StartService(std::string(service));
}

std::string Cluster::Address(std::string_view service) const {
  const auto it = services_.find(service);
  PARLEY_CHECK(it != services_.end());
  return fmt::format("{}:{}", options_.address, it->second.port);
}

std::string Cluster::GrpcAddress(std::string_view service) const {
  const auto it = services_.find(service);
  PARLEY_CHECK(it != services_.end());
  return fmt::format("{}:{}", options_.address, it->second.grpc_port);
}

std::string Cluster::AdminAddress(std::string_view service) const {
  const auto it = services_.find(service);
  PARLEY_CHECK(it != services_.end());
  return fmt::format("{}:{}", options_.address, it->second.admin_port);
}

Process& Cluster::Service(std::string_view name) { return *services_.find(name)->second.process; }
Process& Cluster::AgentServer(size_t index) { return *agent_servers_[index]; }

}  // namespace parley::testing
