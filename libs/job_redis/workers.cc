#include <algorithm>
#include <cmath>

#include "base/ids.h"
#include "base/status.h"
#include "base/strings.h"
#include "job_redis/redis_job_store.h"
#include "job_redis/scripts.h"

namespace parley::job {
namespace {

constexpr size_t kWordsPerCall = 200;  // so that no other script waits long

std::string_view StatusText(ReportedStatus status) {
  switch (status) {
    case ReportedStatus::kOffered:
      return "OFFERED";
    case ReportedStatus::kAccepted:
      return "ACCEPTED";
    case ReportedStatus::kRunning:
      return "RUNNING";
    case ReportedStatus::kStopping:
      return "STOPPING";
    case ReportedStatus::kEnded:
      return "ENDED";
    case ReportedStatus::kReleased:
      return "RELEASED";
    case ReportedStatus::kPrepared:
      return "PREPARED";
  }
  return "";
}

// An end without a reason is a worker's mistake; the job must not end without one.
std::string_view ReasonText(Reason reason) {
  return reason == Reason::kUnspecified ? Text(Reason::kProcessCrashed) : Text(reason);
}

constexpr char kAddressSeconds[] = "60";

std::string NameField(std::string_view project, std::string_view agent_name) {
  return Escape(project) + "/" + Escape(agent_name);
}

std::string AgentsText(const Registration& registration) {
  std::string text = registration.serves_configured ? "*" : "";
  for (const std::string& name : registration.agent_names) {
    if (!text.empty()) text += ' ';
    text += keys::AgentPart(name, false);
  }
  return text;
}

void AppendReport(const ReportedJob& job, std::vector<std::string>& out) {
  const Assignment& record = job.record;
  const bool ended =
      job.status == ReportedStatus::kEnded || job.status == ReportedStatus::kReleased;
  out.insert(out.end(),
             {job.job_id, std::to_string(job.fencing_token), std::string(StatusText(job.status)),
              ended ? std::string(ReasonText(job.reason)) : "", job.error,
              job.recorded ? std::string(Text(job.recorded_state == State::kUnspecified
                                                  ? State::kPending
                                                  : job.recorded_state))
                           : "",
              record.dispatch_id});
  if (record.dispatch_id.empty()) {
    out.push_back("0");
    return;
  }
  const absl::Duration wait = record.deadline == absl::InfiniteFuture()
                                  ? absl::Seconds(60)
                                  : record.deadline - record.create_time;
  AppendRecord(
      record,
      {{"hash", "rebuilt"},
       {"wait", std::to_string(std::max<int64_t>(1000, absl::ToInt64Milliseconds(wait)))},
       {"create", TimeText(record.create_time)},
       {"deadline", TimeText(record.deadline == absl::InfiniteFuture() ? record.create_time + wait
                                                                       : record.deadline)},
       {"attempt", std::to_string(record.attempt)}},
      out);
}

WordVerdict::Outcome OutcomeOf(std::string_view text) {
  if (text == "OK") return WordVerdict::Outcome::kOk;
  if (text == "RECORDED") return WordVerdict::Outcome::kRecorded;
  if (text == "HELD") return WordVerdict::Outcome::kHeld;
  return WordVerdict::Outcome::kStale;
}

ResumeVerdict::Action ActionOf(std::string_view text) {
  if (text == "KEEP") return ResumeVerdict::Action::kKeep;
  if (text == "GO") return ResumeVerdict::Action::kGo;
  if (text == "STOP") return ResumeVerdict::Action::kStop;
  return ResumeVerdict::Action::kRevoke;
}

constexpr size_t kVerdictParts = 5;

// As session_of() in words.lua puts it.
std::optional<SessionRecord> ToSession(std::string_view text) {
  const std::vector<std::string> parts = Split(text, '\n');
  if (parts.size() != 10) return std::nullopt;
  SessionRecord record;
  record.id = parts[0];
  record.project = parts[1];
  record.room = parts[2];
  record.dispatch_id = parts[3];
  record.agent_name = parts[4];
  record.agent_id = parts[5];
  record.agent_version = ToToken(parts[6]);
  record.create_time = ToTime(parts[7]);
  record.start_time = ToTime(parts[8]);
  record.end_time = ToTime(parts[9]);
  return record;
}

}  // namespace

absl::StatusOr<JobStore::Registered> RedisJobStore::Register(const Registration& r) {
  for (const std::string& name : r.agent_names) {
    PARLEY_RETURN_IF_ERROR(
        Command({"HSET", std::string(keys::kNames), NameField(r.project, name), r.pool}).status());
  }
  if (auto tag = pools_.TagOf(r.pool); !tag.ok()) return FromRedis(tag.status());
  std::vector<std::string> arguments = {r.worker_id,
                                        r.instance,
                                        std::to_string(r.connect_seq),
                                        "13",
                                        "project",
                                        r.project,
                                        "slots",
                                        std::to_string(r.slots),
                                        "all",
                                        r.accepts_all ? "1" : "0",
                                        "agents",
                                        AgentsText(r),
                                        "region",
                                        r.region,
                                        "deployment",
                                        r.deployment,
                                        "labels",
                                        MapText(r.labels),
                                        "facts",
                                        WorkerFacts(r),
                                        "version",
                                        r.version,
                                        "hostname",
                                        r.hostname,
                                        "load",
                                        fmt::format("{:.3f}", r.load),
                                        "threshold",
                                        fmt::format("{:.3f}", r.load_threshold),
                                        "accepting",
                                        r.accepting ? "1" : "0"};
  for (const ReportedJob& job : r.report) {
    Saw(job.fencing_token);
    AppendReport(job, arguments);
  }
  PARLEY_ASSIGN_OR_RETURN(const redis::Reply reply,
                          Run(scripts::register_worker, r.pool, arguments, 2, 4));
  const std::string& outcome = reply.elements[0].text;
  if (outcome == "INSTANCE_MISMATCH") {
    return WithReason(
        AlreadyExists("another process uses worker id {}; each process takes a new one",
                      r.worker_id),
        "INSTANCE_MISMATCH");
  }
  if (outcome == "REPLACED") {
    return WithReason(
        Aborted("worker {}: a newer connection exists or its session has ended; take a new id",
                r.worker_id),
        "WORKER_REPLACED");
  }
  Registered registered;
  registered.recovering = reply.elements[1].integer == 1;
  const std::vector<redis::Reply>& parts = reply.elements[3].elements;
  for (size_t i = 0; i + 3 < parts.size(); i += 4) {
    ResumeVerdict verdict;
    verdict.job_id = parts[i].text;
    verdict.fencing_token = ToToken(parts[i + 1].text);
    verdict.action = ActionOf(parts[i + 2].text);
    verdict.recorded_state = StateFromText(parts[i + 3].text);
    registered.verdicts.push_back(std::move(verdict));
  }
  return registered;
}

absl::StatusOr<std::vector<WordVerdict>> RedisJobStore::Apply(std::string_view pool,
                                                              std::string_view worker_id,
                                                              const std::vector<Word>& words) {
  if (words.empty()) return std::vector<WordVerdict>();
  std::vector<Batcher::Item> items(1);
  items[0].weight = words.size();
  for (const Word& word : words) {
    items[0].arguments.insert(
        items[0].arguments.end(),
        {std::string(worker_id), std::string(Text(word.kind)), word.job_id,
         std::to_string(word.fencing_token),
         word.kind == WordKind::kEnded ? std::string(ReasonText(word.reason)) : "", word.error,
         word.final ? "1" : "0"});
  }
  BatcherOf(
      scripts::words, std::string(pool), kWordsPerCall,
      [this, pool = std::string(pool)](const auto& together) { return SendWords(pool, together); })
      .Do(items);
  PARLEY_RETURN_IF_ERROR(items[0].status);
  MatchOnAfter(std::string(pool), items);
  const std::vector<redis::Reply>& parts = items[0].reply->elements[1].elements;
  const size_t first = kVerdictParts * items[0].first;
  if (parts.size() < first + kVerdictParts * words.size())
    return Internal("words answered in another form");
  std::vector<WordVerdict> verdicts;
  for (size_t i = 0; i < words.size(); ++i) {
    WordVerdict verdict;
    verdict.job_id = words[i].job_id;
    verdict.fencing_token = words[i].fencing_token;
    verdict.kind = words[i].kind;
    const redis::Reply* part = &parts[first + kVerdictParts * i];
    verdict.outcome = OutcomeOf(part[0].text);
    verdict.newest_token = ToToken(part[1].text);
    verdict.state = StateFromText(part[2].text);
    verdict.reason = ReasonFromText(part[3].text);
    verdict.session = ToSession(part[4].text);
    Saw(verdict.newest_token);
    PARLEY_RETURN_IF_ERROR(KeepEnd(pool, words[i], verdict));  // else the worker says it again
    verdicts.push_back(std::move(verdict));
  }
  PARLEY_RETURN_IF_ERROR(Commit());
  return verdicts;
}

absl::StatusOr<redis::Reply> RedisJobStore::SendWords(const std::string& pool,
                                                      const std::vector<Batcher::Item*>& together) {
  std::vector<std::string> arguments;
  for (const Batcher::Item* item : together) {
    arguments.insert(arguments.end(), item->arguments.begin(), item->arguments.end());
  }
  return Run(scripts::words, pool, arguments, -1, 2);
}

absl::Status RedisJobStore::KeepEnd(std::string_view pool, const Word& word,
                                    const WordVerdict& verdict) {
  if (word.kind != WordKind::kEnded || !IsTerminal(verdict.state)) return absl::OkStatus();
  return Keep(std::string(pool),
              {"end", word.job_id, std::to_string(verdict.newest_token),
               std::string(Text(verdict.state)), std::string(Text(verdict.reason)), word.error});
}

absl::StatusOr<JobStore::Renewed> RedisJobStore::Renew(std::string_view pool,
                                                       const std::vector<Renewal>& renewals) {
  constexpr size_t kSlice = 250;  // so that no other script waits long
  Renewed renewed;
  for (size_t first = 0; first < renewals.size(); first += kSlice) {
    std::vector<std::string> arguments;
    for (size_t i = first; i < std::min(renewals.size(), first + kSlice); ++i) {
      const Renewal& renewal = renewals[i];
      arguments.insert(arguments.end(),
                       {renewal.worker_id, std::to_string(renewal.connect_seq),
                        fmt::format("{:.3f}", renewal.load), renewal.accepting ? "1" : "0"});
    }
    PARLEY_ASSIGN_OR_RETURN(const redis::Reply reply,
                            Run(scripts::renew, std::string(pool), arguments, 0, 2));
    for (const redis::Reply& id : reply.elements[1].elements) renewed.refused.push_back(id.text);
    for (const redis::Reply& id : reply.elements[3].elements) renewed.owing.push_back(id.text);
  }
  return renewed;
}

absl::Status RedisJobStore::Drain(std::string_view pool, std::string_view worker_id,
                                  std::optional<absl::Duration> tell) {
  const std::string deadline = tell ? std::to_string(absl::ToInt64Milliseconds(*tell)) : "";
  PARLEY_ASSIGN_OR_RETURN(const redis::Reply reply, Run(scripts::drain, std::string(pool),
                                                        {std::string(worker_id), deadline}, -1, 1));
  if (reply.elements[0].integer == 1) return absl::OkStatus();
  return NotFound("worker {} does not exist or has ended", worker_id);
}

absl::StatusOr<bool> RedisJobStore::EndSession(std::string_view pool, std::string_view worker_id,
                                               std::string_view instance, uint64_t connect_seq) {
  PARLEY_ASSIGN_OR_RETURN(
      const redis::Reply reply,
      Run(scripts::end_session, std::string(pool),
          {std::string(worker_id), std::string(instance), std::to_string(connect_seq)}, 1, 2));
  if (reply.elements[0].text == "INSTANCE_MISMATCH") {
    return WithReason(PermissionDenied("the instance is not that of worker {}", worker_id),
                      "INSTANCE_MISMATCH");
  }
  if (reply.elements[0].text == "HOLD") return Recovering();
  return reply.elements[0].text == "ENDED";
}

absl::StatusOr<std::vector<Worker>> RedisJobStore::ListWorkers(std::string_view pool) {
  std::vector<std::string> pools = {std::string(pool)};
  if (pool.empty()) {
    PARLEY_ASSIGN_OR_RETURN(pools, Pools());
  }
  std::vector<Worker> workers;
  const double now_ms = static_cast<double>(absl::ToUnixMillis(absl::Now()));
  for (const std::string& name : pools) {
    const keys::PoolKeys keys(name);
    PARLEY_ASSIGN_OR_RETURN(const redis::Reply leases,
                            Command({"ZRANGE", keys.leases(), "0", "-1", "WITHSCORES"}));
    std::vector<std::vector<std::string>> commands;
    for (size_t i = 0; i + 1 < leases.elements.size(); i += 2) {
      commands.push_back({"HGETALL", keys.worker(leases.elements[i].text)});
      commands.push_back({"HKEYS", keys.reservations(leases.elements[i].text)});
    }
    PARLEY_ASSIGN_OR_RETURN(const std::vector<redis::Reply> replies, Pipeline(commands));
    for (size_t i = 0; i + 1 < leases.elements.size(); i += 2) {
      const Fields fields = ToFields(replies[i]);
      if (fields.empty()) continue;
      Worker worker = ToWorker(fields, leases.elements[i].text, name);
      for (const redis::Reply& job : replies[i + 1].elements) worker.job_ids.push_back(job.text);
      worker.slots_used = static_cast<int>(worker.job_ids.size());
      worker.heartbeat_age = absl::Milliseconds(
          std::max(0.0, now_ms - std::strtod(leases.elements[i + 1].text.c_str(), nullptr)));
      workers.push_back(std::move(worker));
    }
  }
  return workers;
}

absl::StatusOr<std::string> RedisJobStore::PoolOfWorker(std::string_view worker_id) {
  PARLEY_ASSIGN_OR_RETURN(const std::vector<std::string> pools, Pools());
  std::vector<std::vector<std::string>> commands;
  commands.reserve(pools.size());
  for (const std::string& pool : pools) {
    commands.push_back({"ZSCORE", keys::PoolKeys(pool).leases(), std::string(worker_id)});
  }
  PARLEY_ASSIGN_OR_RETURN(const std::vector<redis::Reply> replies, Pipeline(commands));
  for (size_t i = 0; i < replies.size(); ++i) {
    if (!replies[i].nil()) return pools[i];
  }
  return NotFound("worker {} does not exist or has ended", worker_id);
}

absl::Status RedisJobStore::Announce(std::string_view address) {
  return Command({"SET", keys::Address(broker_id_), std::string(address), "EX", kAddressSeconds})
      .status();
}

// By Redis' clock: brokers' own may differ.
absl::StatusOr<int> RedisJobStore::ForgetOldCode(absl::Duration unused) {
  PARLEY_ASSIGN_OR_RETURN(const redis::Reply time, Command({"TIME"}));
  if (time.elements.empty()) return Internal("TIME answered nothing");
  const std::string now = time.elements[0].text;
  const std::string key(keys::kLibraries);
  PARLEY_RETURN_IF_ERROR(Command({"ZADD", key, now, std::string(scripts::library.name)}).status());
  PARLEY_ASSIGN_OR_RETURN(const redis::Reply loaded,
                          Command({"FUNCTION", "LIST", "LIBRARYNAME", "parley_*"}));
  int removed = 0;
  for (const redis::Reply& library : loaded.elements) {
    if (library.elements.size() < 2) continue;
    const std::string& name = library.elements[1].text;  // after "library_name"
    // One that was never heard of is heard of now: a broker before this call existed may use it.
    PARLEY_RETURN_IF_ERROR(Command({"ZADD", key, "NX", now, name}).status());
    PARLEY_ASSIGN_OR_RETURN(const redis::Reply used, Command({"ZSCORE", key, name}));
    if (name == scripts::library.name || used.nil()) continue;
    const double idle_s =
        std::strtod(now.c_str(), nullptr) - std::strtod(used.text.c_str(), nullptr);
    if (absl::Seconds(idle_s) < unused) continue;
    const absl::Status gone = Command({"FUNCTION", "DELETE", name}).status();
    if (gone.ok()) ++removed;  // else another broker was quicker
    PARLEY_RETURN_IF_ERROR(Command({"ZREM", key, name}).status());
  }
  return removed;
}

absl::StatusOr<std::string> RedisJobStore::BrokerOf(std::string_view worker_id) {
  PARLEY_ASSIGN_OR_RETURN(const std::string pool, PoolOfWorker(worker_id));
  PARLEY_ASSIGN_OR_RETURN(const redis::Reply broker,
                          Command({"HGET", keys::PoolKeys(pool).worker(worker_id), "broker"}));
  if (broker.nil() || broker.text == broker_id_) return "";
  PARLEY_ASSIGN_OR_RETURN(const redis::Reply address, Command({"GET", keys::Address(broker.text)}));
  return address.nil() ? "" : address.text;
}

absl::StatusOr<std::optional<std::string>> RedisJobStore::PoolOfName(std::string_view project,
                                                                     std::string_view agent_name) {
  PARLEY_ASSIGN_OR_RETURN(const redis::Reply reply,
                          Command({"HMGET", std::string(keys::kNames),
                                   NameField(project, agent_name), NameField("", agent_name)}));
  for (const redis::Reply& pool : reply.elements) {
    if (!pool.nil()) return std::optional<std::string>(pool.text);
  }
  return std::optional<std::string>();
}

absl::StatusOr<std::vector<std::string>> RedisJobStore::Pools() {
  auto pools = pools_.All();
  if (!pools.ok()) return FromRedis(pools.status());
  return pools;
}

absl::Status RedisJobStore::SetLimits(std::string_view pool, const PoolLimits& limits) {
  std::vector<std::string> arguments = {std::to_string(limits.max_jobs),
                                        std::to_string(limits.max_queued), limits.pack ? "1" : "0"};
  for (const ProjectLimits& project : limits.projects) {
    arguments.insert(arguments.end(),
                     {Escape(project.project), std::to_string(project.weight),
                      std::to_string(project.max_jobs), std::to_string(project.max_queued)});
  }
  return Run(scripts::limits, std::string(pool), arguments, 0, 1).status();
}

absl::StatusOr<JobStore::TickResult> RedisJobStore::Tick(std::string_view pool) {
  TickResult result;
  for (int slice = 0; slice < 100; ++slice) {
    PARLEY_ASSIGN_OR_RETURN(const redis::Reply reply,
                            Run(scripts::tick, std::string(pool), {"200"}, -1, 6));
    result.pending = static_cast<int>(reply.elements[1].integer);
    result.oldest_pending = absl::Milliseconds(reply.elements[2].integer);
    result.ended_sessions += static_cast<int>(reply.elements[3].integer);
    result.expired += static_cast<int>(reply.elements[4].integer);
    result.idle = reply.elements[5].integer == 1;
    if (reply.elements[0].integer != 1) break;
  }
  return result;
}

absl::StatusOr<JobStore::PoolStats> RedisJobStore::Stats(std::string_view pool) {
  constexpr int kSlice = 250;
  PoolStats stats;
  while (true) {
    PARLEY_ASSIGN_OR_RETURN(const redis::Reply reply,
                            Run(scripts::stats, std::string(pool),
                                {std::to_string(stats.workers), std::to_string(kSlice)}, -1, -1));
    const int workers = static_cast<int>(reply.elements[0].integer);
    stats.workers += workers;
    stats.slots += static_cast<int>(reply.elements[1].integer);
    stats.used += static_cast<int>(reply.elements[2].integer);
    stats.closed_slots += static_cast<int>(reply.elements[3].integer);
    stats.jobs = static_cast<int>(reply.elements[4].integer);
    stats.draining_workers += static_cast<int>(reply.elements[5].integer);
    stats.draining_slots += static_cast<int>(reply.elements[6].integer);
    stats.draining_used += static_cast<int>(reply.elements[7].integer);
    if (workers < kSlice) return stats;
  }
}

absl::StatusOr<JobStore::Replayed> RedisJobStore::Replay(std::string_view pool) {
  constexpr size_t kFactsPerCall = 200;  // 200 creates take Redis about 10 ms
  Replayed replayed;
  const std::vector<std::vector<std::string>> facts = ring_.Of(pool);
  for (size_t begin = 0; begin < facts.size(); begin += kFactsPerCall) {
    const size_t end = std::min(facts.size(), begin + kFactsPerCall);
    std::vector<std::string> arguments;
    for (size_t i = begin; i < end; ++i) {
      arguments.insert(arguments.end(), facts[i].begin(), facts[i].end());
    }
    PARLEY_ASSIGN_OR_RETURN(const redis::Reply reply,
                            Run(scripts::replay, std::string(pool), arguments, 2, 3));
    replayed.creates += static_cast<int>(reply.elements[0].integer);
    replayed.ends += static_cast<int>(reply.elements[1].integer);
  }
  return replayed;
}

absl::Status RedisJobStore::CheckedIn(std::string_view pool) {
  return Run(scripts::checked_in, std::string(pool), {std::to_string(highest_token_.load())}, 0, 1)
      .status();
}

}  // namespace parley::job
