#include "dispatch_broker/metrics.h"

#include <algorithm>
#include <cmath>

namespace parley {
namespace {

constexpr auto kRefused = "parley_dispatch_refused_total";
constexpr auto kRefusedHelp = "Creates that were refused, by reason";
constexpr auto kReplayed = "parley_dispatch_replayed_total";
constexpr auto kReplayedHelp = "Acknowledged facts that Redis had lost and was told again";
constexpr auto kSlots = "parley_worker_slots";
constexpr auto kSlotsHelp =
    "Slots of the pool's agent servers: used, free, closed (free, but they take no job), draining "
    "(used, on servers that leave)";

}  // namespace

DispatchBrokerMetrics::DispatchBrokerMetrics(prometheus::Registry& r)
    : created(metrics::Counter(r, "parley_dispatch_created_total", "Dispatches created")),
      existed(metrics::Counter(r, "parley_dispatch_repeated_total",
                               "Creates that were answered with a dispatch that existed already")),
      refused_invalid(metrics::Counter(r, kRefused, kRefusedHelp, {{"reason", "invalid"}})),
      refused_unauthorised(
          metrics::Counter(r, kRefused, kRefusedHelp, {{"reason", "unauthorised"}})),
      refused_key_reused(metrics::Counter(r, kRefused, kRefusedHelp, {{"reason", "key_reused"}})),
      refused_unavailable(metrics::Counter(r, kRefused, kRefusedHelp, {{"reason", "unavailable"}})),
      refused_quota(metrics::Counter(r, kRefused, kRefusedHelp, {{"reason", "quota"}})),
      automatic_unserved(metrics::Counter(r, "parley_dispatch_automatic_unserved_total",
                                          "Rooms without an agent name that nobody serves")),
      matches(metrics::Counter(r, "parley_dispatch_matches_total",
                               "Jobs that were leased to a worker with its stream here")),
      offers(metrics::Counter(r, "parley_dispatch_offers_total",
                              "Matches that the worker was asked about first")),
      rejections(metrics::Counter(r, "parley_dispatch_rejections_total",
                                  "Offers that workers turned down")),
      attempts_lost(metrics::Counter(r, "parley_dispatch_attempts_lost_total",
                                     "Attempts that ended badly and are tried again")),
      redispatches(metrics::Counter(r, "parley_dispatch_redispatched_total",
                                    "Attempts after the first that were handed to a worker")),
      handovers(metrics::Counter(r, "parley_dispatch_handovers_total",
                                 "Hand-overs of running jobs that were begun")),
      handovers_refused(metrics::Counter(r, "parley_dispatch_handovers_refused_total",
                                         "Hand-overs that were asked for and could not begin")),
      fences(metrics::Counter(r, "parley_dispatch_fences_total",
                              "Rooms that were told to let no copy of an ended job in")),
      deadlines_passed(metrics::Counter(r, "parley_dispatch_deadline_passed_total",
                                        "Jobs that no worker took before their deadline")),
      leases_lost(metrics::Counter(r, "parley_worker_leases_lost_total",
                                   "Sessions of agent servers that ended by silence")),
      deaths_reported(metrics::Counter(r, "parley_worker_deaths_reported_total",
                                       "Sessions of agent servers that ended by notice")),
      stale_words(metrics::Counter(r, "parley_worker_stale_words_total",
                                   "Words about a token that was not the newest any more")),
      replayed_creates(metrics::Counter(r, kReplayed, kReplayedHelp, {{"fact", "create"}})),
      replayed_ends(metrics::Counter(r, kReplayed, kReplayedHelp, {{"fact", "end"}})),
      workers_refused(metrics::Counter(r, "parley_worker_refused_total",
                                       "Connections of agent servers that were refused")),
      webhooks_sent(metrics::Counter(r, "parley_webhook_sent_total", "Events that a webhook took")),
      webhook_retries(metrics::Counter(r, "parley_webhook_retries_total",
                                       "Events that a webhook did not take and is told again")),
      webhooks_dropped(metrics::Counter(r, "parley_webhook_dropped_total",
                                        "Events that a webhook never took, or nobody could sign")),
      streams(
          metrics::Gauge(r, "parley_worker_streams", "Streams of agent servers on this broker")),
      store_available(
          metrics::Gauge(r, "parley_dispatch_store_available", "1 while Redis answers, else 0")),
      queue_wait_seconds(metrics::Histogram(r, "parley_dispatch_queue_wait_seconds",
                                            "From a dispatch's creation to its first lease")),
      created_to_running_seconds(
          metrics::Histogram(r, "parley_dispatch_created_to_running_seconds",
                             "From a dispatch's creation to the first word that it runs")),
      create_seconds(metrics::Histogram(r, "parley_dispatch_create_seconds",
                                        "Time to make a dispatch durable")),
      registry_(r) {}

void DispatchBrokerMetrics::CountRefusal(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kPermissionDenied:
      return refused_unauthorised.Increment();
    case absl::StatusCode::kAlreadyExists:
      return refused_key_reused.Increment();
    case absl::StatusCode::kUnavailable:
      return refused_unavailable.Increment();
    case absl::StatusCode::kResourceExhausted:
      return refused_quota.Increment();
    default:
      return refused_invalid.Increment();
  }
}

void DispatchBrokerMetrics::CountHandOver(const absl::Status& status) {
  (status.ok() ? handovers : handovers_refused).Increment();
}

DispatchBrokerMetrics::PoolGauges::PoolGauges(prometheus::Registry& r, const std::string& pool)
    : held_jobs(metrics::Gauge(r, "parley_dispatch_held_jobs", "Jobs that workers hold",
                               {{"pool", pool}})),
      pending_jobs(metrics::Gauge(r, "parley_dispatch_pending_jobs", "Jobs that wait for a worker",
                                  {{"pool", pool}})),
      oldest_pending_seconds(metrics::Gauge(r, "parley_dispatch_oldest_pending_seconds",
                                            "How long the job that waits longest has waited",
                                            {{"pool", pool}})),
      slots_used(metrics::Gauge(r, kSlots, kSlotsHelp, {{"pool", pool}, {"state", "used"}})),
      slots_free(metrics::Gauge(r, kSlots, kSlotsHelp, {{"pool", pool}, {"state", "free"}})),
      slots_closed(metrics::Gauge(r, kSlots, kSlotsHelp, {{"pool", pool}, {"state", "closed"}})),
      slots_draining(
          metrics::Gauge(r, kSlots, kSlotsHelp, {{"pool", pool}, {"state", "draining"}})),
      workers(metrics::Gauge(r, "parley_worker_registered", "Agent servers that are registered",
                             {{"pool", pool}})),
      desired(metrics::Gauge(r, "parley_worker_desired",
                             "Agent servers that the jobs of this moment need", {{"pool", pool}})) {
}

void DispatchBrokerMetrics::PoolGauges::Set(const job::JobStore::TickResult& tick) {
  pending_jobs.Set(tick.pending);
  oldest_pending_seconds.Set(absl::ToDoubleSeconds(tick.oldest_pending));
}

void DispatchBrokerMetrics::PoolGauges::Set(const job::JobStore::PoolStats& stats, int pending) {
  const int used = stats.used - stats.draining_used;
  slots_used.Set(used);
  slots_draining.Set(stats.draining_used);
  slots_closed.Set(stats.closed_slots);
  slots_free.Set(std::max(0, stats.slots - stats.used - stats.closed_slots));
  workers.Set(stats.workers);
  held_jobs.Set(stats.jobs);
  desired.Set(DesiredWorkers(stats, pending));
}

int DesiredWorkers(const job::JobStore::PoolStats& stats, int pending) {
  // At the size of those that stay; of those that leave when none stays.
  int workers = stats.workers - stats.draining_workers;
  int slots = stats.slots - stats.draining_slots;
  const int jobs = stats.used - stats.draining_used + pending;
  if (workers == 0) {
    workers = stats.workers;
    slots = stats.slots;
  }
  if (workers == 0 || slots == 0) return pending > 0 ? 1 : 0;
  const double size = static_cast<double>(slots) / workers;
  return static_cast<int>(std::ceil(jobs / std::max(1.0, size)));
}

DispatchBrokerMetrics::PoolGauges& DispatchBrokerMetrics::ForPool(const std::string& pool) {
  MutexLock lock(&mutex_);
  return pools_.try_emplace(pool, registry_, pool).first->second;
}

}  // namespace parley
