#include "room_server/server_call.h"

#include <grpcpp/alarm.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "base/ids.h"
#include "base/status.h"
#include "rpc/status.h"

namespace parley::room_server {
namespace {

namespace pb = ::parley::room::v1;

// LiveKit's SDKs wait as long for each.
constexpr absl::Duration kAckTimeout = absl::Seconds(7);
constexpr absl::Duration kDefaultTimeout = absl::Seconds(15);
constexpr absl::Duration kMaxTimeout = absl::Seconds(60);
// And its numbers.
constexpr uint32_t kConnectionTimeout = 1501;
constexpr uint32_t kResponseTimeout = 1502;

absl::StatusOr<absl::Duration> TimeoutOf(const pb::PerformRpcRequest& request) {
  if (!request.has_response_timeout()) return kDefaultTimeout;
  const absl::Duration asked = absl::Seconds(request.response_timeout().seconds()) +
                               absl::Nanoseconds(request.response_timeout().nanos());
  if (asked > absl::ZeroDuration() && asked <= kMaxTimeout) return asked;
  return InvalidArgument("response_timeout must be above 0 and at most 60 s");
}

class ServerCall final : public grpc::ServerUnaryReactor,
                         public std::enable_shared_from_this<ServerCall> {
 public:
  ServerCall(std::shared_ptr<Host> host, pb::PerformRpcRequest request,
             pb::PerformRpcResponse* response)
      : host_(std::move(host)), request_(std::move(request)), response_(response) {}

  void Start(const absl::StatusOr<auth::Claims>& caller) {
    self_ = shared_from_this();
    absl::Status status = caller.status();
    if (status.ok()) status = auth::RequireRoomAdmin(*caller, request_.room());
    if (!status.ok()) return End(status);
    // Who holds the room is looked up in the store.
    if (!host_->control().Post([self = self_, project = caller->project] {
          if (absl::Status asked = self->Ask(project); !asked.ok()) self->End(asked);
        })) {
      End(ResourceExhausted("the server is busy; try again shortly"));
    }
  }

  void OnCancel() override { End(Error(absl::StatusCode::kCancelled, "the caller has gone")); }
  void OnDone() override {
    const auto self = std::move(self_);
    std::shared_ptr<room::Room> room;
    {
      MutexLock lock(&mutex_);
      room = room_;
    }
    if (room != nullptr) room->EndCall(id_);
  }

 private:
  absl::Status Ask(const std::string& project) {
    PARLEY_ASSIGN_OR_RETURN(const absl::Duration timeout, TimeoutOf(request_));
    PARLEY_ASSIGN_OR_RETURN(const auto room, host_->Require(project, request_.room()));
    {
      MutexLock lock(&mutex_);
      if (ended_) return absl::OkStatus();  // cancelled meanwhile
      room_ = room;
      Arm(ack_, std::min(kAckTimeout, timeout), kConnectionTimeout, "Connection timeout");
      Arm(due_, timeout, kResponseTimeout, "Response timeout");
    }
    room::RpcPacket packet;
    packet.request_id = id_;
    packet.method = request_.method();
    packet.payload = request_.payload();
    packet.response_timeout = timeout;
    packet.destination_identity = request_.destination_identity();
    PARLEY_RETURN_IF_ERROR(
        room->Call(std::move(packet), [weak = weak_from_this()](const room::RpcPacket& answer) {
          if (const auto self = weak.lock()) self->OnAnswer(answer);
        }));
    MutexLock lock(&mutex_);
    if (ended_) room->EndCall(id_);  // while it was made
    return absl::OkStatus();
  }
  void Arm(grpc::Alarm& alarm, absl::Duration in, uint32_t code, const char* message)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    alarm.Set(absl::ToChronoTime(absl::Now() + in),
              [weak = weak_from_this(), code, message](bool due) {
                const auto self = due ? weak.lock() : nullptr;
                if (self != nullptr) self->Fail(code, message);
              });
  }
  // With the room's lock held: what follows is posted.
  void OnAnswer(const room::RpcPacket& answer) {
    if (answer.step == room::RpcPacket::Step::kAck) {
      MutexLock lock(&mutex_);
      ack_.Cancel();
      return;
    }
    host_->control().PostAdmitted([self = shared_from_this(), answer] {
      if (answer.error_code != 0) {
        return self->Fail(answer.error_code, answer.error_message, answer.error_data);
      }
      self->End(absl::OkStatus(),
                [&](pb::PerformRpcResponse& response) { response.set_payload(answer.payload); });
    });
  }
  void Fail(uint32_t code, std::string_view message, std::string_view data = {}) {
    End(absl::OkStatus(), [&](pb::PerformRpcResponse& response) {
      response.mutable_error()->set_code(code);
      response.mutable_error()->set_message(std::string(message));
      response.mutable_error()->set_data(std::string(data));
    });
  }
  // The first one counts.
  void End(const absl::Status& status,
           const std::function<void(pb::PerformRpcResponse&)>& answer = {}) {
    {
      MutexLock lock(&mutex_);
      if (std::exchange(ended_, true)) return;
      ack_.Cancel();
      due_.Cancel();
    }
    if (answer) answer(*response_);
    Finish(rpc::ToGrpcStatus(status));
  }

  const std::shared_ptr<Host> host_;
  const pb::PerformRpcRequest request_;
  pb::PerformRpcResponse* const response_;  // until Finish
  const std::string id_ = "rpc-" + RandomBase62(20);
  std::shared_ptr<ServerCall> self_;  // until OnDone

  Mutex mutex_;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  std::shared_ptr<room::Room> room_ ABSL_GUARDED_BY(mutex_);  // once it is asked
  grpc::Alarm ack_ ABSL_GUARDED_BY(mutex_);
  grpc::Alarm due_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

grpc::ServerUnaryReactor* PerformRpc(std::shared_ptr<Host> host,
                                     grpc::CallbackServerContext* context,
                                     const pb::PerformRpcRequest* request,
                                     pb::PerformRpcResponse* response) {
  const auto caller = host->context().Authenticate(*context);
  const auto call = std::make_shared<ServerCall>(std::move(host), *request, response);
  call->Start(caller);
  return call.get();
}

}  // namespace parley::room_server
