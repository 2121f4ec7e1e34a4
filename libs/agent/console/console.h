#pragma once
// `PROGRAM console`: a conversation with the program's agent in the terminal, without a cluster.
// The job process is the one that a call would get; the console plays the room, and starts gateways
// of its own unless it is told where some are.
#include <string>
#include <vector>

#include "agent/server/config.h"
#include "config/table.h"
#include "service/service.h"
#include "supervise/zygote.h"

namespace parley::agent {

struct ConsoleConfig {
  std::vector<std::string> wav;  // said one after the other, each once the agent is silent
  bool mic = false;
  std::string microphone = "default";  // ALSA devices
  std::string loudspeaker = "default";
  std::string record;    // WAV file; empty: none
  std::string metadata;  // of the job

  void Bind(config::Table& table);
  // Otherwise the conversation is written.
  bool sound() const { return mic || !wav.empty(); }
};

// Returns when the conversation is over: standard input ends, the last file was answered, the agent
// ends it, or a signal. The exit code: 0 after an orderly end in which the agent said something.
int RunConsole(supervise::ZygoteClient& zygote, const AgentServerConfig& config,
               service::Context& context, const ConsoleConfig& console);

}  // namespace parley::agent
