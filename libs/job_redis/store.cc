#include <algorithm>

#include "base/ids.h"
#include "base/status.h"
#include "job/ids.h"
#include "job/limits.h"
#include "job_redis/redis_job_store.h"
#include "job_redis/scripts.h"

namespace parley::job {
namespace {

Message::Kind KindOf(std::string_view text) {
  if (text == "go") return Message::Kind::kGo;
  if (text == "stop") return Message::Kind::kStop;
  if (text == "revoke") return Message::Kind::kRevoke;
  if (text == "drain") return Message::Kind::kDrain;
  if (text == "replaced") return Message::Kind::kReplaced;
  if (text == "hand_over") return Message::Kind::kHandOver;
  if (text == "go_on") return Message::Kind::kGoOn;
  if (text == "take_over") return Message::Kind::kTakeOver;
  return Message::Kind::kOffer;
}

absl::Status NotReplicated() {
  return WithReason(Unavailable("it is stored, but no replica of Redis has confirmed it in time; "
                                "say the same again"),
                    "NOT_REPLICATED", {{"retry_after_ms", "1000"}});
}

}  // namespace

RedisJobStore::RedisJobStore(redis::Pool& redis, std::string broker_id, Listener listener,
                             Durability durability)
    : redis_(redis),
      broker_id_(std::move(broker_id)),
      listener_(std::move(listener)),
      durability_(durability),
      pools_(redis, listener_.recovering) {
  if (durability_.journal == nullptr) return;
  std::vector<JournalFact> facts = durability_.journal->TakeOld();
  for (const JournalFact& fact : facts) {  // ids carry the pool's number: they must route again
    if (fact.parts.size() < 2 || fact.parts[0] != "create") continue;
    const std::string_view tag = PoolTagOf(fact.parts[1], kDispatchPrefix);
    if (!tag.empty()) pools_.Learn(fact.pool, std::string(tag));
  }
  ring_.Load(std::move(facts));
}
RedisJobStore::~RedisJobStore() = default;

absl::Status RedisJobStore::Recovering() {
  return WithReason(Unavailable("the store came back a moment ago and gathers what runs"),
                    "STORE_RECOVERING", {{"retry_after_ms", "1000"}});
}

absl::Status RedisJobStore::Keep(const std::string& pool, std::vector<std::string> fact) {
  absl::Status status;
  if (durability_.journal != nullptr) status = durability_.journal->Append(pool, fact);
  ring_.Add(pool, std::move(fact));
  return status;
}

absl::Status RedisJobStore::Commit() {
  return durability_.journal == nullptr ? absl::OkStatus() : durability_.journal->Commit();
}

std::vector<std::string> RedisJobStore::Remembered() const { return ring_.Pools(); }

absl::Status RedisJobStore::FromRedis(const absl::Status& status) const {
  if (status.code() != absl::StatusCode::kUnavailable) return status;
  return WithReason(status, "STORE_UNAVAILABLE", {{"retry_after_ms", "1000"}});
}

absl::StatusOr<redis::Reply> RedisJobStore::Command(const std::vector<std::string>& arguments) {
  absl::StatusOr<redis::Reply> reply = redis_.Command(arguments);
  if (!reply.ok()) return FromRedis(reply.status());
  return reply;
}

absl::StatusOr<std::vector<redis::Reply>> RedisJobStore::Pipeline(
    const std::vector<std::vector<std::string>>& commands) {
  auto replies = redis_.Pipeline(commands);
  if (!replies.ok()) return FromRedis(replies.status());
  std::vector<redis::Reply> out;
  out.reserve(replies->size());
  for (absl::StatusOr<redis::Reply>& reply : *replies) {
    if (!reply.ok()) return FromRedis(reply.status());
    out.push_back(*std::move(reply));
  }
  return out;
}

void RedisJobStore::Saw(uint64_t token) {
  uint64_t highest = highest_token_.load();
  while (token > highest && !highest_token_.compare_exchange_weak(highest, token)) {
  }
}

void RedisJobStore::Deliver(const std::string& pool, const redis::Reply& messages) {
  for (size_t i = 0; i + 3 < messages.elements.size(); i += 4) {
    Message message;
    message.kind = KindOf(messages.elements[i].text);
    message.pool = pool;
    message.worker_id = messages.elements[i + 1].text;
    message.job_id = messages.elements[i + 2].text;
    message.fencing_token = ToToken(messages.elements[i + 3].text);
    Saw(message.fencing_token);
    if (message.kind == Message::Kind::kStop || message.kind == Message::Kind::kRevoke) {
      ForgetFresh(message.job_id);
    }
    listener_.message(message);
  }
}

absl::StatusOr<redis::Reply> RedisJobStore::Run(const redis::Function& script,
                                                const std::string& pool,
                                                const std::vector<std::string>& arguments, int more,
                                                int messages, const OnReply& before,
                                                bool acknowledged) {
  absl::Status status;
  for (int attempt = 0; attempt < 3; ++attempt) {
    const auto ground = pools_.GroundOf(pool, highest_token_.load());
    if (!ground.ok()) return FromRedis(ground.status());
    std::vector<std::string> all = {ground->epoch, broker_id_};
    all.insert(all.end(), arguments.begin(), arguments.end());
    const int wanted = acknowledged && durability_.replica ? 1 : 0;
    int replicas = 0;
    absl::StatusOr<redis::Reply> reply =
        redis_.Call(script, {keys::PoolKeys(pool).meta()}, all, ground->server, wanted, &replicas);
    if (reply.ok()) {
      if (before) before(*reply);
      if (messages >= 0 && static_cast<size_t>(messages) < reply->elements.size()) {
        Deliver(pool, reply->elements[static_cast<size_t>(messages)]);
      }
      if (more >= 0 && reply->elements[static_cast<size_t>(more)].integer == 1) MatchOn(pool);
      if (replicas < wanted) return NotReplicated();
      return reply;
    }
    status = reply.status();
    const std::string reason = parley::ReasonOf(status).reason;
    if (reason != "STALE_EPOCH" && reason != "SERVER_CHANGED") break;
    pools_.Forget(pool, *ground);
  }
  return FromRedis(Annotate(status, script.name));
}

void RedisJobStore::MatchOn(const std::string& pool) {
  // A slice at a time, so that no other script waits long. Whatever fails here, the tick goes on.
  for (int slice = 0; slice < 100; ++slice) {
    const auto reply = Run(scripts::match, pool, {}, -1, 1);
    if (!reply.ok() || reply->elements[0].integer != 1) return;
  }
}

absl::StatusOr<std::string> RedisJobStore::PoolOf(std::string_view id, std::string_view prefix) {
  const std::string_view tag = PoolTagOf(id, prefix);
  if (tag.empty()) return NotFound("\"{}\" is not an id of this kind ({}…)", id, prefix);
  absl::StatusOr<std::string> pool = pools_.NameOf(std::string(tag));
  if (absl::IsNotFound(pool.status())) return NotFound("{} does not exist", id);
  if (!pool.ok()) return FromRedis(pool.status());
  return pool;
}

absl::StatusOr<std::string> RedisJobStore::NewDispatchId(const std::string& pool) {
  auto tag = pools_.TagOf(pool);
  if (!tag.ok()) return FromRedis(tag.status());
  return NewRoutedId(kDispatchPrefix, *tag);
}

absl::StatusOr<std::string> RedisJobStore::NewJobId(const std::string& pool) {
  auto tag = pools_.TagOf(pool);
  if (!tag.ok()) return FromRedis(tag.status());
  return NewRoutedId(kJobPrefix, *tag);
}

absl::StatusOr<Dispatch> RedisJobStore::ReadDispatch(const std::string& pool, std::string_view id) {
  PARLEY_ASSIGN_OR_RETURN(std::vector<Dispatch> found, ReadDispatches(pool, {std::string(id)}));
  if (found.empty()) return NotFound("dispatch {} does not exist", id);
  return std::move(found.front());
}

absl::StatusOr<std::vector<Dispatch>> RedisJobStore::ReadDispatches(
    const std::string& pool, const std::vector<std::string>& ids) {
  const keys::PoolKeys keys(pool);
  std::vector<std::vector<std::string>> commands;
  for (const std::string& id : ids) {
    commands.push_back({"HGETALL", keys.dispatch(id)});
    commands.push_back({"GET", keys.payload(id)});
  }
  PARLEY_ASSIGN_OR_RETURN(const std::vector<redis::Reply> replies, Pipeline(commands));
  std::vector<Dispatch> dispatches;
  std::vector<std::pair<size_t, std::string>> wanted;  // whose, job
  commands.clear();
  for (size_t i = 0; i < ids.size(); ++i) {
    const Fields fields = ToFields(replies[2 * i]);
    if (fields.empty()) continue;
    dispatches.push_back(ToDispatch(fields, ids[i], replies[2 * i + 1].text, pool));
    std::vector<std::string> jobs = {std::string(Get(fields, "job"))};
    if (dispatches.back().stays()) {
      PARLEY_ASSIGN_OR_RETURN(const redis::Reply newest,
                              Command({"ZREVRANGE", keys.jobs_of(ids[i]), "0", "99"}));
      jobs.clear();
      for (const redis::Reply& job : newest.elements) jobs.push_back(job.text);
    }
    for (std::string& job : jobs) {
      commands.push_back({"HGETALL", keys.job(job)});
      wanted.emplace_back(dispatches.size() - 1, std::move(job));
    }
  }
  PARLEY_ASSIGN_OR_RETURN(const std::vector<redis::Reply> jobs, Pipeline(commands));
  for (size_t i = 0; i < jobs.size(); ++i) {
    const Fields fields = ToFields(jobs[i]);
    if (fields.empty()) continue;
    dispatches[wanted[i].first].jobs.push_back(ToJob(fields, wanted[i].second, pool));
  }
  return dispatches;
}

absl::StatusOr<Dispatch> RedisJobStore::GetDispatch(std::string_view dispatch_id) {
  PARLEY_ASSIGN_OR_RETURN(const std::string pool, PoolOf(dispatch_id, kDispatchPrefix));
  absl::StatusOr<Dispatch> found = ReadDispatch(pool, dispatch_id);
  if (!absl::IsNotFound(found.status())) return found;
  PARLEY_RETURN_IF_ERROR(CheckSettled(pool));
  return ReadDispatch(pool, dispatch_id);  // it may have come back just before
}

absl::Status RedisJobStore::CheckSettled(const std::string& pool) {
  PARLEY_ASSIGN_OR_RETURN(const redis::Reply settled, Run(scripts::settled, pool, {}, -1, -1));
  return settled.integer == 1 ? absl::OkStatus() : Recovering();
}

absl::StatusOr<Job> RedisJobStore::GetJob(std::string_view job_id) {
  PARLEY_ASSIGN_OR_RETURN(const std::string pool, PoolOf(job_id, kJobPrefix));
  const std::vector<std::string> read = {"HGETALL", keys::PoolKeys(pool).job(job_id)};
  PARLEY_ASSIGN_OR_RETURN(redis::Reply reply, Command(read));
  if (reply.elements.empty()) {
    PARLEY_RETURN_IF_ERROR(CheckSettled(pool));
    PARLEY_ASSIGN_OR_RETURN(reply, Command(read));
  }
  const Fields fields = ToFields(reply);
  if (fields.empty()) return NotFound("job {} does not exist", job_id);
  return ToJob(fields, job_id, pool);
}

absl::StatusOr<Assignment> RedisJobStore::GetAssignment(std::string_view job_id, uint64_t token) {
  PARLEY_ASSIGN_OR_RETURN(const std::string pool, PoolOf(job_id, kJobPrefix));
  const keys::PoolKeys keys(pool);
  std::string dispatch_id;
  if (std::optional<Assignment> fresh = TakeFresh(job_id, token, &dispatch_id)) {
    return *std::move(fresh);
  }
  if (dispatch_id.empty()) {
    PARLEY_ASSIGN_OR_RETURN(const redis::Reply known,
                            Command({"HGET", keys.job(job_id), "dispatch"}));
    if (known.nil()) return NotFound("job {} does not exist", job_id);
    dispatch_id = known.text;
  }
  PARLEY_ASSIGN_OR_RETURN(const std::vector<redis::Reply> replies,
                          Pipeline({{"HGETALL", keys.dispatch(dispatch_id)},
                                    {"GET", keys.payload(dispatch_id)},
                                    {"HGET", keys.checkpoint(job_id), "blob"},
                                    {"HGETALL", keys.job(job_id)}}));
  const Fields fields = ToFields(replies[3]);
  if (fields.empty()) return NotFound("job {} does not exist", job_id);
  const Job job = ToJob(fields, job_id, pool);
  const bool take_over = !job.next_worker_id.empty() && job.next_token == token;
  if (!take_over && (job.fencing_token != token || !IsLeased(job.state))) {
    return Aborted("job {} is {} under token {}, not {}", job_id, Text(job.state),
                   job.fencing_token, token);
  }
  Assignment assignment;
  const Dispatch dispatch =
      ToDispatch(ToFields(replies[0]), job.dispatch_id, replies[1].text, pool);
  static_cast<DispatchSpec&>(assignment) = dispatch;
  assignment.participant_identity = job.participant_identity;
  assignment.session_id = job.session_id;
  assignment.job_id = job_id;
  assignment.dispatch_id = job.dispatch_id;
  assignment.fencing_token = token;
  assignment.attempt = std::max(1, job.attempt + (job.state == State::kOffered ? 1 : 0));
  assignment.resuming = assignment.attempt > 1 || take_over || job.handed_over;
  assignment.take_over = take_over;
  assignment.paused_at = job.paused_at;
  assignment.checkpoint = replies[2].text;
  assignment.create_time = job.create_time;
  assignment.deadline = job.deadline;
  assignment.state = job.state;
  return assignment;
}

absl::StatusOr<Dispatch> RedisJobStore::Terminate(std::string_view id) {
  PARLEY_ASSIGN_OR_RETURN(
      const std::string pool,
      PoolOf(id, id.starts_with(kDispatchPrefix) ? kDispatchPrefix : kJobPrefix));
  PARLEY_ASSIGN_OR_RETURN(const redis::Reply reply,
                          Run(scripts::terminate, pool, {std::string(id)}, 2, 3, nullptr, true));
  if (reply.elements[0].text == "HOLD") return Recovering();
  if (reply.elements[0].text.empty()) return NotFound("{} does not exist", id);
  PARLEY_RETURN_IF_ERROR(Keep(pool, {"stop", reply.elements[1].text}));
  PARLEY_RETURN_IF_ERROR(Commit());
  return ReadDispatch(pool, reply.elements[0].text);
}

absl::StatusOr<Job> RedisJobStore::Migrate(std::string_view job_id, uint64_t token,
                                           std::string_view worker_id) {
  PARLEY_ASSIGN_OR_RETURN(const std::string pool, PoolOf(job_id, kJobPrefix));
  PARLEY_ASSIGN_OR_RETURN(
      const redis::Reply reply,
      Run(scripts::migrate, pool,
          {std::string(job_id), token == 0 ? "" : std::to_string(token), std::string(worker_id)},
          -1, 1));
  const std::string& outcome = reply.elements[0].text;
  if (outcome == "OK") return GetJob(job_id);
  if (outcome == "HOLD") return Recovering();
  if (outcome == "NOT_FOUND") return NotFound("job {} does not exist", job_id);
  if (outcome == "STALE") return Aborted("job {} has a newer token than {}", job_id, token);
  if (outcome == "NO_WORKER") {
    return WithReason(
        worker_id.empty()
            ? ResourceExhausted("no other worker can take job {} now", job_id)
            : ResourceExhausted("worker {} cannot take job {} now", worker_id, job_id),
        "NO_WORKER");
  }
  return WithReason(
      FailedPrecondition("job {} does not run, or is being stopped: there is nothing to hand over",
                         job_id),
      "NOT_RUNNING");
}

absl::Status RedisJobStore::SaveCheckpoint(std::string_view job_id, uint64_t token,
                                           std::string_view blob) {
  return SaveBlob(job_id, token, blob, "");
}

absl::Status RedisJobStore::SaveLastCheckpoint(std::string_view job_id, uint64_t token,
                                               std::string_view blob, absl::Time paused_at) {
  return SaveBlob(job_id, token, blob, std::to_string(absl::ToUnixMillis(paused_at)));
}

absl::Status RedisJobStore::NoteStall(std::string_view job_id, uint64_t token,
                                      std::string_view stage, bool given_up) {
  constexpr size_t kMaxStage = 32;
  const bool word =
      !stage.empty() && stage.size() <= kMaxStage &&
      std::all_of(stage.begin(), stage.end(), [](char c) { return c >= 'a' && c <= 'z'; });
  if (!word) return InvalidArgument("a stage is a word of a to z");
  PARLEY_ASSIGN_OR_RETURN(const std::string pool, PoolOf(job_id, kJobPrefix));
  PARLEY_ASSIGN_OR_RETURN(const redis::Reply reply,
                          Run(scripts::note_stall, pool,
                              {std::string(job_id), std::to_string(token),
                               fmt::format("{}{}", given_up ? "job_gave_up_" : "job_slow_", stage)},
                              -1, 1));
  if (reply.elements[0].integer == 1) return absl::OkStatus();
  return Aborted("job {} ended or has a newer token than {}", job_id, token);
}

absl::Status RedisJobStore::SaveBlob(std::string_view job_id, uint64_t token, std::string_view blob,
                                     const std::string& paused_ms) {
  if (blob.size() > kMaxCheckpointBytes) {
    return InvalidArgument("a checkpoint has at most {} bytes, not {}", kMaxCheckpointBytes,
                           blob.size());
  }
  PARLEY_ASSIGN_OR_RETURN(const std::string pool, PoolOf(job_id, kJobPrefix));
  PARLEY_ASSIGN_OR_RETURN(
      const redis::Reply reply,
      Run(scripts::checkpoint, pool,
          {std::string(job_id), std::to_string(token), std::string(blob), paused_ms}, -1, 1));
  if (reply.elements[0].integer == 1) return absl::OkStatus();
  return Aborted("job {} ended or has a newer token than {}", job_id, token);
}

}  // namespace parley::job
