#include "dispatch_broker/log_stream.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/status.h"
#include "dispatch_broker/worker_session.h"
#include "parley/dispatch/v1/dispatch.grpc.pb.h"
#include "rpc/channel.h"
#include "rpc/status.h"

namespace parley::dispatch_broker {
namespace {

constexpr size_t kOutbox = 256;  // answers of about 64 KiB; a job's ring is 16 of them
constexpr char kRelayed[] = "parley-relayed";
constexpr absl::Duration kRead = absl::Minutes(1);   // what is kept, from another broker
constexpr absl::Duration kFollow = absl::Hours(24);  // as long as a job may wait and run

}  // namespace

// The same call to the broker that holds the stream. Lives until gRPC is done with it.
class LogStream::Relay : public grpc::ClientReadReactor<v1::ReadJobLogsResponse> {
 public:
  static std::shared_ptr<Relay> Open(const std::string& address, const std::string& token,
                                     const v1::ReadJobLogsRequest& request,
                                     std::weak_ptr<LogStream> reader) {
    auto relay = std::shared_ptr<Relay>(new Relay(address, request, std::move(reader)));
    relay->self_ = relay;
    rpc::SetBearer(relay->context_, token);
    rpc::SetTimeout(relay->context_, request.follow() ? kFollow : kRead);
    relay->context_.AddMetadata(kRelayed, "1");
    relay->stub_->async()->ReadJobLogs(&relay->context_, &relay->request_, relay.get());
    relay->StartRead(&relay->in_);
    relay->StartCall();
    return relay;
  }
  void Cancel() { context_.TryCancel(); }

 private:
  Relay(const std::string& address, v1::ReadJobLogsRequest request, std::weak_ptr<LogStream> reader)
      : stub_(v1::DispatchService::NewStub(rpc::MakeChannel(address))),
        request_(std::move(request)),
        reader_(std::move(reader)) {}
  void OnReadDone(bool ok) final {
    if (!ok) return;
    const auto reader = reader_.lock();
    if (reader == nullptr || !reader->Push(std::move(in_))) return Cancel();
    StartRead(&in_);
  }
  void OnDone(const grpc::Status& status) final {
    const auto self = std::move(self_);
    if (const auto reader = reader_.lock()) reader->End(status);
  }

  const std::unique_ptr<v1::DispatchService::Stub> stub_;
  const v1::ReadJobLogsRequest request_;
  const std::weak_ptr<LogStream> reader_;
  grpc::ClientContext context_;
  v1::ReadJobLogsResponse in_;
  std::shared_ptr<Relay> self_;
};

bool LogStream::IsRelayed(const grpc::ServerContextBase& context) {
  return context.client_metadata().contains(kRelayed);
}

LogStream::LogStream(Broker& broker, std::string project, v1::ReadJobLogsRequest request,
                     bool relayed)
    : broker_(broker),
      project_(std::move(project)),
      request_(std::move(request)),
      relayed_(relayed),
      strand_(broker.context().executor()) {}

grpc::ServerWriteReactor<v1::ReadJobLogsResponse>* LogStream::Start(
    Broker& broker, const absl::Status& status, const std::string& project,
    const v1::ReadJobLogsRequest& request, bool relayed) {
  auto stream = std::make_shared<LogStream>(broker, project, request, relayed);
  stream->self_ = stream;
  stream->weak_ = stream;
  LogStream* const raw = stream.get();
  if (!status.ok()) {
    raw->End(rpc::ToGrpcStatus(status));
    return raw;
  }
  stream->strand_.Post([stream] {
    if (absl::Status asked = stream->Ask(); !asked.ok()) stream->End(rpc::ToGrpcStatus(asked));
  });
  return raw;
}

absl::Status LogStream::Ask() {
  PARLEY_ASSIGN_OR_RETURN(const job::Job job, broker_.store().GetJob(request_.job_id()));
  if (!project_.empty() && job.project != project_) {
    return NotFound("job {} does not exist", request_.job_id());
  }
  if (job.worker_id.empty()) {
    return WithReason(FailedPrecondition("no agent server has had job {} yet", job.id),
                      "NO_WORKER");
  }
  const std::shared_ptr<WorkerSession> worker = broker_.workers().Find(job.worker_id);
  if (worker == nullptr) return AskElsewhere(job);
  {
    MutexLock lock(&mutex_);
    if (ended_) return absl::OkStatus();
    worker_ = worker;
    StartSendInitialMetadata();
  }
  v1::ReadLogs request;
  request.set_job_id(job.id);
  request.set_after(request_.after());
  request.set_follow(request_.follow());
  worker->ReadLogs(weak_.lock(), std::move(request));
  return absl::OkStatus();
}

absl::Status LogStream::AskElsewhere(const job::Job& job) {
  const absl::StatusOr<std::string> address = broker_.store().BrokerOf(job.worker_id);
  if (absl::IsNotFound(address.status())) {
    return WithReason(FailedPrecondition("agent server {} is gone, and the lines of job {} with it",
                                         job.worker_id, job.id),
                      "NO_WORKER");
  }
  PARLEY_RETURN_IF_ERROR(address.status());
  if (address->empty() || relayed_) {
    return WithReason(
        Unavailable("agent server {} is between two brokers just now; ask again", job.worker_id),
        "WORKER_ELSEWHERE");
  }
  {
    MutexLock lock(&mutex_);
    if (ended_) return absl::OkStatus();
    StartSendInitialMetadata();
  }
  auto relay = Relay::Open(*address, broker_.context().ServiceToken(project_), request_, weak_);
  MutexLock lock(&mutex_);
  if (ended_) {
    relay->Cancel();
  } else {
    relay_ = std::move(relay);
  }
  return absl::OkStatus();
}

bool LogStream::Push(v1::ReadJobLogsResponse lines) {
  {
    MutexLock lock(&mutex_);
    if (ended_) return false;
    if (outbox_.size() < kOutbox) {
      outbox_.push_back(std::move(lines));
      if (!writing_) WriteNext();
      return true;
    }
  }
  End(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "the lines are read too slowly"));
  return false;
}

bool LogStream::OnChunk(const v1::JobLogChunk& chunk) {
  v1::ReadJobLogsResponse response;
  *response.mutable_lines() = chunk.lines();
  if (!chunk.lines().empty() && !Push(std::move(response))) return false;
  if (!chunk.end()) return true;
  const absl::Status status =
      chunk.error().empty() ? absl::OkStatus()
                            : WithReason(FailedPrecondition("{}", chunk.error()), "NO_WORKER");
  End(rpc::ToGrpcStatus(status));
  return false;
}

void LogStream::WriteNext() {
  writing_ = true;
  StartWrite(&outbox_.front());
}

void LogStream::FinishNow() {
  if (std::exchange(finished_, true)) return;
  Finish(final_status_);
}

void LogStream::End(const grpc::Status& status) {
  MutexLock lock(&mutex_);
  if (ended_) return;
  ended_ = true;
  final_status_ = status;
  if (!status.ok()) {
    while (outbox_.size() > (writing_ ? 1 : 0)) outbox_.pop_back();
  }
  if (!writing_) FinishNow();
}

void LogStream::OnWriteDone(bool ok) {
  MutexLock lock(&mutex_);
  writing_ = false;
  outbox_.pop_front();
  if (!ok) {
    outbox_.clear();
    ended_ = true;
  }
  if (!outbox_.empty()) return WriteNext();
  if (ended_) FinishNow();
}

void LogStream::OnCancel() {
  End(grpc::Status(grpc::StatusCode::CANCELLED, "cancelled by the client"));
}

void LogStream::OnDone() {
  auto self = std::move(self_);
  std::shared_ptr<WorkerSession> worker;
  std::shared_ptr<Relay> relay;
  {
    MutexLock lock(&mutex_);
    worker = worker_.lock();
    relay = std::move(relay_);
  }
  if (worker != nullptr) worker->ForgetReader(this);
  if (relay != nullptr) relay->Cancel();
  strand_.Post([self] {});  // the last one on the strand may be the last owner
}

}  // namespace parley::dispatch_broker
