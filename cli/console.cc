// parley console AGENT: talk to an agent in the terminal; starts a cluster when none answers.
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <iostream>
#include <memory>
#include <vector>

#include "audio/wav.h"
#include "base/status.h"
#include "cluster.h"
#include "command.h"
#include "conversation.h"

namespace parley::cli {
namespace {

constexpr int kRateHz = 48'000;

struct ConsoleWish {
  std::string agent;
  std::vector<std::string> wav;
  ClusterOptions cluster;
};

// The split has left us in a process group of our own: ask for the terminal, or reading stops us.
void TakeTerminal() {
  if (!isatty(STDIN_FILENO)) return;
  sigset_t ttou;
  sigemptyset(&ttou);
  sigaddset(&ttou, SIGTTOU);
  pthread_sigmask(SIG_BLOCK, &ttou, nullptr);
  tcsetpgrp(STDIN_FILENO, getpgrp());
  pthread_sigmask(SIG_UNBLOCK, &ttou, nullptr);
}

absl::Status Talk(Conversation& call, const ConsoleWish& wish) {
  for (const std::string& path : wish.wav) {
    PARLEY_ASSIGN_OR_RETURN(std::vector<int16_t> samples, audio::ReadSpeech(path, kRateHz));
    call.Say(path, TrimEnd(std::move(samples)), kRateHz);
  }
  if (!wish.wav.empty()) return absl::OkStatus();
  if (isatty(STDIN_FILENO)) fmt::print("Type a line to say it; Ctrl-D hangs up.\n");
  for (std::string line; std::getline(std::cin, line);) {
    if (!line.empty()) call.Write(line);
  }
  return absl::OkStatus();
}

absl::Status Console(Command& command, ConsoleWish wish) {
  std::unique_ptr<Cluster> cluster;
  Api api = command.MakeApi();
  if (!api.Reachable()) {
    if (!command.server.empty())
      return Unavailable("no Parley at {}; start one with `parley dev`", api.server());
    if (command.zygote == nullptr) return Internal("the zygote is missing");
    fmt::print("No Parley at {}: starting one for this conversation\n", api.server());
    std::fflush(stdout);
    wish.cluster.log_level = "error";
    PARLEY_ASSIGN_OR_RETURN(cluster, Cluster::Start(wish.cluster, *command.zygote));
    PARLEY_RETURN_IF_ERROR(RegisterExamples(*cluster, wish.cluster.agents).status());
    command.server = cluster->url();
  }
  TakeTerminal();
  Api own = command.MakeApi();
  ConversationOptions options;
  options.agent = wish.agent;
  options.microphone = !wish.wav.empty();
  absl::Status status;
  {
    PARLEY_ASSIGN_OR_RETURN(auto call, Conversation::Open(own, options));
    status = Talk(*call, wish);
    call->HangUp();
    if (status.ok() && !call->agent_spoke()) status = Internal("the agent never spoke");
  }
  if (cluster) cluster->Stop();
  return status;
}

}  // namespace

void AddConsole(CLI::App& root, Command& command) {
  auto wish = std::make_shared<ConsoleWish>();
  CLI::App* console = AddCommand(root, command, "console", "Talk to an agent in the terminal",
                                 [&command, wish] { return Console(command, *wish); });
  console->add_option("AGENT", wish->agent, "Id of the agent")->required();
  console->add_option("--wav", wish->wav, "Speak from this PCM WAV file; repeatable")
      ->allow_extra_args(false);
  console->add_option("--agents", wish->cluster.agents,
                      "Definitions to register in a cluster of its own (files or folders)");
}

}  // namespace parley::cli
