#include "speech/breakers.h"

#include <algorithm>

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
  return true;
}

void Breakers::Report(std::string_view key, const absl::Status& status) {
  MutexLock lock(&mutex_);
  if (status.ok()) {
    if (const auto it = breakers_.find(key); it != breakers_.end()) breakers_.erase(it);
    return;
  }
  if (!IsFailure(status)) {
    if (const auto it = breakers_.find(key); it != breakers_.end())
      it->second.probe_until = absl::InfinitePast();
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
}

Breakers::State Breakers::StateOf(std::string_view key) const {
  MutexLock lock(&mutex_);
  const auto it = breakers_.find(key);
  if (it == breakers_.end() || !it->second.open) return State::kClosed;
  return clock_.Now() < it->second.open_until ? State::kOpen : State::kHalfOpen;
}

}  // namespace parley::speech
