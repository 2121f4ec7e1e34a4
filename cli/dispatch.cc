// parley dispatch create|list|get|delete|watch|history, parley jobs list|get|logs|delete|migrate
#include <absl/time/clock.h>
#include <fmt/format.h>

#include <memory>

#include "base/status.h"
#include "base/strings.h"
#include "command.h"

namespace parley::cli {
namespace {

struct NewDispatch {
  std::string room;
  std::string agent;
  std::string metadata;
  std::string policy = "ON_FAILURE";
  std::string wait;  // queue deadline
  std::string key;
  int priority = 5;
  std::string type = "ROOM";
  std::string identity;
  bool while_present = false;
  bool unique = false;
  std::string deployment;
  std::string region;
  std::vector<std::string> labels;  // key=value
  std::string delay;                // not before
};

absl::Status AddPlace(const NewDispatch& wish, Json& body) {
  body["jobType"] = wish.type;
  if (!wish.identity.empty()) body["participantIdentity"] = wish.identity;
  if (wish.while_present) body["whilePresent"] = true;
  if (wish.unique) body["uniqueInRoom"] = true;
  if (!wish.deployment.empty()) body["deployment"] = wish.deployment;
  if (!wish.region.empty()) body["preferredRegion"] = wish.region;
  for (const std::string& label : wish.labels) {
    const size_t equals = label.find('=');
    if (equals == label.npos) return InvalidArgument("--label: want KEY=VALUE, not \"{}\"", label);
    body["labels"][label.substr(0, equals)] = label.substr(equals + 1);
  }
  if (wish.delay.empty()) return absl::OkStatus();
  const auto delay = ParseDuration(wish.delay);
  if (!delay)
    return InvalidArgument("--delay: want a duration such as 30s, not \"{}\"", wish.delay);
  body["notBefore"] =
      absl::FormatTime(absl::RFC3339_sec, absl::Now() + *delay, absl::UTCTimeZone());
  return absl::OkStatus();
}

void PrintJobs(const Json& jobs) {
  Table table({"JOB", "STATE", "REASON", "ATTEMPT", "WORKER", "ROOM", "AGENT", "AGE"});
  for (const Json& job : jobs)
    table.Row({Cell(job, "id"), Cell(job, "state"), Cell(job, "reason"), Cell(job, "attempt"),
               Cell(job, "workerId"), Cell(job, "room"), Cell(job, "agentName"),
               Age(job, "createTime")});
  table.Print();
}

void PrintDispatch(const Command& command, const Json& dispatch) {
  if (command.output.json) return PrintJson(dispatch);
  if (command.output.quiet) {
    fmt::print("{}\n", Cell(dispatch, "id"));
    return;
  }
  fmt::print("{}  {}  agent {}  room {}  pool {}\n", Cell(dispatch, "id"), Cell(dispatch, "state"),
             Cell(dispatch, "agentName"), Cell(dispatch, "room"), Cell(dispatch, "pool"));
  for (const Json& job : dispatch["jobs"]) {
    const std::string reason = Cell(job, "reason");
    fmt::print("  {}  {}{}  attempt {}  worker {}\n", Cell(job, "id"), Cell(job, "state"),
               reason == "-" ? "" : "/" + reason, Cell(job, "attempt"), Cell(job, "workerId"));
    if (const std::string error = Cell(job, "error"); error != "-") fmt::print("    {}\n", error);
  }
}

absl::Status Create(const Command& command, const NewDispatch& wish) {
  Json body = {{"room", wish.room},
               {"agentName", wish.agent},
               {"metadata", wish.metadata},
               {"restartPolicy", wish.policy},
               {"priority", wish.priority}};
  if (!wish.wait.empty()) body["queueDeadline"] = wish.wait;
  PARLEY_RETURN_IF_ERROR(AddPlace(wish, body));
  Api api = command.MakeApi();
  PARLEY_ASSIGN_OR_RETURN(const Json dispatch, api.Post("/api/dispatches", body, wish.key));
  PrintDispatch(command, dispatch);
  return absl::OkStatus();
}

absl::Status List(const Command& command, const std::string& room, bool ended) {
  Api api = command.MakeApi();
  std::string path = fmt::format("/api/dispatches?ended={}", ended);
  if (!room.empty()) path += "&room=" + http::UrlEncode(room);
  PARLEY_ASSIGN_OR_RETURN(const Json dispatches, api.List(path, "dispatches"));
  if (command.output.json) {
    PrintJson(dispatches);
    return absl::OkStatus();
  }
  Table table({"DISPATCH", "STATE", "AGENT", "ROOM", "JOB", "ATTEMPT", "AGE"});
  for (const Json& dispatch : dispatches) {
    if (command.output.quiet) fmt::print("{}\n", Cell(dispatch, "id"));
    const Json job = dispatch["jobs"].empty() ? Json::object() : dispatch["jobs"].front();
    const std::string reason = Cell(job, "reason");
    table.Row({Cell(dispatch, "id"), Cell(dispatch, "state"), Cell(dispatch, "agentName"),
               Cell(dispatch, "room"), Cell(job, "state") + (reason == "-" ? "" : "/" + reason),
               Cell(job, "attempt"), Age(dispatch, "createTime")});
  }
  if (!command.output.quiet) table.Print();
  return absl::OkStatus();
}

absl::Status Get(const Command& command, const std::string& id) {
  Api api = command.MakeApi();
  PARLEY_ASSIGN_OR_RETURN(const Json dispatch, api.Get("/api/dispatches/" + http::UrlEncode(id)));
  PrintDispatch(command, dispatch);
  return absl::OkStatus();
}

absl::Status Delete(const Command& command, const std::string& id) {
  Api api = command.MakeApi();
  PARLEY_ASSIGN_OR_RETURN(const Json dispatch,
                          api.Delete("/api/dispatches/" + http::UrlEncode(id)));
  PrintDispatch(command, dispatch);
  return absl::OkStatus();
}

std::string EventLine(const Json& event) {
  const std::string reason = Cell(event, "reason"), worker = Cell(event, "workerId");
  return fmt::format(
      "{}  {:<17} {}{}{}{}", Cell(event, "time"), Cell(event, "type"), Cell(event, "jobId"),
      reason == "-" ? "" : "  " + reason, worker == "-" ? "" : "  " + worker,
      Cell(event, "fencingToken") == "0" ? ""
                                         : fmt::format("  attempt {}", Cell(event, "attempt")));
}

void PrintEvent(const Command& command, const Json& event) {
  fmt::print("{}\n", command.output.json ? event.dump() : EventLine(event));
  std::fflush(stdout);  // somebody watches
}

// One line per event, from its creation on, until the dispatch has ended.
absl::Status Watch(const Command& command, const std::string& id) {
  Api api = command.MakeApi();
  // Before anything else: an id that does not exist would be watched for ever.
  PARLEY_RETURN_IF_ERROR(api.Get("/api/dispatches/" + http::UrlEncode(id)).status());
  const std::string base = "/api/events/watch?dispatch=" + http::UrlEncode(id);
  std::string position = "0";
  while (true) {
    bool ended = false;
    absl::Status status =
        api.Follow(base + "&after=" + http::UrlEncode(position), [&](const Json& event) {
          position = Cell(event, "position");
          PrintEvent(command, event);
          ended = Cell(event, "type") == "dispatch_ended";
          return !ended;
        });
    if (ended) return absl::OkStatus();
    if (!absl::IsUnavailable(status)) return status;
    if (!api.Reachable()) return status;
    absl::SleepFor(absl::Milliseconds(500));  // a broker went: on from where we stood
  }
}

struct HistoryQuery {
  std::string dispatch;
  std::string room;
  std::string after;
};

absl::Status History(const Command& command, const HistoryQuery& query) {
  Api api = command.MakeApi();
  std::string path = "/api/events?page_size=500";
  for (const auto& [name, value] :
       {std::pair("dispatch", query.dispatch), std::pair("room", query.room),
        std::pair("after", query.after)}) {
    if (!value.empty()) path += fmt::format("&{}={}", name, http::UrlEncode(value));
  }
  PARLEY_ASSIGN_OR_RETURN(const Json events, api.List(path, "events"));
  for (const Json& event : events) PrintEvent(command, event);
  return absl::OkStatus();
}

absl::Status ListJobs(const Command& command, const std::string& room, const std::string& state) {
  Api api = command.MakeApi();
  std::string path = "/api/jobs?room=" + http::UrlEncode(room);
  if (!state.empty()) path += "&state=" + http::UrlEncode(state);
  PARLEY_ASSIGN_OR_RETURN(const Json jobs, api.List(path, "jobs"));
  if (command.output.json) {
    PrintJson(jobs);
  } else if (command.output.quiet) {
    for (const Json& job : jobs) fmt::print("{}\n", Cell(job, "id"));
  } else {
    PrintJobs(jobs);
  }
  return absl::OkStatus();
}

absl::Status OneJob(const Command& command, const std::string& id, bool stop) {
  Api api = command.MakeApi();
  const std::string path = "/api/jobs/" + http::UrlEncode(id);
  PARLEY_ASSIGN_OR_RETURN(const Json job, stop ? api.Delete(path) : api.Get(path));
  if (command.output.json) {
    PrintJson(job);
  } else {
    PrintJobs(Json::array({job}));
  }
  return absl::OkStatus();
}

// "12:30:05.123 info  a tool failed tool=room_rate error=…"
void PrintLine(const Json& line) {
  std::string text =
      fmt::format("{}  {:<5} {}", Cell(line, "time"), Cell(line, "level"), Cell(line, "message"));
  for (const auto& [key, value] : line["fields"].items()) {
    const std::string shown = value.get<std::string>();
    if (!shown.empty()) text += fmt::format("  {}={}", key, shown);
  }
  fmt::print("{}\n", text);
}

// What the job wrote so far; with `follow` until it has ended, asking four times a second.
absl::Status JobLogs(const Command& command, const std::string& id, bool follow) {
  Api api = command.MakeApi();
  const std::string job_path = "/api/jobs/" + http::UrlEncode(id);
  std::string next = "0";
  while (true) {
    // Before the lines: what a job says last is there once it shows as ended.
    bool ended = !follow;
    if (follow) {
      PARLEY_ASSIGN_OR_RETURN(const Json job, api.Get(job_path));
      const std::string state = Cell(job, "state");
      ended = state == "SUCCEEDED" || state == "FAILED" || state == "CANCELLED";
    }
    const absl::StatusOr<Json> answer = api.Get(fmt::format("{}/logs?after={}", job_path, next));
    // One that waits, or moves to another agent server, has no lines just now.
    const bool later =
        follow && !ended &&
        (absl::IsFailedPrecondition(answer.status()) || absl::IsUnavailable(answer.status()));
    if (!answer.ok() && !later) return answer.status();
    const bool more = answer.ok() && !(*answer)["lines"].empty();
    if (more) {
      for (const Json& line : (*answer)["lines"]) {
        if (command.output.json) {
          fmt::print("{}\n", line.dump());
        } else {
          PrintLine(line);
        }
      }
      std::fflush(stdout);
      next = Cell(*answer, "next");
    }
    if (more) continue;  // perhaps not all of them fitted into one answer
    if (ended) return absl::OkStatus();
    absl::SleepFor(absl::Milliseconds(250));
  }
}

// Waits until the job is where it is to be: 20 s are more than a hand-over may take.
absl::Status Migrate(const Command& command, const std::string& id, const std::string& to) {
  Api api = command.MakeApi();
  const std::string path = "/api/jobs/" + http::UrlEncode(id);
  PARLEY_ASSIGN_OR_RETURN(const Json before, api.Get(path));
  Json body = Json::object();
  if (!to.empty()) body["workerId"] = to;
  PARLEY_RETURN_IF_ERROR(api.Post(path + "/migrate", body).status());
  const absl::Time until = absl::Now() + absl::Seconds(25);
  Json job;
  do {
    absl::SleepFor(absl::Milliseconds(50));
    PARLEY_ASSIGN_OR_RETURN(job, api.Get(path));
  } while (!job.value("nextWorkerId", "").empty() && absl::Now() < until);
  if (command.output.json) {
    PrintJson(job);
  } else {
    PrintJobs(Json::array({job}));
  }
  if (job["fencingToken"] != before["fencingToken"]) return absl::OkStatus();
  return Aborted("the job is still at {}: its successor was not there in time",
                 Cell(job, "workerId"));
}

void AddJobs(CLI::App& root, Command& command) {
  CLI::App& jobs = *root.add_subcommand("jobs", "Jobs: single runs of dispatches");
  auto id = std::make_shared<std::string>();
  auto room = std::make_shared<std::string>();
  auto state = std::make_shared<std::string>();
  CLI::App* list = AddCommand(jobs, command, "list", "Jobs, newest first",
                              [&command, room, state] { return ListJobs(command, *room, *state); });
  list->add_option("--room", *room, "Only of this room");
  list->add_option("--state", *state, "Only in this state, e.g. RUNNING");
  AddCommand(jobs, command, "get", "One job",
             [&command, id] { return OneJob(command, *id, false); })
      ->add_option("ID", *id, "AJ_…")
      ->required();
  auto follow = std::make_shared<bool>(false);
  CLI::App* logs =
      AddCommand(jobs, command, "logs", "What a job wrote, while its agent server lives",
                 [&command, id, follow] { return JobLogs(command, *id, *follow); });
  logs->add_option("ID", *id, "AJ_…")->required();
  logs->add_flag("-f,--follow", *follow, "Go on until the job has ended");
  AddCommand(jobs, command, "delete", "Stop a job",
             [&command, id] { return OneJob(command, *id, true); })
      ->add_option("ID", *id, "AJ_…")
      ->required();
  auto to = std::make_shared<std::string>();
  CLI::App* migrate = AddCommand(jobs, command, "migrate", "Hand a running job to another worker",
                                 [&command, id, to] { return Migrate(command, *id, *to); });
  migrate->add_option("ID", *id, "AJ_…")->required();
  migrate->add_option("--to", *to, "AW_…; without it the least loaded that fits");
}

}  // namespace

void AddDispatch(CLI::App& root, Command& command) {
  CLI::App& dispatch = *root.add_subcommand("dispatch", "Wishes for agents in rooms");
  auto wish = std::make_shared<NewDispatch>();
  auto id = std::make_shared<std::string>();
  auto room = std::make_shared<std::string>();
  auto ended = std::make_shared<bool>(false);
  CLI::App* create = AddCommand(dispatch, command, "create", "Ask for an agent in a room",
                                [&command, wish] { return Create(command, *wish); });
  create->add_option("--room", wish->room, "Name of the room")->required();
  create->add_option("--agent", wish->agent, "Dispatch name of the agent");
  create->add_option("--metadata", wish->metadata, "Text that the job gets");
  create->add_option("--restart-policy", wish->policy, "When an attempt is lost")
      ->check(CLI::IsMember({"ON_FAILURE", "NEVER"}));
  create->add_option("--priority", wish->priority, "0 to 9, 9 first")->check(CLI::Range(0, 9));
  create->add_option("--queue-deadline", wish->wait, "How long it may wait, e.g. 30s");
  create->add_option("--idempotency-key", wish->key, "The same key makes one dispatch only");
  create->add_option("--type", wish->type, "One job for the room, or one for each person in it")
      ->check(CLI::IsMember({"ROOM", "PUBLISHER", "PARTICIPANT"}));
  create->add_option("--identity", wish->identity, "Only for this person (PUBLISHER, PARTICIPANT)");
  create->add_flag("--while-present", wish->while_present, "Be there whenever a person is");
  create->add_flag("--unique", wish->unique, "Not if such a dispatch is active in the room");
  create->add_option("--deployment", wish->deployment, "Only on workers of this deployment");
  create->add_option("--label", wish->labels, "Only on workers with KEY=VALUE; repeatable");
  create->add_option("--region", wish->region, "Preferred for at most 500 ms");
  create->add_option("--delay", wish->delay, "Not before so much time has passed, e.g. 30s");
  CLI::App* list = AddCommand(dispatch, command, "list", "Dispatches, newest first",
                              [&command, room, ended] { return List(command, *room, *ended); });
  list->add_option("--room", *room, "Only of this room");
  list->add_flag("--ended", *ended, "Also those that have ended");
  AddCommand(dispatch, command, "get", "One dispatch with its jobs",
             [&command, id] { return Get(command, *id); })
      ->add_option("ID", *id, "AD_…")
      ->required();
  AddCommand(dispatch, command, "delete", "End a dispatch and stop its job",
             [&command, id] { return Delete(command, *id); })
      ->add_option("ID", *id, "AD_…")
      ->required();
  AddCommand(dispatch, command, "watch", "Print every event until it has ended",
             [&command, id] { return Watch(command, *id); })
      ->add_option("ID", *id, "AD_…")
      ->required();
  auto query = std::make_shared<HistoryQuery>();
  CLI::App* history = AddCommand(dispatch, command, "history", "What happened, oldest first",
                                 [&command, query] { return History(command, *query); });
  history->add_option("ID", query->dispatch, "AD_…; all of the project's when missing");
  history->add_option("--room", query->room, "Only of this room");
  history->add_option("--after", query->after, "On from an event's position");
  AddJobs(root, command);
}

}  // namespace parley::cli
