#include "dispatch_broker/fencer.h"

#include <utility>

#include "base/status.h"
#include "rpc/channel.h"
#include "rpc/status.h"

namespace parley::dispatch_broker {
namespace {

constexpr absl::Duration kRound = absl::Milliseconds(500);
constexpr absl::Duration kCallTimeout = absl::Seconds(1);
// A room that nobody holds has nobody to keep a copy out of. So long one may still be opened by a
// copy that does not know better; then it has frozen or was told.
constexpr absl::Duration kRoomMayOpen = absl::Seconds(30);
constexpr size_t kMaxStubs = 256;

}  // namespace

Fencer::Fencer(job::JobStore& store, redis::Pool& redis, service::Context& context,
               DispatchBrokerMetrics& metrics, std::function<std::vector<std::string>()> pools)
    : store_(store),
      context_(context),
      metrics_(metrics),
      pools_(std::move(pools)),
      directory_(redis, room_redis::Replica{}) {}

Fencer::~Fencer() { Stop(); }

void Fencer::Start() {
  thread_ = std::thread([this] { Loop(); });
}

void Fencer::Stop() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    wake_.SignalAll();
  }
  if (thread_.joinable()) thread_.join();
}

void Fencer::Loop() {
  for (;;) {
    {
      MutexLock lock(&mutex_);
      if (!stopping_) wake_.WaitFor(&mutex_, kRound);
      if (stopping_) return;
    }
    for (const std::string& pool : pools_()) BringAll(pool);
  }
}

void Fencer::BringAll(const std::string& pool) {
  const absl::StatusOr<std::vector<job::Fence>> fences = store_.Fences(pool);
  if (!fences.ok()) return;  // the store is away: they are kept there
  for (const job::Fence& fence : *fences) {
    {
      MutexLock lock(&mutex_);
      if (stopping_) return;
    }
    absl::Status status = Bring(fence);
    if (status.ok()) {
      metrics_.fences.Increment();
      status = store_.ClearFence(pool, fence);
    }
    if (status.ok() || absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status)) continue;
    context_.log().Warn("a room server refuses a fence",
                        {{"job_id", fence.job_id}, {"error", Message(status)}});
  }
}

absl::Status Fencer::Bring(const job::Fence& fence) {
  PARLEY_ASSIGN_OR_RETURN(std::optional<std::string> url,
                          directory_.HolderUrl(fence.project, fence.room));
  if (!url.has_value()) {
    if (context_.clock().Now() - fence.since > kRoomMayOpen) return absl::OkStatus();
    return Unavailable("nobody holds the room");
  }
  absl::Status status = Call(*url, fence);
  const ErrorReason why = ReasonOf(status);
  if (why.reason != "ROOM_ELSEWHERE" || !why.metadata.contains("media_url")) return status;
  return Call(why.metadata.at("media_url"), fence);
}

absl::Status Fencer::Call(const std::string& media_url, const job::Fence& fence) {
  if (stubs_.size() >= kMaxStubs) stubs_.clear();
  auto& stub = stubs_[media_url];
  if (stub == nullptr) {
    stub = parley::room::v1::AdmissionService::NewStub(rpc::MakeChannel(media_url));
  }
  grpc::ClientContext context;
  rpc::SetBearer(context, context_.ServiceToken(fence.project));
  rpc::SetTimeout(context, kCallTimeout);
  parley::room::v1::FenceRequest request;
  request.set_project(fence.project);
  request.set_room(fence.room);
  request.set_job_id(fence.job_id);
  request.set_lowest_token(fence.lowest_token);
  parley::room::v1::FenceResponse response;
  return rpc::FromGrpcStatus(stub->Fence(&context, request, &response));
}

}  // namespace parley::dispatch_broker
