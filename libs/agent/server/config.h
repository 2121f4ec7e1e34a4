#pragma once
#include <absl/time/time.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "agent/agent.h"
#include "config/table.h"
#include "service/service.h"

namespace parley::agent {

// Settings of an agent server: of the stock one and of every program built on the SDK.
struct AgentServerConfig {
  AgentServerConfig() { common.drain = absl::Hours(1); }

  service::CommonConfig common;  // its gRPC and admin ports are not used: see health_port

  std::string broker_address = "127.0.0.1:7100";
  std::string rooms_address = "127.0.0.1:7105";
  std::string stt_address = "127.0.0.1:7102";
  std::string tts_address = "127.0.0.1:7103";
  std::string llm_address = "127.0.0.1:7104";
  int health_port = 8081;  // /, /worker, /metrics; 0 = any free one (printed)
  // grpc.health.v1 (services "" and "ready") and reflection; -1 = health_port + 1000 (any free one,
  // printed, when that is 0).
  int health_grpc_port = -1;

  // What it serves. A program sets `agent_names` before Bind(); the stock one sets
  // `serves_configured`.
  bool serves_configured = false;
  std::vector<std::string> agent_names;
  std::string pool;  // "" = the agent name when exactly one is served, else "default"
  std::string deployment;
  std::string region;
  std::vector<std::string> labels;  // "key=value"
  std::string version;              // "" = this build's

  int slots = 0;                            // 0 = 50 for each core
  int warm = -1;                            // job processes forked ahead; -1 = by slots, 2 to 4
  int64_t job_memory = int64_t{512} << 20;  // of one job; a definition may ask for less
  absl::Duration job_cpu_time = absl::ZeroDuration();  // of one job; 0 = no limit
  int job_open_files = 256;
  absl::Duration job_max_duration = absl::ZeroDuration();  // of a job; 0 = no limit
  absl::Duration busy_timeout =
      absl::Minutes(1);     // a processor to itself for so long: killed; 0 = never
  std::string exec;         // --exec, as given: read before everything else, see run_agent.cc
  bool executes = false;    // jobs are another program, which run_job executes
  bool job_network = true;  // false: jobs get no sockets at all
  absl::Duration start_timeout = absl::Seconds(10);  // assignment → entrypoint
  absl::Duration ping_interval = absl::Milliseconds(2500);
  absl::Duration hang_timeout = absl::Seconds(15);  // no answer to pings: HUNG
  absl::Duration stop_grace = absl::Seconds(10);    // told to end → killed
  std::string job_cgroups = "auto";                 // or "off", or a folder; supervise/cgroups.h
  // Past the drain's deadline: so long without a job handed over, then the rest is told to end.
  absl::Duration hand_over_window = absl::Seconds(20);
  double load_threshold = 0.9;    // over it: no new jobs, until it falls
  std::string audit_log;          // file; "" = none. See audit_log.h
  std::string logs_folder;        // of jobs' lines; "" = a temporary one
  std::string recordings_folder;  // of calls that ask to be recorded; "" = none is
  int64_t recordings_max_size = int64_t{10} << 30;  // of all of them; then nothing more is kept
  std::string vad_model;              // as given: read before everything else, see run_agent.cc
  std::string mcp_servers;            // file; "" = no programs, see registry/mcp_programs.h
  bool tools_allow_loopback = false;  // HTTP tools may call this machine
  std::function<JobAnswer(const JobInfo&)> on_request;  // AgentOptions'; may be empty
  // True where broker and agent server are one process (parley dev): nobody is left to tell.
  bool no_death_notice = false;

  void Bind(config::Table& table);
  // Resolved values.
  int EffectiveSlots() const;
  int EffectiveWarm() const;
  int EffectiveHealthGrpcPort() const;
  std::string EffectivePool() const;
  std::string EffectiveVersion() const;
  absl::StatusOr<std::map<std::string, std::string>> LabelMap() const;
};

}  // namespace parley::agent
