#include "speech/breakers.h"

#include <algorithm>
#include <utility>

namespace parley::speech {
namespace {

bool IsFailure(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
      return true;
    default:
      return false;
  }
}

}  // namespace

Breakers::Breakers(Clock& clock, Options options) : clock_(clock), options_(options) {}

bool Breakers::Allow(std::string_view key) {
  MutexLock lock(&mutex_);
  const auto it = breakers_.find(key);
  if (it == breakers_.end() || !it->second.open) return true;
  Breaker& breaker = it->second;
  const absl::Time now = clock_.Now();
  if (now < breaker.open_until || now < breaker.probe_until) return false;
  breaker.probe_until = now + options_.probe_timeout;
  changed_.emplace(key);
  return true;
}

void Breakers::Report(std::string_view key, const absl::Status& status) {
  MutexLock lock(&mutex_);
  if (status.ok()) {
    const auto it = breakers_.find(key);
    if (it == breakers_.end()) return;
    if (it->second.open) changed_.emplace(key);
    breakers_.erase(it);
    return;
  }
  if (!IsFailure(status)) {
    const auto it = breakers_.find(key);
    if (it == breakers_.end()) return;
    it->second.probe_until = absl::InfinitePast();
    if (it->second.open) changed_.emplace(key);
    return;
  }
  Breaker& breaker = breakers_[std::string(key)];
  ++breaker.failures;
  if (!breaker.open && breaker.failures < options_.failures_to_open) return;
  const absl::Time now = clock_.Now();
  // Late failures of calls that began before it opened say nothing new.
  if (breaker.open && now < breaker.open_until) return;
  breaker.cool_down =
      breaker.open ? std::min(breaker.cool_down * 2, options_.max_cool_down) : options_.cool_down;
  breaker.open = true;
  breaker.open_until = now + breaker.cool_down;
  breaker.probe_until = absl::InfinitePast();
  changed_.emplace(key);
}

Breakers::State Breakers::StateOf(std::string_view key) const {
  MutexLock lock(&mutex_);
  const auto it = breakers_.find(key);
  if (it == breakers_.end() || !it->second.open) return State::kClosed;
  return clock_.Now() < it->second.open_until ? State::kOpen : State::kHalfOpen;
}

std::vector<Breakers::Health> Breakers::TakeChanges() {
  const absl::Time now = clock_.Now();
  const auto left = [now](absl::Time until) { return std::max(until - now, absl::ZeroDuration()); };
  std::vector<Health> changes;
  MutexLock lock(&mutex_);
  for (const std::string& key : std::exchange(changed_, {})) {
    Health& health = changes.emplace_back();
    health.key = key;
    const auto it = breakers_.find(key);
    if (it == breakers_.end() || !it->second.open) continue;
    health.down = true;
    health.wait = left(it->second.open_until);
    health.cool_down = it->second.cool_down;
    health.probe = left(it->second.probe_until);
  }
  return changes;
}

void Breakers::GiveBack(const std::vector<Health>& changes) {
  MutexLock lock(&mutex_);
  for (const Health& change : changes) changed_.insert(change.key);
}

void Breakers::Adopt(const std::vector<Health>& board) {
  const absl::Time now = clock_.Now();
  MutexLock lock(&mutex_);
  std::set<std::string_view> down;
  for (const Health& health : board) {
    down.insert(health.key);
    if (changed_.contains(health.key)) continue;
    Breaker& breaker = breakers_[health.key];
    breaker.open = true;
    breaker.failures = std::max(breaker.failures, options_.failures_to_open);
    breaker.cool_down = std::max(breaker.cool_down, health.cool_down);
    // A later end of the cool-down is news of a probe that failed.
    if (now + health.wait > breaker.open_until) breaker.open_until = now + health.wait;
    breaker.probe_until =
        health.probe > absl::ZeroDuration() ? now + health.probe : absl::InfinitePast();
  }
  std::erase_if(breakers_, [&](const auto& entry) {
    return entry.second.open && !down.contains(entry.first) && !changed_.contains(entry.first);
  });
}

}  // namespace parley::speech
