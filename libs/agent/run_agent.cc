#include "agent/run_agent.h"

#include <fmt/format.h>
#include <malloc.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "agent/console/console.h"
#include "agent/job/listener.h"
#include "agent/job/run_job.h"
#include "agent/server/connect.h"
#include "agent/server/program.h"
#include "agent/server/reload.h"
#include "agent/server/serve.h"
#include "audio/silero.h"
#include "base/ids.h"
#include "base/status.h"
#include "base/strings.h"
#include "service/service.h"

namespace parley::agent {
namespace {

constexpr char kService[] = "agent-server";
constexpr int kCannotExecute = 63;

// Takes the command off the arguments; "" when the first one is a flag or there is none.
std::string_view TakeCommand(std::vector<const char*>& arguments) {
  if (arguments.size() < 2 || arguments[1][0] == '-') return "";
  const std::string_view command = arguments[1];
  arguments.erase(arguments.begin() + 1);
  return command;
}

// The value of a flag: jobs are forked before the settings are read.
std::string FlagOf(int argc, char** argv, std::string_view flag) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == flag && i + 1 < argc) return argv[i + 1];
    if (argument.starts_with(flag) && argument.substr(flag.size()).starts_with("=")) {
      return std::string(argument.substr(flag.size() + 1));
    }
  }
  return "";
}

// Loaded once, before there are jobs: they share it, and cannot read files.
absl::Status LoadVadModel(std::string path) {
  if (path.empty()) {
    const char* const named = std::getenv("PARLEY_VAD_MODEL");
    path = named == nullptr ? "" : named;
  }
  if (path.empty()) return absl::OkStatus();
  PARLEY_ASSIGN_OR_RETURN(auto model, audio::SileroModel::Load(path));
  UseVadModel(std::move(model));
  return absl::OkStatus();
}

// Becomes the program; its end of the socket is descriptor 3 still.
int Execute(const std::string& command) {
  std::vector<std::string> words = Split(command, ' ');
  std::erase(words, "");
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  if (argv[0] != nullptr) execvp(argv[0], argv.data());
  fmt::print(stderr, "cannot execute {}: {}\n", command, std::strerror(errno));
  return kCannotExecute;
}

void Develop(AgentServerConfig& config) {
  config.common.dev = true;
  config.common.log_format = "text";
  config.common.drain = absl::Seconds(5);
  config.health_port = 0;
  config.load_threshold = 1;
  config.tools_allow_loopback = true;
}

absl::Status ApplyCommand(std::string_view command, AgentServerConfig& config) {
  if (command.empty() || command == "start") return absl::OkStatus();
  if (command == "dev") {
    const absl::Duration patient = config.common.drain;
    Develop(config);
    // Asked to stop by its successor: its calls may end. Who wants it gone asks twice.
    if (IsReloadingChild()) config.common.drain = patient;
    return absl::OkStatus();
  }
  if (command == "connect") {
    if (config.serves_configured || config.agent_names.empty()) {
      return InvalidArgument("`connect` is for programs with an agent name of their own");
    }
    Develop(config);
    // Under a name that nobody else serves, so that the job comes here.
    config.agent_names = {config.agent_names[0] + "-" + RandomHex(6)};
    return absl::OkStatus();
  }
  if (command == "console") {
    if (config.serves_configured || config.agent_names.empty()) {
      return InvalidArgument(
          "`console` is for programs with an agent name of their own; for agents of the registry "
          "there is `parley console AGENT`");
    }
    Develop(config);
    config.stt_address = config.tts_address = config.llm_address = "";  // it starts its own
    return absl::OkStatus();
  }
  return InvalidArgument(
      "unknown command \"{}\"; there are start (the default), dev, console and connect", command);
}

int Connect(supervise::ZygoteClient& zygote, const AgentServerConfig& config,
            service::Context& context, const std::string& room) {
  std::atomic<bool> failed{false};
  const auto go = [&] {
    const absl::Status status = RunInRoom(config, context, room);
    failed = !status.ok();
    if (failed) context.log().Error("cannot be in the room", {{"error", Message(status)}});
    context.RequestStop();
  };
  const int code = ServeAgents(zygote, config, context, [&] {
    if (!context.executor().Post(go)) context.RequestStop();
  });
  return failed ? 1 : code;
}

}  // namespace

AgentOptions ConfiguredAgents() {
  AgentOptions options;
  options.entrypoint = RunConfiguredAgent;
  options.network = Network::kNone;
  return options;
}

AgentServerConfig ConfigFor(const AgentOptions& options) {
  AgentServerConfig config;
  config.serves_configured = options.agent_name.empty();
  if (!config.serves_configured) config.agent_names = {options.agent_name};
  config.on_request = options.on_request;
  config.job_network = options.network == Network::kHost;
  return config;
}

absl::StatusOr<std::unique_ptr<supervise::ZygoteClient>> SplitProgram(AgentOptions options,
                                                                      std::string exec,
                                                                      std::string vad_model) {
  supervise::ZygoteOptions zygote;
  zygote.prewarm = [prewarm = options.prewarm, vad_model = std::move(vad_model)] {
    PARLEY_RETURN_IF_ERROR(LoadVadModel(vad_model));
    return prewarm ? prewarm() : absl::OkStatus();
  };
  zygote.executes = !exec.empty();
  zygote.run_job = [options = std::move(options), exec = std::move(exec)](int socket_fd) {
    return exec.empty() ? RunJob(socket_fd, options) : Execute(exec);
  };
  return supervise::Split(std::move(zygote));
}

void UseOneArena() { mallopt(M_ARENA_MAX, 1); }

int RunAgent(int argc, char** argv, AgentOptions options) {
  int exit_code = 0;
  if (HandledDeathReport(argc, argv, &exit_code)) return exit_code;
  if (argc > 1 && argv[1] == std::string_view("dev") && !IsReloadingChild()) {
    return RunReloading(argv);
  }
  AgentServerConfig config = ConfigFor(options);
  const std::string exec = FlagOf(argc, argv, "--exec");
  if (!exec.empty()) {
    config.executes = true;
    config.serves_configured = false;
    config.job_network = true;  // it must load itself
  }
  auto zygote = SplitProgram(std::move(options), exec, FlagOf(argc, argv, "--vad-model"));
  if (!zygote.ok()) return service::FailStart(kService, zygote.status());
  UseOneArena();
  service::BlockSignals();
  std::vector<const char*> arguments(argv, argv + argc);
  const std::string_view command = TakeCommand(arguments);
  if (absl::Status status = ApplyCommand(command, config); !status.ok()) {
    return service::FailStart(kService, status);
  }
  config::Table table("parley-agent-server",
                      "Runs agents: takes jobs from the broker, each in a process of its own");
  config.Bind(table);
  std::string room;
  if (command == "connect") table.Text("room", &room, "The room to go into");
  ConsoleConfig console;
  if (command == "console") console.Bind(table);
  const config::Table::Outcome outcome =
      table.Parse(static_cast<int>(arguments.size()), arguments.data());
  if (!outcome.status.ok()) return service::FailStart(kService, outcome.status);
  if (outcome.handled) return 0;
  auto context = service::Context::Create(kService, config.common);
  if (!context.ok()) return service::FailStart(kService, context.status());
  service::WatchSignals(**context);
  if (command == "console") return RunConsole(**zygote, config, **context, console);
  if (command != "connect") return ServeAgents(**zygote, config, **context);
  if (room.empty()) return service::FailStart(kService, InvalidArgument("connect needs --room"));
  return Connect(**zygote, config, **context, room);
}

}  // namespace parley::agent
