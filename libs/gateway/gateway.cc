#include "gateway/gateway.h"

#include <algorithm>
#include <utility>

#include "auth/token.h"
#include "base/clock.h"
#include "base/status.h"

namespace parley::gateway {

absl::Status RequireCaller(const service::Context& context, std::string_view bearer) {
  PARLEY_ASSIGN_OR_RETURN(const auth::Claims claims, context.AuthenticateToken(bearer));
  if (claims.is_service()) return absl::OkStatus();
  return auth::RequireWorker(claims);
}

absl::StatusOr<speech::Caller> CallerOf(const service::Context& context, std::string_view bearer,
                                        const common::v1::CallContext& call) {
  PARLEY_ASSIGN_OR_RETURN(const auth::Claims claims, context.AuthenticateToken(bearer));
  if (!claims.is_service()) PARLEY_RETURN_IF_ERROR(auth::RequireWorker(claims));
  speech::Caller caller;
  caller.project = claims.project.empty() ? call.project() : claims.project;
  if (caller.project.empty()) caller.project = "default";
  caller.session = call.session_id();
  return caller;
}

absl::Time DeadlineOf(const common::v1::CallContext& call) {
  return call.deadline_unix_ms() == 0 ? absl::InfiniteFuture()
                                      : absl::FromUnixMillis(call.deadline_unix_ms());
}

absl::Status Busy(std::string_view what, size_t limit, std::string_view setting) {
  return WithReason(
      ResourceExhausted("this gateway serves {} {} at a time and is full; try again shortly, add a "
                        "replica, or raise --{}",
                        limit, what, setting),
      "GATEWAY_FULL", {{"retry_after_ms", "500"}});
}

Streams::Streams(size_t limit) : limit_(limit), thread_([this] { Run(); }) {}

Streams::~Streams() {
  {
    MutexLock lock(&mutex_);
    stop_ = true;
    changed_.SignalAll();
  }
  thread_.join();
}

bool Streams::Add(Member* key, std::weak_ptr<Member> member) {
  MutexLock lock(&mutex_);
  if (members_.size() >= limit_) return false;
  members_[key] = std::move(member);
  return true;
}

void Streams::Remove(Member* key) {
  MutexLock lock(&mutex_);
  members_.erase(key);
  due_.erase(key);
  changed_.SignalAll();
}

void Streams::CheckIn(Member* key, absl::Duration wait) {
  const absl::Time at = Clock::Real().Now() + wait;
  MutexLock lock(&mutex_);
  if (!members_.contains(key)) return;
  const auto [due, added] = due_.try_emplace(key, at);
  if (!added && due->second <= at) return;
  due->second = at;
  changed_.SignalAll();
}

size_t Streams::size() const {
  MutexLock lock(&mutex_);
  return members_.size();
}

void Streams::WaitEmpty() {
  MutexLock lock(&mutex_);
  while (!members_.empty()) changed_.Wait(&mutex_);
}

void Streams::Run() {
  absl::Time next = Clock::Real().Now() + absl::Seconds(1);
  MutexLock lock(&mutex_);
  while (!stop_) {
    const absl::Time now = Clock::Real().Now();
    absl::Time first = next;
    for (const auto& [key, at] : due_) first = std::min(first, at);
    if (now < first) {
      changed_.WaitFor(&mutex_, first - now);
      continue;
    }
    const bool all = now >= next;
    if (all) next = now + absl::Seconds(1);
    std::vector<std::shared_ptr<Member>> alive;
    for (const auto& [key, member] : members_) {
      const auto due = due_.find(key);
      const bool wished = due != due_.end() && due->second <= now;
      if (wished) due_.erase(due);
      if (!all && !wished) continue;
      if (auto locked = member.lock()) alive.push_back(std::move(locked));
    }
    // Members may call back.
    mutex_.Unlock();
    for (const auto& member : alive) member->Check(now);
    alive.clear();
    mutex_.Lock();
  }
}

}  // namespace parley::gateway
