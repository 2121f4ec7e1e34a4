#include "dispatch_broker/broker.h"

#include <algorithm>
#include <random>
#include <utility>

#include "base/status.h"
#include "dispatch_broker/worker_session.h"

namespace parley::dispatch_broker {
namespace {

constexpr int64_t kIdleTickUs = 5'000'000;
constexpr int64_t kStatsUs = 1'000'000;
constexpr int64_t kRefreshUs = 2'000'000;
constexpr int64_t kForgetUs = 600'000'000;
constexpr absl::Duration kCodeUnused = absl::Hours(1);  // six rounds of kForgetUs
constexpr int64_t kLimitsUs = 10'000'000;               // said again, for a store that lost them
constexpr int64_t kReportWaitUs = 1'000'000;
constexpr absl::Duration kInboxWait = absl::Milliseconds(250);
constexpr size_t kMaxHeartbeats = 100'000;

int64_t NowUs() { return Clock::Real().MonotonicMicros(); }

}  // namespace

Broker::Broker(const DispatchBrokerConfig& config, service::Context& context, job::JobStore& store,
               registry::AgentStore& agents, WorkerTable& workers, DispatchBrokerMetrics& metrics)
    : config_(config),
      context_(context),
      store_(store),
      agents_(agents),
      workers_(workers),
      metrics_(metrics),
      resolver_(agents, store),
      sessions_(context.executor(), store, context.log()) {}

Broker::~Broker() { Stop(); }

void Broker::Start() {
  RefreshPools();
  {  // What an earlier process acknowledged: the store may have come back without it meanwhile.
    MutexLock lock(&mutex_);
    for (const std::string& pool : store_.Remembered()) {
      pools_[pool].await_until_us = NowUs() + kReportWaitUs;
    }
  }
  threads_.emplace_back([this] { TickLoop(); });
  threads_.emplace_back([this] { RenewLoop(); });
  threads_.emplace_back([this] { InboxLoop(); });
}

void Broker::Stop() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    wake_.SignalAll();
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

bool Broker::Sleep(absl::Duration duration) {
  const int64_t until = NowUs() + absl::ToInt64Microseconds(duration);
  MutexLock lock(&mutex_);
  while (!stopping_) {
    const int64_t left = until - NowUs();
    if (left <= 0) return true;
    wake_.WaitFor(&mutex_, absl::Microseconds(left));
  }
  return false;
}

absl::Status Broker::CheckStore() const {
  if (store_available_) return absl::OkStatus();
  return WithReason(
      Unavailable("the store is out of reach; running calls go on, try again shortly"),
      "STORE_UNAVAILABLE", {{"retry_after_ms", "1000"}});
}

void Broker::NoteStore(const absl::Status& status) {
  const bool available = status.code() != absl::StatusCode::kUnavailable;
  metrics_.store_available.Set(available ? 1 : 0);
  if (store_available_.exchange(available) == available) return;
  if (!available) {
    context_.log().Warn("store away: creates are refused, what runs goes on",
                        {{"error", Message(status)}});
    return;
  }
  context_.log().Info("store here");
  {
    MutexLock lock(&mutex_);
    for (auto& [pool, state] : pools_) state.next_tick_us = 0;  // it may have lost something
  }
  for (const auto& session : workers_.All()) session->OnStoreBack();
}

void Broker::Touch(const std::string& pool) {
  bool is_new = false;
  {
    MutexLock lock(&mutex_);
    // A tick of its own soon: the idle ones wait for seconds.
    const int64_t soon = NowUs() + absl::ToInt64Microseconds(config_.tick);
    const auto [it, inserted] = pools_.try_emplace(pool);
    PoolState& state = it->second;
    if (state.next_tick_us == 0 || state.next_tick_us > soon) state.next_tick_us = soon;
    is_new = inserted;
  }
  if (is_new) NotifyWatchers({pool});
}

std::vector<std::string> Broker::KnownPools() const {
  MutexLock lock(&mutex_);
  std::vector<std::string> pools;
  for (const auto& [pool, state] : pools_) pools.push_back(pool);
  return pools;
}

// ---- the tick ----

void Broker::TickLoop() {
  std::minstd_rand random(std::random_device{}());
  std::uniform_real_distribution<double> jitter(0.8, 1.2);
  do {
    TickOnce();
    AdvanceRecoveries();
  } while (Sleep(config_.tick * jitter(random)));
}

void Broker::RefreshPools() {
  const absl::StatusOr<std::vector<std::string>> pools = store_.Pools();
  NoteStore(pools.status());
  if (!pools.ok()) return;
  MutexLock lock(&mutex_);
  for (const std::string& pool : *pools) pools_.try_emplace(pool);
}

void Broker::SetAddress(const std::string& address) {
  {
    MutexLock lock(&mutex_);
    address_ = address;
  }
  Announce();
}

void Broker::Announce() {
  std::string address;
  {
    MutexLock lock(&mutex_);
    address = address_;
  }
  if (address.empty() || !store_available_) return;
  if (absl::Status status = store_.Announce(address); !status.ok()) {
    context_.log().Warn("other brokers are not told where this one is; said again shortly",
                        {{"error", Message(status)}});
  }
}

void Broker::ForgetOldCode(int64_t now_us) {
  if (now_us < next_forget_us_ || !store_available_) return;
  next_forget_us_ = now_us + kForgetUs;
  const absl::StatusOr<int> removed = store_.ForgetOldCode(kCodeUnused);
  if (!removed.ok()) {
    context_.log().Warn("old code is not removed from the store; tried again later",
                        {{"error", Message(removed.status())}});
  } else if (*removed > 0) {
    context_.log().Info("old code removed from the store", {{"libraries", *removed}});
  }
}

void Broker::TickOnce() {
  const int64_t now = NowUs();
  if (!store_available_ || now >= next_refresh_us_) {
    next_refresh_us_ = now + kRefreshUs;
    RefreshPools();
    Announce();
    ForgetOldCode(now);
    NotifyWatchers(KnownPools());
  }
  if (!store_available_) return;
  std::vector<std::string> due;
  {
    MutexLock lock(&mutex_);
    for (const auto& [pool, state] : pools_) {
      if (state.next_tick_us <= now + absl::ToInt64Microseconds(config_.tick) / 2) {
        due.push_back(pool);
      }
    }
  }
  for (const std::string& pool : due) {
    if (stopping_ || !store_available_) return;
    TickPool(pool);
  }
}

job::PoolLimits Broker::Limits() const {
  job::PoolLimits limits;
  limits.max_jobs = config_.pool_max_jobs;
  limits.max_queued = config_.pool_max_queued;
  limits.pack = config_.placement == "pack";
  for (const auth::ProjectQuota& quota : context_.keys()->quotas()) {
    limits.projects.push_back({quota.project, quota.weight, quota.max_jobs, quota.max_queued});
  }
  return limits;
}

void Broker::SendLimits(const std::string& pool) {
  job::PoolLimits limits = Limits();
  const int64_t now = NowUs();
  {
    MutexLock lock(&mutex_);
    PoolState& state = pools_[pool];
    if (now < state.next_limits_us && limits == state.limits) return;
    state.next_limits_us = now + kLimitsUs;
    state.limits = limits;
  }
  if (absl::Status status = store_.SetLimits(pool, limits); !status.ok()) {
    context_.log().Warn("limits not stored; said again shortly",
                        {{"pool", pool}, {"error", Message(status)}});
  }
}

void Broker::TickPool(const std::string& pool) {
  SendLimits(pool);
  const absl::StatusOr<job::JobStore::TickResult> result = store_.Tick(pool);
  NoteStore(result.status());
  if (!result.ok()) {
    if (!absl::IsUnavailable(result.status())) {
      context_.log().Error("tick failed", {{"pool", pool}, {"error", Message(result.status())}});
    }
    return;
  }
  metrics_.deadlines_passed.Increment(result->expired);
  metrics_.leases_lost.Increment(result->ended_sessions);
  const int64_t now = NowUs();
  bool stats_due = false;
  {
    MutexLock lock(&mutex_);
    PoolState& state = pools_[pool];
    state.next_tick_us =
        now + (result->idle ? kIdleTickUs : absl::ToInt64Microseconds(config_.tick));
    stats_due = now >= state.next_stats_us;
    if (stats_due) state.next_stats_us = now + kStatsUs;
  }
  DispatchBrokerMetrics::PoolGauges& gauges = metrics_.ForPool(pool);
  gauges.Set(*result);
  if (!stats_due) return;
  if (const auto stats = store_.Stats(pool); stats.ok()) gauges.Set(*stats, result->pending);
}

// ---- a store that came back ----

void Broker::OnRecovering(const std::string& pool) {
  const std::vector<std::shared_ptr<WorkerSession>> sessions = workers_.OfPool(pool);
  {
    MutexLock lock(&mutex_);
    PoolState& state = pools_[pool];
    state.await_until_us = NowUs() + kReportWaitUs;
    state.replayed = false;
    state.next_limits_us = 0;  // lost, perhaps
    state.awaited.clear();
    for (const auto& session : sessions) state.awaited.insert(session->worker_id());
  }
  context_.log().Warn("store of a pool came back; asking its workers for reports",
                      {{"pool", pool}, {"workers", sessions.size()}});
  for (const auto& session : sessions) session->AskForReport();
}

void Broker::Reported(const std::string& pool, const std::string& worker_id) {
  MutexLock lock(&mutex_);
  const auto it = pools_.find(pool);
  if (it == pools_.end() || it->second.await_until_us == 0) return;
  it->second.awaited.erase(worker_id);
  if (it->second.awaited.empty()) wake_.SignalAll();
}

// Per pool: replay, then wait for the reports, then check in.
void Broker::AdvanceRecoveries() {
  std::vector<std::string> to_replay, done;
  const int64_t now = NowUs();
  {
    MutexLock lock(&mutex_);
    for (const auto& [pool, state] : pools_) {
      if (state.await_until_us != 0 && !state.replayed) to_replay.push_back(pool);
    }
  }
  for (const std::string& pool : to_replay) {
    if (!Replay(pool)) return;  // gone once more; the next round tries again
  }
  {
    MutexLock lock(&mutex_);
    for (auto& [pool, state] : pools_) {
      if (state.await_until_us == 0 || !state.replayed) continue;
      if (!state.awaited.empty() && now < state.await_until_us) continue;
      state.await_until_us = 0;
      state.awaited.clear();
      done.push_back(pool);
    }
  }
  for (const std::string& pool : done) {
    if (absl::Status status = store_.CheckedIn(pool); !status.ok()) {
      context_.log().Warn("check-in failed; the hold ends by itself",
                          {{"pool", pool}, {"error", Message(status)}});
    }
  }
}

bool Broker::Replay(const std::string& pool) {
  {
    MutexLock lock(&mutex_);
    pools_[pool].replayed = true;  // unless it fails, or another recovery begins meanwhile
  }
  const absl::StatusOr<job::JobStore::Replayed> replayed = store_.Replay(pool);
  if (replayed.ok()) {
    metrics_.replayed_creates.Increment(replayed->creates);
    metrics_.replayed_ends.Increment(replayed->ends);
    if (replayed->creates + replayed->ends > 0) {
      context_.log().Warn(
          "the store had lost what was acknowledged; it has it again",
          {{"pool", pool}, {"creates", replayed->creates}, {"ends", replayed->ends}});
    }
    return true;
  }
  context_.log().Warn("replay failed", {{"pool", pool}, {"error", Message(replayed.status())}});
  MutexLock lock(&mutex_);
  pools_[pool].replayed = false;
  return false;
}

// ---- heartbeats ----

void Broker::QueueRenewal(const std::shared_ptr<WorkerSession>& session,
                          const job::Renewal& renewal, uint64_t heartbeat_seq) {
  {
    MutexLock lock(&mutex_);
    if (heartbeats_.size() < kMaxHeartbeats) {
      heartbeats_.push_back({session, renewal, heartbeat_seq});
      return;
    }
  }
  session->HeartbeatDone(heartbeat_seq, false, false);
}

void Broker::RenewLoop() {
  while (Sleep(config_.renew_batch)) {
    std::vector<Heartbeat> heartbeats;
    {
      MutexLock lock(&mutex_);
      heartbeats.swap(heartbeats_);
    }
    std::map<std::string, std::vector<Heartbeat>> by_pool;
    for (Heartbeat& heartbeat : heartbeats) {
      by_pool[heartbeat.session->pool()].push_back(std::move(heartbeat));
    }
    for (auto& [pool, batch] : by_pool) Renew(pool, batch);
  }
}

void Broker::Renew(const std::string& pool, const std::vector<Heartbeat>& batch) {
  std::vector<job::Renewal> renewals;
  renewals.reserve(batch.size());
  for (const Heartbeat& heartbeat : batch) renewals.push_back(heartbeat.renewal);
  absl::StatusOr<job::JobStore::Renewed> renewed = job::JobStore::Renewed();
  if (store_available_) {
    renewed = store_.Renew(pool, renewals);
    NoteStore(renewed.status());
  }
  const bool available = store_available_ && renewed.ok();
  if (!renewed.ok()) renewed = job::JobStore::Renewed();
  const std::set<std::string_view> refused(renewed->refused.begin(), renewed->refused.end());
  const std::set<std::string_view> owing(renewed->owing.begin(), renewed->owing.end());
  for (const Heartbeat& heartbeat : batch) {
    const std::string& id = heartbeat.renewal.worker_id;
    heartbeat.session->HeartbeatDone(heartbeat.seq, available, refused.contains(id));
    if (owing.contains(id)) heartbeat.session->AskForReport();
  }
}

// ---- other brokers, events ----

void Broker::AddWatcher(std::weak_ptr<EventWatcher> watcher) {
  MutexLock lock(&mutex_);
  std::erase_if(watchers_, [](const auto& old) { return old.expired(); });
  watchers_.push_back(std::move(watcher));
}

void Broker::NotifyWatchers(const std::vector<std::string>& pools) {
  if (pools.empty()) return;
  std::vector<std::shared_ptr<EventWatcher>> watchers;
  {
    MutexLock lock(&mutex_);
    for (const auto& weak : watchers_) {
      if (auto watcher = weak.lock()) watchers.push_back(std::move(watcher));
    }
  }
  for (const auto& watcher : watchers) watcher->OnEvents(pools);
}

void Broker::InboxLoop() {
  while (!stopping_) {
    if (!store_available_) {
      if (!Sleep(absl::Milliseconds(50))) return;
      continue;
    }
    bool watched = false;
    {
      MutexLock lock(&mutex_);
      watched = std::any_of(watchers_.begin(), watchers_.end(),
                            [](const auto& watcher) { return !watcher.expired(); });
    }
    // Inboxes of pools without a worker here stay empty; reading them costs less than knowing.
    const auto with_events = store_.WaitInbox(KnownPools(), watched, kInboxWait);
    if (with_events.ok()) {
      NotifyWatchers(*with_events);
    } else if (!Sleep(absl::Milliseconds(50))) {
      return;
    }
  }
}

}  // namespace parley::dispatch_broker
