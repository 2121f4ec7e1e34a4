// /twirp/livekit.*: RoomService and AgentDispatchService of LiveKit's server API, for its server
// SDKs as they are. Grants are checked here by LiveKit's rules; the other services are asked with a
// token of our own.
#include <algorithm>
#include <limits>

#include "api_server/ask_rooms.h"
#include "api_server/livekit_convert.h"
#include "api_server/routes.h"
#include "api_server/twirp.h"
#include "base/status.h"
#include "rpc/status.h"

namespace parley::api_server {
namespace {

namespace roomv1 = ::parley::room::v1;
namespace dispatchv1 = ::parley::dispatch::v1;

constexpr int kMaxListPages = 4;  // of one room's dispatches
constexpr int32_t kListPage = 500;
constexpr size_t kMaxRequestId = 200;
constexpr absl::Duration kRpcTimeout = absl::Seconds(15);  // LiveKit's
constexpr absl::Duration kMaxRpcTimeout = absl::Seconds(60);
constexpr absl::Duration kRpcMargin = absl::Seconds(2);  // for the way to the room and back

// One call of one caller.
struct Call {
  Backend& backend;
  auth::Claims caller;
  absl::Time deadline;
  bool says_deadline;      // the caller named it
  std::string request_id;  // SDKs say it again when they ask again

  void Prepare(grpc::ClientContext& context) const {
    api_server::Prepare(context, backend.context.ServiceToken(caller.project),
                        deadline - backend.context.clock().Now());
  }
};

template <typename Request, typename Response>
absl::Status AskRooms(const Call& call,
                      grpc::Status (roomv1::RoomService::Stub::*method)(grpc::ClientContext*,
                                                                        const Request&, Response*),
                      const Request& request, Response& response) {
  return AskRoomServers(
      call.backend, [&call](grpc::ClientContext& context) { call.Prepare(context); }, method,
      request, response);
}

absl::Status NeedRoom(std::string_view room) {
  return room.empty() ? InvalidArgument("room is empty") : absl::OkStatus();
}

// ---- RoomService ----

absl::Status CreateRoom(const Call& call, const lk::CreateRoomRequest& in, lk::Room& out) {
  PARLEY_RETURN_IF_ERROR(auth::RequireRoomCreate(call.caller));
  if (in.has_egress()) {
    return Error(absl::StatusCode::kUnimplemented, "egress: recordings are not built yet");
  }
  roomv1::CreateRoomRequest request;
  request.set_name(in.name());
  request.set_project(call.caller.project);
  request.set_metadata(in.metadata());
  request.set_room_preset(in.room_preset());
  request.set_max_participants(static_cast<int32_t>(
      std::min<uint32_t>(in.max_participants(), std::numeric_limits<int32_t>::max())));
  if (in.empty_timeout() > 0) request.mutable_empty_timeout()->set_seconds(in.empty_timeout());
  if (in.departure_timeout() > 0) {
    request.mutable_departure_timeout()->set_seconds(in.departure_timeout());
  }
  for (const lk::RoomAgentDispatch& agent : in.agents()) {
    PARLEY_ASSIGN_OR_RETURN(*request.add_agents(), FromLiveKit(agent));
  }
  roomv1::CreateRoomResponse response;
  PARLEY_RETURN_IF_ERROR(AskRooms(call, &roomv1::RoomService::Stub::CreateRoom, request, response));
  out = ToLiveKit(response.room());
  return absl::OkStatus();
}

absl::Status ListRooms(const Call& call, const lk::ListRoomsRequest& in,
                       lk::ListRoomsResponse& out) {
  PARLEY_RETURN_IF_ERROR(auth::RequireRoomList(call.caller));
  roomv1::ListRoomsRequest request;
  *request.mutable_names() = in.names();
  roomv1::ListRoomsResponse response;
  PARLEY_RETURN_IF_ERROR(AskRooms(call, &roomv1::RoomService::Stub::ListRooms, request, response));
  for (const roomv1::Room& room : response.rooms()) *out.add_rooms() = ToLiveKit(room);
  return absl::OkStatus();
}

absl::Status DeleteRoom(const Call& call, const lk::DeleteRoomRequest& in,
                        lk::DeleteRoomResponse&) {
  PARLEY_RETURN_IF_ERROR(auth::RequireRoomCreate(call.caller));
  PARLEY_RETURN_IF_ERROR(NeedRoom(in.room()));
  roomv1::GetRoomRequest get;
  get.set_name(in.room());
  roomv1::GetRoomResponse there;
  PARLEY_RETURN_IF_ERROR(AskRooms(call, &roomv1::RoomService::Stub::GetRoom, get, there));
  roomv1::DeleteRoomRequest request;
  request.set_name(in.room());
  roomv1::DeleteRoomResponse response;
  return AskRooms(call, &roomv1::RoomService::Stub::DeleteRoom, request, response);
}

absl::Status ListParticipants(const Call& call, const lk::ListParticipantsRequest& in,
                              lk::ListParticipantsResponse& out) {
  PARLEY_RETURN_IF_ERROR(twirp::RequireExactRoom(call.caller, in.room()));
  PARLEY_RETURN_IF_ERROR(NeedRoom(in.room()));
  roomv1::ListParticipantsRequest request;
  request.set_room(in.room());
  roomv1::ListParticipantsResponse response;
  PARLEY_RETURN_IF_ERROR(
      AskRooms(call, &roomv1::RoomService::Stub::ListParticipants, request, response));
  for (const auto& one : response.participants()) *out.add_participants() = ToLiveKit(one);
  return absl::OkStatus();
}

absl::Status GetParticipant(const Call& call, const lk::RoomParticipantIdentity& in,
                            lk::ParticipantInfo& out) {
  PARLEY_RETURN_IF_ERROR(twirp::RequireExactRoom(call.caller, in.room()));
  PARLEY_RETURN_IF_ERROR(NeedRoom(in.room()));
  roomv1::GetParticipantRequest request;
  request.set_room(in.room());
  request.set_identity(in.identity());
  roomv1::GetParticipantResponse response;
  PARLEY_RETURN_IF_ERROR(
      AskRooms(call, &roomv1::RoomService::Stub::GetParticipant, request, response));
  out = ToLiveKit(response.participant());
  return absl::OkStatus();
}

absl::Status RemoveParticipant(const Call& call, const lk::RoomParticipantIdentity& in,
                               lk::RemoveParticipantResponse&) {
  PARLEY_RETURN_IF_ERROR(twirp::RequireExactRoom(call.caller, in.room()));
  PARLEY_RETURN_IF_ERROR(NeedRoom(in.room()));
  roomv1::RemoveParticipantRequest request;
  request.set_room(in.room());
  request.set_identity(in.identity());
  roomv1::RemoveParticipantResponse response;
  return AskRooms(call, &roomv1::RoomService::Stub::RemoveParticipant, request, response);
}

absl::Status MutePublishedTrack(const Call& call, const lk::MuteRoomTrackRequest& in,
                                lk::MuteRoomTrackResponse& out) {
  PARLEY_RETURN_IF_ERROR(twirp::RequireExactRoom(call.caller, in.room()));
  PARLEY_RETURN_IF_ERROR(NeedRoom(in.room()));
  roomv1::MuteTrackRequest request;
  request.set_room(in.room());
  request.set_identity(in.identity());
  request.set_track_sid(in.track_sid());
  request.set_muted(in.muted());
  roomv1::MuteTrackResponse response;
  PARLEY_RETURN_IF_ERROR(AskRooms(call, &roomv1::RoomService::Stub::MuteTrack, request, response));
  *out.mutable_track() = ToLiveKit(response.track());
  return absl::OkStatus();
}

absl::Status UpdateParticipant(const Call& call, const lk::UpdateParticipantRequest& in,
                               lk::ParticipantInfo& out) {
  PARLEY_RETURN_IF_ERROR(twirp::RequireExactRoom(call.caller, in.room()));
  PARLEY_RETURN_IF_ERROR(NeedRoom(in.room()));
  roomv1::UpdateParticipantRequest request;
  request.set_room(in.room());
  request.set_identity(in.identity());
  if (!in.metadata().empty()) request.set_metadata(in.metadata());
  if (!in.name().empty()) request.set_name(in.name());
  request.mutable_attributes()->insert(in.attributes().begin(), in.attributes().end());
  if (in.has_permission()) *request.mutable_permission() = FromLiveKit(in.permission());
  roomv1::UpdateParticipantResponse response;
  PARLEY_RETURN_IF_ERROR(
      AskRooms(call, &roomv1::RoomService::Stub::UpdateParticipant, request, response));
  out = ToLiveKit(response.participant());
  return absl::OkStatus();
}

// Old SDKs name participants by sid. False: none of them is here any more.
absl::StatusOr<bool> AddIdentities(const Call& call, const lk::SendDataRequest& in,
                                   roomv1::DataPacket& packet) {
  roomv1::ListParticipantsRequest request;
  request.set_room(in.room());
  roomv1::ListParticipantsResponse response;
  PARLEY_RETURN_IF_ERROR(
      AskRooms(call, &roomv1::RoomService::Stub::ListParticipants, request, response));
  for (const auto& one : response.participants()) {
    if (std::ranges::find(in.destination_sids(), one.sid()) != in.destination_sids().end()) {
      packet.add_destination_identities(one.identity());
    }
  }
  return !packet.destination_identities().empty();
}

absl::Status SendData(const Call& call, const lk::SendDataRequest& in, lk::SendDataResponse&) {
  PARLEY_RETURN_IF_ERROR(twirp::RequireExactRoom(call.caller, in.room()));
  PARLEY_RETURN_IF_ERROR(NeedRoom(in.room()));
  roomv1::SendDataRequest request;
  request.set_room(in.room());
  roomv1::DataPacket& packet = *request.mutable_packet();
  packet.set_payload(in.data());
  packet.set_topic(in.topic());
  packet.set_reliable(in.kind() == lk::SendDataRequest::RELIABLE);
  *packet.mutable_destination_identities() = in.destination_identities();
  if (!in.destination_sids().empty()) {
    PARLEY_ASSIGN_OR_RETURN(const bool somebody, AddIdentities(call, in, packet));
    if (!somebody && in.destination_identities().empty()) return absl::OkStatus();
  }
  roomv1::SendDataResponse response;
  return AskRooms(call, &roomv1::RoomService::Stub::SendData, request, response);
}

absl::Status UpdateSubscriptions(const Call& call, const lk::UpdateSubscriptionsRequest& in,
                                 lk::UpdateSubscriptionsResponse&) {
  PARLEY_RETURN_IF_ERROR(twirp::RequireExactRoom(call.caller, in.room()));
  PARLEY_RETURN_IF_ERROR(NeedRoom(in.room()));
  roomv1::UpdateSubscriptionsRequest request;
  request.set_room(in.room());
  request.set_identity(in.identity());
  request.set_subscribe(in.subscribe());
  *request.mutable_track_sids() = in.track_sids();
  for (const lk::ParticipantTracks& more : in.participant_tracks()) {
    request.mutable_track_sids()->MergeFrom(more.track_sids());
  }
  roomv1::UpdateSubscriptionsResponse response;
  return AskRooms(call, &roomv1::RoomService::Stub::UpdateSubscriptions, request, response);
}

// What LiveKit's server answers for these numbers.
absl::StatusCode CodeOfRpcError(uint32_t code) {
  switch (code) {
    case 1400:  // no such method
    case 1402:  // payload too large
      return absl::StatusCode::kInvalidArgument;
    case 1401:  // nobody of that name
      return absl::StatusCode::kNotFound;
    case 1403:  // not supported by the server
    case 1404:  // an unknown version
      return absl::StatusCode::kUnimplemented;
    case 1501:  // no acknowledgement
    case 1502:  // no response
      return absl::StatusCode::kCancelled;
    case 1503:  // left
      return absl::StatusCode::kUnavailable;
    default:
      return absl::StatusCode::kInternal;
  }
}

absl::Status PerformRpc(const Call& call, const lk::PerformRpcRequest& in,
                        lk::PerformRpcResponse& out) {
  PARLEY_RETURN_IF_ERROR(twirp::RequireExactRoom(call.caller, in.room()));
  PARLEY_RETURN_IF_ERROR(NeedRoom(in.room()));
  roomv1::PerformRpcRequest request;
  request.set_room(in.room());
  request.set_destination_identity(in.destination_identity());
  request.set_method(in.method());
  request.set_payload(in.payload());
  // The caller's own deadline is the shorter one only where it says so.
  absl::Duration timeout = kRpcTimeout;
  if (in.response_timeout_ms() != 0) {
    timeout =
        std::min<absl::Duration>(absl::Milliseconds(in.response_timeout_ms()), kMaxRpcTimeout);
  }
  const int64_t ms = absl::ToInt64Milliseconds(timeout);
  request.mutable_response_timeout()->set_seconds(ms / 1000);
  request.mutable_response_timeout()->set_nanos(static_cast<int32_t>(ms % 1000 * 1'000'000));
  Call patient = call;
  if (!call.says_deadline) {
    patient.deadline = call.backend.context.clock().Now() + timeout + kRpcMargin;
  }
  roomv1::PerformRpcResponse response;
  PARLEY_RETURN_IF_ERROR(
      AskRooms(patient, &roomv1::RoomService::Stub::PerformRpc, request, response));
  if (response.has_error()) {
    const roomv1::RpcError& error = response.error();
    return WithReason(Error(CodeOfRpcError(error.code()), "RpcError {}: {}{}{}", error.code(),
                            error.message(), error.data().empty() ? "" : ": ", error.data()),
                      "RPC_ERROR", {{"rpc_code", std::to_string(error.code())}});
  }
  out.set_payload(response.payload());
  return absl::OkStatus();
}

absl::Status UpdateRoomMetadata(const Call& call, const lk::UpdateRoomMetadataRequest& in,
                                lk::Room& out) {
  PARLEY_RETURN_IF_ERROR(twirp::RequireExactRoom(call.caller, in.room()));
  PARLEY_RETURN_IF_ERROR(NeedRoom(in.room()));
  roomv1::UpdateRoomRequest request;
  request.set_name(in.room());
  request.set_metadata(in.metadata());
  roomv1::UpdateRoomResponse response;
  PARLEY_RETURN_IF_ERROR(AskRooms(call, &roomv1::RoomService::Stub::UpdateRoom, request, response));
  out = ToLiveKit(response.room());
  return absl::OkStatus();
}

// ---- AgentDispatchService ----

absl::Status CreateDispatch(const Call& call, const lk::CreateAgentDispatchRequest& in,
                            lk::AgentDispatch& out) {
  PARLEY_RETURN_IF_ERROR(twirp::RequireExactRoom(call.caller, in.room()));
  PARLEY_RETURN_IF_ERROR(NeedRoom(in.room()));
  PARLEY_ASSIGN_OR_RETURN(dispatchv1::CreateDispatchRequest request, FromLiveKit(in));
  request.set_project(call.caller.project);
  if (!call.request_id.empty() && call.request_id.size() <= kMaxRequestId) {
    request.set_idempotency_key("livekit/" + call.request_id);
  }
  grpc::ClientContext context;
  call.Prepare(context);
  dispatchv1::CreateDispatchResponse response;
  PARLEY_RETURN_IF_ERROR(
      rpc::FromGrpcStatus(call.backend.dispatch->CreateDispatch(&context, request, &response)));
  out = ToLiveKit(response.dispatch());
  return absl::OkStatus();
}

// The dispatch of this id, if it is of this room.
absl::StatusOr<dispatchv1::Dispatch> FindDispatch(const Call& call, const std::string& id,
                                                  const std::string& room) {
  dispatchv1::GetDispatchRequest request;
  request.set_dispatch_id(id);
  grpc::ClientContext context;
  call.Prepare(context);
  dispatchv1::GetDispatchResponse response;
  PARLEY_RETURN_IF_ERROR(
      rpc::FromGrpcStatus(call.backend.dispatch->GetDispatch(&context, request, &response)));
  if (response.dispatch().room() == room) return std::move(*response.mutable_dispatch());
  return NotFound("room \"{}\" has no dispatch {}", room, id);
}

// LiveKit forgets a dispatch that was deleted and shows one whose agent has ended.
bool IsShown(const dispatchv1::Dispatch& dispatch) {
  return dispatch.state() != dispatchv1::DISPATCH_STATE_ENDED || dispatch.jobs().empty() ||
         dispatch.jobs(0).state() != dispatchv1::JOB_STATE_CANCELLED;
}

absl::Status ListDispatch(const Call& call, const lk::ListAgentDispatchRequest& in,
                          lk::ListAgentDispatchResponse& out) {
  PARLEY_RETURN_IF_ERROR(twirp::RequireExactRoom(call.caller, in.room()));
  PARLEY_RETURN_IF_ERROR(NeedRoom(in.room()));
  if (!in.dispatch_id().empty()) {
    PARLEY_ASSIGN_OR_RETURN(const dispatchv1::Dispatch dispatch,
                            FindDispatch(call, in.dispatch_id(), in.room()));
    if (!IsShown(dispatch)) return NotFound("dispatch {} was deleted", in.dispatch_id());
    *out.add_agent_dispatches() = ToLiveKit(dispatch);
    return absl::OkStatus();
  }
  dispatchv1::ListDispatchesRequest request;
  request.set_room(in.room());
  request.set_include_ended(true);
  request.set_page_size(kListPage);
  for (int page = 0; page < kMaxListPages; ++page) {
    grpc::ClientContext context;
    call.Prepare(context);
    dispatchv1::ListDispatchesResponse response;
    PARLEY_RETURN_IF_ERROR(
        rpc::FromGrpcStatus(call.backend.dispatch->ListDispatches(&context, request, &response)));
    for (const auto& dispatch : response.dispatches()) {
      if (IsShown(dispatch)) *out.add_agent_dispatches() = ToLiveKit(dispatch);
    }
    if (response.next_page_token().empty()) break;
    request.set_page_token(response.next_page_token());
  }
  return absl::OkStatus();
}

absl::Status DeleteDispatch(const Call& call, const lk::DeleteAgentDispatchRequest& in,
                            lk::AgentDispatch& out) {
  PARLEY_RETURN_IF_ERROR(twirp::RequireExactRoom(call.caller, in.room()));
  PARLEY_RETURN_IF_ERROR(NeedRoom(in.room()));
  PARLEY_RETURN_IF_ERROR(FindDispatch(call, in.dispatch_id(), in.room()).status());
  dispatchv1::DeleteDispatchRequest request;
  request.set_dispatch_id(in.dispatch_id());
  grpc::ClientContext context;
  call.Prepare(context);
  dispatchv1::DeleteDispatchResponse response;
  PARLEY_RETURN_IF_ERROR(
      rpc::FromGrpcStatus(call.backend.dispatch->DeleteDispatch(&context, request, &response)));
  out = ToLiveKit(response.dispatch());
  out.mutable_state()->set_deleted_at(absl::ToUnixNanos(call.backend.context.clock().Now()));
  return absl::OkStatus();
}

// ---- the edge ----

// Browsers may call with a token of theirs: there is no cookie that a foreign page could use.
http::Response WithCors(http::Response response) {
  response.headers.emplace_back("Access-Control-Allow-Origin", "*");
  return response;
}

http::Response Preflight(const http::Request&) {
  http::Response response = WithCors({204, "", "", {}});
  response.headers.emplace_back("Allow", "OPTIONS, POST");
  response.headers.emplace_back("Access-Control-Allow-Methods", "POST");
  response.headers.emplace_back(
      "Access-Control-Allow-Headers",
      "authorization, content-type, x-livekit-request-id, x-twirp-timeout-ms");
  response.headers.emplace_back("Access-Control-Max-Age", "600");
  return response;
}

template <typename In, typename Out>
absl::StatusOr<http::Response> Serve(Backend& backend, const http::Request& request,
                                     twirp::Form form,
                                     absl::Status (*method)(const Call&, const In&, Out&)) {
  const absl::Time deadline = backend.context.clock().Now() + twirp::TimeoutOf(request);
  PARLEY_ASSIGN_OR_RETURN(auth::Claims caller, Authenticate(backend, request));
  In in;
  PARLEY_RETURN_IF_ERROR(twirp::Read(form, request.body, &in));
  Out out;
  const Call call{backend, std::move(caller), deadline,
                  !request.Header("x-twirp-timeout-ms").empty(),
                  std::string(request.Header("x-livekit-request-id"))};
  PARLEY_RETURN_IF_ERROR(method(call, in, out));
  return twirp::Write(form, out);
}

template <typename In, typename Out>
void Add(Backend& backend, std::vector<Route>& routes, const std::string& method,
         const char* summary, const char* grant,
         absl::Status (*handler)(const Call&, const In&, Out&)) {
  const auto serve = [&backend, handler](const http::Request& request) {
    const auto form = twirp::FormOf(request.Header("content-type"));
    if (!form) return WithCors(twirp::BadRoute("Content-Type is neither JSON nor protobuf"));
    const auto answer = Serve(backend, request, *form, handler);
    return WithCors(answer.ok() ? *answer : twirp::Error(answer.status()));
  };
  const Json schema = {
      {"type", "object"},
      {"description", "livekit." + In::descriptor()->name() + ", as JSON or as protobuf"}};
  routes.push_back({"POST", "/twirp/livekit." + method, summary, grant, schema, 200, serve});
}

// What LiveKit has and we do not: its SDKs hear so, instead of guessing from a wrong path.
void AddMissing(std::vector<Route>& routes, const std::string& method, const char* why) {
  routes.push_back({"POST", "/twirp/livekit." + method, "Not built yet", "", nullptr, 501,
                    [method, why](const http::Request&) {
                      return WithCors(twirp::Error(Error(absl::StatusCode::kUnimplemented,
                                                         "{} is not built yet: {}", method, why)));
                    }});
}

void AddRoomService(Backend& backend, std::vector<Route>& routes) {
  const auto add = [&](const char* method, const char* summary, const char* grant, auto handler) {
    Add(backend, routes, std::string("RoomService/") + method, summary, grant, handler);
  };
  const char* kAdmin = "video.roomAdmin for the room";
  add("CreateRoom", "Creates a room, with its agents; answers the one there is", "video.roomCreate",
      CreateRoom);
  add("ListRooms", "Rooms of the project", "video.roomList", ListRooms);
  add("DeleteRoom", "Everybody leaves", "video.roomCreate", DeleteRoom);
  add("ListParticipants", "Who is in a room", kAdmin, ListParticipants);
  add("GetParticipant", "One of them", kAdmin, GetParticipant);
  add("RemoveParticipant", "One of them leaves", kAdmin, RemoveParticipant);
  add("MutePublishedTrack", "Mutes a track; only its publisher unmutes it", kAdmin,
      MutePublishedTrack);
  add("UpdateParticipant", "Name, metadata, attributes, permissions", kAdmin, UpdateParticipant);
  add("SendData", "A data packet from the server", kAdmin, SendData);
  add("UpdateRoomMetadata", "Metadata of a room", kAdmin, UpdateRoomMetadata);
  add("UpdateSubscriptions", "Which tracks somebody receives", kAdmin, UpdateSubscriptions);
  add("PerformRpc", "Calls a method of somebody in a room", kAdmin, PerformRpc);
  for (const char* missing : {"ForwardParticipant", "MoveParticipant"}) {
    AddMissing(routes, std::string("RoomService/") + missing,
               "a participant belongs to one room here; its client joins the other one");
  }
}

void AddAgentDispatchService(Backend& backend, std::vector<Route>& routes) {
  const auto add = [&](const char* method, const char* summary, auto handler) {
    Add(backend, routes, std::string("AgentDispatchService/") + method, summary,
        "video.roomAdmin for the room", handler);
  };
  add("CreateDispatch", "Asks for an agent in a room", CreateDispatch);
  add("ListDispatch", "Dispatches of a room with their jobs", ListDispatch);
  add("DeleteDispatch", "Ends a dispatch and its agent", DeleteDispatch);
}

}  // namespace

void AddLiveKitRoutes(Backend& backend, std::vector<Route>& routes) {
  AddRoomService(backend, routes);
  AddAgentDispatchService(backend, routes);
  routes.push_back({"POST", "/twirp/{method*}", "No such method", "", nullptr, 404,
                    [](const http::Request& request) {
                      return WithCors(twirp::BadRoute("there is no method " + request.path));
                    }});
  routes.push_back(
      {"OPTIONS", "/twirp/{method*}", "What browsers ask first", "", nullptr, 204, Preflight});
}

}  // namespace parley::api_server
