// parley-chaos: a cluster of real processes under load while a random one is killed every few
// seconds; at its end parley-checker decides from the logs what was lost and what was doubled.
// scripts/chaos builds and runs it. The last line and the exit code say the same.
#include <fmt/format.h>
#include <stdlib.h>
#include <sys/wait.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <fstream>
#include <map>
#include <thread>

#include "base/clock.h"
#include "base/ids.h"
#include "base/status.h"
#include "base/strings.h"
#include "fleet.h"
#include "load.h"

namespace parley::chaos {
namespace {

struct Options {
  unsigned seed = 1;
  int dispatches = 2000;
  double seconds = 300;
  double kill_every = 2;
  double settle = 180;  // after the last kill, for everything to end
  bool keep = false;
  FleetOptions fleet;
};

int64_t NowUs() { return Clock::Real().MonotonicMicros(); }

// Whom the next kill meets. A node's jobs are missed only after a lease of 12 s: a run that is not
// much longer spares them.
Fleet::Victim Draw(std::minstd_rand& random, bool nodes) {
  using Victim = Fleet::Victim;
  static const std::vector<Victim> all = {
      Victim::kRedis,       Victim::kRedis,      Victim::kBroker, Victim::kBroker,
      Victim::kAgentServer, Victim::kJob,        Victim::kJob,    Victim::kJob,
      Victim::kRoomServer,  Victim::kRoomServer, Victim::kZygote, Victim::kAgentServer,
      Victim::kNode};
  const size_t last = all.size() - (nodes ? 1 : 2);
  return all[std::uniform_int_distribution<size_t>(0, last)(random)];
}

using Kills = std::map<Fleet::Victim, int>;
int Sum(const Kills& kills) {
  int sum = 0;
  for (const auto& [victim, count] : kills) sum += count;
  return sum;
}
std::string Text(const Kills& kills) {
  std::string text;
  for (const auto& [victim, count] : kills) {
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, Fleet::Name(victim));
  }
  return text;
}

absl::Status KillAndRevive(const Options& options, Fleet& fleet, Load& load, Kills& kills) {
  std::minstd_rand random(options.seed);
  const int64_t begin_us = NowUs();
  const auto end_us = begin_us + static_cast<int64_t>(options.seconds * 1e6);
  const auto every_us = static_cast<int64_t>(options.kill_every * 1e6);
  int64_t next_kill_us = begin_us + every_us, next_line_us = begin_us + 10'000'000;
  while (NowUs() < end_us || !load.done()) {
    PARLEY_RETURN_IF_ERROR(fleet.Revive());
    if (NowUs() >= next_kill_us && NowUs() < end_us) {
      next_kill_us += every_us;
      for (int tries = 0; tries < 20; ++tries) {  // some may be dead already
        const Fleet::Victim victim = Draw(random, options.seconds >= 60);
        if (!fleet.Kill(victim, random)) continue;
        ++kills[victim];
        break;
      }
    }
    if (NowUs() >= next_line_us) {
      next_line_us += 10'000'000;
      fmt::print("  {:4} s: {} acknowledged, {} kills ({})\n", (NowUs() - begin_us) / 1'000'000,
                 load.acked(), Sum(kills), Text(kills));
      std::fflush(stdout);
    }
    if (NowUs() > end_us + 90'000'000) return DeadlineExceeded("the clients are not done");
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return absl::OkStatus();
}

// With nobody killed any more everything must end by itself.
absl::Status Settle(const Options& options, Fleet& fleet, Load& load) {
  PARLEY_RETURN_IF_ERROR(fleet.ReviveAll());
  const auto until_us = NowUs() + static_cast<int64_t>(options.settle * 1e6);
  int64_t next_line_us = NowUs() + 2'000'000;
  while (true) {
    const int open = load.CountOpen();
    if (open == 0) break;
    if (NowUs() > until_us) {
      fmt::print("  {} dispatches have not ended {} s after the last kill\n", open, options.settle);
      break;  // the checker names them
    }
    if (NowUs() >= next_line_us) {
      next_line_us += 10'000'000;
      fmt::print("  {} dispatches have yet to end\n", open);
      std::fflush(stdout);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  load.Stop();
  return fleet.StopAgentServers();
}

std::string Quoted(const std::string& value) {
  std::string text = "\"";
  for (const char c : value) {
    if (c == '"' || c == '\\') text += '\\';
    text += c;
  }
  return text + '"';
}

// The streams of events straight out of Redis, as `parley dispatch history --json` prints them. An
// event is one field; its parts are lines, the time first.
absl::Status DumpEvents(Fleet& fleet, const std::string& path) {
  static constexpr const char* kNames[] = {"",      "type",     "project",      "dispatchId",
                                           "jobId", "workerId", "room",         "agentName",
                                           "state", "reason",   "fencingToken", "attempt"};
  redis::Config config;
  config.address = fleet.redis().address();
  config.command_timeout = absl::Seconds(10);
  redis::Pool pool(config, log::Logger());
  std::ofstream out(path);
  PARLEY_ASSIGN_OR_RETURN(const redis::Reply keys, pool.Command({"KEYS", "parley:{*}:events"}));
  for (const redis::Reply& key : keys.elements) {
    const size_t begin = key.text.find('{') + 1;
    const std::string pool_name = key.text.substr(begin, key.text.find('}') - begin);
    if (pool_name.starts_with("%01")) continue;  // events of rooms, not of a pool
    PARLEY_ASSIGN_OR_RETURN(const redis::Reply entries,
                            pool.Command({"XRANGE", key.text, "-", "+"}));
    for (const redis::Reply& entry : entries.elements) {
      std::string line =
          fmt::format(R"({{"position":{},"pool":"{}")", Quoted(entry.elements[0].text), pool_name);
      const std::vector<std::string> parts = Split(entry.elements[1].elements.at(1).text, '\n');
      if (parts.size() != std::size(kNames)) {
        return Internal("an event of {} parts: {}", parts.size(), entry.elements[0].text);
      }
      const absl::Time time = absl::FromUnixMillis(std::strtoll(parts[0].c_str(), nullptr, 10));
      line += fmt::format(R"(,"time":"{}")",
                          absl::FormatTime(absl::RFC3339_full, time, absl::UTCTimeZone()));
      for (size_t i = 1; i < parts.size(); ++i) {
        line += fmt::format(R"(,"{}":{})", kNames[i], Quoted(parts[i]));
      }
      out << line << "}\n";
    }
  }
  out.close();
  return out ? absl::OkStatus() : Internal("{} could not be written", path);
}

// Runs parley-checker on the evidence. Its last line says what it found.
struct Judgement {
  int exit_code = 2;
  int dispatches = 0, lost = 0, doubled = 0, restarts = 0, violations = 0;
};
absl::StatusOr<Judgement> Judge(const Options& options, const Fleet& fleet,
                                const std::string& clients, const std::string& events) {
  std::string command =
      fmt::format("'{}/parley-checker' --one-queue --cap default={} --clients '{}' --events '{}'",
                  options.fleet.bin_dir, options.fleet.max_jobs, clients, events);
  command += " --workers";
  for (const std::string& path : fleet.WorkerLogs()) command += " '" + path + "'";
  command += " --rooms";
  for (const std::string& path : fleet.RoomLogs()) command += " '" + path + "'";
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return Internal("the checker cannot be started");
  std::string last;
  char line[4096];
  while (std::fgets(line, sizeof line, pipe) != nullptr) {
    fmt::print("  {}", line);
    last = line;
  }
  const int status = pclose(pipe);
  Judgement found;
  found.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 2;
  if (std::sscanf(last.c_str(), "%d dispatches, %d lost, %d doubled, %d restarts, %d violations",
                  &found.dispatches, &found.lost, &found.doubled, &found.restarts,
                  &found.violations) != 5) {
    return Internal("the checker did not come to its end");
  }
  return found;
}

absl::StatusOr<bool> Run(Options& options) {
  std::string folder = std::filesystem::temp_directory_path() / "parley-chaos-XXXXXX";
  if (mkdtemp(folder.data()) == nullptr) return Internal("no folder for the run's logs");
  options.fleet.work_dir = folder;
  fmt::print(
      "seed {}: {} dispatches in {:.0f} s, {} brokers, {} room servers, {} agent servers; a "
      "kill every {:.1f} s; logs in {}\n",
      options.seed, options.dispatches, options.seconds, options.fleet.brokers,
      options.fleet.room_servers, options.fleet.agent_servers, options.kill_every, folder);
  std::fflush(stdout);
  PARLEY_ASSIGN_OR_RETURN(auto fleet, Fleet::Start(options.fleet));
  const std::string clients = folder + "/clients.evidence", events = folder + "/events.evidence";
  LoadOptions load_options;
  load_options.brokers = fleet->brokers();
  load_options.evidence = clients;
  load_options.seed = options.seed;
  load_options.dispatches = options.dispatches;
  load_options.seconds = options.seconds;
  Load load(load_options);
  PARLEY_RETURN_IF_ERROR(load.Start());
  Kills kills;
  PARLEY_RETURN_IF_ERROR(KillAndRevive(options, *fleet, load, kills));
  PARLEY_RETURN_IF_ERROR(Settle(options, *fleet, load));
  PARLEY_RETURN_IF_ERROR(DumpEvents(*fleet, events));
  PARLEY_ASSIGN_OR_RETURN(const Judgement found, Judge(options, *fleet, clients, events));
  fleet.reset();
  const int killed = Sum(kills);
  const bool good = found.exit_code == 0 && found.dispatches > 0 && killed > 0;
  if (good && !options.keep) {
    std::filesystem::remove_all(folder);
  } else {
    fmt::print("the logs are kept in {}\n", folder);
  }
  fmt::print(
      "{} dispatches, {} lost, {} doubled, {} kills, {} restarts, {} hand-overs begun, {} "
      "violations "
      "({})\n",
      found.dispatches, found.lost, found.doubled, killed, found.restarts, load.migrated(),
      found.violations, Text(kills));
  return good;
}

}  // namespace
}  // namespace parley::chaos

int main(int argc, char** argv) {
  parley::chaos::Options options;
  options.fleet.bin_dir = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  CLI::App app("Kills processes of a working cluster and shows that nothing is lost or doubled.");
  app.add_option("--seed", options.seed, "Of the kills and of what is asked for");
  app.add_option("--dispatches", options.dispatches, "How many")->check(CLI::Range(0, 1'000'000));
  app.add_option("--seconds", options.seconds, "Over how long they are spread")
      ->check(CLI::Range(1.0, 86400.0));
  app.add_option("--kill-every", options.kill_every, "Seconds between kills")
      ->check(CLI::Range(0.1, 3600.0));
  app.add_option("--settle", options.settle, "Seconds for everything to end afterwards");
  app.add_option("--brokers", options.fleet.brokers)->check(CLI::Range(1, 9));
  app.add_option("--room-servers", options.fleet.room_servers)->check(CLI::Range(1, 9));
  app.add_option("--agent-servers", options.fleet.agent_servers)->check(CLI::Range(1, 9));
  app.add_option("--max-jobs", options.fleet.max_jobs, "Cap of the pool: more wait")
      ->check(CLI::Range(1, 1'000'000));
  app.add_flag("--keep", options.keep, "Keep the logs of a good run, too");
  CLI11_PARSE(app, argc, argv);
  const absl::StatusOr<bool> good = parley::chaos::Run(options);
  if (!good.ok()) fmt::print(stderr, "chaos: {}\n", parley::Message(good.status()));
  return good.ok() && *good ? 0 : 1;
}
