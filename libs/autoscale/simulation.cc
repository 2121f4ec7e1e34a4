#include "autoscale/simulation.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <deque>
#include <numbers>
#include <random>

#include "base/status.h"

namespace parley::autoscale {
namespace {

constexpr size_t kMaxCalls = 5'000'000;

struct Server {
  double ready_at_s = 0;
  double drain_until_s = -1;  // draining when not negative
  std::vector<double> ends;   // of its calls
};

// Nearest rank; `sorted` may be empty.
double Rank(const std::vector<double>& sorted, double share) {
  if (sorted.empty()) return 0;
  const auto rank = static_cast<size_t>(std::ceil(share * static_cast<double>(sorted.size())));
  return sorted[std::clamp<size_t>(rank, 1, sorted.size()) - 1];
}

class Pool {
 public:
  Pool(const Manifest& manifest, const SimulationOptions& options)
      : options_(options), autoscaler_(manifest) {
    servers_.resize(static_cast<size_t>(manifest.min));
  }

  void Step(double now_s, const std::vector<TraceCall>& trace) {
    EndCalls(now_s);
    while (next_ < trace.size() && trace[next_].start_s <= now_s) queue_.push_back(trace[next_++]);
    while (!queue_.empty() && Place(now_s, queue_.front())) queue_.pop_front();
    Observe(now_s);
    if (now_s >= next_sync_s_) {
      next_sync_s_ = now_s + options_.sync_s;
      Scale(now_s);
    }
    Account();
  }

  bool Idle(const std::vector<TraceCall>& trace) const {
    return next_ == trace.size() && queue_.empty() &&
           std::ranges::all_of(servers_, [](const Server& s) { return s.ends.empty(); });
  }

  SimulationResult Result() {
    std::ranges::sort(waits_);
    result_.calls = waits_.size();
    result_.wait_p50_s = Rank(waits_, 0.5);
    result_.wait_p99_s = Rank(waits_, 0.99);
    result_.wait_max_s = waits_.empty() ? 0 : waits_.back();
    return result_;
  }

 private:
  struct Seen {
    double at_s;
    double jobs;
  };

  void EndCalls(double now_s) {
    for (Server& server : servers_) {
      std::erase_if(server.ends, [&](double end) { return end <= now_s; });
      if (server.drain_until_s >= 0 && now_s >= server.drain_until_s) {
        result_.cut += server.ends.size();
        server.ends.clear();
      }
    }
    std::erase_if(servers_, [](const Server& s) { return s.drain_until_s >= 0 && s.ends.empty(); });
  }

  bool Place(double now_s, const TraceCall& call) {
    Server* best = nullptr;
    for (Server& server : servers_) {
      if (server.drain_until_s >= 0 || server.ready_at_s > now_s ||
          server.ends.size() >= static_cast<size_t>(options_.slots)) {
        continue;
      }
      const bool better =
          best == nullptr || (options_.pack ? server.ends.size() > best->ends.size()
                                            : server.ends.size() < best->ends.size());
      if (better) best = &server;
    }
    if (best == nullptr) return false;
    best->ends.push_back(now_s + call.duration_s);
    // Taken in the step in which it came: it did not wait.
    const double waited_s = now_s - call.start_s;
    waits_.push_back(waited_s < options_.step_s ? 0 : waited_s);
    return true;
  }

  void Observe(double now_s) {
    double jobs = static_cast<double>(queue_.size());
    for (const Server& server : servers_)
      if (server.drain_until_s < 0) jobs += static_cast<double>(server.ends.size());
    seen_.push_back({now_s, jobs});
    while (seen_.size() > 1 && seen_[1].at_s <= now_s - options_.metrics_lag_s) seen_.pop_front();
  }

  void Scale(double now_s) {
    const double jobs = seen_.front().jobs;
    std::vector<std::optional<double>> values;
    for (const Metric& metric : autoscaler_.manifest().metrics)
      values.emplace_back(metric.name == "parley_pool_jobs" ? jobs
                                                            : std::ceil(jobs / options_.slots));
    const auto current = static_cast<int>(std::ranges::count_if(
        servers_, [](const Server& server) { return server.drain_until_s < 0; }));
    const int desired = autoscaler_.Decide(now_s, current, values);
    for (int i = current; i < desired; ++i) servers_.push_back({now_s + options_.start_s, -1, {}});
    for (int i = desired; i < current; ++i) Drain(now_s);
    result_.scale_ups += desired > current ? 1 : 0;
    result_.scale_downs += desired < current ? 1 : 0;
  }

  // Kubernetes takes pods that are not ready first, then the ones with the lowest deletion cost,
  // which the broker keeps in step with their calls.
  void Drain(double now_s) {
    Server* chosen = nullptr;
    for (Server& server : servers_) {
      if (server.drain_until_s >= 0) continue;
      if (chosen == nullptr || server.ends.size() < chosen->ends.size()) chosen = &server;
    }
    if (chosen != nullptr) chosen->drain_until_s = now_s + options_.drain_s;
  }

  void Account() {
    const double hours = options_.step_s / 3600;
    result_.worker_hours += hours * static_cast<double>(servers_.size());
    result_.peak_servers = std::max(result_.peak_servers, static_cast<int>(servers_.size()));
    double calls = static_cast<double>(queue_.size());
    for (const Server& server : servers_) calls += static_cast<double>(server.ends.size());
    result_.oracle_hours +=
        hours * std::max<double>(autoscaler_.manifest().min, std::ceil(calls / options_.slots));
  }

  const SimulationOptions options_;
  Autoscaler autoscaler_;
  std::vector<Server> servers_;
  std::deque<TraceCall> queue_;
  std::deque<Seen> seen_;
  std::vector<double> waits_;
  size_t next_ = 0;
  double next_sync_s_ = 0;
  SimulationResult result_;
};

bool ReadNumber(std::string_view text, double& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && std::isfinite(value) &&
         value >= 0 && value <= 1e9;
}

}  // namespace

absl::StatusOr<std::vector<TraceCall>> ParseTrace(std::string_view csv) {
  std::vector<TraceCall> calls;
  int number = 0;
  while (!csv.empty()) {
    const size_t end = std::min(csv.find('\n'), csv.size());
    std::string_view line = csv.substr(0, end);
    csv.remove_prefix(std::min(end + 1, csv.size()));
    ++number;
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (line.empty() || (number == 1 && line == "start_s,duration_s")) continue;
    const size_t comma = line.find(',');
    TraceCall call;
    if (comma == std::string_view::npos || !ReadNumber(line.substr(0, comma), call.start_s) ||
        !ReadNumber(line.substr(comma + 1), call.duration_s)) {
      return InvalidArgument("line {}: expected start_s,duration_s", number);
    }
    if (calls.size() == kMaxCalls) return InvalidArgument("more than {} calls", kMaxCalls);
    calls.push_back(call);
  }
  std::ranges::stable_sort(calls, {}, &TraceCall::start_s);
  return calls;
}

std::vector<TraceCall> MakeDay(double length_s, int peak, double mean_call_s, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::exponential_distribution<double> longer(1 / (0.5 * mean_call_s));
  const auto duration = [&] {
    return 0.5 * mean_call_s + std::min(longer(random), 3 * mean_call_s);
  };
  std::vector<TraceCall> calls;
  // By the calls' mean length, this many arrive a second to have `wanted` at once.
  std::uniform_real_distribution<double> unit(0, 1);
  constexpr double kSteps = 20'000;
  for (double step = 0; step < kSteps; ++step) {
    const double at = step / kSteps;
    const double wanted = 0.8 * peak * std::pow(std::sin(std::numbers::pi * at), 2);
    double due = wanted / mean_call_s * length_s / kSteps;
    for (; unit(random) < due; due -= 1)
      calls.push_back({(step + unit(random)) * length_s / kSteps, duration()});
  }
  for (const double at : {0.3, 0.62})
    for (int i = 0; i < peak / 5; ++i)
      calls.push_back({at * length_s + unit(random) * 0.002 * length_s, duration()});
  std::ranges::sort(calls, {}, &TraceCall::start_s);
  return calls;
}

absl::StatusOr<SimulationResult> Simulate(const Manifest& manifest,
                                          const std::vector<TraceCall>& trace,
                                          const SimulationOptions& options) {
  if (manifest.metrics.empty())
    return InvalidArgument("{}: it has no External metric", manifest.name);
  for (const Metric& metric : manifest.metrics) {
    if (metric.name != "parley_pool_jobs" && metric.name != "parley_worker_desired")
      return InvalidArgument("{}: a pool of agent servers has no metric {}", manifest.name,
                             metric.name);
  }
  if (options.slots < 1 || options.step_s <= 0 || options.sync_s <= 0)
    return InvalidArgument("slots, step and sync must be above zero");
  Pool pool(manifest, options);
  const double last = trace.empty() ? 0 : trace.back().start_s;
  int64_t step = 0;
  // The day, and until the last call is over; a call that finds no server at all ends it, too.
  for (double now = 0; now <= last || !pool.Idle(trace); now = options.step_s * double(++step)) {
    if (now > last + 1e6) return InvalidArgument("calls are left that nobody can take");
    pool.Step(now, trace);
  }
  return pool.Result();
}

}  // namespace parley::autoscale
