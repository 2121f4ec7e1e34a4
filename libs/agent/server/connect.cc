#include "agent/server/connect.h"

#include <parley/dispatch/v1/dispatch.grpc.pb.h>

#include "auth/token.h"
#include "base/ids.h"
#include "base/status.h"
#include "rpc/channel.h"
#include "rpc/status.h"

namespace parley::agent {
namespace {

namespace pb = ::parley::dispatch::v1;

constexpr absl::Duration kCallTimeout = absl::Seconds(5);
constexpr absl::Duration kLookAgain = absl::Milliseconds(500);

std::string RoomToken(service::Context& context, const std::string& room) {
  const auto ring = context.keys();
  const auth::ApiKey* key = ring->Find(context.config().api_key);
  if (key == nullptr && !ring->keys().empty()) key = &ring->keys().front();
  if (key == nullptr) return {};
  auth::Claims claims;
  claims.identity = "connect";
  claims.video.room_create = true;
  claims.video.room_admin = true;
  claims.video.room = room;
  return auth::Sign(claims, *key, absl::Minutes(10));
}

}  // namespace

absl::Status RunInRoom(const AgentServerConfig& config, service::Context& context,
                       const std::string& room) {
  const auto stub = pb::DispatchService::NewStub(rpc::MakeChannel(config.broker_address));
  pb::CreateDispatchRequest request;
  request.set_request_id(RandomHex(16));
  request.set_agent_name(config.agent_names.at(0));
  request.set_room(room);
  request.set_restart_policy(pb::RESTART_POLICY_NEVER);
  pb::CreateDispatchResponse created;
  {
    grpc::ClientContext call;
    rpc::SetBearer(call, RoomToken(context, room));
    rpc::SetTimeout(call, kCallTimeout);
    PARLEY_RETURN_IF_ERROR(rpc::FromGrpcStatus(stub->CreateDispatch(&call, request, &created)));
  }
  pb::GetDispatchRequest get;
  get.set_dispatch_id(created.dispatch().id());
  while (!context.WaitForStop(kLookAgain)) {
    grpc::ClientContext call;
    rpc::SetBearer(call, RoomToken(context, room));
    rpc::SetTimeout(call, kCallTimeout);
    pb::GetDispatchResponse now;
    const absl::Status status = rpc::FromGrpcStatus(stub->GetDispatch(&call, get, &now));
    if (absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status)) continue;
    PARLEY_RETURN_IF_ERROR(status);
    if (now.dispatch().state() != pb::DISPATCH_STATE_ENDED) continue;
    const auto& jobs = now.dispatch().jobs();
    if (!jobs.empty() && jobs.rbegin()->state() == pb::JOB_STATE_FAILED) {
      return Unavailable("the agent's job in \"{}\" failed: {} {}", room,
                         pb::JobReason_Name(jobs.rbegin()->reason()), jobs.rbegin()->error());
    }
    return absl::OkStatus();
  }
  return absl::OkStatus();
}

}  // namespace parley::agent
