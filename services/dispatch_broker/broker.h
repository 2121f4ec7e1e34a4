#pragma once
#include <absl/status/status.h>

#include <atomic>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "dispatch_broker/dispatch_broker.h"
#include "dispatch_broker/metrics.h"
#include "dispatch_broker/resolver.h"
#include "dispatch_broker/session_writer.h"
#include "dispatch_broker/worker_table.h"
#include "job/store.h"

namespace parley::dispatch_broker {

// Somebody who follows events. Called from the broker's threads; must not block.
class EventWatcher {
 public:
  virtual ~EventWatcher() = default;
  virtual void OnEvents(const std::vector<std::string>& pools) = 0;
};

// What runs beside the calls: the tick, batches of heartbeats, other brokers' messages, and the
// recovery of a store that came back. Thread-safe. All references must outlive it.
class Broker {
 public:
  Broker(const DispatchBrokerConfig& config, service::Context& context, job::JobStore& store,
         registry::AgentStore& agents, WorkerTable& workers, DispatchBrokerMetrics& metrics);
  ~Broker();  // as Stop()

  void Start();
  void Stop();  // idempotent

  job::JobStore& store() { return store_; }
  registry::AgentStore& agents() { return agents_; }
  Resolver& resolver() { return resolver_; }
  WorkerTable& workers() { return workers_; }
  DispatchBrokerMetrics& metrics() { return metrics_; }
  SessionWriter& sessions() { return sessions_; }
  service::Context& context() { return context_; }
  const DispatchBrokerConfig& config() const { return config_; }

  // What keys.yaml and the configuration allow in each pool.
  job::PoolLimits Limits() const;
  // What the last exchange with the store said. Unavailable with a retry hint while it is away.
  absl::Status CheckStore() const;
  bool store_available() const { return store_available_.load(); }
  // Where other brokers reach this one; told to them from here on. Blocks on the store.
  void SetAddress(const std::string& address);

  // A pool has work from now on: it is ticked at once and often.
  void Touch(const std::string& pool);
  // Goes with the next batch; the session hears of it by HeartbeatDone.
  void QueueRenewal(const std::shared_ptr<WorkerSession>& session, const job::Renewal& renewal,
                    uint64_t heartbeat_seq);
  // The store of `pool` came back: asks its workers for reports. Does not block.
  void OnRecovering(const std::string& pool);
  // A worker has reported again, or left.
  void Reported(const std::string& pool, const std::string& worker_id);
  void AddWatcher(std::weak_ptr<EventWatcher> watcher);
  std::vector<std::string> KnownPools() const;

 private:
  struct Heartbeat {
    std::shared_ptr<WorkerSession> session;
    job::Renewal renewal;
    uint64_t seq = 0;
  };
  struct PoolState {
    int64_t next_tick_us = 0;
    int64_t next_stats_us = 0;
    int64_t next_limits_us = 0;
    job::PoolLimits limits;         // as sent last
    std::set<std::string> awaited;  // workers that owe a report
    int64_t await_until_us = 0;     // 0: no recovery under way
    bool replayed = false;          // in this recovery
  };

  void TickLoop();
  void TickOnce();
  void TickPool(const std::string& pool);
  void SendLimits(const std::string& pool);
  void RefreshPools();
  void Announce();
  void ForgetOldCode(int64_t now_us);
  void AdvanceRecoveries();
  bool Replay(const std::string& pool);
  void RenewLoop();
  void Renew(const std::string& pool, const std::vector<Heartbeat>& batch);
  void InboxLoop();
  void NotifyWatchers(const std::vector<std::string>& pools);
  void NoteStore(const absl::Status& status);
  // False when stopping.
  bool Sleep(absl::Duration duration);

  const DispatchBrokerConfig config_;
  service::Context& context_;
  job::JobStore& store_;
  registry::AgentStore& agents_;
  WorkerTable& workers_;
  DispatchBrokerMetrics& metrics_;
  Resolver resolver_;
  SessionWriter sessions_;
  std::atomic<bool> store_available_{false};
  std::atomic<bool> stopping_{false};
  mutable Mutex mutex_;
  CondVar wake_;
  std::map<std::string, PoolState> pools_ ABSL_GUARDED_BY(mutex_);
  std::vector<Heartbeat> heartbeats_ ABSL_GUARDED_BY(mutex_);
  std::string address_ ABSL_GUARDED_BY(mutex_);  // "" before the port is open
  std::vector<std::weak_ptr<EventWatcher>> watchers_ ABSL_GUARDED_BY(mutex_);
  int64_t next_refresh_us_ = 0;  // tick thread only
  int64_t next_forget_us_ = 0;   // tick thread only
  std::vector<std::thread> threads_;
};

}  // namespace parley::dispatch_broker
