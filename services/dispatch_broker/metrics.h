#pragma once
#include <prometheus/registry.h>

#include <map>
#include <string>

#include "base/mutex.h"
#include "job/store.h"
#include "metrics/metrics.h"

namespace parley {

struct DispatchBrokerMetrics {  // every metric of the service, in one place
  explicit DispatchBrokerMetrics(prometheus::Registry& registry);

  prometheus::Counter& created;               // parley_dispatch_created_total
  prometheus::Counter& existed;               // parley_dispatch_repeated_total
  prometheus::Counter& refused_invalid;       // parley_dispatch_refused_total{reason="invalid"}
  prometheus::Counter& refused_unauthorised;  // …{reason="unauthorised"}
  prometheus::Counter& refused_key_reused;    // …{reason="key_reused"}
  prometheus::Counter& refused_unavailable;   // …{reason="unavailable"}
  prometheus::Counter& refused_quota;         // …{reason="quota"}
  prometheus::Counter& automatic_unserved;    // parley_dispatch_automatic_unserved_total
  prometheus::Counter& matches;               // parley_dispatch_matches_total
  prometheus::Counter& offers;                // parley_dispatch_offers_total
  prometheus::Counter& rejections;            // parley_dispatch_rejections_total
  prometheus::Counter& attempts_lost;         // parley_dispatch_attempts_lost_total
  prometheus::Counter& redispatches;          // parley_dispatch_redispatched_total
  prometheus::Counter& handovers;             // parley_dispatch_handovers_total
  prometheus::Counter& handovers_refused;     // parley_dispatch_handovers_refused_total
  prometheus::Counter& fences;                // parley_dispatch_fences_total
  prometheus::Counter& deadlines_passed;      // parley_dispatch_deadline_passed_total
  prometheus::Counter& leases_lost;           // parley_worker_leases_lost_total
  prometheus::Counter& deaths_reported;       // parley_worker_deaths_reported_total
  prometheus::Counter& stale_words;           // parley_worker_stale_words_total
  prometheus::Counter& replayed_creates;      // parley_dispatch_replayed_total{fact="create"}
  prometheus::Counter& replayed_ends;         // …{fact="end"}
  prometheus::Counter& workers_refused;       // parley_worker_refused_total
  prometheus::Counter& webhooks_sent;         // parley_webhook_sent_total
  prometheus::Counter& webhook_retries;       // parley_webhook_retries_total
  prometheus::Counter& webhooks_dropped;      // parley_webhook_dropped_total
  prometheus::Gauge& streams;                 // parley_worker_streams
  prometheus::Gauge& store_available;         // parley_dispatch_store_available
  prometheus::Histogram& queue_wait_seconds;  // parley_dispatch_queue_wait_seconds
  prometheus::Histogram& created_to_running_seconds;  // parley_dispatch_created_to_running_seconds
  prometheus::Histogram& create_seconds;              // parley_dispatch_create_seconds

  // One refusal of a create, by what it answered.
  void CountRefusal(const absl::Status& status);
  // A hand-over that was asked for: begun, or not.
  void CountHandOver(const absl::Status& status);

  // What one pool looks like; made when the pool is first seen. Thread-safe.
  struct PoolGauges {
    PoolGauges(prometheus::Registry& registry, const std::string& pool);
    void Set(const job::JobStore::TickResult& tick);
    void Set(const job::JobStore::PoolStats& stats, int pending);

    prometheus::Gauge& held_jobs;               // parley_dispatch_held_jobs{pool}
    prometheus::Gauge& pending_jobs;            // parley_dispatch_pending_jobs{pool}
    prometheus::Gauge& oldest_pending_seconds;  // parley_dispatch_oldest_pending_seconds{pool}
    prometheus::Gauge& slots_used;              // parley_worker_slots{pool,state="used"}
    prometheus::Gauge& slots_free;              // …{state="free"}
    prometheus::Gauge& slots_closed;            // …{state="closed"}: free, but takes no job
    prometheus::Gauge& slots_draining;  // …{state="draining"}: used, on servers that leave
    prometheus::Gauge& workers;         // parley_worker_registered{pool}
    prometheus::Gauge& desired;         // parley_worker_desired{pool}
  };
  PoolGauges& ForPool(const std::string& pool);

 private:
  prometheus::Registry& registry_;
  Mutex mutex_;
  std::map<std::string, PoolGauges> pools_ ABSL_GUARDED_BY(mutex_);
};

// How many agent servers the jobs of this moment need: what runs on servers that stay and what
// waits, at the size of those servers. Jobs of draining servers need none: they end where they are.
int DesiredWorkers(const job::JobStore::PoolStats& stats, int pending);

}  // namespace parley
