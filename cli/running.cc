// parley workers list, parley rooms list, parley usage, parley status
#include <fmt/format.h>

#include "base/status.h"
#include "command.h"

namespace parley::cli {
namespace {

absl::Status Workers(const Command& command) {
  Api api = command.MakeApi();
  PARLEY_ASSIGN_OR_RETURN(const Json workers, api.List("/api/workers", "workers"));
  if (command.output.json) {
    PrintJson(workers);
    return absl::OkStatus();
  }
  Table table({"WORKER", "STATE", "POOL", "SLOTS", "LOAD", "HOST", "VERSION", "HEARTBEAT"});
  for (const Json& worker : workers) {
    if (command.output.quiet) fmt::print("{}\n", Cell(worker, "id"));
    table.Row({Cell(worker, "id"), Cell(worker, "state"), Cell(worker, "pool"),
               Cell(worker, "slotsUsed") + "/" + Cell(worker, "slots"),
               fmt::format("{:.2f}", worker.value("load", 0.0)), Cell(worker, "hostname"),
               Cell(worker, "version"), Cell(worker, "heartbeatAgeMs") + " ms"});
  }
  if (!command.output.quiet) table.Print();
  return absl::OkStatus();
}

absl::Status Rooms(const Command& command) {
  Api api = command.MakeApi();
  PARLEY_ASSIGN_OR_RETURN(const Json rooms, api.List("/api/rooms", "rooms"));
  if (command.output.json) {
    PrintJson(rooms);
    return absl::OkStatus();
  }
  Table table({"ROOM", "SID", "PEOPLE", "AGENTS", "MEDIA", "AGE"});
  for (const Json& room : rooms) {
    if (command.output.quiet) fmt::print("{}\n", Cell(room, "name"));
    table.Row({Cell(room, "name"), Cell(room, "sid"), Cell(room, "numParticipants"),
               Cell(room, "numAgents"), Cell(room, "mediaUrl"), Age(room, "createTime")});
  }
  if (!command.output.quiet) table.Print();
  return absl::OkStatus();
}

// As /api/usage has it: {"UNIT": …, "engines": {"ENGINE": {"UNIT": …}}}.
void ShowSpend(const Json& spend) {
  Table table({"ENGINE", "UNIT", "USED"});
  for (const auto& [engine, units] : spend["engines"].items()) {
    for (const auto& [unit, amount] : units.items())
      table.Row({engine, unit, std::to_string(amount.get<int64_t>())});
  }
  for (const auto& [unit, amount] : spend.items()) {
    if (unit != "engines") table.Row({"all remote", unit, std::to_string(amount.get<int64_t>())});
  }
  table.Print();
}

struct UsageWish {
  std::string project;
  std::string session;
};

absl::Status Usage(const Command& command, const UsageWish& wish) {
  Api api = command.MakeApi();
  PARLEY_ASSIGN_OR_RETURN(
      const Json usage,
      api.Get(fmt::format("/api/usage?{}{}{}",
                          wish.project.empty() ? "" : "project=" + http::UrlEncode(wish.project),
                          wish.project.empty() || wish.session.empty() ? "" : "&",
                          wish.session.empty() ? "" : "session=" + http::UrlEncode(wish.session))));
  if (command.output.json) {
    PrintJson(usage);
    return absl::OkStatus();
  }
  if (command.output.quiet) return absl::OkStatus();
  const bool of_session = !wish.session.empty();
  fmt::print("project {}, {}\n", Cell(usage, "project"),
             of_session ? "session " + wish.session : "today (UTC)");
  ShowSpend(usage[of_session ? "session" : "day"]);
  Table caps({"CAP", "GATEWAY", "USED", "OF"});
  for (const Json& cap : usage["caps"]) {
    caps.Row(
        {fmt::format("{}/{}/{}", Cell(cap, "project"), Cell(cap, "limit"), Cell(cap, "period")),
         Cell(cap, "gateway"), Cell(cap, "used"), Cell(cap, "most")});
  }
  if (!caps.empty()) caps.Print();
  for (const Json& gateway : usage["silentGateways"])
    fmt::print(stderr, "the {} gateway does not say its caps\n", gateway.get<std::string>());
  return absl::OkStatus();
}

int64_t Sum(const Json& objects, const char* field) {
  int64_t sum = 0;
  for (const Json& one : objects) sum += one.value(field, int64_t{0});
  return sum;
}

// One line per part: what answers, what does not; of rooms also who is in them.
absl::Status ShowStatus(const Command& command) {
  Api api = command.MakeApi();
  struct Part {
    const char* name;
    const char* path;
    const char* field;
  };
  static constexpr Part kParts[] = {{"agents", "/api/agents", "agents"},
                                    {"workers", "/api/workers", "workers"},
                                    {"dispatches", "/api/dispatches", "dispatches"},
                                    {"sessions", "/api/sessions", "sessions"},
                                    {"rooms", "/api/rooms", "rooms"}};
  PARLEY_RETURN_IF_ERROR(api.Send("GET", "/readyz", "", "").status());
  Json summary = {{"server", api.server()}};
  absl::Status first;
  Table table({"PART", "COUNT", ""});
  for (const Part& part : kParts) {
    const absl::StatusOr<Json> list = api.List(part.path, part.field);
    if (!list.ok() && first.ok()) first = Annotate(list.status(), part.name);
    summary[part.name] = list.ok() ? Json(list->size()) : Json(nullptr);
    table.Row({part.name, list.ok() ? std::to_string(list->size()) : "-",
               list.ok() ? "" : std::string(Message(list.status()))});
    if (std::string_view(part.name) != "rooms" || !list.ok()) continue;
    const int64_t people = Sum(*list, "numParticipants"), agents = Sum(*list, "numAgents");
    summary["people"] = people;
    summary["agentsInRooms"] = agents;
    table.Row({"people", std::to_string(people), "in rooms"});
    table.Row({"agents", std::to_string(agents), "in rooms"});
  }
  if (command.output.json) {
    PrintJson(summary);
  } else if (!command.output.quiet) {
    fmt::print("{} is ready\n", api.server());
    table.Print();
  }
  return first;
}

}  // namespace

void AddRunning(CLI::App& root, Command& command) {
  CLI::App& workers = *root.add_subcommand("workers", "Registered agent servers");
  AddCommand(workers, command, "list", "Agent servers with slots, load and heartbeat",
             [&command] { return Workers(command); });
  CLI::App& rooms = *root.add_subcommand("rooms", "Live rooms");
  AddCommand(rooms, command, "list", "Rooms with their participants",
             [&command] { return Rooms(command); });
  const auto wish = std::make_shared<UsageWish>();
  CLI::App* usage =
      AddCommand(root, command, "usage", "What a project used of engines today, and its caps",
                 [&command, wish] { return Usage(command, *wish); });
  usage->add_option("--session", wish->session, "In this session instead (AS_…)");
  usage->add_option("--project", wish->project, "Default: the key's");
  AddCommand(root, command, "status", "Does the cluster answer, and what runs in it",
             [&command] { return ShowStatus(command); });
}

}  // namespace parley::cli
