#pragma once
// A day of calls against one pool of agent servers and its autoscaler: what would callers have
// waited, would a call have been cut, and how many worker-hours more than somebody who knew the
// day beforehand? Pure and deterministic.
#include <absl/status/statusor.h>

#include <string_view>
#include <vector>

#include "autoscale/hpa.h"

namespace parley::autoscale {

struct TraceCall {
  double start_s = 0;
  double duration_s = 0;
};

// "start_s,duration_s" a line (at most 5 million), a header line and empty lines skipped.
//   InvalidArgument  with the line's number
absl::StatusOr<std::vector<TraceCall>> ParseTrace(std::string_view csv);

// A day made up: calls rise from none to `peak` at once and fall to none again, with two spikes of
// a fifth of the peak. The same for the same seed.
std::vector<TraceCall> MakeDay(double length_s, int peak, double mean_call_s, uint64_t seed);

struct SimulationOptions {
  int slots = 50;             // of each agent server
  double start_s = 8;         // from wanted to registered: pod and process
  double metrics_lag_s = 15;  // scrape interval: how old what the autoscaler sees may be
  double sync_s = 15;         // of the autoscaler
  double drain_s = 10800;     // a call that outlasts the drain of its server is cut
  bool pack = false;          // placement: the fuller server first
  double step_s = 0.25;       // of the simulation
};

struct SimulationResult {
  size_t calls = 0;
  double wait_p50_s = 0;
  double wait_p99_s = 0;
  double wait_max_s = 0;
  size_t cut = 0;           // calls that a drain ended
  double worker_hours = 0;  // of all servers, from started to gone
  double oracle_hours = 0;  // as many as the calls of each moment need, never below the minimum
  int peak_servers = 0;
  int scale_ups = 0;
  int scale_downs = 0;
};

// Metrics that the pool has: parley_worker_desired, parley_pool_jobs.
//   InvalidArgument  the manifest asks for others
absl::StatusOr<SimulationResult> Simulate(const Manifest& manifest,
                                          const std::vector<TraceCall>& trace,
                                          const SimulationOptions& options);

}  // namespace parley::autoscale
