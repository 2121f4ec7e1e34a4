#include "fleet.h"

#include <signal.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/status.h"

namespace parley::chaos {
namespace {

constexpr absl::Duration kStart = absl::Seconds(60);  // machines that run chaos are busy

int64_t NowUs() { return Clock::Real().MonotonicMicros(); }

std::vector<pid_t> ChildrenOf(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/task/{}/children", pid, pid));
  std::vector<pid_t> children;
  for (pid_t child = 0; file >> child;) children.push_back(child);
  return children;
}

bool IsJob(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/comm", pid));
  std::string name;
  std::getline(file, name);
  return name == "parley-job";
}

int Field(const std::string& line, const char* name) {
  const auto json = nlohmann::json::parse(line, nullptr, false);
  return json.is_object() ? json.value(name, 0) : 0;
}

}  // namespace

const char* Fleet::Name(Victim victim) {
  static constexpr const char* kNames[] = {"redis", "broker", "agent server", "zygote",
                                           "node",  "job",    "room server"};
  return kNames[static_cast<int>(victim)];
}

absl::StatusOr<std::unique_ptr<Fleet>> Fleet::Start(FleetOptions options) {
  std::unique_ptr<Fleet> fleet(new Fleet(std::move(options)));
  const FleetOptions& o = fleet->options_;
  // Every write is on the disk before it is answered: what was acknowledged must survive.
  PARLEY_ASSIGN_OR_RETURN(fleet->redis_, redis::PrivateServer::Start(o.work_dir + "/redis",
                                                                     {"--appendfsync", "always"}));
  PARLEY_RETURN_IF_ERROR(fleet->AddMember(Kind::kRegistry, "agent-registry"));
  for (int i = 0; i < o.brokers; ++i) {
    PARLEY_RETURN_IF_ERROR(fleet->AddMember(Kind::kBroker, fmt::format("broker-{}", i)));
  }
  for (int i = 0; i < o.room_servers; ++i) {
    PARLEY_RETURN_IF_ERROR(fleet->AddMember(Kind::kRoomServer, fmt::format("rooms-{}", i)));
  }
  for (int i = 0; i < o.agent_servers; ++i) {
    PARLEY_RETURN_IF_ERROR(fleet->AddMember(Kind::kAgentServer, fmt::format("agents-{}", i)));
  }
  for (const auto& member : fleet->members_) {
    if (member->kind == Kind::kAgentServer) PARLEY_RETURN_IF_ERROR(fleet->WaitServing(*member));
  }
  return fleet;
}

Fleet::~Fleet() {
  while (!members_.empty()) members_.pop_back();  // agent servers first
}

absl::Status Fleet::AddMember(Kind kind, const std::string& name) {
  members_.push_back(std::make_unique<Member>());
  Member& member = *members_.back();
  member.kind = kind;
  member.name = name;
  PARLEY_RETURN_IF_ERROR(Launch(member));
  return kind == Kind::kAgentServer ? absl::OkStatus() : WaitServing(member);  // all at once
}

std::string Fleet::Targets(Kind kind) const {
  std::string targets = "ipv4:";
  for (const auto& member : members_) {
    if (member->kind != kind) continue;
    if (targets.size() > 5) targets += ',';
    targets += fmt::format("127.0.0.1:{}", member->port);
  }
  return targets;
}

std::string Fleet::brokers() const { return Targets(Kind::kBroker); }

std::vector<std::string> Fleet::Arguments(const Member& member) const {
  const std::string evidence = fmt::format("{}/{}.evidence", options_.work_dir, member.name);
  std::vector<std::string> arguments = {"--dev", "--log-level", "info"};
  const auto add = [&arguments](std::initializer_list<std::string> more) {
    arguments.insert(arguments.end(), more);
  };
  if (member.kind != Kind::kAgentServer) {
    add({"--grpc-port", fmt::format("{}", member.port), "--admin-port",
         fmt::format("{}", member.admin_port), "--redis-address", redis_->address()});
  }
  if (member.kind == Kind::kBroker) {
    add({"--broker-pool-max-jobs", fmt::format("{}", options_.max_jobs)});
  }
  if (member.kind == Kind::kRoomServer) {
    add({"--dispatch-address", brokers(), "--room-admission-log", evidence, "--room-empty-timeout",
         "20s", "--rtc-udp-port", "0"});
  }
  if (member.kind == Kind::kAgentServer) {
    // Half of them find one room server first, half the other.
    std::vector<int> rooms;
    for (const auto& other : members_) {
      if (other->kind == Kind::kRoomServer) rooms.push_back(other->port);
    }
    const size_t mine = static_cast<size_t>(member.name.back() - '0') % rooms.size();
    add({"--dispatch-address", brokers(), "--rooms-address",
         fmt::format("127.0.0.1:{}", rooms[mine]), "--health-port", "0", "--load-threshold", "1",
         "--slots", fmt::format("{}", options_.slots), "--worker-audit-log", evidence});
  }
  return arguments;
}

absl::Status Fleet::Launch(Member& member) {
  static constexpr const char* kBinaries[] = {"parley-agent-registry", "parley-dispatch-broker",
                                              "parley-room-server", "parley-chaos-agent"};
  std::vector<std::string> argv = {options_.bin_dir + "/" +
                                   kBinaries[static_cast<int>(member.kind)]};
  if (member.kind == Kind::kAgentServer) argv.emplace_back("start");
  for (std::string& argument : Arguments(member)) argv.push_back(std::move(argument));
  auto process = testing::Process::Start(
      argv, fmt::format("{}/{}.{}.log", options_.work_dir, member.name, member.runs++));
  if (!process.ok()) return Annotate(process.status(), member.name);
  member.process = *std::move(process);
  member.revive_at_us = 0;
  member.hurt = false;
  return absl::OkStatus();
}

absl::Status Fleet::WaitServing(Member& member) {
  const bool agents = member.kind == Kind::kAgentServer;
  const auto serving = member.process->WaitForLine(
      agents ? "\"msg\":\"registered\"" : "\"msg\":\"serving\"", kStart);
  if (!serving.ok()) return Annotate(serving.status(), member.name);
  if (agents) return absl::OkStatus();
  member.port = Field(*serving, "grpc_port");
  member.admin_port = Field(*serving, "admin_port");
  return absl::OkStatus();
}

Fleet::Member* Fleet::Pick(Kind kind, std::minstd_rand& random) {
  std::vector<Member*> alive;
  for (const auto& member : members_) {
    if (member->kind == kind && member->process->running()) alive.push_back(member.get());
  }
  if (alive.empty()) return nullptr;
  return alive[std::uniform_int_distribution<size_t>(0, alive.size() - 1)(random)];
}

bool Fleet::KillMember(Member* member, std::minstd_rand& random) {
  if (member == nullptr) return false;
  member->hurt = true;
  member->process->Signal(SIGKILL);
  (void)member->process->Wait(absl::Seconds(10));
  member->revive_at_us = NowUs() + std::uniform_int_distribution<int>(100, 1500)(random) * 1000;
  if (member->kind != Kind::kRoomServer) return true;
  // It cannot say itself that whoever was in its rooms is out.
  auto evidence =
      log::AppendFile::Open(fmt::format("{}/{}.evidence", options_.work_dir, member->name));
  if (!evidence.ok()) return true;
  (*evidence)->Write(fmt::format(R"({{"time_us":{},"what":"killed","server":"{}.evidence"}})",
                                 absl::ToUnixMicros(Clock::Real().Now()), member->name));
  return true;
}

// One process of an agent server's family, or all of it.
bool Fleet::KillPart(Victim victim, std::minstd_rand& random) {
  Member* member = Pick(Kind::kAgentServer, random);
  if (member == nullptr) return false;
  const pid_t zygote = member->process->pid();
  std::vector<pid_t> jobs, servers;
  for (const pid_t child : ChildrenOf(zygote)) (IsJob(child) ? jobs : servers).push_back(child);
  if (victim == Victim::kJob) {
    if (jobs.empty()) return false;
    return kill(jobs[std::uniform_int_distribution<size_t>(0, jobs.size() - 1)(random)], SIGKILL) ==
           0;
  }
  if (servers.empty()) return false;  // still starting
  member->hurt = true;
  if (victim == Victim::kNode) {
    kill(zygote, SIGKILL);
    for (const pid_t pid : servers) kill(pid, SIGKILL);
    for (const pid_t pid : jobs) kill(pid, SIGKILL);
    return KillMember(member, random);
  }
  if (victim == Victim::kAgentServer) return kill(servers.front(), SIGKILL) == 0;
  return KillMember(member, random);
}

bool Fleet::Kill(Victim victim, std::minstd_rand& random) {
  switch (victim) {
    case Victim::kRedis:
      if (redis_->pid() <= 0) return false;
      redis_->Kill();
      redis_revive_at_us_ = NowUs() + std::uniform_int_distribution<int>(100, 800)(random) * 1000;
      return true;
    case Victim::kBroker:
      return KillMember(Pick(Kind::kBroker, random), random);
    case Victim::kRoomServer:
      return KillMember(Pick(Kind::kRoomServer, random), random);
    default:
      return KillPart(victim, random);
  }
}

absl::Status Fleet::Revive() {
  const int64_t now = NowUs();
  if (redis_->pid() <= 0 && now >= redis_revive_at_us_) PARLEY_RETURN_IF_ERROR(redis_->Restart());
  for (const auto& member : members_) {
    if (member->process->running() || now < member->revive_at_us) continue;
    if (!member->hurt) {
      const std::string log = member->process->Log();
      return Internal("{} ended by itself:\n{}", member->name,
                      log.substr(log.size() > 2000 ? log.size() - 2000 : 0));
    }
    PARLEY_RETURN_IF_ERROR(Launch(*member));
  }
  return absl::OkStatus();
}

absl::Status Fleet::ReviveAll() {
  redis_revive_at_us_ = 0;
  for (const auto& member : members_) member->revive_at_us = 0;
  PARLEY_RETURN_IF_ERROR(Revive());
  for (const auto& member : members_) PARLEY_RETURN_IF_ERROR(WaitServing(*member));
  return absl::OkStatus();
}

absl::Status Fleet::StopAgentServers() {
  for (const auto& member : members_) {
    if (member->kind == Kind::kAgentServer) member->process->Signal(SIGTERM);
  }
  for (const auto& member : members_) {
    if (member->kind != Kind::kAgentServer) continue;
    PARLEY_ASSIGN_OR_RETURN(const int code, member->process->Wait(absl::Seconds(30)));
    if (code != 0) return Internal("{} ended with {}", member->name, code);
  }
  return absl::OkStatus();
}

std::vector<std::string> Fleet::WorkerLogs() const {
  std::vector<std::string> logs;
  for (const auto& member : members_) {
    if (member->kind == Kind::kAgentServer) {
      logs.push_back(fmt::format("{}/{}.evidence", options_.work_dir, member->name));
    }
  }
  return logs;
}

std::vector<std::string> Fleet::RoomLogs() const {
  std::vector<std::string> logs;
  for (const auto& member : members_) {
    if (member->kind == Kind::kRoomServer) {
      logs.push_back(fmt::format("{}/{}.evidence", options_.work_dir, member->name));
    }
  }
  return logs;
}

}  // namespace parley::chaos
