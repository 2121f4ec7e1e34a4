#pragma once
// A room server in this process, with a real Redis and a broker of our own making.
#include <grpcpp/grpcpp.h>
#include <parley/dispatch/v1/dispatch.grpc.pb.h>
#include <parley/room/v1/room.grpc.pb.h>

#include <deque>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "auth/token.h"
#include "caller/connection.h"
#include "room_server/room_server.h"
#include "rpc/channel.h"
#include "rpc/server.h"
#include "testing/redis_fixture.h"

namespace parley {

namespace pb = ::parley::room::v1;

// Answers CreateDispatch as told and remembers what was asked; the same key gets the same id.
class FakeBroker final : public dispatch::v1::DispatchService::Service {
 public:
  grpc::Status CreateDispatch(grpc::ServerContext* context,
                              const dispatch::v1::CreateDispatchRequest* request,
                              dispatch::v1::CreateDispatchResponse* response) override {
    MutexLock lock(&mutex_);
    requests_.push_back(*request);
    tokens_.push_back(rpc::BearerOf(*context));
    if (!answer_.ok()) return rpc::ToGrpcStatus(answer_);
    std::string& id = ids_[request->idempotency_key()];
    if (id.empty()) id = fmt::format("AD_{}", ids_.size());
    response->mutable_dispatch()->set_id(id);
    return grpc::Status::OK;
  }

  grpc::Status ReportPresence(grpc::ServerContext* context,
                              const dispatch::v1::ReportPresenceRequest* request,
                              dispatch::v1::ReportPresenceResponse* response) override {
    MutexLock lock(&mutex_);
    if (!answer_.ok()) return rpc::ToGrpcStatus(answer_);
    presence_token_ = rpc::BearerOf(*context);
    for (const auto& room : request->rooms()) {
      presence_[room.room_sid()] = room;
      response->add_watched_room_sids(room.room_sid());
    }
    return grpc::Status::OK;
  }
  // The last report of each room, by sid.
  std::map<std::string, dispatch::v1::RoomPresence> presence() const {
    MutexLock lock(&mutex_);
    return presence_;
  }
  std::string presence_token() const {
    MutexLock lock(&mutex_);
    return presence_token_;
  }

  void Start(int port = 0) {
    server_ = std::make_unique<rpc::Server>();
    PARLEY_ASSERT_OK(server_->Start({.address = "127.0.0.1", .port = port}, {this}));
    port_ = server_->port();
  }
  void Stop() { server_.reset(); }
  int port() const { return port_; }
  void Answer(absl::Status status) {
    MutexLock lock(&mutex_);
    answer_ = std::move(status);
  }
  std::vector<dispatch::v1::CreateDispatchRequest> requests() const {
    MutexLock lock(&mutex_);
    return requests_;
  }
  std::vector<std::string> tokens() const {
    MutexLock lock(&mutex_);
    return tokens_;
  }

 private:
  mutable Mutex mutex_;
  absl::Status answer_ ABSL_GUARDED_BY(mutex_);
  std::vector<dispatch::v1::CreateDispatchRequest> requests_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> tokens_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::string> ids_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, dispatch::v1::RoomPresence> presence_ ABSL_GUARDED_BY(mutex_);
  std::string presence_token_ ABSL_GUARDED_BY(mutex_);
  int port_ = 0;
  std::unique_ptr<rpc::Server> server_;
};

// One replica on a thread.
class RunningRoomServer {
 public:
  explicit RunningRoomServer(RoomServerConfig config) {
    config.common.dev = true;
    config.common.grpc_port = 0;
    config.rtc_udp_port = 0;
    config.common.log_level = "error";
    config.common.threads = 4;
    auto context = service::Context::Create("room-server", config.common);
    EXPECT_TRUE(context.ok()) << context.status();
    context_ = *std::move(context);
    std::promise<int> port;
    thread_ = std::thread([this, config, &port] {
      code_ = room_server::Run(config, *context_,
                               [&](int grpc_port, int) { port.set_value(grpc_port); });
    });
    port_ = port.get_future().get();
    channel_ = rpc::MakeChannel(url());
  }
  ~RunningRoomServer() { Stop(); }
  int Stop() {
    if (thread_.joinable()) {
      context_->RequestStop();
      thread_.join();
    }
    return code_;
  }

  std::string url() const { return fmt::format("127.0.0.1:{}", port_); }
  std::shared_ptr<grpc::Channel> channel() { return channel_; }
  service::Context& context() { return *context_; }

 private:
  std::unique_ptr<service::Context> context_;
  std::thread thread_;
  int port_ = 0;
  int code_ = -1;
  std::shared_ptr<grpc::Channel> channel_;
};

// A participant on a Join stream.
class Peer {
 public:
  Peer() = default;
  explicit Peer(std::unique_ptr<caller::Connection> connection)
      : connection_(std::move(connection)) {}

  // The next message for which `matches` is true; what does not match waits for later calls.
  template <typename Matches>
  std::optional<pb::JoinResponse> Next(Matches matches,
                                       absl::Duration timeout = absl::Seconds(15)) {
    for (auto kept = kept_.begin(); kept != kept_.end(); ++kept) {
      if (!matches(*kept)) continue;
      pb::JoinResponse found = std::move(*kept);
      kept_.erase(kept);
      return found;
    }
    const absl::Time until = absl::Now() + timeout;
    while (absl::Now() < until) {
      auto received = connection_->Receive(until - absl::Now());
      if (received.done) {
        done_ = received.done;
        return std::nullopt;
      }
      if (!received.message) return std::nullopt;
      if (matches(*received.message)) return std::move(received.message);
      kept_.push_back(*std::move(received.message));
    }
    return std::nullopt;
  }
  pb::RoomEvent Event(pb::RoomEvent::EventCase which, absl::Duration timeout = absl::Seconds(15)) {
    auto found = Next(
        [&](const auto& message) {
          return message.has_event() && message.event().event_case() == which;
        },
        timeout);
    EXPECT_TRUE(found) << "no event " << which;
    return found ? found->event() : pb::RoomEvent();
  }
  pb::AudioFrame Audio() {
    auto found = Next([](const auto& message) { return message.has_audio(); });
    EXPECT_TRUE(found) << "no audio";
    return found ? found->audio() : pb::AudioFrame();
  }

  void Command(pb::ParticipantCommand command) {
    pb::JoinRequest request;
    *request.mutable_command() = std::move(command);
    EXPECT_TRUE(connection_->Send(std::move(request)));
  }
  void Publish(const std::string& cid, pb::Codec codec = pb::CODEC_OPUS,
               pb::TrackKind kind = pb::TRACK_KIND_AUDIO) {
    pb::ParticipantCommand command;
    command.mutable_publish()->set_cid(cid);
    command.mutable_publish()->set_kind(kind);
    command.mutable_publish()->set_source(pb::TRACK_SOURCE_MICROPHONE);
    command.mutable_publish()->set_codec(codec);
    Command(std::move(command));
  }
  std::string PublishedSid() {  // of our own
    auto found = Next([](const auto& message) {
      return message.has_event() && !message.event().track_published().cid().empty();
    });
    EXPECT_TRUE(found) << "not published";
    return found ? found->event().track_published().track().sid() : std::string();
  }
  void SendAudio(const std::string& sid, const std::string& data, uint32_t timestamp = 0) {
    pb::JoinRequest request;
    request.mutable_audio()->set_track_sid(sid);
    request.mutable_audio()->set_data(data);
    request.mutable_audio()->set_timestamp(timestamp);
    request.mutable_audio()->set_level(30);
    EXPECT_TRUE(connection_->Send(std::move(request)));
  }
  caller::Connection& connection() { return *connection_; }
  void Cut() { connection_.reset(); }
  const std::optional<absl::Status>& done() const { return done_; }

 private:
  std::unique_ptr<caller::Connection> connection_;
  std::deque<pb::JoinResponse> kept_;
  std::optional<absl::Status> done_;
};

// An agent server on an Attach stream.
class AgentStream {
 public:
  AgentStream(RunningRoomServer& server, const std::string& bearer,
              const std::string& worker = "AW_1", const std::string& instance = "i1")
      : stub_(pb::MediaService::NewStub(server.channel())) {
    rpc::SetBearer(context_, bearer);
    stream_ = stub_->Attach(&context_);
    pb::AttachRequest hello;
    hello.mutable_hello()->set_worker_id(worker);
    hello.mutable_hello()->set_instance(instance);
    stream_->Write(hello);
    reader_ = std::thread([this] {
      pb::AttachResponse response;
      while (stream_->Read(&response)) {
        MutexLock lock(&mutex_);
        inbox_.push_back(response);
        arrived_.SignalAll();
      }
      MutexLock lock(&mutex_);
      over_ = true;
      arrived_.SignalAll();
    });
  }
  ~AgentStream() {
    context_.TryCancel();
    if (!reader_.joinable()) return;
    reader_.join();
    stream_->Finish();
  }
  grpc::Status Finish() {  // how the server ended it; last call
    reader_.join();
    return stream_->Finish();
  }

  void Open(uint32_t session, const std::string& token) {
    pb::AttachRequest request;
    request.mutable_open()->set_session(session);
    request.mutable_open()->set_token(token);
    request.mutable_open()->mutable_options()->set_auto_subscribe(true);
    stream_->Write(request);
  }
  void Command(uint32_t session, pb::ParticipantCommand command) {
    pb::AttachRequest request;
    request.mutable_command()->set_session(session);
    *request.mutable_command()->mutable_command() = std::move(command);
    stream_->Write(request);
  }
  void Send(const pb::AttachRequest& request) { stream_->Write(request); }
  // The next response for which `matches` is true; others wait.
  template <typename Matches>
  std::optional<pb::AttachResponse> Next(Matches matches,
                                         absl::Duration timeout = absl::Seconds(15)) {
    const absl::Time until = absl::Now() + timeout;
    MutexLock lock(&mutex_);
    while (true) {
      for (auto entry = inbox_.begin(); entry != inbox_.end(); ++entry) {
        if (!matches(*entry)) continue;
        pb::AttachResponse found = std::move(*entry);
        inbox_.erase(entry);
        return found;
      }
      if (over_ || absl::Now() >= until) return std::nullopt;
      arrived_.WaitFor(&mutex_, until - absl::Now());
    }
  }
  pb::SessionOpened Opened(uint32_t session) {
    auto found =
        Next([&](const auto& r) { return r.has_opened() && r.opened().session() == session; });
    EXPECT_TRUE(found) << "session " << session << " did not open";
    return found ? found->opened() : pb::SessionOpened();
  }
  pb::SessionClosed Closed(uint32_t session) {
    auto found =
        Next([&](const auto& r) { return r.has_closed() && r.closed().session() == session; });
    EXPECT_TRUE(found) << "session " << session << " did not close";
    return found ? found->closed() : pb::SessionClosed();
  }
  pb::RoomEvent Event(uint32_t session, pb::RoomEvent::EventCase which) {
    auto found = Next([&](const auto& r) {
      return r.has_event() && r.event().session() == session &&
             r.event().event().event_case() == which;
    });
    EXPECT_TRUE(found) << "no event " << which;
    return found ? found->event().event() : pb::RoomEvent();
  }

 private:
  std::unique_ptr<pb::MediaService::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<pb::AttachRequest, pb::AttachResponse>> stream_;
  Mutex mutex_;
  CondVar arrived_;
  std::deque<pb::AttachResponse> inbox_ ABSL_GUARDED_BY(mutex_);
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread reader_;
};

class RoomServerTest : public ::parley::testing::RedisTest {
 protected:
  void SetUp() override {
    RedisTest::SetUp();
    broker_.Start();
    config_.dispatch_address = fmt::format("127.0.0.1:{}", broker_.port());
    config_.redis = PoolConfig();
    config_.common.drain = absl::Milliseconds(200);
  }
  void TearDown() override {
    server_.reset();
    broker_.Stop();
    RedisTest::TearDown();
  }
  RunningRoomServer& server() {
    if (server_ == nullptr) server_ = std::make_unique<RunningRoomServer>(config_);
    return *server_;
  }

  static auth::Claims Joiner(const std::string& identity, const std::string& room = "lobby") {
    auth::Claims claims;
    claims.identity = identity;
    claims.video.room_join = true;
    claims.video.room = room;
    return claims;
  }
  std::string Token(const auth::Claims& claims, absl::Duration ttl = absl::Minutes(5)) {
    return auth::Sign(claims, {.key = "devkey", .secret = "secret"}, ttl);
  }
  std::string JobToken(const std::string& job, uint64_t fencing_token,
                       const std::string& worker = "AW_1", const std::string& instance = "i1",
                       const std::string& room = "lobby") {
    auth::Claims claims = Joiner("agent-" + job, room);
    claims.kind = "agent";
    claims.service = "dispatch_broker";
    claims.project = "default";
    claims.video.can_update_own_metadata = true;
    claims.job = auth::JobGrant{job, fencing_token, worker, instance};
    return auth::SignService(claims, *server().context().keys(), absl::Minutes(5));
  }
  std::string AdminToken() {
    auth::Claims claims;
    claims.identity = "admin";
    claims.video.room_create = true;
    claims.video.room_list = true;
    return Token(claims);
  }

  absl::StatusOr<Peer> TryJoin(const std::string& token, pb::Codec receive = {},
                               RunningRoomServer* at = nullptr) {
    pb::JoinRoom join;
    join.set_token(token);
    join.mutable_options()->set_auto_subscribe(true);
    join.mutable_options()->set_receive_codec(receive);
    PARLEY_ASSIGN_OR_RETURN(
        auto connection,
        caller::Connection::Join((at == nullptr ? server() : *at).url(), join, absl::Seconds(5)));
    return Peer(std::move(connection));
  }
  Peer Join(const auth::Claims& claims) {
    auto peer = TryJoin(Token(claims));
    EXPECT_TRUE(peer.ok()) << peer.status();
    return peer.ok() ? *std::move(peer) : Peer();
  }

  // A unary call with a bearer token.
  template <typename Stub, typename Method, typename Request, typename Response>
  absl::Status Call(Stub& stub, Method method, const std::string& token, const Request& request,
                    Response* response) {
    grpc::ClientContext context;
    rpc::SetBearer(context, token);
    rpc::SetTimeout(context, absl::Seconds(15));
    return rpc::FromGrpcStatus((stub.*method)(&context, request, response));
  }
  std::unique_ptr<pb::RoomService::Stub> Rooms() {
    return pb::RoomService::NewStub(server().channel());
  }
  absl::Status Fence(const std::string& job, uint64_t lowest) {
    auto stub = pb::AdmissionService::NewStub(server().channel());
    pb::FenceRequest request;
    request.set_project("default");
    request.set_room("lobby");
    request.set_job_id(job);
    request.set_lowest_token(lowest);
    pb::FenceResponse response;
    return Call(*stub, &pb::AdmissionService::Stub::Fence,
                server().context().ServiceToken("default"), request, &response);
  }

  FakeBroker broker_;
  RoomServerConfig config_;
  std::unique_ptr<RunningRoomServer> server_;
};

}  // namespace parley
