#pragma once
// The broker over real gRPC, in this process, with agent servers and clients made up by the test.
#include <deque>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "base/mutex.h"
#include "base/status.h"
#include "dispatch_broker/dispatch_broker.h"
#include "parley/dispatch/v1/dispatch.grpc.pb.h"
#include "parley/dispatch/v1/worker.grpc.pb.h"
#include "rpc/bidi.h"
#include "rpc/channel.h"
#include "testing/redis_fixture.h"

namespace parley {

namespace v1 = ::parley::dispatch::v1;

// One broker process's worth, on threads of its own.
class RunningBroker {
 public:
  explicit RunningBroker(const redis::Config& redis) {
    config_.redis.address = redis.address;
    config_.common.dev = true;
    config_.common.log_level = "error";
    config_.common.drain = absl::Milliseconds(200);
    context_ = std::move(service::Context::Create("dispatch-broker", config_.common)).value();
    std::promise<int> port;
    thread_ = std::thread([this, &port] {
      dispatch_broker::Run(config_, *context_, [&port](int grpc, int) { port.set_value(grpc); });
    });
    address_ = fmt::format("127.0.0.1:{}", port.get_future().get());
    channel_ = rpc::MakeChannel(address_);
  }
  ~RunningBroker() {
    context_->RequestStop();
    thread_.join();
  }
  service::Context& context() { return *context_; }
  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

 private:
  DispatchBrokerConfig config_;
  std::unique_ptr<service::Context> context_;
  std::thread thread_;
  std::string address_;
  std::shared_ptr<grpc::Channel> channel_;
};

inline std::string Token(service::Context& context, const auth::VideoGrant& grant) {
  auth::Claims claims;
  claims.identity = "test";
  claims.video = grant;
  return auth::Sign(claims, context.keys()->keys()[0], absl::Hours(1));
}
inline std::string AdminToken(service::Context& context) {
  auth::VideoGrant grant;
  grant.room_create = grant.room_list = grant.agent = true;
  return Token(context, grant);
}

// An agent server's side of one stream.
class FakeWorker {
 public:
  using Stream = rpc::ClientBidi<v1::ConnectRequest, v1::ConnectResponse>;

  FakeWorker(RunningBroker& broker, v1::Register request, const std::string& token)
      : stub_(v1::WorkerService::NewStub(broker.channel())) {
    Stream::Options options;
    options.bearer = token;
    options.on_message = [this](const v1::ConnectResponse& response) {
      MutexLock lock(&mutex_);
      inbox_.push_back(response);
    };
    options.on_done = [this](const absl::Status& status) { done_.set_value(status); };
    stream_ = Stream::Open(
        [this](auto* context, auto* reactor) { stub_->async()->Connect(context, reactor); },
        std::move(options));
    v1::ConnectRequest first;
    *first.mutable_register_() = std::move(request);
    stream_->Send(std::move(first));
  }
  ~FakeWorker() {
    stream_->Cancel();
    if (ended_.valid()) ended_.wait();
  }

  // The next message of a kind, wherever it stands; nullopt after 5 s.
  std::optional<v1::ConnectResponse> Await(v1::ConnectResponse::MessageCase kind) {
    std::optional<v1::ConnectResponse> found;
    testing::Eventually([&] {
      MutexLock lock(&mutex_);
      for (auto it = inbox_.begin(); it != inbox_.end(); ++it) {
        if (it->message_case() != kind) continue;
        found = *it;
        inbox_.erase(it);
        return true;
      }
      return false;
    });
    return found;
  }
  void Say(const std::string& job, uint64_t token, v1::Word::Kind kind,
           v1::JobReason reason = v1::JOB_REASON_UNSPECIFIED) {
    v1::ConnectRequest request;
    v1::Word& word = *request.mutable_words()->add_words();
    word.set_job_id(job);
    word.set_fencing_token(token);
    word.set_kind(kind);
    word.set_reason(reason);
    if (kind == v1::Word::ENDED) word.mutable_session()->mutable_usage()->set_turns(4);
    stream_->Send(std::move(request));
  }
  void Beat(uint64_t seq, bool accepting = true) {
    v1::ConnectRequest request;
    request.mutable_heartbeat()->set_seq(seq);
    request.mutable_heartbeat()->set_load(0.25);
    request.mutable_heartbeat()->set_accepting(accepting);
    stream_->Send(std::move(request));
  }
  void Send(v1::ConnectRequest request) { stream_->Send(std::move(request)); }
  absl::Status End() {
    return ended_.wait_for(std::chrono::seconds(5)) == std::future_status::ready
               ? ended_.get()
               : DeadlineExceeded("the stream is still open");
  }

 private:
  std::unique_ptr<v1::WorkerService::Stub> stub_;
  Mutex mutex_;
  std::deque<v1::ConnectResponse> inbox_ ABSL_GUARDED_BY(mutex_);
  std::promise<absl::Status> done_;
  std::shared_future<absl::Status> ended_ = done_.get_future().share();
  std::shared_ptr<Stream> stream_;
};

class DispatchBrokerTest : public testing::RedisTest {
 protected:
  void SetUp() override {
    RedisTest::SetUp();
    broker_ = std::make_unique<RunningBroker>(PoolConfig());
    stub_ = v1::DispatchService::NewStub(broker_->channel());
    token_ = AdminToken(broker_->context());
  }
  void TearDown() override {
    broker_.reset();
    RedisTest::TearDown();
  }

  template <typename Request, typename Response>
  absl::StatusOr<Response> Call(grpc::Status (v1::DispatchService::Stub::*method)(
                                    grpc::ClientContext*, const Request&, Response*),
                                const Request& request, const std::string& token) {
    grpc::ClientContext context;
    rpc::SetBearer(context, token);
    rpc::SetTimeout(context, absl::Seconds(20));
    Response response;
    const absl::Status status =
        rpc::FromGrpcStatus((stub_.get()->*method)(&context, request, &response));
    if (!status.ok()) return status;
    return response;
  }
  v1::CreateDispatchRequest Wish(const std::string& agent = "echo",
                                 const std::string& room = "lobby") {
    v1::CreateDispatchRequest request;
    request.set_agent_name(agent);
    request.set_room(room);
    return request;
  }
  absl::StatusOr<v1::Dispatch> Create(const v1::CreateDispatchRequest& request,
                                      const std::string& token) {
    const auto response = Call(&v1::DispatchService::Stub::CreateDispatch, request, token);
    if (!response.ok()) return response.status();
    return response->dispatch();
  }
  absl::StatusOr<v1::Dispatch> Create(const v1::CreateDispatchRequest& request) {
    return Create(request, token_);
  }
  v1::Job JobOf(const std::string& dispatch_id) {
    v1::GetDispatchRequest request;
    request.set_dispatch_id(dispatch_id);
    const auto response = Call(&v1::DispatchService::Stub::GetDispatch, request, token_);
    EXPECT_TRUE(response.ok()) << response.status();
    return response.ok() && response->dispatch().jobs_size() > 0 ? response->dispatch().jobs(0)
                                                                 : v1::Job();
  }
  static v1::Register EchoWorker(const std::string& id, int slots = 10) {
    v1::Register request;
    request.set_worker_id(id);
    request.set_instance(std::string(32, 'a'));
    request.set_connect_seq(1);
    request.add_agent_names("echo");
    request.set_slots(slots);
    request.set_accepts_all(true);
    return request;
  }
  std::unique_ptr<FakeWorker> Connect(v1::Register request) {
    auto worker = std::make_unique<FakeWorker>(*broker_, std::move(request), token_);
    EXPECT_TRUE(worker->Await(v1::ConnectResponse::kRegistered).has_value());
    return worker;
  }

  std::unique_ptr<RunningBroker> broker_;
  std::unique_ptr<v1::DispatchService::Stub> stub_;
  std::string token_;
};

}  // namespace parley
