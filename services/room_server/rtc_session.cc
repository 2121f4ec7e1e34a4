#include "room_server/rtc_session.h"

#include <absl/time/clock.h>

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "room_server/convert.h"

namespace parley::room_server {
namespace {

constexpr size_t kOutbox = 1024;
constexpr size_t kMaxEarly = 64;     // requests that came before the join was through
constexpr int kMaxWaiting = 2048;    // events and packets on their way to the strand
constexpr int kMaxTranscoding = 25;  // frames
constexpr auto kReliable = "_reliable";
constexpr auto kLossy = "_lossy";

}  // namespace

void RtcSession::Media::Seat(std::shared_ptr<room::Participant> participant) {
  MutexLock lock(&mutex_);
  participant_ = std::move(participant);
}

void RtcSession::Media::OnAudio(uint32_t tag, const webrtc::AudioPacket& packet) {
  const auto session = session_.lock();
  std::shared_ptr<room::Participant> participant;
  {
    MutexLock lock(&mutex_);
    participant = participant_;
  }
  if (session == nullptr || participant == nullptr) return;
  RoomServerMetrics& metrics = session->host_->metrics();
  metrics.frames_in.Increment();
  const room::Frame frame{packet.timestamp, packet.level, packet.payload};
  if (participant->SendFrame(tag, frame) == room::FrameResult::kInvalid) {
    metrics.frames_refused.Increment();
  }
}

void RtcSession::Media::OnData(std::string_view label, webrtc::Bytes message) {
  const auto session = session_.lock();
  if (session == nullptr) return;
  session->Later([session, label = std::string(label), copy = std::string(webrtc::Text(message))] {
    session->OnData(label, copy);
  });
}

void RtcSession::Media::OnClosed(std::string_view why) {
  const auto session = session_.lock();
  if (session == nullptr) return;
  session->Later([session, text = std::string(why)] { session->OnMediaClosed(text); });
}

RtcSession::RtcSession(std::shared_ptr<Host> host, webrtc::Engine& engine)
    : BidiSession(host->context().executor(), kOutbox),
      host_(std::move(host)),
      media_(std::make_shared<Media>()),
      peer_(engine.Open(media_)),
      negotiation_(engine.NewNegotiation()) {}

RtcSession::~RtcSession() = default;

void RtcSession::Later(std::function<void()> work) {
  if (waiting_.fetch_add(1) >= kMaxWaiting) {
    waiting_.fetch_sub(1);
    return Close(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED,
                              "the client is told more than it takes"));
  }
  strand().Post([self = Self<RtcSession>(), work = std::move(work)] {
    self->waiting_.fetch_sub(1);
    work();
  });
}

void RtcSession::OnMessage(const pb::ConnectRequest& message) {
  if (over_) return;
  if (message.has_open()) return Open(message.open());
  if (!asked_) {
    return Close(rpc::ToGrpcStatus(FailedPrecondition("the first request must be `open`")));
  }
  OnFrameOfClient(message.frame());
}

void RtcSession::Open(const pb::OpenSignalling& open) {
  if (std::exchange(asked_, true)) {
    return Close(rpc::ToGrpcStatus(FailedPrecondition("this stream has joined a room already")));
  }
  Ticket ticket;
  if (const absl::Status status = ReadOpen(open, &ticket); !status.ok()) {
    return Close(rpc::ToGrpcStatus(status));
  }
  if (join_.reconnect()) {
    // The seat is given up with the signalling connection: join anew, at once.
    return Dismiss(lk::STATE_MISMATCH, lk::LeaveRequest::RECONNECT);
  }
  media_->Bind(Self<RtcSession>());
  own_identity_ = ticket.join.identity;
  host_->Admit(std::move(ticket), Self<RtcSession>(),
               [self = Self<RtcSession>()](auto participant) {
                 self->strand().Post([self, participant = std::move(participant)]() mutable {
                   self->OnAdmitted(std::move(participant));
                 });
               });
}

absl::Status RtcSession::ReadOpen(const pb::OpenSignalling& open, Ticket* ticket) {
  PARLEY_ASSIGN_OR_RETURN(*ticket, host_->ReadToken(open.token()));
  PARLEY_ASSIGN_OR_RETURN(join_, ReadJoinRequest(open.join_request()));
  room::JoinRequest& join = ticket->join;
  join.auto_subscribe =
      !join_.has_connection_settings() || join_.connection_settings().auto_subscribe();
  if (join_.metadata().empty() && join_.participant_attributes().empty()) return absl::OkStatus();
  if (!join.permission.can_update_metadata) {
    return PermissionDenied("the token does not grant canUpdateOwnMetadata");
  }
  if (!join_.metadata().empty()) join.metadata = join_.metadata();
  for (const auto& [key, value] : join_.participant_attributes()) join.attributes[key] = value;
  return absl::OkStatus();
}

void RtcSession::OnAdmitted(absl::StatusOr<std::shared_ptr<room::Participant>> participant) {
  if (!participant.ok()) {
    if (ReasonOf(participant.status()).reason != "ROOM_ELSEWHERE") {
      return Dismiss(lk::JOIN_FAILURE, lk::LeaveRequest::DISCONNECT);
    }
    return Close(rpc::ToGrpcStatus(participant.status()));
  }
  participant_ = *std::move(participant);
  if (over_)
    return participant_->Leave(room::LeaveReason::kConnectionLost, "the connection was lost");
  media_->Seat(participant_);
  for (const lk::AddTrackRequest& request : join_.add_track_requests()) AddTrack(request);
  if (join_.has_publisher_offer()) TakeOffer(join_.publisher_offer());
  for (const lk::SignalRequest& request : std::exchange(early_, {})) Do(request);
}

void RtcSession::OnFrameOfClient(const pb::SignalFrame& frame) {
  json_ = frame.text();
  const auto request = ReadSignalRequest(frame.data(), frame.text());
  if (!request.ok()) return Close(rpc::ToGrpcStatus(request.status()));
  if (participant_ != nullptr) return Do(*request);
  if (early_.size() < kMaxEarly) return early_.push_back(*request);
  Close(rpc::ToGrpcStatus(ResourceExhausted("more than {} requests before `join`", kMaxEarly)));
}

void RtcSession::Do(const lk::SignalRequest& request) {
  lk::SignalResponse response;
  switch (request.message_case()) {
    case lk::SignalRequest::kOffer:
      return TakeOffer(request.offer());
    case lk::SignalRequest::kAddTrack:
      return AddTrack(request.add_track());
    case lk::SignalRequest::kMute:
      own_muted_[request.mute().sid()] = request.mute().muted();
      if (!participant_->SetMuted(request.mute().sid(), request.mute().muted()).ok()) {
        own_muted_.erase(request.mute().sid());  // no track of its own
      }
      return;
    case lk::SignalRequest::kSubscription:
      return Subscribe(request.subscription());
    case lk::SignalRequest::kLeave:
      return participant_->Leave(room::LeaveReason::kClientInitiated, "left");
    case lk::SignalRequest::kPing:
      response.set_pong(absl::ToUnixMillis(absl::Now()));
      return SendResponse(response);
    case lk::SignalRequest::kPingReq:
      response.mutable_pong_resp()->set_last_ping_timestamp(request.ping_req().timestamp());
      response.mutable_pong_resp()->set_timestamp(absl::ToUnixMillis(absl::Now()));
      return SendResponse(response);
    case lk::SignalRequest::kUpdateMetadata:
      return UpdateSelf(request.update_metadata());
    case lk::SignalRequest::MESSAGE_NOT_SET:
      return;  // nothing that this server knows
  }
}

void RtcSession::AddTrack(const lk::AddTrackRequest& request) {
  room::PublishRequest publish;
  publish.cid = request.cid();
  publish.name = request.name();
  publish.kind = request.type() == lk::AUDIO ? room::TrackKind::kAudio : room::TrackKind::kVideo;
  publish.source = FromLiveKit(request.source());
  const auto track = participant_->Publish(publish);
  if (!track.ok()) {
    lk::SignalResponse response;
    lk::RequestResponse& refused = *response.mutable_request_response();
    refused.set_reason(track.status().code() == absl::StatusCode::kUnimplemented
                           ? lk::RequestResponse::UNSUPPORTED_TYPE
                           : lk::RequestResponse::NOT_ALLOWED);
    refused.set_message(std::string(Message(track.status())));
    return SendResponse(response);
  }
  if (const auto index = participant_->TrackIndex(track->sid)) own_by_cid_[request.cid()] = *index;
  if (!request.muted()) return;
  own_muted_[track->sid] = true;
  (void)participant_->SetMuted(track->sid, true);
}

void RtcSession::TakeOffer(const lk::SessionDescription& offer) {
  const auto sdp = webrtc::ParseSdp(offer.sdp());
  if (!sdp.ok()) return Close(rpc::ToGrpcStatus(sdp.status()));
  auto answer = negotiation_.Accept(*sdp);
  if (!answer.ok()) return Close(rpc::ToGrpcStatus(answer.status()));
  for (webrtc::ReceivePlan& receive : answer->plan.receive) {
    const auto own = own_by_cid_.find(receive.track_id);
    if (own != own_by_cid_.end()) receive.tag = own->second;
  }
  peer_->Apply(std::move(answer->plan));
  lk::SignalResponse response;
  lk::SessionDescription& description = *response.mutable_answer();
  description.set_type("answer");
  description.set_sdp(std::move(answer->sdp));
  description.set_id(offer.id());
  for (const auto& [mid, sid] : answer->mid_to_track) {
    (*description.mutable_mid_to_track_id())[mid] = sid;
  }
  SendResponse(response);
  const size_t missing_before = std::exchange(missing_sections_, negotiation_.MissingSections());
  // A client that was asked and brought no more sections is not asked for the same again.
  const bool in_vain = std::exchange(offer_wanted_, false) && missing_sections_ > 0 &&
                       missing_sections_ >= missing_before;
  if (!in_vain) AskForOffer();
}

void RtcSession::AskForOffer() {
  if (offer_wanted_ || over_ || participant_ == nullptr || !negotiation_.NeedsOffer()) return;
  offer_wanted_ = true;
  missing_sections_ = negotiation_.MissingSections();
  lk::SignalResponse response;
  response.mutable_media_sections_requirement()->set_num_audios(
      static_cast<uint32_t>(missing_sections_));
  SendResponse(response);
}

void RtcSession::Subscribe(const lk::UpdateSubscription& request) {
  for (const std::string& sid : request.track_sids()) {
    (void)participant_->SetSubscribed(sid, request.subscribe());
    const auto heard = heard_by_sid_.find(sid);
    if (request.subscribe() || heard == heard_by_sid_.end()) continue;
    negotiation_.RemoveTrack(heard->second);
    heard_by_sid_.erase(heard);
  }
  AskForOffer();
}

void RtcSession::UpdateSelf(const lk::UpdateParticipantMetadata& request) {
  room::ParticipantChange change;
  if (!request.metadata().empty()) change.metadata = request.metadata();
  if (!request.name().empty()) change.name = request.name();
  change.attributes = {request.attributes().begin(), request.attributes().end()};
  const absl::Status status = participant_->Update(change);
  lk::SignalResponse response;
  lk::RequestResponse& result = *response.mutable_request_response();
  result.set_request_id(request.request_id());
  result.set_reason(status.ok() ? lk::RequestResponse::OK
                    : status.code() == absl::StatusCode::kPermissionDenied
                        ? lk::RequestResponse::NOT_ALLOWED
                        : lk::RequestResponse::LIMIT_EXCEEDED);
  result.set_message(std::string(Message(status)));
  SendResponse(response);
}

void RtcSession::OnData(const std::string& label, const std::string& message) {
  lk::DataPacket packet;
  if (participant_ == nullptr || over_ || !packet.ParseFromString(message)) return;
  if (!packet.has_user()) {
    if (auto text = text_.FromClient(packet)) (void)participant_->SendText(*std::move(text));
    return;
  }
  room::DataPacket data;
  data.payload = packet.user().payload();
  data.topic = packet.user().topic();
  data.reliable = label == kReliable;
  const auto& destinations = packet.destination_identities().empty()
                                 ? packet.user().destination_identities()
                                 : packet.destination_identities();
  data.destination_identities = {destinations.begin(), destinations.end()};
  (void)participant_->SendData(std::move(data));
}

void RtcSession::OnMediaClosed(const std::string& why) {
  if (over_) return;
  if (participant_ != nullptr) participant_->Leave(room::LeaveReason::kConnectionLost, why);
}

void RtcSession::OnClosed() {
  over_ = true;
  media_->Seat(nullptr);
  peer_->Close();
  if (participant_ != nullptr) {
    participant_->Leave(room::LeaveReason::kConnectionLost, "the signalling connection was lost");
  }
}

void RtcSession::Dismiss(lk::DisconnectReason reason, lk::LeaveRequest::Action action) {
  lk::SignalResponse response;
  lk::LeaveRequest& leave = *response.mutable_leave();
  leave.set_reason(reason);
  leave.set_action(action);
  leave.set_can_reconnect(action != lk::LeaveRequest::DISCONNECT);
  SendResponse(response);
  Close(grpc::Status::OK);  // another status would drop what is still to be sent
}

void RtcSession::SendResponse(const lk::SignalResponse& response) {
  pb::ConnectResponse message;
  message.mutable_frame()->set_data(WriteSignalResponse(response, json_));
  message.mutable_frame()->set_text(json_);
  if (Send(std::move(message))) return;
  Close(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED,
                     "the client reads too slowly: 1024 messages are waiting"));
}

void RtcSession::SendPacket(const lk::DataPacket& packet, bool reliable) {
  if (!peer_->SendData(reliable ? kReliable : kLossy, packet.SerializeAsString())) {
    OnMediaClosed("the client does not read its data");
  }
}

// ---- what the room says ----

void RtcSession::OnJoined(const room::Joined& joined) {
  Later([self = Self<RtcSession>(), joined] { self->SendJoin(joined); });
}

void RtcSession::OnEvent(const room::Event& event) {
  if (const auto* started = std::get_if<room::SubscriptionStarted>(&event)) {
    Heard& heard = heard_[started->track_number];
    heard.sid = started->track.sid;
    if (started->track.codec == room::Codec::kPcm16) {
      auto transcoder = Transcoder::Create(room::Codec::kPcm16, room::Codec::kOpus);
      if (transcoder.ok()) heard.transcoder = *std::move(transcoder);
    }
  } else if (const auto* unpublished = std::get_if<room::TrackUnpublished>(&event)) {
    std::erase_if(heard_,
                  [&](const auto& entry) { return entry.second.sid == unpublished->track_sid; });
  }
  Later([self = Self<RtcSession>(), event] { self->Tell(event); });
}

void RtcSession::OnFrame(uint32_t track_number, const room::Frame& frame) {
  const auto heard = heard_.find(track_number);
  if (heard == heard_.end()) return;
  if (heard->second.transcoder == nullptr) {
    const bool sent = peer_->SendAudio(track_number, frame.timestamp, frame.level, frame.data);
    return (sent ? host_->metrics().frames_out : host_->metrics().frames_late).Increment();
  }
  if (transcoding_.fetch_add(1) >= kMaxTranscoding) {
    transcoding_.fetch_sub(1);
    return host_->metrics().frames_late.Increment();
  }
  strand().Post([self = Self<RtcSession>(), track_number, transcoder = heard->second.transcoder,
                 timestamp = frame.timestamp, level = frame.level, data = std::string(frame.data)] {
    self->transcoding_.fetch_sub(1);
    const auto converted = transcoder->Convert(data);
    if (!converted.ok()) return self->host_->metrics().frames_refused.Increment();
    if (self->peer_->SendAudio(track_number, timestamp, level, *converted)) {
      self->host_->metrics().frames_out.Increment();
    }
  });
}

}  // namespace parley::room_server
