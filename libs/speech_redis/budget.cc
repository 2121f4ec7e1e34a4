#include "speech_redis/budget.h"

#include <algorithm>

#include "base/clock.h"
#include "base/status.h"
#include "speech_redis/keys.h"
#include "speech_redis/scripts.h"

namespace parley::speech_redis {
namespace {

constexpr absl::Duration kCancelCheck = absl::Milliseconds(50);
// Between two exchanges: what changes meanwhile goes together.
constexpr int64_t kSpacingUs = 2000;
// While somebody waits for what others may free; each replica more makes a call dearer.
constexpr int64_t kPollUs = 10'000;
constexpr int64_t kPollPerReplicaUs = 2000;
constexpr int64_t kMinuteUs = 60'000'000;
constexpr int64_t kOwnedForUs = 5'000'000;  // without Redis
constexpr size_t kMaxCorrections = 10'000;

int64_t NowUs() { return Clock::Real().MonotonicMicros(); }

}  // namespace

Budget::Permit::Permit(Budget& budget, std::string project, int64_t second, int64_t tokens)
    : budget_(budget), project_(std::move(project)), second_(second), tokens_(tokens) {}

Budget::Permit::~Permit() { budget_.Release(project_); }

void Budget::Permit::Settle(int64_t tokens) {
  const int64_t more = tokens - std::exchange(tokens_, tokens);
  if (more == 0 || budget_.options_.limits.tokens_per_minute == 0) return;
  MutexLock lock(&budget_.mutex_);
  if (budget_.corrections_.size() < kMaxCorrections)
    budget_.corrections_.emplace_back(second_, more);
}

Budget::Budget(redis::Pool& pool, std::string replica, BudgetOptions options, WeightOf weight_of,
               log::Logger log)
    : pool_(pool),
      replica_(std::move(replica)),
      options_(std::move(options)),
      weight_of_(std::move(weight_of)),
      log_(std::move(log)),
      key_(BudgetKey(options_.provider)),
      thread_([this] { Run(); }) {}

Budget::~Budget() {
  {
    MutexLock lock(&mutex_);
    stop_ = true;
    changed_.SignalAll();
  }
  thread_.join();
  // What cannot be said now is free when the lease ends.
  pool_.Call(scripts::leave, {key_}, {replica_}).IgnoreError();
}

absl::Status Budget::Full() {
  return WithReason(
      ResourceExhausted("the budget of {} is used up; others wait for it, too", options_.provider),
      "BUDGET_FULL", {{"provider", options_.provider}, {"retry_after_ms", "1000"}});
}

absl::StatusOr<std::unique_ptr<Budget::Permit>> Budget::Acquire(
    const std::string& project, int64_t tokens, const speech::Cancellation& cancel) {
  const int64_t begun_us = NowUs();
  const int64_t until_us = begun_us + absl::ToInt64Microseconds(options_.wait);
  const int64_t asked_until_us = begun_us + absl::ToInt64Microseconds(kLongestExchange);
  Waiter waiter;
  waiter.tokens = std::max<int64_t>(tokens, 0);
  MutexLock lock(&mutex_);
  if (stop_ || static_cast<size_t>(Waiting()) >= options_.max_waiting) {
    ++stats_.refused;
    return Full();
  }
  waiter.number = ++last_waiter_;
  projects_[project].waiting.push_back(&waiter);
  dirty_ = true;
  changed_.SignalAll();
  while (!waiter.granted && !stop_ && !cancel.cancelled()) {
    // Nobody is sent away before anybody was asked, however short the wait.
    const int64_t left_us =
        (waiter.answered ? until_us : std::max(until_us, asked_until_us)) - NowUs();
    if (left_us <= 0) break;
    waiter.wake.WaitFor(&mutex_, std::min(absl::Microseconds(left_us), kCancelCheck));
  }
  if (waiter.granted) {
    ++stats_.granted;
    return std::make_unique<Permit>(*this, project, waiter.second, waiter.charged);
  }
  std::deque<Waiter*>& waiting = projects_[project].waiting;
  waiting.erase(std::find(waiting.begin(), waiting.end(), &waiter));
  dirty_ = true;  // Redis still counts it as one that waits
  changed_.SignalAll();
  if (cancel.cancelled()) return Cancelled("cancelled");
  ++stats_.refused;
  return Full();
}

void Budget::Release(const std::string& project) {
  MutexLock lock(&mutex_);
  --projects_[project].held;
  dirty_ = true;
  changed_.SignalAll();
}

Budget::Stats Budget::stats() const {
  MutexLock lock(&mutex_);
  return Standing();
}

Budget::Stats Budget::Standing() const {
  Stats stats = stats_;
  stats.held = Held();
  stats.waiting = Waiting();
  return stats;
}

int Budget::Held() const {
  int held = 0;
  for (const auto& [name, project] : projects_) held += project.held;
  return held;
}

int Budget::Waiting() const {
  int waiting = 0;
  for (const auto& [name, project] : projects_) waiting += static_cast<int>(project.waiting.size());
  return waiting;
}

void Budget::Run() {
  int64_t last_us = 0;
  int64_t next_us = 0;
  MutexLock lock(&mutex_);
  while (!stop_) {
    const int64_t due_us = dirty_ ? std::min(next_us, last_us + kSpacingUs) : next_us;
    const int64_t now_us = NowUs();
    if (now_us < due_us) {
      changed_.WaitFor(&mutex_, absl::Microseconds(due_us - now_us));
      continue;
    }
    dirty_ = false;
    last_us = now_us;
    const Asked asked = Snapshot();
    mutex_.Unlock();
    const absl::StatusOr<redis::Reply> reply =
        pool_.Call(scripts::exchange, {key_}, asked.arguments);
    mutex_.Lock();
    stats_.reachable = reply.ok();
    if (reply.ok()) {
      Apply(asked, *reply);
    } else {
      // A correction that may have been made already must not be made twice to the provider's
      // cost.
      for (const auto& correction : asked.corrections)
        if (correction.second > 0) corrections_.push_back(correction);
      if (!absl::IsUnavailable(reply.status()))
        log_.Error("a budget cannot be kept",
                   {{"provider", options_.provider}, {"error", Message(reply.status())}});
      GrantAlone();
      TellAnswered(asked.last_waiter);
      // An exchange that fails may have taken its whole time-out.
      last_us = NowUs();
    }
    if (options_.told) {
      const Stats standing = Standing();
      mutex_.Unlock();
      options_.told(standing);
      mutex_.Lock();
    }
    const bool wanted = Waiting() > 0;
    next_us = NowUs() + (wanted ? kPollUs + kPollPerReplicaUs * std::max(stats_.replicas, 1)
                                : absl::ToInt64Microseconds(options_.heartbeat));
  }
  for (auto& [name, project] : projects_)
    for (Waiter* waiter : project.waiting) waiter->wake.SignalAll();
}

Budget::Asked Budget::Snapshot() {
  Asked asked;
  asked.corrections = std::exchange(corrections_, {});
  asked.last_waiter = last_waiter_;
  const BudgetLimits& limits = options_.limits;
  asked.arguments = {replica_,
                     std::to_string(absl::ToInt64Milliseconds(options_.lease)),
                     std::to_string(limits.streams),
                     std::to_string(limits.requests_per_minute),
                     std::to_string(limits.tokens_per_minute),
                     std::to_string(asked.corrections.size())};
  for (const auto& [second, tokens] : asked.corrections) {
    asked.arguments.push_back(std::to_string(second));
    asked.arguments.push_back(std::to_string(tokens));
  }
  for (auto it = projects_.begin(); it != projects_.end();) {
    const auto& [name, project] = *it;
    if (project.held == 0 && project.waiting.empty()) {
      it = projects_.erase(it);
      continue;
    }
    int64_t tokens = 0;
    for (const Waiter* waiter : project.waiting) tokens += waiter->tokens;
    const auto waiting = static_cast<int64_t>(project.waiting.size());
    const int64_t cost = waiting == 0 ? 0 : (tokens + waiting - 1) / waiting;
    asked.projects.push_back(name);
    asked.costs.push_back(cost);
    asked.arguments.push_back(name);
    for (const int64_t number :
         {int64_t{std::max(weight_of_(name), 1)}, int64_t{project.held}, waiting, cost})
      asked.arguments.push_back(std::to_string(number));
    ++it;
  }
  return asked;
}

void Budget::Apply(const Asked& asked, const redis::Reply& reply) {
  constexpr size_t kHead = 3;
  if (reply.elements.size() != kHead + asked.projects.size()) return;
  const int64_t second = reply.elements[0].integer;
  stats_.replicas = static_cast<int>(reply.elements[1].integer);
  reached_us_ = NowUs();
  for (size_t i = 0; i < asked.projects.size(); ++i) {
    Project& project = projects_[asked.projects[i]];
    for (int64_t n = reply.elements[kHead + i].integer; n > 0; --n) {
      if (project.waiting.empty()) {
        dirty_ = true;  // who waited is gone: say that it is not held
        break;
      }
      Grant(project, second, asked.costs[i]);
    }
  }
  owned_ = Held();
  TellAnswered(asked.last_waiter);
}

void Budget::TellAnswered(uint64_t last_waiter) {
  for (auto& [name, project] : projects_) {
    for (Waiter* waiter : project.waiting) {
      if (waiter->number > last_waiter || std::exchange(waiter->answered, true)) continue;
      waiter->wake.SignalAll();
    }
  }
}

void Budget::Grant(Project& project, int64_t second, int64_t cost) {
  Waiter* waiter = project.waiting.front();
  project.waiting.pop_front();
  waiter->granted = true;
  waiter->second = second;
  waiter->charged = cost;
  ++project.held;
  if (options_.limits.requests_per_minute > 0 || options_.limits.tokens_per_minute > 0) {
    const int64_t now_us = NowUs();
    while (!lately_.empty() && lately_.front().first < now_us - kMinuteUs) lately_.pop_front();
    lately_.emplace_back(now_us, cost);
  }
  waiter->wake.SignalAll();
}

bool Budget::RateAllows(int64_t tokens, int64_t now_us) {
  while (!lately_.empty() && lately_.front().first < now_us - kMinuteUs) lately_.pop_front();
  const BudgetLimits& limits = options_.limits;
  const int replicas = std::max(stats_.replicas, 1);
  if (limits.requests_per_minute > 0 &&
      static_cast<int64_t>(lately_.size()) >= limits.requests_per_minute / replicas) {
    return false;
  }
  if (limits.tokens_per_minute == 0) return true;
  for (const auto& [when_us, taken] : lately_) tokens += taken;
  return tokens <= limits.tokens_per_minute / replicas;
}

void Budget::GrantAlone() {
  if (reached_us_ == 0) return;
  const int64_t now_us = NowUs();
  const int share = options_.limits.streams / std::max(stats_.replicas, 1);
  const int most = now_us - reached_us_ < kOwnedForUs ? owned_ : share;
  int held = Held();
  for (auto& [name, project] : projects_) {
    while (!project.waiting.empty() && (options_.limits.streams == 0 || held < most) &&
           RateAllows(project.waiting.front()->tokens, now_us)) {
      Grant(project, 0, project.waiting.front()->tokens);
      ++held;
    }
  }
}

}  // namespace parley::speech_redis
