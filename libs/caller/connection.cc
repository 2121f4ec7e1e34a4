#include "caller/connection.h"

#include <absl/time/clock.h>

#include "base/clock.h"
#include "base/status.h"
#include "rpc/channel.h"

namespace parley::caller {
namespace {

namespace pb = ::parley::room::v1;

constexpr int kMaxHops = 3;
constexpr absl::Duration kAskEvery = absl::Milliseconds(300);
constexpr size_t kMaxInbox = 100'000;  // messages; a caller that sleeps this long has lost its call

}  // namespace

struct Connection::Inbox {
  Mutex mutex;
  CondVar arrived;
  std::deque<pb::JoinResponse> messages ABSL_GUARDED_BY(mutex);
  std::optional<absl::Status> done ABSL_GUARDED_BY(mutex);
};

absl::StatusOr<std::unique_ptr<Connection>> Connection::Join(std::string media_url,
                                                             const pb::JoinRoom& join,
                                                             absl::Duration timeout) {
  const int64_t until_us = Clock::Real().MonotonicMicros() + absl::ToInt64Microseconds(timeout);
  const auto left = [until_us] {
    return absl::Microseconds(until_us - Clock::Real().MonotonicMicros());
  };
  const std::string first_url = media_url;
  absl::Status status;
  for (int hop = 0; hop < kMaxHops; ++hop) {
    std::unique_ptr<Connection> connection(new Connection);
    status = connection->Open(media_url, join, left());
    if (status.ok()) return connection;
    const ErrorReason why = ReasonOf(status);
    const bool away = absl::IsUnavailable(status) && (hop > 0 || why.reason == "DRAINING");
    if (away && left() > kAskEvery) {
      absl::SleepFor(kAskEvery);
      media_url = first_url;
      hop = -1;
      continue;
    }
    if (why.reason != "ROOM_ELSEWHERE" || !why.metadata.contains("media_url")) break;
    media_url = why.metadata.at("media_url");
  }
  return Annotate(status, "joining at " + media_url);
}

absl::Status Connection::Open(const std::string& media_url, const pb::JoinRoom& join,
                              absl::Duration timeout) {
  inbox_ = std::make_shared<Inbox>();
  const auto stub = std::shared_ptr(pb::MediaService::NewStub(rpc::MakeCallChannel(media_url)));
  using Stream = rpc::ClientBidi<pb::JoinRequest, pb::JoinResponse>;
  Stream::Options options;
  options.on_message = [inbox = inbox_, stub](const pb::JoinResponse& message) {
    MutexLock lock(&inbox->mutex);
    if (inbox->messages.size() < kMaxInbox) inbox->messages.push_back(message);
    inbox->arrived.Signal();
  };
  options.on_done = [inbox = inbox_](const absl::Status& status) {
    MutexLock lock(&inbox->mutex);
    inbox->done = status;
    inbox->arrived.Signal();
  };
  stream_ =
      Stream::Open([&](auto* context, auto* reactor) { stub->async()->Join(context, reactor); },
                   std::move(options));
  pb::JoinRequest request;
  *request.mutable_join() = join;
  stream_->Send(std::move(request));
  Received first = Receive(timeout);
  if (first.message && first.message->has_joined()) {
    joined_ = std::move(*first.message->mutable_joined());
    return absl::OkStatus();
  }
  if (first.done && !first.done->ok()) return *first.done;
  if (first.done || first.message) return Internal("the server answered without `joined`");
  return DeadlineExceeded("no answer within {}", absl::FormatDuration(timeout));
}

Connection::~Connection() {
  if (stream_ != nullptr) stream_->Cancel();
}

Connection::Received Connection::Receive(absl::Duration timeout) {
  const int64_t until_us = Clock::Real().MonotonicMicros() + absl::ToInt64Microseconds(timeout);
  MutexLock lock(&inbox_->mutex);
  while (inbox_->messages.empty() && !inbox_->done) {
    const int64_t left_us = until_us - Clock::Real().MonotonicMicros();
    if (left_us <= 0) return {};
    inbox_->arrived.WaitFor(&inbox_->mutex, absl::Microseconds(left_us));
  }
  Received received;
  if (!inbox_->messages.empty()) {
    received.message = std::move(inbox_->messages.front());
    inbox_->messages.pop_front();
  } else {
    received.done = inbox_->done;
  }
  return received;
}

}  // namespace parley::caller
