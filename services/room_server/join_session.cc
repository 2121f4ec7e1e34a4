#include "room_server/join_session.h"

#include "base/status.h"
#include "room_server/commands.h"
#include "room_server/convert.h"

namespace parley::room_server {
namespace {

constexpr size_t kOutbox = 1024;
constexpr size_t kMaxEarly = 64;     // requests that came before the join was through
constexpr size_t kLateAfter = 25;    // messages waiting: half a second of audio is late audio
constexpr int kMaxTranscoding = 25;  // frames

}  // namespace

JoinSession::JoinSession(std::shared_ptr<Host> host, const TraceContext& trace)
    : BidiSession(host->context().executor(), kOutbox), host_(std::move(host)), trace_(trace) {}

void JoinSession::OnMessage(const pb::JoinRequest& message) {
  if (over_) return;
  if (message.has_join()) return Join(message.join());
  if (!asked_) {
    return Close(rpc::ToGrpcStatus(FailedPrecondition("the first request must be `join`")));
  }
  // A client may have heard `joined` before we did, and need not wait for it either.
  if (participant_ == nullptr) {
    if (early_.size() < kMaxEarly) return early_.push_back(message);
    return Close(
        rpc::ToGrpcStatus(ResourceExhausted("more than {} requests before `joined`", kMaxEarly)));
  }
  Do(message);
}

void JoinSession::Do(const pb::JoinRequest& message) {
  if (message.has_audio()) return OnAudio(message.audio());
  CommandOutcome outcome = Execute(*participant_, message.command());
  if (outcome.published) own_.push_back({outcome.published->sid, outcome.published->codec});
  if (outcome.result) {
    pb::JoinResponse response;
    *response.mutable_event()->mutable_result() = *std::move(outcome.result);
    SendOrClose(std::move(response));
  }
}

void JoinSession::Join(const pb::JoinRoom& message) {
  if (std::exchange(asked_, true)) {
    return Close(rpc::ToGrpcStatus(FailedPrecondition("this stream has joined a room already")));
  }
  const TraceScope scope(trace_);
  absl::StatusOr<Ticket> ticket = host_->ReadToken(message.token());
  if (!ticket.ok()) return Close(rpc::ToGrpcStatus(ticket.status()));
  if (absl::Status status = Apply(message.options(), ticket->join); !status.ok()) {
    return Close(rpc::ToGrpcStatus(status));
  }
  receive_codec_ = message.options().receive_codec();
  host_->Admit(*std::move(ticket), Self<JoinSession>(),
               [self = Self<JoinSession>()](auto participant) {
                 self->strand().Post([self, participant = std::move(participant)]() mutable {
                   self->OnAdmitted(std::move(participant));
                 });
               });
}

void JoinSession::OnAdmitted(absl::StatusOr<std::shared_ptr<room::Participant>> participant) {
  if (!participant.ok()) return Close(rpc::ToGrpcStatus(participant.status()));
  participant_ = *std::move(participant);
  for (const pb::JoinRequest& message : std::exchange(early_, {})) Do(message);
  if (over_) Leave();
}

void JoinSession::OnAudio(const pb::AudioFrame& audio) {
  RoomServerMetrics& metrics = host_->metrics();
  metrics.frames_in.Increment();
  for (uint32_t index = 0; index < own_.size(); ++index) {
    if (own_[index].sid != audio.track_sid()) continue;
    if (audio.codec() != pb::CODEC_UNSPECIFIED && audio.codec() != ToProto(own_[index].codec)) {
      break;
    }
    const room::Frame frame{audio.timestamp(), audio.level(), audio.data()};
    if (participant_->SendFrame(index, frame) == room::FrameResult::kInvalid) break;
    return;
  }
  metrics.frames_refused.Increment();
}

void JoinSession::OnHalfClose() {
  half_closed_ = true;
  Close(grpc::Status::OK);
}

void JoinSession::OnClosed() {
  over_ = true;
  if (participant_ != nullptr) Leave();
}

void JoinSession::Leave() {
  if (half_closed_ && !cancelled()) {
    participant_->Leave(room::LeaveReason::kClientInitiated, "left");
  } else {
    participant_->Leave(room::LeaveReason::kConnectionLost, "the connection was lost");
  }
}

void JoinSession::SendOrClose(pb::JoinResponse response) {
  if (Send(std::move(response))) return;
  Close(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED,
                     "the client reads too slowly: 1024 messages are waiting"));
}

void JoinSession::OnJoined(const room::Joined& joined) {
  pb::JoinResponse response;
  ToProto(joined, host_->media_url(), response.mutable_joined());
  SendOrClose(std::move(response));
}

void JoinSession::OnEvent(const room::Event& event) {
  if (const auto* started = std::get_if<room::SubscriptionStarted>(&event)) {
    Heard& heard = heard_[started->track_number];
    heard.sid = started->track.sid;
    heard.codec = started->track.codec;
    if (receive_codec_ != pb::CODEC_UNSPECIFIED && receive_codec_ != ToProto(heard.codec)) {
      const room::Codec to =
          receive_codec_ == pb::CODEC_PCM16 ? room::Codec::kPcm16 : room::Codec::kOpus;
      if (auto transcoder = Transcoder::Create(heard.codec, to); transcoder.ok()) {
        heard.transcoder = *std::move(transcoder);
      }
    }
  } else if (const auto* unpublished = std::get_if<room::TrackUnpublished>(&event)) {
    std::erase_if(heard_,
                  [&](const auto& entry) { return entry.second.sid == unpublished->track_sid; });
  }
  if (std::holds_alternative<room::QualityChanged>(event)) return;
  pb::JoinResponse response;
  ToProto(event, host_->media_url(), response.mutable_event());
  SendOrClose(std::move(response));
  if (std::holds_alternative<room::Disconnected>(event)) Close(grpc::Status::OK);
}

void JoinSession::OnFrame(uint32_t track_number, const room::Frame& frame) {
  const auto heard = heard_.find(track_number);
  if (heard == heard_.end()) return;
  if (heard->second.transcoder != nullptr) return Transcode(heard->second, frame);
  SendAudio(heard->second.sid, heard->second.codec, frame);
}

// Coding takes 30 to 170 µs: not under the room's lock.
void JoinSession::Transcode(const Heard& heard, const room::Frame& frame) {
  if (transcoding_.fetch_add(1) >= kMaxTranscoding) {
    transcoding_.fetch_sub(1);
    return host_->metrics().frames_late.Increment();
  }
  strand().Post([self = Self<JoinSession>(), sid = heard.sid, transcoder = heard.transcoder,
                 timestamp = frame.timestamp, level = frame.level, data = std::string(frame.data)] {
    self->transcoding_.fetch_sub(1);
    const auto converted = transcoder->Convert(data);
    if (!converted.ok()) return self->host_->metrics().frames_refused.Increment();
    self->SendAudio(sid, transcoder->to(), {timestamp, level, *converted});
  });
}

void JoinSession::SendAudio(const std::string& track_sid, room::Codec codec,
                            const room::Frame& frame) {
  if (queued() >= kLateAfter) return host_->metrics().frames_late.Increment();
  pb::JoinResponse response;
  pb::AudioFrame* audio = response.mutable_audio();
  audio->set_track_sid(track_sid);
  audio->set_timestamp(frame.timestamp);
  audio->set_level(frame.level);
  audio->set_codec(ToProto(codec));
  audio->set_data(frame.data.data(), frame.data.size());
  if (Send(std::move(response))) host_->metrics().frames_out.Increment();
}

}  // namespace parley::room_server
