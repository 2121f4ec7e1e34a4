#pragma once
// Our agents as workers of other LiveKit servers: one WebSocket (/agent) for each server and agent
// name, on which that server offers us jobs.
#include <absl/status/statusor.h>

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "api_server/livekit/attach_config.h"
#include "api_server/livekit/attached_job.h"
#include "http/websocket_client.h"
#include "metrics/metrics.h"

namespace parley::api_server {

struct AttachMetrics {
  explicit AttachMetrics(prometheus::Registry& registry);
  prometheus::Gauge& workers;     // parley_attached_workers
  prometheus::Gauge& running;     // parley_attached_jobs_running
  prometheus::Counter& accepted;  // parley_attached_jobs_total
  prometheus::Counter& refused;   // parley_attached_jobs_refused_total
};

class Attachments;

// One agent name at one server. On the loop; held by shared_ptr.
class AttachedWorker final : public std::enable_shared_from_this<AttachedWorker> {
 public:
  AttachedWorker(Attachments& owner, const AttachConfig& config, std::string agent);

  void Connect();
  void Tick(int64_t now_us);
  // Takes nothing more, and goes.
  void Stop();
  bool registered() const { return registered_; }
  size_t jobs() const { return jobs_.size(); }

 private:
  class Wire;

  void OnOpen(uint64_t wire);
  void OnMessage(uint64_t wire, const http::WebSocketMessage& message);
  void OnClosed(uint64_t wire, const absl::Status& why);
  void OnRegistered(const lk::RegisterWorkerResponse& response);
  void OnAvailability(const lk::AvailabilityRequest& request);
  void OnAssignment(const lk::JobAssignment& assignment);
  void OnCapacity(const absl::Status& status, const dispatch::v1::ListWorkersResponse& response);
  void AskCapacity();
  void AnswerAsked();
  void TellStatus();
  int Free() const;  // slots that nobody was promised
  void Report(const std::string& job_id, lk::JobStatus status, const std::string& error);
  bool Send(const lk::WorkerMessage& message);

  Attachments& owner_;
  const AttachConfig& config_;
  const std::string agent_;
  uint64_t wire_ = 0;  // number of the connection; what others say is late
  std::shared_ptr<http::WebSocket> socket_;
  bool registered_ = false;
  int attempts_ = 0;
  int64_t connect_us_ = 0;  // 0: connected, or at it
  int64_t status_us_ = 0;
  int64_t ping_us_ = 0;
  // The broker's word on free slots.
  int slots_ = 0;
  int free_ = 0;
  int64_t counted_us_ = 0;
  bool counting_ = false;
  std::deque<std::string> asked_;            // jobs that are to be answered
  std::map<std::string, int64_t> promised_;  // accepted, not assigned yet: until when
  std::map<std::string, std::shared_ptr<AttachedJob>> jobs_;
  std::deque<lk::WorkerMessage> unsent_;  // about jobs
};

// Thread-safe.
class Attachments {
 public:
  // Reads the files and connects. `backend` and `metrics` must outlive it. Null: there are no
  // files.
  //   as LoadAttachConfig, and WebSocketClient::Start
  static absl::StatusOr<std::unique_ptr<Attachments>> Start(Backend& backend,
                                                            AttachMetrics& metrics,
                                                            const std::vector<std::string>& files);
  ~Attachments();  // as Stop()
  Attachments(const Attachments&) = delete;
  Attachments& operator=(const Attachments&) = delete;

  // Leaves the servers. Calls that run go on. Idempotent.
  void Stop();

  // ---- for workers, on the loop ----
  Backend& backend() { return backend_; }
  AttachMetrics& metrics() { return metrics_; }
  http::WebSocketClient& sockets() { return *sockets_; }
  const std::shared_ptr<event::Loop>& loop() { return loop_; }

 private:
  Attachments(Backend& backend, AttachMetrics& metrics, std::vector<AttachConfig> configs,
              std::unique_ptr<http::WebSocketClient> sockets);
  void Tick();

  Backend& backend_;
  AttachMetrics& metrics_;
  const std::vector<AttachConfig> configs_;
  const std::shared_ptr<event::Loop> loop_ = std::make_shared<event::Loop>();
  std::unique_ptr<event::Timer> timer_;
  std::vector<std::shared_ptr<AttachedWorker>> workers_;
  std::thread thread_;
  std::unique_ptr<http::WebSocketClient> sockets_;  // posts to the loop
};

}  // namespace parley::api_server
