#include "api_server/event_pump.h"

#include <fmt/format.h>

#include "api_server/routes.h"
#include "base/mutex.h"
#include "base/status.h"
#include "rpc/status.h"

namespace parley::api_server {
namespace {

using dispatch::v1::WatchEventsRequest;
using dispatch::v1::WatchEventsResponse;

constexpr absl::Duration kFirstWord = absl::Seconds(5);

class Pump final : public EventPump, public grpc::ClientReadReactor<WatchEventsResponse> {
 public:
  Pump(const WatchEventsRequest& call, Reader reader)
      : request_(call), reader_(std::move(reader)) {}

  absl::Status Open(Backend& backend, const std::string& bearer, std::shared_ptr<Pump> self) {
    self_ = std::move(self);
    Prepare(context_, bearer, absl::Hours(24));
    backend.dispatch->async()->WatchEvents(&context_, &request_, this);
    StartRead(&response_);
    StartCall();
    const absl::Time until = absl::Now() + kFirstWord;
    MutexLock lock(&mutex_);
    while (!taken_ && absl::Now() < until) changed_.WaitFor(&mutex_, until - absl::Now());
    if (!taken_) status_ = DeadlineExceeded("the dispatch broker does not answer");
    taken_ = true;
    return status_;
  }
  void Cancel() override { context_.TryCancel(); }

 private:
  void Taken(const absl::Status& status) {
    MutexLock lock(&mutex_);
    if (taken_) return;
    taken_ = true;
    status_ = status;
    changed_.SignalAll();
  }

  void OnReadInitialMetadataDone(bool ok) override {
    if (ok) Taken(absl::OkStatus());
  }
  void OnReadDone(bool ok) override {
    if (!ok) return;  // OnDone says why
    if (!reader_.on_event(response_.event())) return context_.TryCancel();
    StartRead(&response_);
  }
  void OnDone(const grpc::Status& status) override {
    Taken(status.ok() ? Unavailable("the dispatch broker ended the call")
                      : rpc::FromGrpcStatus(status));
    bool started = false;
    {
      MutexLock lock(&mutex_);
      started = status_.ok();
    }
    if (started) reader_.on_end();
    self_.reset();  // perhaps the last owner: nothing may follow
  }

  grpc::ClientContext context_;
  const WatchEventsRequest request_;
  WatchEventsResponse response_;
  const Reader reader_;
  std::shared_ptr<Pump> self_;  // until OnDone
  Mutex mutex_;
  CondVar changed_;
  bool taken_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

absl::StatusOr<std::shared_ptr<EventPump>> EventPump::Start(Backend& backend,
                                                            const std::string& bearer,
                                                            const WatchEventsRequest& call,
                                                            Reader reader) {
  const auto pump = std::make_shared<Pump>(call, std::move(reader));
  if (absl::Status status = pump->Open(backend, bearer, pump); !status.ok()) {
    pump->Cancel();
    return status;
  }
  return pump;
}

std::string ServerSentEvent(const std::string& data, const std::string& id) {
  if (id.empty()) return fmt::format("data: {}\n\n", data);
  return fmt::format("id: {}\ndata: {}\n\n", id, data);
}

http::Response EventStream(std::shared_ptr<http::BodyStream> stream) {
  http::Response response;
  response.content_type = "text/event-stream";
  response.headers = {{"cache-control", "no-store"}, {"x-accel-buffering", "no"}};
  response.stream = std::move(stream);
  return response;
}

}  // namespace parley::api_server
