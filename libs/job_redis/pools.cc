#include "job_redis/pools.h"

#include "base/status.h"
#include "job_redis/keys.h"
#include "job_redis/scripts.h"

namespace parley::job {

PoolTable::PoolTable(redis::Pool& redis, std::function<void(const std::string&)> recovering)
    : redis_(redis), recovering_(std::move(recovering)) {}

absl::StatusOr<std::string> PoolTable::TagOf(const std::string& pool) {
  {
    MutexLock lock(&mutex_);
    if (const auto it = tags_.find(pool); it != tags_.end()) return it->second;
  }
  PARLEY_ASSIGN_OR_RETURN(const redis::Reply reply,
                          redis_.Eval(scripts::pool_tag, {std::string(keys::kPools)},
                                      {pool, std::to_string(kMaxPools)}));
  if (reply.nil()) {
    return ResourceExhausted(
        "there are {} pools already: use an agent name that some worker or definition has",
        kMaxPools);
  }
  MutexLock lock(&mutex_);
  names_[reply.text] = pool;
  return tags_[pool] = reply.text;
}

absl::StatusOr<std::string> PoolTable::NameOf(const std::string& tag) {
  {
    MutexLock lock(&mutex_);
    if (const auto it = names_.find(tag); it != names_.end()) return it->second;
  }
  PARLEY_ASSIGN_OR_RETURN(const redis::Reply reply,
                          redis_.Command({"HGET", std::string(keys::kPools), "t:" + tag}));
  if (reply.nil()) return NotFound("no pool has the number {}", tag);
  MutexLock lock(&mutex_);
  tags_[reply.text] = tag;
  return names_[tag] = reply.text;
}

absl::StatusOr<std::vector<std::string>> PoolTable::All() {
  PARLEY_ASSIGN_OR_RETURN(const redis::Reply reply,
                          redis_.Command({"HKEYS", std::string(keys::kPools)}));
  std::vector<std::string> pools;
  for (const redis::Reply& field : reply.elements) {
    if (field.text.starts_with("n:")) pools.push_back(field.text.substr(2));
  }
  return pools;
}

absl::StatusOr<std::string> PoolTable::RunId() {
  PARLEY_ASSIGN_OR_RETURN(const redis::Reply reply, redis_.Command({"INFO", "server"}));
  const size_t begin = reply.text.find("run_id:");
  if (begin == std::string::npos) return Internal("Redis does not tell its run_id");
  const size_t end = reply.text.find('\r', begin);
  return reply.text.substr(begin + 7, end - begin - 7);
}

absl::Status PoolTable::CheckRunId() {
  PARLEY_ASSIGN_OR_RETURN(std::string run_id, RunId());
  std::vector<std::vector<std::string>> commands;
  {
    MutexLock lock(&mutex_);
    if (run_id == run_id_) return absl::OkStatus();
    // It may have lost the numbers of pools; ids that carry them are out there.
    for (const auto& [tag, name] : names_) {
      commands.push_back({"HSETNX", std::string(keys::kPools), "n:" + name, tag});
      commands.push_back({"HSETNX", std::string(keys::kPools), "t:" + tag, name});
    }
  }
  PARLEY_RETURN_IF_ERROR(redis_.Pipeline(commands).status());
  MutexLock lock(&mutex_);
  for (auto& [pool, state] : states_) state.epoch.clear();
  run_id_ = std::move(run_id);
  return absl::OkStatus();
}

void PoolTable::Forget(const std::string& pool, const std::string& epoch) {
  MutexLock lock(&mutex_);
  State& state = states_[pool];
  if (state.epoch == epoch) state.epoch.clear();
}

absl::StatusOr<std::string> PoolTable::EpochOf(const std::string& pool, uint64_t highest_token) {
  std::string known;
  {
    MutexLock lock(&mutex_);
    const State& state = states_[pool];
    if (!state.epoch.empty()) return state.epoch;
    known = state.known.empty() ? "0" : state.known;
  }
  PARLEY_RETURN_IF_ERROR(CheckRunId());
  std::string run_id;
  {
    MutexLock lock(&mutex_);
    run_id = run_id_;
  }
  PARLEY_ASSIGN_OR_RETURN(const redis::Reply reply,
                          redis_.Eval(scripts::begin_epoch, {keys::PoolKeys(pool).meta()},
                                      {run_id, known, std::to_string(highest_token)}));
  if (reply.elements.size() != 2) return Internal("begin_epoch answered in another form");
  const std::string epoch = std::to_string(reply.elements[0].integer);
  bool tell = false;
  {
    MutexLock lock(&mutex_);
    State& state = states_[pool];
    tell = state.epoch != epoch && (known != "0" ? epoch != known : reply.elements[1].integer == 1);
    state.epoch = state.known = epoch;
  }
  if (tell) recovering_(pool);
  return epoch;
}

}  // namespace parley::job
