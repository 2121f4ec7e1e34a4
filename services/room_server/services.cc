#include "room_server/services.h"

#include <algorithm>

#include "base/status.h"
#include "room_server/attach_session.h"
#include "room_server/convert.h"
#include "room_server/join_session.h"
#include "rpc/bidi.h"

namespace parley::room_server {
namespace {

constexpr int kMaxAgents = 32;

// The room that an admin call names, once the caller may ask about it.
absl::StatusOr<std::shared_ptr<room::Room>> AdminRoom(Host& host,
                                                      const grpc::CallbackServerContext& context,
                                                      const std::string& name) {
  PARLEY_ASSIGN_OR_RETURN(const auth::Claims claims, host.context().Authenticate(context));
  PARLEY_RETURN_IF_ERROR(auth::RequireRoomAdmin(claims, name));
  return host.Require(claims.project, name);
}

absl::StatusOr<absl::Duration> Timeout(bool present, const google::protobuf::Duration& duration,
                                       absl::Duration fallback) {
  if (!present) return fallback;
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

absl::Status CreateRoom(Host& host, const auth::Claims& claims,
                        const pb::CreateRoomRequest& request, pb::CreateRoomResponse& response) {
  if (!request.project().empty() && !claims.is_service()) {
    return PermissionDenied("project may be set with a service token only");
  }
  if (request.agents_size() > kMaxAgents) {
    return InvalidArgument("{} agents; a room may name {}", request.agents_size(), kMaxAgents);
  }
  room::RoomOptions options;
  options.project = request.project().empty() ? claims.project : request.project();
  options.name = request.name();
  options.empty_timeout = host.config().empty_timeout;
  options.departure_timeout = host.config().departure_timeout;
  PARLEY_ASSIGN_OR_RETURN(const RoomPreset* const preset,
                          host.presets().Find(request.room_preset()));
  ApplyRoomConfig(preset->json, options);
  if (!request.metadata().empty()) options.metadata = request.metadata();
  if (request.max_participants() != 0) options.max_participants = request.max_participants();
  PARLEY_ASSIGN_OR_RETURN(
      options.empty_timeout,
      Timeout(request.has_empty_timeout(), request.empty_timeout(), options.empty_timeout));
  PARLEY_ASSIGN_OR_RETURN(options.departure_timeout,
                          Timeout(request.has_departure_timeout(), request.departure_timeout(),
                                  options.departure_timeout));
  PARLEY_ASSIGN_OR_RETURN(const room::Rooms::Opened opened, host.Open(options));
  ToProto(opened.room->info(), host.media_url(), response.mutable_room());
  response.set_created(opened.created);

  std::vector<Wish> wishes;
  for (const pb::AgentDispatch& agent : request.agents()) {
    Wish wish;
    wish.project = options.project;
    wish.room = options.name;
    wish.agent_name = agent.agent_name();
    wish.metadata = agent.metadata();
    wish.attributes = {agent.attributes().begin(), agent.attributes().end()};
    wish.deployment = agent.deployment();
    wish.never_restart = agent.never_restart();
    if (wishes.empty()) {
      wish.session_id = request.session_id();
      wish.idempotency_key = request.idempotency_key();
    }
    wishes.push_back(std::move(wish));
  }
  if (request.agents().empty()) {
    for (const auth::RoomAgent& agent : preset->agents) {
      if (IsForEachJoin(agent.attributes)) continue;  // nobody joins here
      wishes.push_back(MakeWish(options.project, options.name, agent));
    }
  }
  if (wishes.empty() && preset->agents.empty() && opened.created) {
    Wish automatic;
    automatic.project = options.project;
    automatic.room = options.name;
    automatic.metadata = options.metadata;
    host.WantAgents(*opened.room, {automatic});
  }
  for (Wish& wish : wishes) {
    PARLEY_ASSIGN_OR_RETURN(std::string id, host.WantAgentNow(*opened.room, std::move(wish)));
    response.add_dispatch_ids(std::move(id));
  }
  return absl::OkStatus();
}

absl::Status ListRooms(Host& host, const std::string& project, const pb::ListRoomsRequest& request,
                       pb::ListRoomsResponse& response) {
  const auto wanted = [&](const std::string& name) {
    return request.names().empty() ||
           std::ranges::find(request.names(), name) != request.names().end();
  };
  PARLEY_ASSIGN_OR_RETURN(const auto rooms, host.ListEverywhere(project));
  for (const room_redis::ListedRoom& listed : rooms) {
    if (!wanted(listed.name)) continue;
    if (const auto ours = host.rooms().Find(project, listed.name)) {
      ToProto(ours->info(), host.media_url(), response.add_rooms());
      continue;
    }
    if (listed.media_url == host.media_url()) continue;  // over; the directory hears of it soon
    pb::Room* room = response.add_rooms();
    if (!room->ParseFromString(listed.summary)) room->Clear();
    room->set_name(listed.name);
    room->set_project(project);
    room->set_media_url(listed.media_url);
  }
  return absl::OkStatus();
}

// A stream that is refused before it begins.
template <typename In, typename Out>
class Refused final : public grpc::ServerBidiReactor<In, Out> {
 public:
  explicit Refused(const absl::Status& status) { this->Finish(rpc::ToGrpcStatus(status)); }
  void OnDone() override { delete this; }
};

}  // namespace

grpc::ServerUnaryReactor* RoomServiceImpl::CreateRoom(grpc::CallbackServerContext* context,
                                                      const pb::CreateRoomRequest* request,
                                                      pb::CreateRoomResponse* response) {
  return rpc::Unary(host_->control(), context, [=, host = host_]() -> absl::Status {
    PARLEY_ASSIGN_OR_RETURN(const auth::Claims claims, host->context().Authenticate(*context));
    PARLEY_RETURN_IF_ERROR(auth::RequireRoomCreate(claims));
    trace::Span span = host->context().tracer().Start("CreateRoom", trace::Kind::kServer);
    const TraceScope scope(span.context());
    const absl::Status status = room_server::CreateRoom(*host, claims, *request, *response);
    span.Set("room", request->name());
    span.Fail(status);
    return status;
  });
}

grpc::ServerUnaryReactor* RoomServiceImpl::GetRoom(grpc::CallbackServerContext* context,
                                                   const pb::GetRoomRequest* request,
                                                   pb::GetRoomResponse* response) {
  return rpc::Unary(host_->control(), context, [=, host = host_]() -> absl::Status {
    PARLEY_ASSIGN_OR_RETURN(const auto room, AdminRoom(*host, *context, request->name()));
    ToProto(room->info(), host->media_url(), response->mutable_room());
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* RoomServiceImpl::ListRooms(grpc::CallbackServerContext* context,
                                                     const pb::ListRoomsRequest* request,
                                                     pb::ListRoomsResponse* response) {
  return rpc::Unary(host_->control(), context, [=, host = host_]() -> absl::Status {
    PARLEY_ASSIGN_OR_RETURN(const auth::Claims claims, host->context().Authenticate(*context));
    PARLEY_RETURN_IF_ERROR(auth::RequireRoomList(claims));
    return room_server::ListRooms(*host, claims.project, *request, *response);
  });
}

grpc::ServerUnaryReactor* RoomServiceImpl::UpdateRoom(grpc::CallbackServerContext* context,
                                                      const pb::UpdateRoomRequest* request,
                                                      pb::UpdateRoomResponse* response) {
  return rpc::Unary(host_->control(), context, [=, host = host_]() -> absl::Status {
    PARLEY_ASSIGN_OR_RETURN(const auto room, AdminRoom(*host, *context, request->name()));
    PARLEY_RETURN_IF_ERROR(room->UpdateMetadata(request->metadata()));
    ToProto(room->info(), host->media_url(), response->mutable_room());
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* RoomServiceImpl::DeleteRoom(grpc::CallbackServerContext* context,
                                                      const pb::DeleteRoomRequest* request,
                                                      pb::DeleteRoomResponse*) {
  return rpc::Unary(host_->control(), context, [=, host = host_]() -> absl::Status {
    PARLEY_ASSIGN_OR_RETURN(const auth::Claims claims, host->context().Authenticate(*context));
    PARLEY_RETURN_IF_ERROR(auth::RequireRoomCreate(claims));
    return host->Delete(claims.project, request->name());
  });
}

grpc::ServerUnaryReactor* RoomServiceImpl::ListParticipants(
    grpc::CallbackServerContext* context, const pb::ListParticipantsRequest* request,
    pb::ListParticipantsResponse* response) {
  return rpc::Unary(host_->control(), context, [=, host = host_]() -> absl::Status {
    PARLEY_ASSIGN_OR_RETURN(const auto room, AdminRoom(*host, *context, request->room()));
    for (const auto& participant : room->participants()) {
      ToProto(participant, response->add_participants());
    }
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* RoomServiceImpl::GetParticipant(grpc::CallbackServerContext* context,
                                                          const pb::GetParticipantRequest* request,
                                                          pb::GetParticipantResponse* response) {
  return rpc::Unary(host_->control(), context, [=, host = host_]() -> absl::Status {
    PARLEY_ASSIGN_OR_RETURN(const auto room, AdminRoom(*host, *context, request->room()));
    PARLEY_ASSIGN_OR_RETURN(const auto participant, room->Find(request->identity()));
    ToProto(participant, response->mutable_participant());
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* RoomServiceImpl::UpdateParticipant(
    grpc::CallbackServerContext* context, const pb::UpdateParticipantRequest* request,
    pb::UpdateParticipantResponse* response) {
  return rpc::Unary(host_->control(), context, [=, host = host_]() -> absl::Status {
    PARLEY_ASSIGN_OR_RETURN(const auto room, AdminRoom(*host, *context, request->room()));
    PARLEY_ASSIGN_OR_RETURN(const auto participant,
                            room->UpdateParticipant(request->identity(), FromProto(*request)));
    ToProto(participant, response->mutable_participant());
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* RoomServiceImpl::RemoveParticipant(
    grpc::CallbackServerContext* context, const pb::RemoveParticipantRequest* request,
    pb::RemoveParticipantResponse*) {
  return rpc::Unary(host_->control(), context, [=, host = host_]() -> absl::Status {
    PARLEY_ASSIGN_OR_RETURN(const auto room, AdminRoom(*host, *context, request->room()));
    return room->Remove(request->identity(), room::LeaveReason::kParticipantRemoved,
                        "removed by an administrator");
  });
}

grpc::ServerUnaryReactor* RoomServiceImpl::MuteTrack(grpc::CallbackServerContext* context,
                                                     const pb::MuteTrackRequest* request,
                                                     pb::MuteTrackResponse* response) {
  return rpc::Unary(host_->control(), context, [=, host = host_]() -> absl::Status {
    PARLEY_ASSIGN_OR_RETURN(const auto room, AdminRoom(*host, *context, request->room()));
    PARLEY_ASSIGN_OR_RETURN(
        const auto track,
        room->MuteTrack(request->identity(), request->track_sid(), request->muted()));
    ToProto(track, response->mutable_track());
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* RoomServiceImpl::SendData(grpc::CallbackServerContext* context,
                                                    const pb::SendDataRequest* request,
                                                    pb::SendDataResponse*) {
  return rpc::Unary(host_->control(), context, [=, host = host_]() -> absl::Status {
    PARLEY_ASSIGN_OR_RETURN(const auto room, AdminRoom(*host, *context, request->room()));
    return room->SendData(FromProto(request->packet()));
  });
}

grpc::ServerUnaryReactor* RoomServiceImpl::UpdateSubscriptions(
    grpc::CallbackServerContext* context, const pb::UpdateSubscriptionsRequest* request,
    pb::UpdateSubscriptionsResponse*) {
  return rpc::Unary(host_->control(), context, [=, host = host_]() -> absl::Status {
    PARLEY_ASSIGN_OR_RETURN(const auto room, AdminRoom(*host, *context, request->room()));
    return room->SetSubscribed(request->identity(),
                               {request->track_sids().begin(), request->track_sids().end()},
                               request->subscribe());
  });
}

grpc::ServerUnaryReactor* AdmissionServiceImpl::Fence(grpc::CallbackServerContext* context,
                                                      const pb::FenceRequest* request,
                                                      pb::FenceResponse*) {
  return rpc::Unary(host_->control(), context, [=, host = host_]() -> absl::Status {
    PARLEY_ASSIGN_OR_RETURN(const auth::Claims claims, host->context().Authenticate(*context));
    PARLEY_RETURN_IF_ERROR(auth::RequireService(claims));
    if (request->job_id().empty()) return InvalidArgument("job_id is empty");
    if (request->room().empty()) return InvalidArgument("room is empty");
    return host->Fence(request->project().empty() ? claims.project : request->project(),
                       request->room(), request->job_id(), request->lowest_token());
  });
}

grpc::ServerBidiReactor<pb::JoinRequest, pb::JoinResponse>* MediaServiceImpl::Join(
    grpc::CallbackServerContext* context) {
  return rpc::BidiSession<pb::JoinRequest, pb::JoinResponse>::Start<JoinSession>(
      host_, rpc::TraceOf(*context));
}

grpc::ServerBidiReactor<pb::AttachRequest, pb::AttachResponse>* MediaServiceImpl::Attach(
    grpc::CallbackServerContext* context) {
  absl::StatusOr<auth::Claims> claims = host_->context().Authenticate(*context);
  absl::Status status = claims.status();
  if (status.ok()) status = auth::RequireWorker(*claims);
  if (!status.ok()) return new Refused<pb::AttachRequest, pb::AttachResponse>(status);
  return rpc::BidiSession<pb::AttachRequest, pb::AttachResponse>::Start<AttachSession>(
      host_, *std::move(claims));
}

grpc::ServerBidiReactor<pb::ConnectRequest, pb::ConnectResponse>* SignallingServiceImpl::Connect(
    grpc::CallbackServerContext* context) {
  return RtcStream::Start<RtcStream>(host_, engine_, sessions_, rpc::TraceOf(*context));
}

}  // namespace parley::room_server
