// scripts/bench dispatch: from a client's create call to the entrypoint's own clock reading, and to
// the moment the caller in the room sees the agent. One at a time on an idle, warm cluster of
// separate processes; Redis with AOF everysec.
#include <fmt/format.h>
#include <parley/dispatch/v1/dispatch.grpc.pb.h>
#include <parley/room/v1/room.grpc.pb.h>
#include <unistd.h>

#include <cstring>

#include "auth/token.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/ids.h"
#include "base/mutex.h"
#include "base/status.h"
#include "mailbox.h"
#include "options.h"
#include "report.h"
#include "rpc/bidi.h"
#include "rpc/channel.h"
#include "testing/cluster.h"

namespace parley::bench {
namespace {

int64_t NowMicros() { return Clock::Real().MonotonicMicros(); }

// A person in a room who notes when an agent becomes visible.
class Watcher {
 public:
  using Stream = rpc::ClientBidi<room::v1::JoinRequest, room::v1::JoinResponse>;

  Watcher(const std::string& media, const std::string& token)
      : stub_(room::v1::MediaService::NewStub(rpc::MakeChannel(media))) {
    Stream::Options options;
    options.on_message = [this](const room::v1::JoinResponse& message) { OnMessage(message); };
    options.on_done = [this](const absl::Status& status) {
      MutexLock lock(&mutex_);
      done_ = true;
      status_ = status;
      changed_.SignalAll();
    };
    stream_ =
        Stream::Open([&](auto* context, auto* reactor) { stub_->async()->Join(context, reactor); },
                     std::move(options));
    room::v1::JoinRequest join;
    join.mutable_join()->set_token(token);
    stream_->Send(join);
  }
  ~Watcher() {
    stream_->Cancel();
    MutexLock lock(&mutex_);
    while (!done_) changed_.Wait(&mutex_);
  }
  absl::Status WaitJoined() {
    return WaitFor([this] { return joined_; }).status();
  }
  // When the next agent became visible, in microseconds.
  absl::StatusOr<int64_t> NextAgent() {
    PARLEY_RETURN_IF_ERROR(WaitFor([this] { return !seen_.empty(); }).status());
    MutexLock lock(&mutex_);
    const int64_t at = seen_.front();
    seen_.pop_front();
    return at;
  }

 private:
  template <typename Ready>
  absl::StatusOr<bool> WaitFor(const Ready& ready) {
    const int64_t until = NowMicros() + 10'000'000;
    MutexLock lock(&mutex_);
    while (!ready()) {
      if (done_) return Annotate(status_, "the caller's stream ended");
      if (NowMicros() > until) return DeadlineExceeded("nothing seen in the room for 10 s");
      changed_.WaitFor(&mutex_, absl::Milliseconds(100));
    }
    return true;
  }
  void OnMessage(const room::v1::JoinResponse& message) {
    const int64_t now = NowMicros();
    MutexLock lock(&mutex_);
    if (message.has_joined()) joined_ = true;
    if (message.has_event() && message.event().has_participant_joined() &&
        message.event().participant_joined().participant().kind() ==
            room::v1::PARTICIPANT_KIND_AGENT) {
      seen_.push_back(now);
    }
    changed_.SignalAll();
  }

  std::unique_ptr<room::v1::MediaService::Stub> stub_;
  std::shared_ptr<Stream> stream_;
  Mutex mutex_;
  CondVar changed_;
  bool joined_ = false;
  bool done_ = false;
  absl::Status status_;
  std::deque<int64_t> seen_;
};

class Client {
 public:
  Client(const std::string& address, std::string token)
      : stub_(dispatch::v1::DispatchService::NewStub(rpc::MakeChannel(address))),
        token_(std::move(token)) {}

  absl::StatusOr<std::string> Create(const std::string& room, const std::string& metadata) {
    grpc::ClientContext context;
    rpc::SetBearer(context, token_);
    rpc::SetTimeout(context, absl::Seconds(5));
    dispatch::v1::CreateDispatchRequest request;
    request.set_agent_name("bench");
    request.set_room(room);
    request.set_metadata(metadata);
    dispatch::v1::CreateDispatchResponse response;
    PARLEY_RETURN_IF_ERROR(
        rpc::FromGrpcStatus(stub_->CreateDispatch(&context, request, &response)));
    return response.dispatch().id();
  }
  absl::Status EndAndWait(const std::string& id) {
    {
      grpc::ClientContext context;
      rpc::SetBearer(context, token_);
      rpc::SetTimeout(context, absl::Seconds(5));
      dispatch::v1::DeleteDispatchRequest request;
      request.set_dispatch_id(id);
      dispatch::v1::DeleteDispatchResponse response;
      PARLEY_RETURN_IF_ERROR(
          rpc::FromGrpcStatus(stub_->DeleteDispatch(&context, request, &response)));
    }
    const int64_t until = NowMicros() + 20'000'000;
    while (NowMicros() < until) {
      grpc::ClientContext context;
      rpc::SetBearer(context, token_);
      rpc::SetTimeout(context, absl::Seconds(5));
      dispatch::v1::GetDispatchRequest request;
      request.set_dispatch_id(id);
      dispatch::v1::GetDispatchResponse response;
      PARLEY_RETURN_IF_ERROR(rpc::FromGrpcStatus(stub_->GetDispatch(&context, request, &response)));
      if (response.dispatch().state() == dispatch::v1::DISPATCH_STATE_ENDED)
        return absl::OkStatus();
      usleep(2'000);
    }
    return DeadlineExceeded("dispatch {} did not end", id);
  }

 private:
  std::unique_ptr<dispatch::v1::DispatchService::Stub> stub_;
  const std::string token_;
};

std::string Token(const std::string& room, bool person) {
  auth::Claims claims;
  claims.identity = person ? "caller" : "bench";
  claims.video.room = room;
  claims.video.room_create = !person;
  claims.video.room_admin = !person;
  claims.video.room_join = person;
  const auto ring = auth::KeyRing::Development();
  return auth::Sign(claims, ring->keys()[0], absl::Hours(1));
}

absl::Status Run(const Options& options) {
  const int n = options.quick ? 20 : 500;
  testing::ClusterOptions cluster_options;
  cluster_options.services = {"agent-registry", "dispatch-broker", "room-server"};
  cluster_options.agent_binary = "parley-bench-agent";
  PARLEY_ASSIGN_OR_RETURN(auto cluster, testing::Cluster::Start(cluster_options));
  Mailbox mailbox(cluster->work_dir() + "/mailbox");
  Client client(cluster->Address("dispatch-broker"), Token("", false));

  std::vector<double> running_ms;
  const std::string wait = fmt::format(R"({{"report":"{}","mode":"wait"}})", mailbox.path());
  for (int i = 0; i < n + 10; ++i) {
    const int64_t start = NowMicros();
    PARLEY_ASSIGN_OR_RETURN(const std::string id, client.Create("bench-" + RandomHex(6), wait));
    PARLEY_ASSIGN_OR_RETURN(const Mailbox::Entry entered, mailbox.Next(absl::Seconds(10)));
    if (i >= 10)
      running_ms.push_back(static_cast<double>(entered.at_us - start) /
                           1000);  // the first ten warm up
    PARLEY_RETURN_IF_ERROR(client.EndAndWait(id));
  }

  std::vector<double> visible_ms;
  const std::string join = fmt::format(R"({{"report":"{}","mode":"join"}})", mailbox.path());
  for (int i = 0; i < n; ++i) {
    const std::string room = "bench-" + RandomHex(6);
    Watcher watcher(cluster->Address("room-server"), Token(room, true));
    PARLEY_RETURN_IF_ERROR(watcher.WaitJoined());
    const int64_t start = NowMicros();
    PARLEY_ASSIGN_OR_RETURN(const std::string id, client.Create(room, join));
    PARLEY_ASSIGN_OR_RETURN(const int64_t seen, watcher.NextAgent());
    visible_ms.push_back(static_cast<double>(seen - start) / 1000);
    PARLEY_RETURN_IF_ERROR(mailbox.Next(absl::Seconds(10)).status());
    PARLEY_RETURN_IF_ERROR(client.EndAndWait(id));
  }

  Report report("dispatch", options);
  report.Samples("dispatch.created_to_running_ms", "ms", running_ms, "<= 10 p99");
  report.Samples("dispatch.created_to_visible_ms", "ms", visible_ms, "<= 50 p99");
  return report.Finish() ? absl::OkStatus()
                         : absl::InternalError("the result file could not be written");
}

}  // namespace
}  // namespace parley::bench

int main(int argc, char** argv) {
  const parley::bench::Options options = parley::bench::ParseOptions(argc, argv);
  const absl::Status status = parley::bench::Run(options);
  if (!status.ok()) fmt::print(stderr, "bench dispatch: {}\n", parley::Message(status));
  return status.ok() ? 0 : 1;
}
