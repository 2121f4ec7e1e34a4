#include "agent/server/config.h"

#include <algorithm>
#include <thread>

#include "base/status.h"

namespace parley::agent {
namespace {
constexpr int kSlotsPerCore = 50;
constexpr int kGrpcAboveHealth = 1000;
}  // namespace

void AgentServerConfig::Bind(config::Table& table) {
  common.BindProcess(table);
  table.Text("dispatch.address", &broker_address, "Dispatch broker, host:port");
  table.Text("rooms.address", &rooms_address, "Room server for rooms whose place is not known yet");
  table.Text("stt.address", &stt_address, "Speech-to-text gateway, host:port");
  table.Text("tts.address", &tts_address, "Text-to-speech gateway, host:port");
  table.Text("llm.address", &llm_address, "Language model gateway, host:port");
  table.Int("health_port", &health_port, 0, 65535,
            "Port of /, /worker and /metrics; 0 picks a free one and prints it");
  table.Int("health_grpc_port", &health_grpc_port, -1, 65535,
            "Port of grpc.health.v1 and reflection; -1 is the health port + 1000");
  table.Text(
      "pool", &pool,
      "Pool to serve; by default the agent name when there is exactly one, else \"default\"");
  if (!serves_configured) {
    table.List("agent_names", &agent_names, "Agent names to serve");
    table.AlsoFromEnv("LIVEKIT_AGENT_NAME");
  }
  table.Text("exec", &exec,
             "Program that each job becomes, with its arguments; a flag only. It speaks "
             "parley.job.v1 on descriptor 3");
  table.Text("deployment", &deployment, "Deployment that dispatches may select");
  table.AlsoFromEnv("LIVEKIT_AGENT_DEPLOYMENT");
  table.Text("worker.region", &region, "Region that dispatches may prefer");
  table.List("labels", &labels, "Labels that dispatches may select, as key=value");
  table.Int("slots", &slots, 0, 100'000, "Jobs at the same time; 0 is 50 for each core");
  table.Int("warm", &warm, -1, 1000,
            "Job processes started ahead of their jobs; -1 is one for 50 slots, 2 to 4");
  table.Size("job.memory", &job_memory, 16 << 20, int64_t{1} << 40, "Memory of one job process");
  table.Text("job.cgroups", &job_cgroups,
             "Control groups (v2) of jobs: auto (below the program's own, where that was delegated "
             "to it), off, or the folder of a group that this program may use");
  table.Duration("job.cpu_time", &job_cpu_time, absl::ZeroDuration(), absl::Hours(24 * 7),
                 "CPU time of one job, in whole seconds; 0 is no limit");
  table.Duration("job.max_duration", &job_max_duration, absl::ZeroDuration(), absl::Hours(24 * 7),
                 "How long a job may run; 0 is no limit. Definitions may set less");
  table.Duration("job.busy_timeout", &busy_timeout, absl::ZeroDuration(), absl::Hours(24),
                 "A job that keeps a whole processor busy for so long is killed; 0 is never");
  table.Int("job.open_files", &job_open_files, 16, 1'000'000, "Open files of one job process");
  table.Duration("job.start_timeout", &start_timeout, absl::Milliseconds(100), absl::Minutes(10),
                 "How long a job may take until its entrypoint runs");
  table.Duration("job.ping_interval", &ping_interval, absl::Milliseconds(50), absl::Minutes(1),
                 "How often a job is asked whether it is alive");
  table.Duration("job.hang_timeout", &hang_timeout, absl::Milliseconds(100), absl::Minutes(10),
                 "A job that has not answered for so long is killed");
  table.Duration("job.stop_grace", &stop_grace, absl::ZeroDuration(), absl::Minutes(30),
                 "How long a job may take to end when told to");
  table.Duration("worker.hand_over_window", &hand_over_window, absl::ZeroDuration(),
                 absl::Minutes(10),
                 "Past the drain's deadline: how long nobody may take a job over before what is "
                 "left is told to end; 0 hands nothing over");
  table.Double("load_threshold", &load_threshold, 0.01, 1,
               "CPU load above which no job is taken; the broker keeps to it, too, and shows it");
  table.Text("worker.audit_log", &audit_log,
             "File to which a line is appended for each attempt started and ended");
  table.Text("logs.folder", &logs_folder,
             "Folder for the newest lines of each job; by default a temporary one");
  table.Text("recordings.folder", &recordings_folder,
             "Folder for recordings of calls whose definition asks for one (session.record, "
             "session.record_sound); by default none is kept");
  table.Size("recordings.max_size", &recordings_max_size, 1 << 20, int64_t{1} << 50,
             "All recordings together; what would be more is not kept");
  table.Text("vad.model", &vad_model,
             "File with the neural voice detector that definitions may choose: "
             "silero_vad_16k_op15.onnx of the Python package silero-vad; a flag or the environment "
             "variable PARLEY_VAD_MODEL only");
  table.Text("mcp.servers", &mcp_servers,
             "File (YAML or JSON) with the MCP servers on this host that definitions may name: "
             "NAME: {command: [PROGRAM, ARGUMENT, ...], environment: {...}}");
  table.Bool("tools.allow_loopback", &tools_allow_loopback,
             "HTTP tools of definitions may call this machine");
}

int AgentServerConfig::EffectiveSlots() const {
  if (slots > 0) return slots;
  return kSlotsPerCore * static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
}

int AgentServerConfig::EffectiveWarm() const {
  return warm >= 0 ? warm : std::clamp(EffectiveSlots() / 50, 2, 4);
}

int AgentServerConfig::EffectiveHealthGrpcPort() const {
  if (health_grpc_port >= 0) return health_grpc_port;
  return health_port == 0 ? 0 : health_port + kGrpcAboveHealth;
}

std::string AgentServerConfig::EffectivePool() const {
  if (!pool.empty()) return pool;
  if (!serves_configured && agent_names.size() == 1 && !agent_names[0].empty()) {
    return agent_names[0];
  }
  return "default";
}

std::string AgentServerConfig::EffectiveVersion() const {
  return version.empty() ? PARLEY_VERSION : version;
}

absl::StatusOr<std::map<std::string, std::string>> AgentServerConfig::LabelMap() const {
  std::map<std::string, std::string> result;
  for (const std::string& label : labels) {
    const size_t equals = label.find('=');
    if (equals == 0 || equals == std::string::npos) {
      return InvalidArgument("label \"{}\" is not of the form key=value", label);
    }
    result[label.substr(0, equals)] = label.substr(equals + 1);
  }
  return result;
}

}  // namespace parley::agent
