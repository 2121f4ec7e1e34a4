#include "agent/server/broker_link.h"

#include <random>
#include <utility>

#include "base/status.h"
#include "rpc/channel.h"
#include "rpc/status.h"

namespace parley::agent {
namespace {

using parley::dispatch::v1::ConnectRequest;
using parley::dispatch::v1::ConnectResponse;
using parley::dispatch::v1::ReportDeathRequest;
using parley::dispatch::v1::ReportDeathResponse;

constexpr absl::Duration kRegisterTimeout = absl::Seconds(5);
constexpr absl::Duration kGoneTimeout = absl::Seconds(2);

absl::Duration Jitter() {
  thread_local std::minstd_rand random(std::random_device{}());
  return absl::Milliseconds(std::uniform_int_distribution<int>(200, 2000)(random));
}

}  // namespace

BrokerLink::BrokerLink(std::shared_ptr<event::Loop> loop, const std::string& address,
                       std::function<std::string()> token, Handler& handler)
    : loop_(std::move(loop)),
      token_(std::move(token)),
      handler_(handler),
      stub_(parley::dispatch::v1::WorkerService::NewStub(rpc::MakeChannel(address))),
      timer_(*loop_) {}

BrokerLink::~BrokerLink() {
  *self_ = nullptr;
  if (stream_ != nullptr) stream_->Cancel();
}

void BrokerLink::Start() {
  closed_ = false;
  retry_at_once_ = true;
  Connect();
}

void BrokerLink::Connect() {
  if (closed_ || stream_ != nullptr) return;
  const uint64_t seq = ++connect_seq_;
  registered_ = false;
  Stream::Options options;
  options.bearer = token_();
  options.on_message = [loop = loop_, self = self_, seq](const ConnectResponse& response) {
    loop->Post([self, seq, response] {
      BrokerLink* const link = *self;
      if (link == nullptr || link->connect_seq_ != seq) return;
      link->heard_us_ = link->loop_->NowMicros();
      if (response.has_registered()) {
        link->registered_ = true;
        link->retry_at_once_ = true;
        link->timer_.Stop();
      }
      link->handler_.OnBroker(response);
    });
  };
  options.on_done = [loop = loop_, self = self_, seq](const absl::Status& status) {
    loop->Post([self, seq, status] {
      if (*self != nullptr) (*self)->OnDone(seq, status);
    });
  };
  stream_ = Stream::Open(
      [this](auto* context, auto* reactor) { stub_->async()->Connect(context, reactor); },
      std::move(options));
  ConnectRequest request;
  request.mutable_register_()->set_connect_seq(seq);
  handler_.FillRegister(*request.mutable_register_());
  stream_->Send(std::move(request));
  timer_.StartOnce(kRegisterTimeout, [this] { Break(); });
}

void BrokerLink::OnDone(uint64_t seq, const absl::Status& status) {
  if (connect_seq_ != seq || stream_ == nullptr) return;
  stream_.reset();
  timer_.Stop();
  const bool was_registered = std::exchange(registered_, false);
  if (closed_ || !handler_.OnBrokerLost(status, was_registered) || closed_) return;
  if (std::exchange(retry_at_once_, false)) return Connect();
  timer_.StartOnce(Jitter(), [this] { Connect(); });
}

bool BrokerLink::Send(ConnectRequest request) {
  return registered_ && stream_->Send(std::move(request));
}

void BrokerLink::Break() {
  if (stream_ != nullptr) stream_->Cancel();
}

void BrokerLink::Close() {
  closed_ = true;
  timer_.Stop();
  if (stream_ != nullptr) stream_->HalfClose();
}

void BrokerLink::ReportGone(const std::string& worker_id, const std::string& instance,
                            std::function<void(const absl::Status&)> done) {
  struct Call {
    grpc::ClientContext context;
    ReportDeathRequest request;
    ReportDeathResponse response;
  };
  auto call = std::make_shared<Call>();
  rpc::SetBearer(call->context, token_());
  rpc::SetTimeout(call->context, kGoneTimeout);
  call->request.set_worker_id(worker_id);
  call->request.set_instance(instance);
  call->request.set_connect_seq(connect_seq_);
  stub_->async()->ReportDeath(
      &call->context, &call->request, &call->response,
      [loop = loop_, call, done = std::move(done)](const grpc::Status& status) {
        loop->Post([done, status] { done(rpc::FromGrpcStatus(status)); });
      });
}

}  // namespace parley::agent
