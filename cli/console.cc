// parley console AGENT: talk to an agent in the terminal; starts a cluster when none answers.
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "audio/wav.h"
#include "base/status.h"
#include "cluster.h"
#include "command.h"
#include "conversation.h"
#include "signals.h"
#include "supervise/terminal.h"

namespace parley::cli {
namespace {

constexpr int kRateHz = 48'000;

struct ConsoleWish {
  std::string agent;
  std::vector<std::string> wav;
  ClusterOptions cluster;
};

// The next line of standard input; none at its end, or once `stop` is set.
std::optional<std::string> ReadLine(std::string& buffer, const std::atomic<bool>& stop) {
  while (true) {
    if (const size_t end = buffer.find('\n'); end != std::string::npos) {
      std::string line = buffer.substr(0, end);
      buffer.erase(0, end + 1);
      return line;
    }
    if (stop.load()) return std::nullopt;
    pollfd input{STDIN_FILENO, POLLIN, 0};
    if (poll(&input, 1, 100) <= 0) continue;
    char piece[4096];
    const ssize_t got = read(STDIN_FILENO, piece, sizeof piece);
    if (got > 0) {
      buffer.append(piece, static_cast<size_t>(got));
    } else if (buffer.empty()) {
      return std::nullopt;
    } else {
      return std::exchange(buffer, std::string());
    }
  }
}

absl::Status Talk(Conversation& call, const ConsoleWish& wish, const std::atomic<bool>& stop) {
  for (const std::string& path : wish.wav) {
    PARLEY_ASSIGN_OR_RETURN(std::vector<int16_t> samples, audio::ReadSpeech(path, kRateHz));
    call.Say(path, TrimEnd(std::move(samples)), kRateHz);
  }
  if (!wish.wav.empty()) return absl::OkStatus();
  if (isatty(STDIN_FILENO)) fmt::print("Type a line to say it; Ctrl-D hangs up.\n");
  std::string buffer;
  while (const std::optional<std::string> line = ReadLine(buffer, stop)) {
    if (!line->empty()) call.Write(*line);
  }
  return absl::OkStatus();
}

absl::Status Console(Command& command, ConsoleWish wish) {
  if (command.zygote == nullptr) return Internal("the zygote is missing");
  const std::atomic<bool>& stop = WatchSignals();
  std::unique_ptr<Cluster> cluster;
  Api api = command.MakeApi();
  if (!api.Reachable()) {
    if (!command.server.empty())
      return Unavailable("no Parley at {}; start one with `parley dev`", api.server());
    fmt::print("No Parley at {}: starting one for this conversation\n", api.server());
    std::fflush(stdout);
    wish.cluster.log_level = "error";
    PARLEY_ASSIGN_OR_RETURN(cluster, Cluster::Start(wish.cluster, *command.zygote));
    PARLEY_RETURN_IF_ERROR(RegisterExamples(*cluster, wish.cluster.agents).status());
    command.server = cluster->url();
  } else {
    PARLEY_RETURN_IF_ERROR(command.UseTls());
  }
  supervise::TakeTerminal();
  Api own = command.MakeApi();
  ConversationOptions options;
  options.agent = wish.agent;
  options.microphone = !wish.wav.empty();
  absl::Status status;
  {
    PARLEY_ASSIGN_OR_RETURN(auto call, Conversation::Open(own, options));
    status = Talk(*call, wish, stop);
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
