// Dispatches are made here, and handed to workers of this broker without being read back.
#include <algorithm>

#include "base/status.h"
#include "job/limits.h"
#include "job_redis/redis_job_store.h"
#include "job_redis/scripts.h"

namespace parley::job {
namespace {

constexpr size_t kCreatesPerCall = 25;  // so that no other script waits long
constexpr size_t kMaxFresh = 10'000;
constexpr size_t kMaxFreshBytes = 4096;  // of what one of them brings along
constexpr size_t kCreateParts = 8;

void AppendCreate(const NewDispatch& dispatch, std::vector<std::string>& arguments) {
  const int64_t not_before = std::max<int64_t>(0, absl::ToUnixMillis(dispatch.not_before));
  arguments.push_back(dispatch.dispatch_id);
  arguments.push_back(dispatch.job_id);
  arguments.push_back(dispatch.not_before == absl::InfinitePast() ? "0"
                                                                  : std::to_string(not_before));
  AppendRecord(dispatch,
               {{"hash", dispatch.request_hash},
                {"wait", std::to_string(absl::ToInt64Milliseconds(dispatch.queue_deadline))}},
               arguments);
}

// The job as create.lua left it, without reading it back.
Job FreshJob(const NewDispatch& dispatch, const redis::Reply* parts) {
  Job job;
  job.id = dispatch.job_id;
  job.dispatch_id = dispatch.dispatch_id;
  job.project = dispatch.project;
  job.agent_name = dispatch.agent_name;
  job.room = dispatch.room;
  job.state = StateFromText(parts[2].text);
  job.fencing_token = ToToken(parts[3].text);
  job.worker_id = parts[4].text;
  job.attempt = static_cast<int>(ToToken(parts[5].text));
  job.type = dispatch.type;
  job.participant_identity = dispatch.participant_identity;
  job.pool = dispatch.pool;
  job.agent_id = dispatch.agent_id;
  job.agent_version = dispatch.agent_version;
  job.session_id = dispatch.session_id;
  job.create_time = job.update_time = ToTime(parts[6].text);
  job.deadline = ToTime(parts[7].text);
  return job;
}

absl::Status OverSelectors(const NewDispatch& dispatch) {
  return WithReason(
      ResourceExhausted(
          "jobs with 64 different selectors wait for agent \"{}\" already; try again later",
          dispatch.agent_name),
      "OVER_QUOTA");
}

absl::Status OverQuota(const NewDispatch& dispatch) {
  return WithReason(
      ResourceExhausted("as many jobs wait as project \"{}\" or pool \"{}\" may have; try again "
                        "later",
                        dispatch.project, dispatch.pool),
      "OVER_QUOTA");
}

}  // namespace

absl::StatusOr<JobStore::Created> RedisJobStore::ToCreated(const NewDispatch& dispatch,
                                                           const std::vector<redis::Reply>& parts,
                                                           size_t at) {
  const std::string& outcome = parts[at].text;
  const std::string& id = parts[at + 1].text;
  if (outcome == "HOLD") return Recovering();
  if (outcome == "KEY_REUSED") {
    return WithReason(
        AlreadyExists("idempotency key \"{}\" belongs to a different request (dispatch {})",
                      dispatch.idempotency_key, id),
        "KEY_REUSED", {{"dispatch_id", id}});
  }
  if (outcome == "OVER_SELECTORS") return OverSelectors(dispatch);
  if (outcome == "OVER_QUOTA") return OverQuota(dispatch);
  Created created;
  static_cast<DispatchSpec&>(created.dispatch) = dispatch;
  created.dispatch.id = id;
  if (outcome == "CREATED") {
    created.dispatch.create_time = ToTime(parts[at + 6].text);
    if (!dispatch.stays()) {
      created.dispatch.jobs.push_back(FreshJob(dispatch, &parts[at]));
      return created;
    }
    PARLEY_RETURN_IF_ERROR(CatchUpPresence(dispatch));
  }
  created.existed = outcome == "EXISTS";
  absl::StatusOr<Dispatch> stored = ReadDispatch(dispatch.pool, id);
  if (stored.ok()) {
    created.dispatch = *std::move(stored);
  } else if (absl::IsNotFound(stored.status())) {  // its key outlives it
    created.dispatch.ended = true;
  } else {
    return stored.status();
  }
  return created;
}

// `arguments` as create.lua took them for this dispatch; the ids and times are the stored ones'.
absl::Status RedisJobStore::KeepCreate(const Dispatch& stored, std::vector<std::string> arguments) {
  constexpr size_t kCount = 3;
  absl::Time deadline = stored.create_time + kDefaultQueueDeadline;  // of one that stays: unused
  arguments[0] = stored.id;
  if (!stored.stays()) {
    arguments[1] = stored.jobs.front().id;
    deadline = stored.jobs.front().deadline;
  }
  arguments[kCount] = std::to_string(ToToken(arguments[kCount]) + 2);
  arguments.insert(arguments.end(),
                   {"create", TimeText(stored.create_time), "deadline", TimeText(deadline)});
  arguments.insert(arguments.begin(), "create");
  return Keep(stored.pool, std::move(arguments));
}

absl::StatusOr<JobStore::Created> RedisJobStore::Create(const NewDispatch& dispatch) {
  return std::move(CreateMany({dispatch}).front());
}

std::vector<absl::StatusOr<JobStore::Created>> RedisJobStore::CreateMany(
    const std::vector<NewDispatch>& dispatches) {
  std::map<std::string, std::vector<size_t>> by_pool;
  for (size_t i = 0; i < dispatches.size(); ++i) by_pool[dispatches[i].pool].push_back(i);
  std::vector<absl::StatusOr<Created>> created(dispatches.size(), Created());
  for (const auto& [pool, all] : by_pool) {
    std::vector<Batcher::Item> items(all.size());
    for (size_t i = 0; i < all.size(); ++i) {
      AppendCreate(dispatches[all[i]], items[i].arguments);
      items[i].tag = &dispatches[all[i]];
      RememberJob(dispatches[all[i]]);
    }
    BatcherOf(scripts::create, pool, kCreatesPerCall, [this, pool = pool](const auto& together) {
      return SendCreates(pool, together);
    }).Do(items);
    MatchOnAfter(pool, items);
    for (size_t i = 0; i < all.size(); ++i) {
      const NewDispatch& dispatch = dispatches[all[i]];
      absl::StatusOr<Created>& one = created[all[i]];
      one = items[i].status.ok() ? ToCreated(dispatch, items[i].reply->elements[1].elements,
                                             items[i].first * kCreateParts)
                                 : items[i].status;
      if (!one.ok() || (one->dispatch.jobs.empty() && !one->dispatch.stays())) continue;
      // Another one that was unique in the room: its own create is not this one.
      if (one->existed && dispatch.unique_in_room) continue;
      absl::Status kept = KeepCreate(one->dispatch, std::move(items[i].arguments));
      if (!kept.ok()) one = std::move(kept);
    }
  }
  if (absl::Status status = Commit(); !status.ok()) {
    for (absl::StatusOr<Created>& one : created) {
      if (one.ok()) one = status;
    }
  }
  return created;
}

absl::StatusOr<redis::Reply> RedisJobStore::SendCreates(
    const std::string& pool, const std::vector<Batcher::Item*>& together) {
  std::vector<std::string> arguments;
  for (const Batcher::Item* item : together) {
    arguments.insert(arguments.end(), item->arguments.begin(), item->arguments.end());
  }
  const auto note = [&](const redis::Reply& reply) {
    const std::vector<redis::Reply>& parts = reply.elements[1].elements;
    for (size_t i = 0; i < together.size(); ++i) {
      const redis::Reply* one = &parts.at(i * kCreateParts);
      if (one->text == "CREATED") {
        NoteFresh(*static_cast<const NewDispatch*>(together[i]->tag), one);
      }
    }
  };
  return Run(scripts::create, pool, arguments, -1, 2, note, true);
}

// ---- what is fresh needs not be read back ----

void RedisJobStore::RememberJob(const NewDispatch& dispatch) {
  MutexLock lock(&fresh_mutex_);
  Fresh fresh;
  fresh.dispatch_id = dispatch.dispatch_id;
  if (!fresh_.emplace(dispatch.job_id, std::move(fresh)).second) return;
  fresh_order_.push_back(dispatch.job_id);
  if (fresh_order_.size() <= kMaxFresh) return;
  fresh_.erase(fresh_order_.front());
  fresh_order_.pop_front();
}

// It has a worker already, who is told next.
void RedisJobStore::NoteFresh(const NewDispatch& dispatch, const redis::Reply* parts) {
  size_t bytes = dispatch.metadata.size();
  for (const auto& [name, value] : dispatch.attributes) bytes += name.size() + value.size();
  const Job job = FreshJob(dispatch, parts);
  if (bytes > kMaxFreshBytes || dispatch.stays() || !IsLeased(job.state)) return;
  auto assignment = std::make_unique<Assignment>();
  static_cast<DispatchSpec&>(*assignment) = dispatch;
  assignment->job_id = job.id;
  assignment->dispatch_id = job.dispatch_id;
  assignment->fencing_token = job.fencing_token;
  assignment->attempt = 1;
  assignment->create_time = job.create_time;
  assignment->deadline = job.deadline;
  assignment->state = job.state;
  MutexLock lock(&fresh_mutex_);
  if (const auto it = fresh_.find(job.id); it != fresh_.end() && !it->second.changed) {
    it->second.assignment = std::move(assignment);
  }
}

void RedisJobStore::ForgetFresh(const std::string& job_id) {
  MutexLock lock(&fresh_mutex_);
  if (const auto it = fresh_.find(job_id); it != fresh_.end()) {
    it->second.changed = true;
    it->second.assignment.reset();
  }
}

std::optional<Assignment> RedisJobStore::TakeFresh(std::string_view job_id, uint64_t token,
                                                   std::string* dispatch_id) {
  MutexLock lock(&fresh_mutex_);
  const auto it = fresh_.find(job_id);
  if (it == fresh_.end()) return std::nullopt;
  *dispatch_id = it->second.dispatch_id;
  const std::unique_ptr<const Assignment> assignment = std::move(it->second.assignment);
  if (assignment == nullptr || assignment->fencing_token != token) return std::nullopt;
  return *assignment;
}

// Matching that is left over goes on without those that came later having to wait for it: by the
// one who went first in each call.
void RedisJobStore::MatchOnAfter(const std::string& pool, const std::vector<Batcher::Item>& items) {
  for (const Batcher::Item& item : items) {
    if (!item.status.ok() || item.first > 0 || item.reply->elements[0].integer != 1) continue;
    return MatchOn(pool);
  }
}

Batcher& RedisJobStore::BatcherOf(const redis::Function& function, const std::string& pool,
                                  size_t limit, Batcher::Send send) {
  MutexLock lock(&batchers_mutex_);
  std::unique_ptr<Batcher>& batcher = batchers_[{function.name, pool}];
  if (batcher == nullptr) batcher = std::make_unique<Batcher>(limit, std::move(send));
  return *batcher;
}

}  // namespace parley::job
