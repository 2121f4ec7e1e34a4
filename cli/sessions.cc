// parley sessions list|get|delete
#include <fmt/format.h>

#include <memory>

#include "base/status.h"
#include "command.h"

namespace parley::cli {
namespace {

absl::Status List(const Command& command, bool ended) {
  Api api = command.MakeApi();
  PARLEY_ASSIGN_OR_RETURN(const Json sessions,
                          api.List(fmt::format("/api/sessions?ended={}", ended), "sessions"));
  if (command.output.json) {
    PrintJson(sessions);
    return absl::OkStatus();
  }
  Table table({"SESSION", "STATE", "AGENT", "ROOM", "TURNS", "AGE"});
  for (const Json& session : sessions) {
    if (command.output.quiet) fmt::print("{}\n", Cell(session, "id"));
    table.Row({Cell(session, "id"), Cell(session, "state"), Cell(session, "agentName"),
               Cell(session, "room"), Cell(session.value("usage", Json::object()), "turns"),
               Age(session, "createTime")});
  }
  if (!command.output.quiet) table.Print();
  return absl::OkStatus();
}

absl::Status Get(const Command& command, const std::string& id) {
  Api api = command.MakeApi();
  PARLEY_ASSIGN_OR_RETURN(const Json session, api.Get("/api/sessions/" + http::UrlEncode(id)));
  PrintJson(session);
  return absl::OkStatus();
}

absl::Status Delete(const Command& command, const std::string& id) {
  Api api = command.MakeApi();
  PARLEY_ASSIGN_OR_RETURN(const Json ignored, api.Delete("/api/sessions/" + http::UrlEncode(id)));
  if (!command.output.quiet && !command.output.json)
    fmt::print("{} is over and its record erased\n", id);
  return absl::OkStatus();
}

}  // namespace

void AddSessions(CLI::App& root, Command& command) {
  CLI::App& sessions = *root.add_subcommand("sessions", "Conversations, running and past");
  auto id = std::make_shared<std::string>();
  auto ended = std::make_shared<bool>(false);
  AddCommand(sessions, command, "list", "Sessions, newest first", [&command, ended] {
    return List(command, *ended);
  })->add_flag("--ended", *ended, "Also those that have ended");
  AddCommand(sessions, command, "get", "State, jobs, timings, usage, transcript if kept, as JSON",
             [&command, id] { return Get(command, *id); })
      ->add_option("ID", *id, "AS_…")
      ->required();
  AddCommand(sessions, command, "delete", "End a session and erase what is kept of it",
             [&command, id] { return Delete(command, *id); })
      ->add_option("ID", *id, "AS_…")
      ->required();
}

}  // namespace parley::cli
