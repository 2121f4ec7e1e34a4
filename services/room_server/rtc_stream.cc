#include "room_server/rtc_stream.h"

#include <utility>

#include "base/status.h"
#include "room_server/convert.h"
#include "room_server/rtc_session.h"

namespace parley::room_server {
namespace {

constexpr size_t kOutbox = 1024;

}  // namespace

void RtcSessions::Add(const std::string& participant_sid, std::weak_ptr<RtcSession> session) {
  MutexLock lock(&mutex_);
  sessions_[participant_sid] = std::move(session);
}

void RtcSessions::Remove(const std::string& participant_sid) {
  MutexLock lock(&mutex_);
  sessions_.erase(participant_sid);
}

std::shared_ptr<RtcSession> RtcSessions::Find(const std::string& participant_sid) const {
  MutexLock lock(&mutex_);
  const auto found = sessions_.find(participant_sid);
  return found == sessions_.end() ? nullptr : found->second.lock();
}

RtcStream::RtcStream(std::shared_ptr<Host> host, webrtc::Engine& engine,
                     std::shared_ptr<RtcSessions> sessions, const TraceContext& trace)
    : BidiSession(host->context().executor(), kOutbox),
      host_(std::move(host)),
      engine_(engine),
      sessions_(std::move(sessions)),
      trace_(trace) {}

void RtcStream::OnMessage(const pb::ConnectRequest& message) {
  if (message.has_open()) return Open(message.open());
  if (!asked_) {
    return Close(rpc::ToGrpcStatus(FailedPrecondition("the first request must be `open`")));
  }
  json_ = message.frame().text();
  auto request = ReadSignalRequest(message.frame().data(), message.frame().text());
  if (!request.ok()) return Close(rpc::ToGrpcStatus(request.status()));
  if (session_ != nullptr) session_->OnRequest(Self<RtcStream>(), *std::move(request));
}

void RtcStream::Open(const pb::OpenSignalling& open) {
  if (std::exchange(asked_, true)) {
    return Close(rpc::ToGrpcStatus(FailedPrecondition("this stream has joined a room already")));
  }
  const TraceScope scope(trace_);
  Ticket ticket;
  lk::JoinRequest join;
  if (const absl::Status status = ReadOpen(open, &ticket, &join); !status.ok()) {
    return Close(rpc::ToGrpcStatus(status));
  }
  if (join.reconnect()) return Resume(ticket, join);
  session_ = std::make_shared<RtcSession>(host_, engine_, sessions_, open.two_connections());
  session_->Join(Self<RtcStream>(), std::move(ticket), std::move(join));
}

absl::Status RtcStream::ReadOpen(const pb::OpenSignalling& open, Ticket* ticket,
                                 lk::JoinRequest* request) const {
  PARLEY_ASSIGN_OR_RETURN(*ticket, host_->ReadToken(open.token()));
  if (open.two_connections()) {
    PARLEY_ASSIGN_OR_RETURN(*request, ReadJoinQuery({open.query().begin(), open.query().end()}));
  } else {
    PARLEY_ASSIGN_OR_RETURN(*request, ReadJoinRequest(open.join_request()));
  }
  room::JoinRequest& join = ticket->join;
  join.auto_subscribe =
      !request->has_connection_settings() || request->connection_settings().auto_subscribe();
  if (request->metadata().empty() && request->participant_attributes().empty()) {
    return absl::OkStatus();
  }
  if (!join.permission.can_update_metadata) {
    return PermissionDenied("the token does not grant canUpdateOwnMetadata");
  }
  if (!request->metadata().empty()) join.metadata = request->metadata();
  for (const auto& [key, value] : request->participant_attributes()) join.attributes[key] = value;
  return absl::OkStatus();
}

void RtcStream::Resume(const Ticket& ticket, const lk::JoinRequest& join) {
  session_ = sessions_->Find(join.participant_sid());
  if (session_ == nullptr) return ResumeElsewhere(ticket);
  session_->Resume(Self<RtcStream>(), ticket, join);
}

void RtcStream::ResumeElsewhere(const Ticket& ticket) {
  if (host_->rooms().Find(ticket.room.project, ticket.room.name) != nullptr) {
    return Dismiss(lk::STATE_MISMATCH, lk::LeaveRequest::RECONNECT);
  }
  const bool posted = host_->control().Post(  // the directory blocks
      [self = Self<RtcStream>(), project = ticket.room.project, name = ticket.room.name] {
        const auto room = self->host_->Require(project, name);
        if (ReasonOf(room.status()).reason == "ROOM_ELSEWHERE") {
          return self->Close(rpc::ToGrpcStatus(room.status()));
        }
        self->Dismiss(lk::STATE_MISMATCH, lk::LeaveRequest::RECONNECT);
      });
  if (!posted) Dismiss(lk::STATE_MISMATCH, lk::LeaveRequest::RECONNECT);
}

void RtcStream::OnClosed() {
  if (session_ == nullptr) return;
  session_->OnStreamClosed(Self<RtcStream>());
  session_ = nullptr;
}

void RtcStream::SendResponse(const lk::SignalResponse& response) {
  pb::ConnectResponse message;
  message.mutable_frame()->set_data(WriteSignalResponse(response, json_));
  message.mutable_frame()->set_text(json_);
  if (Send(std::move(message))) return;
  Close(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED,
                     "the client reads too slowly: 1024 messages are waiting"));
}

void RtcStream::Dismiss(lk::DisconnectReason reason, lk::LeaveRequest::Action action) {
  lk::SignalResponse response;
  lk::LeaveRequest& leave = *response.mutable_leave();
  leave.set_reason(reason);
  leave.set_action(action);
  leave.set_can_reconnect(action != lk::LeaveRequest::DISCONNECT);
  SendResponse(response);
  Close(grpc::Status::OK);  // another status would drop what is still to be sent
}

}  // namespace parley::room_server
