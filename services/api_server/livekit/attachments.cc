#include "api_server/livekit/attachments.h"

#include <absl/time/clock.h>

#include <algorithm>
#include <atomic>
#include <utility>

#include "base/status.h"
#include "rpc/channel.h"

namespace parley::api_server {
namespace {

namespace v1 = ::parley::dispatch::v1;

constexpr absl::Duration kTick = absl::Milliseconds(100);
constexpr absl::Duration kTokenTtl = absl::Hours(1);
constexpr absl::Duration kCountWithin = absl::Seconds(2);  // the server asks others after 3
constexpr int64_t kFreshUs = 250'000;                      // a count of slots
constexpr int64_t kStatusEveryUs = 2'500'000;
constexpr int64_t kFullEveryUs =
    500'000;  // that server forgets dispatches that find everybody full
constexpr int64_t kPingEveryUs = 10'000'000;
constexpr int64_t kPromisedUs = 10'000'000;  // an assignment comes at once, or never
constexpr int64_t kRetryUs = 2'000'000;      // times attempts
constexpr int64_t kRetryMaxUs = 10'000'000;
constexpr size_t kMaxUnsent = 1'000;
constexpr size_t kMaxAsked = 1'000;
constexpr int kMaxWaiting = 4'096;  // messages on their way to the loop
constexpr int kClose = 1000;
// Open-source servers ask nobody whose load is 0.7 or more; what is free shall be asked for.
constexpr float kMostLoad = 0.65F;

// The agent's own words about itself; nobody else wrote them.
std::string IdentityOf(const std::string& job_id) { return "agent-" + job_id; }

}  // namespace

AttachMetrics::AttachMetrics(prometheus::Registry& registry)
    : workers(metrics::Gauge(registry, "parley_attached_workers",
                             "Agents of ours registered at other LiveKit servers")),
      running(metrics::Gauge(registry, "parley_attached_jobs_running",
                             "Jobs of other LiveKit servers that this replica looks after")),
      accepted(metrics::Counter(registry, "parley_attached_jobs_total",
                                "Jobs of other LiveKit servers that were taken")),
      refused(metrics::Counter(registry, "parley_attached_jobs_refused_total",
                               "Jobs of other LiveKit servers refused for want of a free slot")) {}

// One WebSocket: brings what it says to the loop.
class AttachedWorker::Wire final : public http::DialListener {
 public:
  Wire(std::shared_ptr<event::Loop> loop, std::weak_ptr<AttachedWorker> worker, uint64_t number)
      : loop_(std::move(loop)), worker_(std::move(worker)), number_(number) {}
  void OnOpen() override {
    Later([number = number_](AttachedWorker& worker) { worker.OnOpen(number); });
  }
  void OnMessage(http::WebSocketMessage message) override {
    if (waiting_->fetch_add(1) >= kMaxWaiting) {
      waiting_->fetch_sub(1);
      return OnClosed(Unavailable("the server says more than is taken"));
    }
    Later([waiting = waiting_, number = number_,
           message = std::move(message)](AttachedWorker& worker) {
      waiting->fetch_sub(1);
      worker.OnMessage(number, message);
    });
  }
  void OnClosed(const absl::Status& why) override {
    Later([number = number_, why](AttachedWorker& worker) { worker.OnClosed(number, why); });
  }

 private:
  template <typename Work>
  void Later(Work work) {
    loop_->Post([weak = worker_, work = std::move(work)] {
      if (const auto worker = weak.lock()) work(*worker);
    });
  }
  const std::shared_ptr<event::Loop> loop_;
  const std::weak_ptr<AttachedWorker> worker_;
  const uint64_t number_;
  const std::shared_ptr<std::atomic<int>> waiting_ = std::make_shared<std::atomic<int>>(0);
};

AttachedWorker::AttachedWorker(Attachments& owner, const AttachConfig& config, std::string agent)
    : owner_(owner), config_(config), agent_(std::move(agent)) {}

void AttachedWorker::Connect() {
  connect_us_ = 0;
  ++wire_;
  ++attempts_;
  auth::Claims claims;
  claims.video.agent = true;
  auth::ApiKey key;
  key.key = config_.api_key;
  key.secret = config_.api_secret;
  http::Dial dial;
  dial.url = config_.url + "/agent";
  dial.headers = {{"authorization", "Bearer " + auth::Sign(claims, key, kTokenTtl)}};
  socket_ = owner_.sockets().Open(std::move(dial),
                                  std::make_shared<Wire>(owner_.loop(), weak_from_this(), wire_));
}

void AttachedWorker::OnOpen(uint64_t wire) {
  if (wire != wire_) return;
  lk::WorkerMessage message;
  lk::RegisterWorkerRequest& request = *message.mutable_register_();
  request.set_type(lk::JT_ROOM);
  request.set_version("parley");
  request.set_agent_name(agent_);
  lk::ParticipantPermission& permissions = *request.mutable_allowed_permissions();
  permissions.set_can_subscribe(true);
  permissions.set_can_publish(true);
  permissions.set_can_publish_data(true);
  permissions.set_can_update_metadata(true);
  (void)socket_->Send({message.SerializeAsString(), false});
}

void AttachedWorker::OnClosed(uint64_t wire, const absl::Status& why) {
  if (wire != wire_) return;
  ++wire_;
  if (socket_ != nullptr) socket_->Close(kClose);
  socket_ = nullptr;
  promised_.clear();  // that server has forgotten them
  asked_.clear();
  if (std::exchange(registered_, false)) owner_.metrics().workers.Decrement();
  connect_us_ = owner_.loop()->NowMicros() + std::min(attempts_ * kRetryUs, kRetryMaxUs);
  owner_.backend().context.log().Warn(
      "an attached LiveKit server is not connected",
      {{"url", config_.url}, {"agent", agent_}, {"error", std::string(Message(why))}});
}

void AttachedWorker::OnMessage(uint64_t wire, const http::WebSocketMessage& frame) {
  if (wire != wire_) return;
  lk::ServerMessage message;
  if (frame.text || !message.ParseFromString(frame.data)) {
    return OnClosed(wire, Unavailable("the server's message is malformed"));
  }
  switch (message.message_case()) {
    case lk::ServerMessage::kRegister:
      return OnRegistered(message.register_());
    case lk::ServerMessage::kAvailability:
      return OnAvailability(message.availability());
    case lk::ServerMessage::kAssignment:
      return OnAssignment(message.assignment());
    case lk::ServerMessage::kTermination: {
      const auto job = jobs_.find(message.termination().job_id());
      if (job != jobs_.end()) job->second->Terminate();
      return;
    }
    default:
      return;  // pongs
  }
}

void AttachedWorker::OnRegistered(const lk::RegisterWorkerResponse& response) {
  if (std::exchange(registered_, true)) return;
  attempts_ = 0;
  owner_.metrics().workers.Increment();
  owner_.backend().context.log().Info("registered at another LiveKit server",
                                      {{"url", config_.url},
                                       {"agent", agent_},
                                       {"worker_id", response.worker_id()},
                                       {"version", response.server_info().version()}});
  if (!jobs_.empty()) {
    lk::WorkerMessage message;
    for (const auto& [id, job] : jobs_) message.mutable_migrate_job()->add_job_ids(id);
    Send(message);
  }
  for (const lk::WorkerMessage& message : std::exchange(unsent_, {})) Send(message);
  status_us_ = 0;
}

// ---- capacity ----

int AttachedWorker::Free() const {
  int taken = static_cast<int>(promised_.size());
  for (const auto& [id, job] : jobs_) taken += job->placed() ? 0 : 1;
  return std::max(0, free_ - taken);
}

void AttachedWorker::AskCapacity() {
  if (std::exchange(counting_, true)) return;
  struct Call {
    grpc::ClientContext context;
    v1::ListWorkersRequest request;
    v1::ListWorkersResponse response;
  };
  auto call = std::make_shared<Call>();
  Backend& backend = owner_.backend();
  rpc::SetBearer(call->context, backend.context.ServiceToken(config_.project));
  rpc::SetTimeout(call->context, kCountWithin);
  call->request.set_pool(config_.pool);
  backend.dispatch->async()->ListWorkers(
      &call->context, &call->request, &call->response,
      [call, loop = owner_.loop(), weak = weak_from_this()](const grpc::Status& status) {
        loop->Post([call, weak, status] {
          if (const auto self = weak.lock()) {
            self->OnCapacity(rpc::FromGrpcStatus(status), call->response);
          }
        });
      });
}

void AttachedWorker::OnCapacity(const absl::Status& status,
                                const v1::ListWorkersResponse& response) {
  counting_ = false;
  slots_ = free_ = 0;  // without the broker nothing can be promised
  if (status.ok()) {
    for (const v1::Worker& worker : response.workers()) {
      const auto& names = worker.agent_names();
      const bool serves = names.empty()
                              ? worker.serves_configured()
                              : std::find(names.begin(), names.end(), agent_) != names.end();
      if (!serves || worker.draining() || !worker.accepting()) continue;
      slots_ += worker.slots();
      free_ += std::max(0, worker.slots() - worker.slots_used());
    }
    counted_us_ = owner_.loop()->NowMicros();
  }
  AnswerAsked();
  if (status_us_ == 0) TellStatus();
}

void AttachedWorker::OnAvailability(const lk::AvailabilityRequest& request) {
  if (asked_.size() >= kMaxAsked) return;  // no answer is a refusal
  asked_.push_back(request.job().id());
  if (owner_.loop()->NowMicros() - counted_us_ < kFreshUs) return AnswerAsked();
  AskCapacity();
}

void AttachedWorker::AnswerAsked() {
  for (const std::string& id : std::exchange(asked_, {})) {
    lk::WorkerMessage message;
    lk::AvailabilityResponse& answer = *message.mutable_availability();
    answer.set_job_id(id);
    const bool known = jobs_.contains(id);
    if (!known && Free() > 0) {
      answer.set_available(true);
      answer.set_participant_identity(IdentityOf(id));
      answer.set_participant_name(agent_);
      promised_[id] = owner_.loop()->NowMicros() + kPromisedUs;
    } else {
      owner_.metrics().refused.Increment();
    }
    Send(message);
  }
}

void AttachedWorker::TellStatus() {
  const int free = Free();
  status_us_ = owner_.loop()->NowMicros() + (free > 0 ? kStatusEveryUs : kFullEveryUs);
  lk::WorkerMessage message;
  lk::UpdateWorkerStatus& status = *message.mutable_update_worker();
  status.set_status(free > 0 ? lk::WS_AVAILABLE : lk::WS_FULL);
  const int used = std::max(0, slots_ - free);
  status.set_load(free == 0 ? 1.0F
                            : kMostLoad * static_cast<float>(used) / static_cast<float>(slots_));
  status.set_job_count(static_cast<uint32_t>(jobs_.size()));
  if (registered_) Send(message);
}

// ---- jobs ----

void AttachedWorker::OnAssignment(const lk::JobAssignment& assignment) {
  const std::string& id = assignment.job().id();
  promised_.erase(id);
  if (id.empty() || jobs_.contains(id)) return;
  owner_.metrics().accepted.Increment();
  auto job = std::make_shared<AttachedJob>(
      owner_.backend(), owner_.loop(), config_.project, assignment.job(),
      assignment.has_url() && !assignment.url().empty() ? assignment.url() : config_.url,
      assignment.token(),
      [weak = weak_from_this(), id](lk::JobStatus status, const std::string& error) {
        if (const auto self = weak.lock()) self->Report(id, status, error);
      });
  jobs_[id] = job;
  owner_.metrics().running.Increment();
  job->Start();
}

void AttachedWorker::Report(const std::string& job_id, lk::JobStatus status,
                            const std::string& error) {
  owner_.backend().context.log().Info(
      "a job of another LiveKit server",
      {{"livekit_job_id", job_id}, {"status", lk::JobStatus_Name(status)}, {"error", error}});
  lk::WorkerMessage message;
  lk::UpdateJobStatus& update = *message.mutable_update_job();
  update.set_job_id(job_id);
  update.set_status(status);
  update.set_error(error);
  if (registered_ && Send(message)) return;
  if (unsent_.size() < kMaxUnsent) unsent_.push_back(message);
}

bool AttachedWorker::Send(const lk::WorkerMessage& message) {
  return socket_ != nullptr && socket_->Send({message.SerializeAsString(), false});
}

void AttachedWorker::Tick(int64_t now_us) {
  if (connect_us_ != 0 && now_us >= connect_us_) Connect();
  std::erase_if(promised_, [&](const auto& entry) { return now_us > entry.second; });
  for (const auto& [id, job] : jobs_) job->Tick(now_us);
  std::erase_if(jobs_, [&](const auto& entry) {
    if (!entry.second->over()) return false;
    owner_.metrics().running.Decrement();
    return true;
  });
  if (!registered_) return;
  if (now_us >= status_us_ && !counting_) {
    status_us_ = 0;
    AskCapacity();  // and then tells
  }
  if (now_us >= ping_us_) {
    ping_us_ = now_us + kPingEveryUs;
    lk::WorkerMessage message;
    message.mutable_ping()->set_timestamp(absl::ToUnixMillis(absl::Now()));
    Send(message);
  }
}

void AttachedWorker::Stop() {
  ++wire_;
  connect_us_ = 0;
  if (std::exchange(registered_, false)) owner_.metrics().workers.Decrement();
  for (const auto& [id, job] : jobs_) job->Abandon();
  jobs_.clear();
  if (socket_ != nullptr) socket_->Close(kClose);
  socket_ = nullptr;
}

absl::StatusOr<std::unique_ptr<Attachments>> Attachments::Start(
    Backend& backend, AttachMetrics& metrics, const std::vector<std::string>& files) {
  if (files.empty()) return std::unique_ptr<Attachments>();
  std::vector<AttachConfig> configs;
  for (const std::string& file : files) {
    PARLEY_ASSIGN_OR_RETURN(configs.emplace_back(), LoadAttachConfig(file));
  }
  PARLEY_ASSIGN_OR_RETURN(auto sockets, http::WebSocketClient::Start());
  return std::unique_ptr<Attachments>(
      new Attachments(backend, metrics, std::move(configs), std::move(sockets)));
}

Attachments::Attachments(Backend& backend, AttachMetrics& metrics,
                         std::vector<AttachConfig> configs,
                         std::unique_ptr<http::WebSocketClient> sockets)
    : backend_(backend),
      metrics_(metrics),
      configs_(std::move(configs)),
      timer_(std::make_unique<event::Timer>(*loop_)),
      sockets_(std::move(sockets)) {
  for (const AttachConfig& config : configs_) {
    for (const std::string& agent : config.agents) {
      workers_.push_back(std::make_shared<AttachedWorker>(*this, config, agent));
    }
  }
  timer_->StartRepeating(kTick, [this] { Tick(); });
  loop_->Post([this] {
    for (const auto& worker : workers_) worker->Connect();
  });
  thread_ = std::thread([this] { loop_->Run(); });
}

Attachments::~Attachments() { Stop(); }

void Attachments::Tick() {
  const int64_t now_us = loop_->NowMicros();
  for (const auto& worker : workers_) worker->Tick(now_us);
}

void Attachments::Stop() {
  if (!thread_.joinable()) return;
  loop_->Post([this] {
    for (const auto& worker : workers_) worker->Stop();
    loop_->Stop();
  });
  thread_.join();
  timer_.reset();
  workers_.clear();
}

}  // namespace parley::api_server
