#include "dispatch_broker/watch.h"

#include "base/status.h"
#include "base/strings.h"
#include "job/selector.h"
#include "rpc/status.h"

namespace parley::dispatch_broker {
namespace {

constexpr size_t kOutbox = 1000;
constexpr int kBatch = 200;

}  // namespace

std::string PositionText(const EventPositions& positions) {
  std::string text;
  for (const auto& [pool, position] : positions) {
    if (!text.empty()) text += ',';
    text += job::Escape(pool) + "=" + position;
  }
  return text;
}

absl::StatusOr<EventPositions> ParsePosition(std::string_view text) {
  EventPositions positions;
  for (const std::string& part : Split(text, ',')) {
    const size_t equals = part.find('=');
    const std::string position = equals == part.npos ? "" : part.substr(equals + 1);
    const bool form = !position.empty() && position.size() < 48 &&
                      position.find_first_not_of("0123456789-") == std::string::npos;
    absl::StatusOr<std::string> pool = job::Unescape(std::string_view(part).substr(0, equals));
    if (!form || !pool.ok()) {
      return InvalidArgument("after_position is not one of ours: \"{}\"", part.substr(0, 64));
    }
    positions[*std::move(pool)] = position;
  }
  return positions;
}

EventStream::EventStream(Broker& broker, std::string project, v1::WatchEventsRequest request)
    : broker_(broker),
      project_(std::move(project)),
      request_(std::move(request)),
      strand_(broker.context().executor()) {}

grpc::ServerWriteReactor<v1::WatchEventsResponse>* EventStream::Start(
    Broker& broker, const absl::Status& status, const std::string& project,
    const v1::WatchEventsRequest& request) {
  auto stream = std::make_shared<EventStream>(broker, project, request);
  stream->self_ = stream;
  stream->weak_ = stream;
  EventStream* const raw = stream.get();
  if (!status.ok()) {
    raw->End(rpc::ToGrpcStatus(status));
    return raw;
  }
  stream->strand_.Post([stream] {
    if (absl::Status begun = stream->Begin(); !begun.ok()) {
      return stream->End(rpc::ToGrpcStatus(begun));
    }
    // The headers go out at once, so that a client knows that nothing from here on is missed.
    {
      MutexLock lock(&stream->mutex_);
      if (stream->ended_) return;
      stream->StartSendInitialMetadata();
    }
    stream->broker_.AddWatcher(stream);
    if (!stream->request_.past_only()) return stream->Pull(stream->broker_.KnownPools());
    if (stream->unread_.empty()) return stream->EndWhenSent();
    stream->Pull({stream->unread_.begin(), stream->unread_.end()});
  });
  return raw;
}

absl::Status EventStream::Begin() {
  if (!request_.after_position().empty() && request_.after_position() != "0") {
    PARLEY_ASSIGN_OR_RETURN(positions_, ParsePosition(request_.after_position()));
  } else if (request_.after_position().empty()) {
    PARLEY_ASSIGN_OR_RETURN(const std::vector<std::string> pools, broker_.store().Pools());
    for (const std::string& pool : pools) {
      PARLEY_ASSIGN_OR_RETURN(positions_[pool], broker_.store().LastEvent(pool));
    }
  }
  if (request_.past_only()) {
    PARLEY_ASSIGN_OR_RETURN(const std::vector<std::string> pools, broker_.store().Pools());
    unread_.insert(pools.begin(), pools.end());
  }
  begun_ = true;
  return absl::OkStatus();
}

void EventStream::OnEvents(const std::vector<std::string>& pools) {
  auto self = weak_.lock();
  if (self == nullptr) return;
  strand_.Post([self, pools] { self->Pull(pools); });
}

bool EventStream::HasRoom() const {
  MutexLock lock(&mutex_);
  return !ended_ && outbox_.size() < kOutbox;
}

void EventStream::Pull(const std::vector<std::string>& pools) {
  if (!begun_) return;
  // A reader of the past knows itself what it has still to read.
  const std::vector<std::string> rest(unread_.begin(), unread_.end());
  for (const std::string& pool : request_.past_only() ? rest : pools) {
    bool at_end = false;
    const absl::Status status = PullPool(pool, &at_end);
    if (at_end) unread_.erase(pool);
    if (status.ok() || absl::IsUnavailable(status)) continue;  // the store comes back: so do we
    return End(rpc::ToGrpcStatus(status));
  }
  if (request_.past_only() && unread_.empty()) EndWhenSent();
}

absl::Status EventStream::PullPool(const std::string& pool, bool* at_end) {
  while (HasRoom()) {
    PARLEY_ASSIGN_OR_RETURN(const job::JobStore::EventBatch batch,
                            broker_.store().ReadEvents(pool, positions_[pool], kBatch));
    for (const job::Event& event : batch.events) {
      positions_[pool] = event.position;
      if (!Wanted(event)) continue;
      v1::WatchEventsResponse response;
      *response.mutable_event() = ToProto(event);
      response.mutable_event()->set_position(PositionText(positions_));
      Push(std::move(response));
    }
    if (static_cast<int>(batch.events.size()) < kBatch) {
      *at_end = true;
      break;
    }
  }
  if (positions_[pool].empty()) positions_[pool] = "0-0";
  return absl::OkStatus();
}

bool EventStream::Wanted(const job::Event& event) const {
  return (project_.empty() || event.project == project_) &&
         (request_.dispatch_id().empty() || event.dispatch_id == request_.dispatch_id()) &&
         (request_.room().empty() || event.room == request_.room());
}

void EventStream::Push(v1::WatchEventsResponse response) {
  MutexLock lock(&mutex_);
  if (ended_) return;
  outbox_.push_back(std::move(response));
  if (!writing_) WriteNext();
}

void EventStream::WriteNext() {
  writing_ = true;
  StartWrite(&outbox_.front());
}

void EventStream::EndWhenSent() {
  MutexLock lock(&mutex_);
  ending_ = true;
  if (ended_ || writing_) return;  // the last write ends it
  ended_ = true;
  Finish(grpc::Status::OK);
}

void EventStream::End(const grpc::Status& status) {
  MutexLock lock(&mutex_);
  if (ended_) return;
  ended_ = true;
  Finish(status);
}

void EventStream::OnWriteDone(bool ok) {
  bool drained = false;
  {
    MutexLock lock(&mutex_);
    writing_ = false;
    outbox_.pop_front();
    if (ended_) return;
    if (ok && !outbox_.empty()) return WriteNext();
    if (ok && ending_) {
      ended_ = true;
      return Finish(grpc::Status::OK);
    }
    drained = ok;
  }
  if (drained) return OnEvents(broker_.KnownPools());
  End(grpc::Status(grpc::StatusCode::CANCELLED, "the client left"));
}

void EventStream::OnCancel() {
  End(grpc::Status(grpc::StatusCode::CANCELLED, "cancelled by the client"));
}

void EventStream::OnDone() {
  auto self = std::move(self_);
  strand_.Post([self] {});  // the last one on the strand may be the last owner
}

}  // namespace parley::dispatch_broker
