#pragma once
// LiveKit's agent workers: their WebSocket /agent, and one worker of the broker for each.
#include <memory>
#include <set>
#include <string>
#include <thread>

#include "api_server/livekit/worker_connection.h"
#include "api_server/routes.h"
#include "event/loop.h"
#include "metrics/metrics.h"

namespace parley::api_server {

struct LivekitMetrics {
  explicit LivekitMetrics(prometheus::Registry& registry);
  prometheus::Gauge& workers;          // parley_livekit_workers
  prometheus::Counter& registrations;  // parley_livekit_registrations_total
  prometheus::Counter& refused;        // parley_livekit_workers_refused_total
  prometheus::Counter& kept;           // parley_livekit_jobs_kept_total
};

// All workers of this process, on a loop of their own. Thread-safe but for what is said to be the
// loop's.
class LivekitWorkers {
 public:
  explicit LivekitWorkers(Backend& backend);
  ~LivekitWorkers();  // as Stop()
  LivekitWorkers(const LivekitWorkers&) = delete;
  LivekitWorkers& operator=(const LivekitWorkers&) = delete;

  // Before server.Start(). `server` must be stopped before this.
  void Serve(http::Server& server);
  // Once no WebSocket is open: waits until the broker has heard what it was still owed, at most
  // some seconds. Idempotent.
  void Stop();

  // ---- for connections ----
  Backend& backend() { return backend_; }
  LivekitMetrics& metrics() { return metrics_; }
  const std::shared_ptr<event::Loop>& loop() { return loop_; }
  const std::shared_ptr<grpc::Channel>& channel() { return channel_; }
  // The same on every replica, so that each can speak for a worker that was connected to another.
  std::string InstanceOf(std::string_view worker_id) const;
  // On the loop: `connection` is over; `side` has something left to say.
  void Forget(const std::shared_ptr<WorkerConnection>& connection);
  void Part(const std::shared_ptr<BrokerSide>& side);

 private:
  void Sweep();
  void StopIfDone();

  Backend& backend_;
  LivekitMetrics metrics_;
  const std::shared_ptr<event::Loop> loop_;
  const std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<event::Timer> sweeper_;
  std::unique_ptr<event::Timer> last_call_;
  std::set<std::shared_ptr<WorkerConnection>> connections_;
  std::set<std::shared_ptr<BrokerSide>> parting_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace parley::api_server
