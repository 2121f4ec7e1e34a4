#pragma once
#include <parley/room/v1/room.grpc.pb.h>

#include <memory>

#include "room_server/host.h"

namespace parley::room_server {

// RoomService.PerformRpc: asks a participant and answers when it has, or when the time is up. Waits
// without a thread.
grpc::ServerUnaryReactor* PerformRpc(std::shared_ptr<Host> host,
                                     grpc::CallbackServerContext* context,
                                     const room::v1::PerformRpcRequest* request,
                                     room::v1::PerformRpcResponse* response);

}  // namespace parley::room_server
