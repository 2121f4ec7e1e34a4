#include "room_server/rtc_session.h"

#include <absl/time/clock.h>

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/status.h"
#include "room_server/convert.h"

namespace parley::room_server {
namespace {

constexpr size_t kMaxEarly = 64;     // requests that came before the join was through
constexpr int kMaxWaiting = 2048;    // requests, events and packets on their way to the strand
constexpr int kMaxTranscoding = 25;  // frames
constexpr auto kReliable = "_reliable";
constexpr auto kLossy = "_lossy";
// Tokens of SDKs often live for minutes only; a later reconnection needs a valid one.
constexpr int64_t kTokenEveryUs = 5 * 60 * 1'000'000LL;
constexpr absl::Duration kTokenTtl = absl::Minutes(10);
constexpr absl::Duration kLostAfter = absl::Seconds(5);  // clients show themselves every 2.5 s
// Mean opinion scores, and how quickly the figure follows a change for the worse or better.
constexpr float kExcellent = 4.1F;
constexpr float kGood = 3.1F;
constexpr float kWorsens = 0.5F;
constexpr float kImproves = 0.2F;

int64_t NowMicros() { return Clock::Real().MonotonicMicros(); }

std::vector<uint32_t> TracksOf(const webrtc::Plan& plan) {
  std::vector<uint32_t> tracks;
  for (const webrtc::SendPlan& send : plan.send) tracks.push_back(send.track);
  return tracks;
}

// The channels that clients with two connections expect of the server.
std::vector<webrtc::ChannelPlan> OwnChannels() {
  return {{kReliable, true, std::nullopt}, {kLossy, false, 0}};
}

}  // namespace

void RtcSession::Media::Seat(std::shared_ptr<room::Participant> participant) {
  MutexLock lock(&mutex_);
  participant_ = std::move(participant);
}

void RtcSession::Media::OnConnected() {
  const auto session = session_.lock();
  if (session == nullptr) return;
  const bool down = this == session->down_media_.get();
  session->Later([session, down] {
    session->connected_ = true;
    session->down_connected_ = session->down_connected_ || down;
    session->TellHeard();
  });
}

std::shared_ptr<room::Participant> RtcSession::Media::participant() const {
  MutexLock lock(&mutex_);
  return participant_;
}

void RtcSession::Media::OnVideo(uint32_t tag, const webrtc::VideoPacket& packet) {
  if (const auto participant = this->participant()) {
    (void)participant->SendFrame(tag, {.timestamp = packet.timestamp,
                                       .data = packet.payload,
                                       .sequence = packet.sequence,
                                       .layer = packet.layer,
                                       .marker = packet.marker,
                                       .key = packet.key});
  }
}

void RtcSession::Media::OnPictureWanted(uint32_t track, uint8_t layer) {
  if (const auto participant = this->participant()) participant->WantPicture(track, layer);
}

void RtcSession::Media::OnAudio(uint32_t tag, const webrtc::AudioPacket& packet) {
  const auto session = session_.lock();
  const auto participant = this->participant();
  if (session == nullptr || participant == nullptr) return;
  RoomServerMetrics& metrics = session->host_->metrics();
  metrics.frames_in.Increment();
  const room::Frame frame{
      .timestamp = packet.timestamp, .level = packet.level, .data = packet.payload};
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

void RtcSession::Media::OnLink(const webrtc::LinkFigures& figures) {
  const auto session = session_.lock();
  if (session == nullptr) return;
  const bool down = this == session->down_media_.get();
  session->Later([session, down, figures] { session->OnLink(down, figures); });
}

void RtcSession::Media::OnClosed(std::string_view why) {
  const auto session = session_.lock();
  if (session == nullptr) return;
  session->Later([session, text = std::string(why)] { session->OnMediaClosed(text); });
}

RtcSession::RtcSession(std::shared_ptr<Host> host, webrtc::Engine& engine,
                       std::shared_ptr<RtcSessions> sessions, bool two_connections)
    : host_(std::move(host)),
      sessions_(std::move(sessions)),
      strand_(host_->context().executor()),
      two_connections_(two_connections),
      down_media_(std::make_shared<Media>()),
      up_media_(two_connections ? std::make_shared<Media>() : down_media_),
      down_(engine.Open(down_media_)),
      up_(two_connections ? engine.Open(up_media_) : down_),
      negotiation_(engine.NewNegotiation()),
      offering_(engine.NewOffering(OwnChannels())) {}

RtcSession::~RtcSession() = default;

void RtcSession::Later(std::function<void()> work) {
  if (waiting_.fetch_add(1) >= kMaxWaiting) {
    waiting_.fetch_sub(1);
    if (overflowed_.exchange(true)) return;
    return strand_.Post([self = shared_from_this()] {
      self->Fail(ResourceExhausted("the client is told more than it takes"));
    });
  }
  strand_.Post([self = shared_from_this(), work = std::move(work)] {
    self->waiting_.fetch_sub(1);
    work();
  });
}

// The stream's end says why, then the seat is given up.
void RtcSession::Fail(const absl::Status& status) {
  if (stream_ != nullptr) stream_->Close(rpc::ToGrpcStatus(status));
  Leave(Message(status));
}

void RtcSession::Leave(std::string_view why) {
  if (participant_ != nullptr) {
    participant_->Leave(room::LeaveReason::kConnectionLost, why);  // TellDisconnected follows
  } else {
    over_ = true;
  }
}

void RtcSession::Join(std::shared_ptr<RtcStream> stream, Ticket ticket, lk::JoinRequest join) {
  stream_ = std::move(stream);
  join_ = std::move(join);
  claims_ = std::move(ticket.claims);
  own_identity_ = ticket.join.identity;
  down_media_->Bind(weak_from_this());
  up_media_->Bind(weak_from_this());
  host_->Admit(std::move(ticket), shared_from_this(),
               [self = shared_from_this()](auto participant) {
                 self->strand_.Post([self, participant = std::move(participant)]() mutable {
                   self->OnAdmitted(std::move(participant));
                 });
               });
}

void RtcSession::OnAdmitted(absl::StatusOr<std::shared_ptr<room::Participant>> participant) {
  if (!participant.ok()) {
    over_ = true;
    if (stream_ == nullptr) return;
    // Another server has the room, or will: the edge goes on there, or the client tries again.
    if (ReasonOf(participant.status()).reason == "ROOM_ELSEWHERE" ||
        participant.status().code() == absl::StatusCode::kUnavailable) {
      return stream_->Close(rpc::ToGrpcStatus(participant.status()));
    }
    return stream_->Dismiss(lk::JOIN_FAILURE, lk::LeaveRequest::DISCONNECT);
  }
  participant_ = *std::move(participant);
  if (over_ || stream_ == nullptr) return Leave("the connection was lost");
  down_media_->Seat(participant_);
  up_media_->Seat(participant_);
  const lk::JoinRequest join = std::exchange(join_, {});  // some KiB; of no use from now on
  for (const lk::AddTrackRequest& request : join.add_track_requests()) AddTrack(request);
  if (join.has_publisher_offer()) TakeOffer(join.publisher_offer());
  if (two_connections_) MakeOffer();
  for (const lk::SignalRequest& request : std::exchange(early_, {})) Do(request);
}

void RtcSession::Resume(std::shared_ptr<RtcStream> stream, const Ticket& ticket,
                        const lk::JoinRequest& join) {
  static_cast<void>(join);
  Later([self = shared_from_this(), stream = std::move(stream), identity = ticket.join.identity,
         project = ticket.room.project, room = ticket.room.name, claims = ticket.claims] {
    const bool same = self->participant_ != nullptr && self->own_identity_ == identity &&
                      self->participant_->room()->project() == project &&
                      self->participant_->room()->name() == room;
    if (self->over_ || !same) {
      return stream->Dismiss(lk::STATE_MISMATCH, lk::LeaveRequest::RECONNECT);
    }
    self->claims_ = claims;
    self->GoOn(stream);
  });
}

void RtcSession::GoOn(const std::shared_ptr<RtcStream>& stream) {
  if (stream_ != nullptr) stream_->Close(grpc::Status::OK);
  stream_ = stream;
  away_since_us_ = 0;
  offer_wanted_ = false;  // if it was on its way, it is lost
  SendResumed();
  if (two_connections_) offering_.RestartIce();
  Renegotiate();
}

void RtcSession::OnStreamClosed(std::shared_ptr<RtcStream> stream) {
  strand_.Post([self = shared_from_this(), stream = std::move(stream)] {
    if (self->stream_ != stream) return;  // another took its place
    self->stream_ = nullptr;
    self->offering_.Withdraw();
    // Without media there is nothing to go on with.
    if (!self->connected_) return self->Leave("the signalling connection was lost");
    self->away_since_us_ = NowMicros();
  });
}

void RtcSession::OnRequest(std::shared_ptr<RtcStream> stream, lk::SignalRequest request) {
  Later([self = shared_from_this(), stream = std::move(stream), request = std::move(request)] {
    if (self->over_ || self->stream_ != stream) return;
    if (self->participant_ != nullptr) return self->Do(request);
    if (self->early_.size() < kMaxEarly) return self->early_.push_back(request);
    self->Fail(ResourceExhausted("more than {} requests before `join`", kMaxEarly));
  });
}

void RtcSession::Do(const lk::SignalRequest& request) {
  lk::SignalResponse response;
  switch (request.message_case()) {
    case lk::SignalRequest::kOffer:
      return TakeOffer(request.offer());
    case lk::SignalRequest::kAnswer:
      return TakeAnswer(request.answer());
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
    case lk::SignalRequest::kTrackSetting:
      return UpdateTrackSettings(request.track_setting());
    case lk::SignalRequest::kLeave:
      return participant_->Leave(room::LeaveReason::kClientInitiated, "left");
    case lk::SignalRequest::kPing:
      response.set_pong(absl::ToUnixMillis(absl::Now()));
      return Send(response);
    case lk::SignalRequest::kPingReq:
      response.mutable_pong_resp()->set_last_ping_timestamp(request.ping_req().timestamp());
      response.mutable_pong_resp()->set_timestamp(absl::ToUnixMillis(absl::Now()));
      return Send(response);
    case lk::SignalRequest::kUpdateMetadata:
      return UpdateSelf(request.update_metadata());
    case lk::SignalRequest::kTrickle:         // its checks will tell where it is
    case lk::SignalRequest::kSyncState:       // the seat and its subscriptions were kept
    case lk::SignalRequest::MESSAGE_NOT_SET:  // nothing that this server knows
      return;
  }
}

void RtcSession::AddTrack(const lk::AddTrackRequest& request) {
  room::PublishRequest publish;
  publish.cid = request.cid();
  publish.name = request.name();
  publish.kind = request.type() == lk::AUDIO ? room::TrackKind::kAudio : room::TrackKind::kVideo;
  publish.source = FromLiveKit(request.source());
  publish.encryption = FromLiveKit(request.encryption());
  if (publish.kind == room::TrackKind::kVideo) ReadVideo(request, &publish);
  const auto track = participant_->Publish(publish);
  if (!track.ok()) {
    lk::SignalResponse response;
    lk::RequestResponse& refused = *response.mutable_request_response();
    refused.set_reason(track.status().code() == absl::StatusCode::kUnimplemented
                           ? lk::RequestResponse::UNSUPPORTED_TYPE
                           : lk::RequestResponse::NOT_ALLOWED);
    refused.set_message(std::string(Message(track.status())));
    return Send(response);
  }
  if (const auto index = participant_->TrackIndex(track->sid)) own_by_cid_[request.cid()] = *index;
  // Browsers offer every codec they have in any order; others are told of this one.
  if (publish.kind == room::TrackKind::kVideo) {
    negotiation_.ExpectVideo(request.cid(), SdpName(publish.codec));
  }
  if (!request.muted()) return;
  own_muted_[track->sid] = true;
  (void)participant_->SetMuted(track->sid, true);
}

// ---- descriptions ----

void RtcSession::TakeOffer(const lk::SessionDescription& offer) {
  const auto sdp = webrtc::ParseSdp(offer.sdp());
  if (!sdp.ok()) return Fail(sdp.status());
  auto answer = negotiation_.Accept(*sdp);
  if (!answer.ok()) return Fail(answer.status());
  for (webrtc::ReceivePlan& receive : answer->plan.receive) {
    const auto own = own_by_cid_.find(receive.track_id);
    if (own != own_by_cid_.end()) receive.tag = own->second;
  }
  if (!two_connections_) placed_ = TracksOf(answer->plan);
  up_->Apply(std::move(answer->plan));
  lk::SignalResponse response;
  lk::SessionDescription& description = *response.mutable_answer();
  description.set_type("answer");
  description.set_sdp(std::move(answer->sdp));
  description.set_id(offer.id());
  for (const auto& [mid, sid] : answer->mid_to_track) {
    (*description.mutable_mid_to_track_id())[mid] = sid;
  }
  Send(response);
  if (two_connections_) return;
  TellHeard();
  const size_t missing_before = std::exchange(
      missing_sections_, negotiation_.MissingSections() + negotiation_.MissingSections(true));
  // A client that was asked and brought no more sections is not asked for the same again.
  const bool in_vain = std::exchange(offer_wanted_, false) && missing_sections_ > 0 &&
                       missing_sections_ >= missing_before;
  if (!in_vain) AskForOffer();
}

void RtcSession::TakeAnswer(const lk::SessionDescription& answer) {
  if (!two_connections_) return;  // nothing was offered
  const auto sdp = webrtc::ParseSdp(answer.sdp());
  if (!sdp.ok()) return Fail(sdp.status());
  auto plan = offering_.Accept(*sdp, answer.id());
  if (plan.status().code() == absl::StatusCode::kNotFound) return;  // of an offer that was replaced
  if (!plan.ok()) return Fail(plan.status());
  placed_ = TracksOf(*plan);
  down_->Apply(*std::move(plan));
  TellHeard();
  MakeOffer();
}

void RtcSession::Hear(uint32_t number, const room::Track& track, const std::string& stream) {
  heard_by_sid_[track.sid] = number;
  if (two_connections_) {
    offering_.AddTrack(number, track.sid, stream, SdpName(track.codec));
  } else {
    negotiation_.AddTrack(number, track.sid, stream, SdpName(track.codec));
  }
}

void RtcSession::TellHeard() {
  if (!down_connected_ || participant_ == nullptr) return;
  for (const uint32_t track : placed_) participant_->NowHears(track);
}

void RtcSession::Unhear(const std::string& track_sid) {
  const auto heard = heard_by_sid_.find(track_sid);
  if (heard == heard_by_sid_.end()) return;
  if (two_connections_) {
    offering_.RemoveTrack(heard->second);
  } else {
    negotiation_.RemoveTrack(heard->second);
  }
  heard_by_sid_.erase(heard);
}

void RtcSession::Renegotiate() {
  if (over_ || participant_ == nullptr || stream_ == nullptr) return;
  two_connections_ ? MakeOffer() : AskForOffer();
}

void RtcSession::AskForOffer() {
  if (offer_wanted_ || !negotiation_.NeedsOffer()) return;
  offer_wanted_ = true;
  const size_t audios = negotiation_.MissingSections();
  const size_t videos = negotiation_.MissingSections(true);
  missing_sections_ = audios + videos;
  lk::SignalResponse response;
  lk::MediaSectionsRequirement& wanted = *response.mutable_media_sections_requirement();
  wanted.set_num_audios(static_cast<uint32_t>(audios));
  wanted.set_num_videos(static_cast<uint32_t>(videos));
  Send(response);
}

void RtcSession::MakeOffer() {
  const auto offer = offering_.Next();
  if (!offer) return;
  lk::SignalResponse response;
  lk::SessionDescription& description = *response.mutable_offer();
  description.set_type("offer");
  description.set_sdp(offer->sdp);
  description.set_id(offer->id);
  for (const auto& [mid, sid] : offer->mid_to_track) {
    (*description.mutable_mid_to_track_id())[mid] = sid;
  }
  Send(response);
}

void RtcSession::Subscribe(const lk::UpdateSubscription& request) {
  for (const std::string& sid : request.track_sids()) {
    (void)participant_->SetSubscribed(sid, request.subscribe());
    if (!request.subscribe()) Unhear(sid);
  }
  Renegotiate();
}

void RtcSession::UpdateTrackSettings(const lk::UpdateTrackSettings& request) {
  for (const std::string& sid : request.track_sids()) {
    const auto heard = heard_by_sid_.find(sid);
    if (heard == heard_by_sid_.end()) continue;
    for (const auto& [identity, info] : others_) {
      for (const lk::TrackInfo& track : info.tracks()) {
        if (track.sid() != sid || track.type() != lk::VIDEO) continue;
        down_->SetVideoWish(heard->second, HighestLayer(request, track));
      }
    }
  }
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
  Send(response);
}

// ---- media and data ----

void RtcSession::OnData(const std::string& label, const std::string& message) {
  lk::DataPacket packet;
  if (participant_ == nullptr || over_ || !packet.ParseFromString(message)) return;
  if (auto call = RpcFromClient(packet)) {
    return (void)participant_->SendRpc(*std::move(call));
  }
  if (auto key = KeyFromClient(packet)) {
    return (void)participant_->SendData(*std::move(key));
  }
  const auto send = [&](room::DataPacket data, const auto& destinations) {
    data.reliable = label == kReliable;
    data.destination_identities = {destinations.begin(), destinations.end()};
    (void)participant_->SendData(std::move(data));
  };
  room::DataPacket data;
  if (packet.value_case() == lk::DataPacket::kEncryptedPacket) {
    data.encrypted = true;
    data.payload = packet.encrypted_packet();
    return send(std::move(data), packet.destination_identities());
  }
  if (!packet.has_user()) {
    auto piece = streams_.FromClient(packet);
    if (!piece) return;
    if (auto* text = std::get_if<room::TextPacket>(&*piece)) {
      return (void)participant_->SendText(std::move(*text));
    }
    return (void)participant_->SendBytes(std::get<room::BytePacket>(*std::move(piece)));
  }
  data.payload = packet.user().payload();
  data.topic = packet.user().topic();
  send(std::move(data), packet.destination_identities().empty()
                            ? packet.user().destination_identities()
                            : packet.destination_identities());
}

void RtcSession::OnMediaClosed(const std::string& why) {
  if (!over_) Leave(why);
}

void RtcSession::OnLink(bool down, const webrtc::LinkFigures& figures) {
  if (over_ || participant_ == nullptr) return;
  const int64_t now_us = NowMicros();
  if (away_since_us_ != 0 &&
      absl::Microseconds(now_us - away_since_us_) > host_->config().rtc_resume) {
    return Leave("the signalling connection was lost");
  }
  float& opinion = opinion_.at(down ? 0 : 1);
  const float now = webrtc::MeanOpinion(figures);
  opinion = opinion == 0 ? now : opinion + (now - opinion) * (now < opinion ? kWorsens : kImproves);
  float worst = opinion;
  for (const float one : opinion_) worst = one == 0 ? worst : std::min(worst, one);
  participant_->SetQuality(figures.silence > kLostAfter ? room::Quality::kLost
                           : worst >= kExcellent        ? room::Quality::kExcellent
                           : worst >= kGood             ? room::Quality::kGood
                                                        : room::Quality::kPoor,
                           worst);
  if (stream_ != nullptr && now_us >= next_token_us_) SendToken();
}

void RtcSession::SendToken() {
  next_token_us_ = NowMicros() + kTokenEveryUs;
  const lk::ParticipantInfo* self = Known(own_identity_);
  if (self == nullptr) return;
  auth::Claims claims = claims_;  // as the participant is now
  claims.name = self->name();
  claims.metadata = self->metadata();
  claims.attributes = {self->attributes().begin(), self->attributes().end()};
  claims.video.can_publish = self->permission().can_publish();
  claims.video.can_subscribe = self->permission().can_subscribe();
  claims.video.can_publish_data = self->permission().can_publish_data();
  claims.video.can_update_own_metadata = self->permission().can_update_metadata();
  const auto keys = host_->context().keys();
  const auth::ApiKey* key = keys->Find(claims.issuer);
  if (key == nullptr) return;  // it was taken away meanwhile, or the token is a service's
  lk::SignalResponse response;
  response.set_refresh_token(auth::Sign(claims, *key, kTokenTtl));
  Send(response);
}

void RtcSession::Send(const lk::SignalResponse& response) {
  if (stream_ != nullptr) stream_->SendResponse(response);
}

void RtcSession::SendPacket(const lk::DataPacket& packet, bool reliable) {
  if (down_->SendData(reliable ? kReliable : kLossy, packet.SerializeAsString())) return;
  // Not at once: it leaves the room, whose call this may be.
  Later([self = shared_from_this()] { self->OnMediaClosed("the client does not read its data"); });
}

// ---- what the room says ----

void RtcSession::OnJoined(const room::Joined& joined) {
  Later([self = shared_from_this(), joined] { self->SendJoin(joined); });
}

void RtcSession::OnEvent(const room::Event& event) {
  if (const auto* started = std::get_if<room::SubscriptionStarted>(&event)) {
    Heard& heard = heard_[started->track_number];
    heard.sid = started->track.sid;
    heard.video = started->track.kind == room::TrackKind::kVideo;
    if (started->track.codec == room::Codec::kPcm16) {
      auto transcoder = Transcoder::Create(room::Codec::kPcm16, room::Codec::kOpus);
      if (transcoder.ok()) heard.transcoder = *std::move(transcoder);
    }
  } else if (const auto* unpublished = std::get_if<room::TrackUnpublished>(&event)) {
    std::erase_if(heard_,
                  [&](const auto& entry) { return entry.second.sid == unpublished->track_sid; });
  }
  if (std::holds_alternative<room::Disconnected>(event)) {  // must not be lost
    return strand_.Post([self = shared_from_this(), event] { self->Tell(event); });
  }
  // What is only handed on spares the change of threads: there is much of it while an agent talks.
  const bool handed_on = std::holds_alternative<room::TextPacket>(event) ||
                         std::holds_alternative<room::DataPacket>(event) ||
                         std::holds_alternative<room::BytePacket>(event) ||
                         std::holds_alternative<room::SpeakersChanged>(event) ||
                         std::holds_alternative<room::ParticipantUpdated>(event);
  if (handed_on && strand_.TryEnter()) {
    Tell(event);
    return strand_.Leave();
  }
  Later([self = shared_from_this(), event] { self->Tell(event); });
}

void RtcSession::OnFrame(uint32_t track_number, const room::Frame& frame) {
  const auto heard = heard_.find(track_number);
  if (heard == heard_.end()) return;
  if (heard->second.video) {
    if (!down_->SendVideo(track_number, {.timestamp = frame.timestamp,
                                         .sequence = frame.sequence,
                                         .layer = frame.layer,
                                         .marker = frame.marker,
                                         .key = frame.key,
                                         .payload = frame.data})) {
      host_->metrics().frames_late.Increment();
    }
    return;
  }
  if (heard->second.transcoder == nullptr) {
    const bool sent = down_->SendAudio(track_number, frame.timestamp, frame.level, frame.data);
    return (sent ? host_->metrics().frames_out : host_->metrics().frames_late).Increment();
  }
  if (transcoding_.fetch_add(1) >= kMaxTranscoding) {
    transcoding_.fetch_sub(1);
    return host_->metrics().frames_late.Increment();
  }
  strand_.Post([self = shared_from_this(), track_number, transcoder = heard->second.transcoder,
                timestamp = frame.timestamp, level = frame.level, data = std::string(frame.data)] {
    self->transcoding_.fetch_sub(1);
    const auto converted = transcoder->Convert(data);
    if (!converted.ok()) return self->host_->metrics().frames_refused.Increment();
    if (self->down_->SendAudio(track_number, timestamp, level, *converted)) {
      self->host_->metrics().frames_out.Increment();
    }
  });
}

void RtcSession::OnPictureWanted(uint32_t index, uint8_t layer) {
  up_->AskForPicture(index, layer);
}

}  // namespace parley::room_server
