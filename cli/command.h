#pragma once
// How commands are added: each noun has a file of its own with one Add function below. A command
// stores what to do in `Command::run`; main runs it once the line is parsed.
#include <absl/status/status.h>

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>

#include "api.h"
#include "supervise/zygote.h"
#include "terminal.h"

namespace parley::cli {

// How to get in where services speak TLS: PEM files, by the names that services give them.
struct TlsWish {
  std::string server_authorities;  // of an https:// server; "" = this machine's
  std::string authorities;         // of gRPC; "" = plain
  std::string certificate;         // shown to services that ask for one
  std::string key;
  std::string server_name;
};

struct Command {
  Output output;
  std::string server;  // as given; ServerUrl() settles it
  TlsWish tls;
  std::function<absl::Status()> run;
  std::unique_ptr<supervise::ZygoteClient> zygote;  // of commands that run agents; else null

  Api MakeApi() const;
  // Before the first call over gRPC, and not where a cluster runs in this process.
  //   InvalidArgument: the files
  absl::Status UseTls() const;
};

// A subcommand whose work is `run`.
template <typename Run>
CLI::App* AddCommand(CLI::App& parent, Command& command, const std::string& name,
                     const std::string& help, Run run) {
  CLI::App* app = parent.add_subcommand(name, help);
  app->callback([&command, run = std::move(run)] { command.run = run; });
  return app;
}

void AddAgents(CLI::App& root, Command& command);
void AddCall(CLI::App& root, Command& command);
void AddConsole(CLI::App& root, Command& command);
void AddDeployments(CLI::App& agents, Command& command);  // agents versions, deploy, …
void AddDev(CLI::App& root, Command& command);
void AddDispatch(CLI::App& root, Command& command);  // dispatch and jobs
void AddRunning(CLI::App& root, Command& command);   // workers, rooms, status
void AddSessions(CLI::App& root, Command& command);
void AddSpeech(CLI::App& root, Command& command);  // stt, tts
void AddTls(CLI::App& root, TlsWish& wish);
void AddTest(CLI::App& root, Command& command);  // test, replay
void AddToken(CLI::App& root, Command& command);

}  // namespace parley::cli
