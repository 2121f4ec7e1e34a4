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

BrokerLink::BrokerLink(std::shared_ptr<event::Loop> loop,
                       const std::shared_ptr<grpc::Channel>& channel,
                       std::function<std::string()> token, Handler& handler, uint64_t after_seq)
    : loop_(std::move(loop)),
      token_(std::move(token)),
      handler_(handler),
      stub_(parley::dispatch::v1::WorkerService::NewStub(channel)),
      timer_(*loop_),
      candidate_timer_(*loop_),
      last_seq_(after_seq) {}

BrokerLink::~BrokerLink() {
  *self_ = nullptr;
  DropCandidate();
  if (stream_ != nullptr) stream_->Cancel();
}

void BrokerLink::Start() {
  closed_ = false;
  retry_at_once_ = true;
  Connect();
}

void BrokerLink::Connect() {
  if (closed_ || stream_ != nullptr) return;
  connect_seq_ = ++last_seq_;
  registered_ = false;
  stream_ = Open(connect_seq_);
  timer_.StartOnce(kRegisterTimeout, [this] { Break(); });
}

std::shared_ptr<BrokerLink::Stream> BrokerLink::Open(uint64_t seq) {
  Stream::Options options;
  options.bearer = token_();
  options.on_message = [loop = loop_, self = self_, seq](const ConnectResponse& response) {
    loop->Post([self, seq, response] {
      if (*self != nullptr) (*self)->OnMessage(seq, response);
    });
  };
  options.on_done = [loop = loop_, self = self_, seq](const absl::Status& status) {
    loop->Post([self, seq, status] {
      if (*self != nullptr) (*self)->OnDone(seq, status);
    });
  };
  auto stream = Stream::Open(
      [this](auto* context, auto* reactor) { stub_->async()->Connect(context, reactor); },
      std::move(options));
  ConnectRequest request;
  request.mutable_register_()->set_connect_seq(seq);
  handler_.FillRegister(*request.mutable_register_());
  stream->Send(std::move(request));
  return stream;
}

void BrokerLink::Move() {
  if (closed_ || !registered_ || candidate_ != nullptr) return;
  candidate_seq_ = ++last_seq_;
  candidate_ = Open(candidate_seq_);
  candidate_timer_.StartOnce(kRegisterTimeout, [this] { DropCandidate(); });
}

void BrokerLink::DropCandidate() {
  candidate_timer_.Stop();
  if (candidate_ != nullptr) candidate_->Cancel();
  candidate_.reset();
}

void BrokerLink::OnMessage(uint64_t seq, const ConnectResponse& response) {
  if (candidate_ != nullptr && seq == candidate_seq_ && response.has_registered()) {
    candidate_timer_.Stop();
    const std::shared_ptr<Stream> old = std::exchange(stream_, std::move(candidate_));
    candidate_.reset();
    connect_seq_ = seq;  // whatever the old one still says is over
    old->Cancel();
  }
  if (seq != connect_seq_) return;
  heard_us_ = loop_->NowMicros();
  if (response.has_registered()) {
    registered_ = true;
    retry_at_once_ = true;
    timer_.Stop();
  }
  handler_.OnBroker(response);
}

void BrokerLink::OnDone(uint64_t seq, const absl::Status& status) {
  if (candidate_ != nullptr && seq == candidate_seq_) return DropCandidate();
  if (connect_seq_ != seq || stream_ == nullptr) return;
  DropCandidate();
  stream_.reset();
  timer_.Stop();
  const bool was_registered = std::exchange(registered_, false);
  // A stream of Move() whose answer was lost may be what replaced this one. If our session has
  // ended after all, the next registration hears it.
  const bool by_us = was_registered && absl::IsAborted(status) && last_seq_ > seq;
  if (!by_us && (closed_ || !handler_.OnBrokerLost(status, was_registered))) return;
  if (closed_) return;
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
  DropCandidate();
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
