// parley-checker: reads the logs of a run and decides whether dispatching kept its promises.
//
//   parley-checker --clients FILE… --workers FILE… --rooms FILE… --events FILE…
//
// --events is what `parley dispatch history --json` prints. Exit code: 0 all kept, 1 something
// broken, 2 the logs cannot be read or prove nothing.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "base/status.h"
#include "checker/checks.h"

namespace {

using namespace parley::checker;  // NOLINT: the program is about it

constexpr size_t kShown = 50;

int Fail(const absl::Status& status) {
  fmt::print(stderr, "parley-checker: {}\n", parley::Message(status));
  return 2;
}

absl::StatusOr<Options> ReadCaps(const std::vector<std::string>& caps) {
  Options options;
  for (const std::string& cap : caps) {
    const size_t equals = cap.find('=');
    int limit = 0;
    if (equals == cap.npos || !CLI::detail::lexical_cast(cap.substr(equals + 1), limit)) {
      return parley::InvalidArgument("--cap takes PROJECT=JOBS, not \"{}\"", cap);
    }
    options.caps[cap.substr(0, equals)] = limit;
  }
  return options;
}

void Print(const Verdict& verdict) {
  for (size_t i = 0; i < verdict.violations.size() && i < kShown; ++i) {
    fmt::print("{}: {}\n", verdict.violations[i].invariant, verdict.violations[i].text);
  }
  if (verdict.violations.size() > kShown) {
    fmt::print("… and {} more\n", verdict.violations.size() - kShown);
  }
  std::string ends;
  for (const auto& [end, jobs] : verdict.ends) ends += fmt::format(", {} {}", jobs, end);
  fmt::print("{} jobs{}; {} leases, {} processes, {} admissions, {} refused at the door\n",
             verdict.jobs, ends, verdict.leases, verdict.started, verdict.admitted,
             verdict.refused);
  fmt::print("{} dispatches, {} lost, {} doubled, {} restarts, {} violations\n", verdict.acked,
             verdict.lost, verdict.doubled, verdict.restarts, verdict.violations.size());
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Decides from logs alone whether dispatching kept its promises.");
  std::map<Source, std::vector<std::string>> files;
  std::vector<std::string> caps;
  app.add_option("--clients", files[Source::kClients], "What clients were promised")->required();
  app.add_option("--workers", files[Source::kWorkers], "worker.audit_log of the agent servers")
      ->required();
  app.add_option("--rooms", files[Source::kRooms], "room.admission_log of the room servers")
      ->required();
  app.add_option("--events", files[Source::kEvents], "parley dispatch history --json")->required();
  app.add_option("--cap", caps, "PROJECT=JOBS that may be leased at once");
  bool one_queue = false;
  app.add_flag("--one-queue", one_queue,
               "All dispatches for an agent are alike: first come, first served");
  CLI11_PARSE(app, argc, argv);

  absl::StatusOr<Options> options = ReadCaps(caps);
  if (!options.ok()) return Fail(options.status());
  options->one_queue = one_queue;
  History history;
  for (const auto& [source, paths] : files) {
    for (const std::string& path : paths) {
      if (absl::Status status = AddFile(source, path, history); !status.ok()) return Fail(status);
    }
  }
  const Verdict verdict = Check(history, *options);
  Print(verdict);
  if (verdict.acked == 0 || verdict.started == 0 || verdict.admitted == 0) {
    return Fail(parley::FailedPrecondition("no dispatch was acknowledged, run and admitted"));
  }
  return verdict.violations.empty() ? 0 : 1;
}
