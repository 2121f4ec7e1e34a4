#pragma once
#include <parley/room/v1/room.grpc.pb.h>
#include <parley/room/v1/signalling.grpc.pb.h>

#include <memory>
#include <string>

#include "room_server/host.h"
#include "room_server/rtc_stream.h"
#include "room_server/server_call.h"
#include "webrtc/engine.h"

namespace parley::room_server {

// The services of parley.room.v1. They only check who asks and convert; the host decides.

class RoomServiceImpl final : public room::v1::RoomService::CallbackService {
 public:
  explicit RoomServiceImpl(std::shared_ptr<Host> host) : host_(std::move(host)) {}

  grpc::ServerUnaryReactor* CreateRoom(grpc::CallbackServerContext* context,
                                       const room::v1::CreateRoomRequest* request,
                                       room::v1::CreateRoomResponse* response) override;
  grpc::ServerUnaryReactor* GetRoom(grpc::CallbackServerContext* context,
                                    const room::v1::GetRoomRequest* request,
                                    room::v1::GetRoomResponse* response) override;
  grpc::ServerUnaryReactor* ListRooms(grpc::CallbackServerContext* context,
                                      const room::v1::ListRoomsRequest* request,
                                      room::v1::ListRoomsResponse* response) override;
  grpc::ServerUnaryReactor* UpdateRoom(grpc::CallbackServerContext* context,
                                       const room::v1::UpdateRoomRequest* request,
                                       room::v1::UpdateRoomResponse* response) override;
  grpc::ServerUnaryReactor* DeleteRoom(grpc::CallbackServerContext* context,
                                       const room::v1::DeleteRoomRequest* request,
                                       room::v1::DeleteRoomResponse* response) override;
  grpc::ServerUnaryReactor* ListParticipants(grpc::CallbackServerContext* context,
                                             const room::v1::ListParticipantsRequest* request,
                                             room::v1::ListParticipantsResponse* response) override;
  grpc::ServerUnaryReactor* GetParticipant(grpc::CallbackServerContext* context,
                                           const room::v1::GetParticipantRequest* request,
                                           room::v1::GetParticipantResponse* response) override;
  grpc::ServerUnaryReactor* UpdateParticipant(
      grpc::CallbackServerContext* context, const room::v1::UpdateParticipantRequest* request,
      room::v1::UpdateParticipantResponse* response) override;
  grpc::ServerUnaryReactor* RemoveParticipant(
      grpc::CallbackServerContext* context, const room::v1::RemoveParticipantRequest* request,
      room::v1::RemoveParticipantResponse* response) override;
  grpc::ServerUnaryReactor* MuteTrack(grpc::CallbackServerContext* context,
                                      const room::v1::MuteTrackRequest* request,
                                      room::v1::MuteTrackResponse* response) override;
  grpc::ServerUnaryReactor* SendData(grpc::CallbackServerContext* context,
                                     const room::v1::SendDataRequest* request,
                                     room::v1::SendDataResponse* response) override;
  grpc::ServerUnaryReactor* UpdateSubscriptions(
      grpc::CallbackServerContext* context, const room::v1::UpdateSubscriptionsRequest* request,
      room::v1::UpdateSubscriptionsResponse* response) override;
  grpc::ServerUnaryReactor* PerformRpc(grpc::CallbackServerContext* context,
                                       const room::v1::PerformRpcRequest* request,
                                       room::v1::PerformRpcResponse* response) override {
    return room_server::PerformRpc(host_, context, request, response);
  }

 private:
  const std::shared_ptr<Host> host_;
};

class AdmissionServiceImpl final : public room::v1::AdmissionService::CallbackService {
 public:
  explicit AdmissionServiceImpl(std::shared_ptr<Host> host) : host_(std::move(host)) {}
  grpc::ServerUnaryReactor* Fence(grpc::CallbackServerContext* context,
                                  const room::v1::FenceRequest* request,
                                  room::v1::FenceResponse* response) override;

 private:
  const std::shared_ptr<Host> host_;
};

class MediaServiceImpl final : public room::v1::MediaService::CallbackService {
 public:
  explicit MediaServiceImpl(std::shared_ptr<Host> host) : host_(std::move(host)) {}
  grpc::ServerBidiReactor<room::v1::JoinRequest, room::v1::JoinResponse>* Join(
      grpc::CallbackServerContext* context) override;
  grpc::ServerBidiReactor<room::v1::AttachRequest, room::v1::AttachResponse>* Attach(
      grpc::CallbackServerContext* context) override;

 private:
  const std::shared_ptr<Host> host_;
};

// `engine` must outlive the last stream.
class SignallingServiceImpl final : public room::v1::SignallingService::CallbackService {
 public:
  SignallingServiceImpl(std::shared_ptr<Host> host, webrtc::Engine& engine)
      : host_(std::move(host)), engine_(engine) {}
  grpc::ServerBidiReactor<room::v1::ConnectRequest, room::v1::ConnectResponse>* Connect(
      grpc::CallbackServerContext* context) override;

 private:
  const std::shared_ptr<Host> host_;
  webrtc::Engine& engine_;
  const std::shared_ptr<RtcSessions> sessions_ = std::make_shared<RtcSessions>();
};

}  // namespace parley::room_server
