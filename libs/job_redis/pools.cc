#include "job_redis/pools.h"

#include "base/status.h"
#include "job_redis/keys.h"
#include "job_redis/scripts.h"

namespace parley::job {
namespace {

absl::Status NewerForm() {
  return Unavailable(
      "a newer version keeps its records in this Redis, in a form that this one (which knows {}) "
      "does not read: finish the upgrade",
      keys::kRecordForm);
}

}  // namespace

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
  PARLEY_ASSIGN_OR_RETURN(const redis::Reply newest,
                          redis_.Eval(scripts::mark_form, {std::string(keys::kPools)},
                                      {std::to_string(keys::kRecordForm)}));
  if (newest.integer > keys::kRecordForm) return NewerForm();
  PARLEY_ASSIGN_OR_RETURN(const redis::Reply reply,
                          redis_.Command({"HKEYS", std::string(keys::kPools)}));
  std::vector<std::string> pools;
  for (const redis::Reply& field : reply.elements) {
    if (field.text.starts_with("n:")) pools.push_back(field.text.substr(2));
  }
  return pools;
}

void PoolTable::Learn(const std::string& pool, const std::string& tag) {
  MutexLock lock(&mutex_);
  names_[tag] = pool;
  tags_[pool] = tag;
  learned_ = true;
}

// A store that lost data may have lost the numbers of pools; ids that carry them are out there.
absl::Status PoolTable::RestoreNumbers() {
  std::vector<std::vector<std::string>> commands;
  {
    MutexLock lock(&mutex_);
    for (const auto& [tag, name] : names_) {
      commands.push_back({"HSETNX", std::string(keys::kPools), "n:" + name, tag});
      commands.push_back({"HSETNX", std::string(keys::kPools), "t:" + tag, name});
    }
  }
  return redis_.Pipeline(commands).status();
}

void PoolTable::Forget(const std::string& pool, const Ground& ground) {
  MutexLock lock(&mutex_);
  State& state = states_[pool];
  if (state.ground.epoch == ground.epoch && state.ground.server == ground.server) {
    state.ground = Ground();
  }
}

absl::StatusOr<PoolTable::Ground> PoolTable::GroundOf(const std::string& pool,
                                                      uint64_t highest_token) {
  std::string known;
  bool learned = false;
  {
    MutexLock lock(&mutex_);
    learned = learned_;
    const State& state = states_[pool];
    if (!state.ground.epoch.empty()) return state.ground;
    known = state.known.empty() ? "0" : state.known;
  }
  if (known != "0" || learned) PARLEY_RETURN_IF_ERROR(RestoreNumbers());
  absl::StatusOr<redis::Reply> answer =
      redis_.Eval(scripts::begin_epoch, {keys::PoolKeys(pool).meta()},
                  {known, std::to_string(highest_token), std::to_string(keys::kRecordForm)});
  if (parley::ReasonOf(answer.status()).reason == "NEWER_FORM") return NewerForm();
  PARLEY_ASSIGN_OR_RETURN(const redis::Reply reply, std::move(answer));
  if (reply.elements.size() != 3) return Internal("begin_epoch answered in another form");
  const Ground ground{std::to_string(reply.elements[0].integer), reply.elements[2].text};
  const bool on_hold = reply.elements[1].integer == 1;
  bool tell = false;
  {
    MutexLock lock(&mutex_);
    State& state = states_[pool];
    tell = state.ground.epoch != ground.epoch && (known != "0" ? ground.epoch != known : on_hold);
    state.ground = ground;
    state.known = ground.epoch;
  }
  if (tell) recovering_(pool);
  return ground;
}

}  // namespace parley::job
