#pragma once
#include <parley/room/v1/room.grpc.pb.h>

#include <memory>

#include "api_server/routes.h"
#include "base/status.h"
#include "rpc/channel.h"
#include "rpc/status.h"

namespace parley::api_server {

// Asks the room server that has the room, wherever that is; of those that drain and take no new
// room, another one. `prepare` sets each attempt's token and deadline. Blocks.
template <typename Prepare, typename Request, typename Response>
absl::Status AskRoomServers(Backend& backend, const Prepare& prepare,
                            grpc::Status (room::v1::RoomService::Stub::*method)(
                                grpc::ClientContext*, const Request&, Response*),
                            const Request& request, Response& response) {
  constexpr int kMaxHops = 3;
  std::unique_ptr<room::v1::RoomService::Stub> other;
  for (int hop = 0;; ++hop) {
    grpc::ClientContext context;
    prepare(context);
    room::v1::RoomService::Stub& stub = other ? *other : *backend.rooms;
    absl::Status status = rpc::FromGrpcStatus((stub.*method)(&context, request, &response));
    const ErrorReason why = ReasonOf(status);
    const auto url = why.metadata.find("media_url");
    const bool elsewhere = why.reason == "ROOM_ELSEWHERE" && url != why.metadata.end();
    if (hop == kMaxHops || !(elsewhere || why.reason == "DRAINING")) return status;
    response.Clear();
    other = elsewhere ? room::v1::RoomService::NewStub(rpc::MakeChannel(url->second)) : nullptr;
  }
}

}  // namespace parley::api_server
