#include "dispatch_broker/log_stream.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/status.h"
#include "dispatch_broker/worker_session.h"
#include "rpc/status.h"

namespace parley::dispatch_broker {
namespace {

constexpr size_t kOutbox = 256;  // answers of about 64 KiB; a job's ring is 16 of them

}  // namespace

LogStream::LogStream(Broker& broker, std::string project, v1::ReadJobLogsRequest request)
    : broker_(broker),
      project_(std::move(project)),
      request_(std::move(request)),
      strand_(broker.context().executor()) {}

grpc::ServerWriteReactor<v1::ReadJobLogsResponse>* LogStream::Start(
    Broker& broker, const absl::Status& status, const std::string& project,
    const v1::ReadJobLogsRequest& request) {
  auto stream = std::make_shared<LogStream>(broker, project, request);
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

absl::StatusOr<bool> LogStream::Lives(const std::string& worker_id) {
  const absl::StatusOr<std::string> pool = broker_.store().PoolOfWorker(worker_id);
  if (absl::IsNotFound(pool.status())) return false;
  PARLEY_RETURN_IF_ERROR(pool.status());
  PARLEY_ASSIGN_OR_RETURN(const std::vector<job::Worker> workers,
                          broker_.store().ListWorkers(*pool));
  return std::any_of(workers.begin(), workers.end(),
                     [&](const job::Worker& worker) { return worker.id == worker_id; });
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
  if (worker == nullptr) {
    PARLEY_ASSIGN_OR_RETURN(const bool lives, Lives(job.worker_id));
    if (!lives) {
      return WithReason(
          FailedPrecondition("agent server {} is gone, and the lines of job {} with it",
                             job.worker_id, job.id),
          "NO_WORKER");
    }
    return WithReason(
        Unavailable("another broker holds the stream of agent server {}; ask again", job.worker_id),
        "WORKER_ELSEWHERE");
  }
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

bool LogStream::OnChunk(const v1::JobLogChunk& chunk) {
  bool full = false;
  {
    MutexLock lock(&mutex_);
    if (ended_) return false;
    full = outbox_.size() >= kOutbox;
    if (!full && !chunk.lines().empty()) {
      *outbox_.emplace_back().mutable_lines() = chunk.lines();
      if (!writing_) WriteNext();
    }
  }
  if (full) {
    End(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "the lines are read too slowly"));
    return false;
  }
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
  {
    MutexLock lock(&mutex_);
    worker = worker_.lock();
  }
  if (worker != nullptr) worker->ForgetReader(this);
  strand_.Post([self] {});  // the last one on the strand may be the last owner
}

}  // namespace parley::dispatch_broker
