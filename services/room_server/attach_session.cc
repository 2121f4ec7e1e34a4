#include "room_server/attach_session.h"

#include <algorithm>
#include <cstdlib>

#include "base/status.h"
#include "room_server/commands.h"
#include "room_server/convert.h"

namespace parley::room_server {
namespace {

constexpr size_t kOutbox = 8192;
constexpr size_t kMaxSessions = 4096;
constexpr size_t kMaxEarly = 64;        // commands of a session that is not open yet
constexpr size_t kLateAfter = 32;       // messages waiting: frames are held back
constexpr int kMaxHeldFrames = 16'384;  // of all sessions; beyond it the oldest go
constexpr size_t kMaxTracksHeard = 4096;

}  // namespace

void AttachedParticipant::OnJoined(const room::Joined& joined) {
  const auto stream = stream_.lock();
  if (stream == nullptr) return;
  pb::AttachResponse response;
  response.mutable_opened()->set_session(session_);
  response.mutable_opened()->set_takes_commands(true);
  ToProto(joined, stream->media_url(), response.mutable_opened()->mutable_joined());
  stream->SendOrClose(std::move(response));
}

void AttachedParticipant::OnEvent(const room::Event& event) {
  const auto stream = stream_.lock();
  if (stream == nullptr) return;
  // Agents hear for themselves who speaks: several messages a second of each call are saved.
  if (std::holds_alternative<room::SpeakersChanged>(event) ||
      std::holds_alternative<room::QualityChanged>(event)) {
    return;
  }
  if (const auto* started = std::get_if<room::SubscriptionStarted>(&event);
      started != nullptr && started->track_number < kMaxTracksHeard) {
    codecs_.resize(std::max<size_t>(codecs_.size(), started->track_number + 1));
    codecs_[started->track_number] = started->track.codec;
  }
  pb::AttachResponse response;
  response.mutable_event()->set_session(session_);
  ToProto(event, stream->media_url(), response.mutable_event()->mutable_event());
  stream->SendOrClose(std::move(response));
  const auto* disconnected = std::get_if<room::Disconnected>(&event);
  if (disconnected == nullptr) return;
  pb::AttachResponse closed;
  closed.mutable_closed()->set_session(session_);
  closed.mutable_closed()->set_message(disconnected->message);
  closed.mutable_closed()->set_disconnect_reason(ToProto(disconnected->reason));
  stream->SendOrClose(std::move(closed));
  stream->OnSessionOver(session_);
}

void AttachedParticipant::OnFrame(uint32_t track_number, const room::Frame& frame) {
  const auto stream = stream_.lock();
  if (stream == nullptr || track_number >= codecs_.size()) return;
  stream->AddFrame(session_, track_number, codecs_[track_number], frame);
}

AttachSession::AttachSession(std::shared_ptr<Host> host, auth::Claims claims)
    : BidiSession(host->context().executor(), kOutbox),
      host_(std::move(host)),
      claims_(std::move(claims)),
      media_url_(host_->media_url()),
      tick_us_(absl::ToInt64Microseconds(host_->ticker().interval())) {}

void AttachSession::OnStart() { host_->ticker().Add(Self<AttachSession>()); }

void AttachSession::OnMessage(const pb::AttachRequest& message) {
  if (over_) return;
  if (message.has_hello()) {
    // Who holds a job is what its token says: an agent server may go on under a new worker id.
    greeted_ = true;
    return;
  }
  if (!greeted_) {
    return Close(rpc::ToGrpcStatus(InvalidArgument("the first request must be `hello`")));
  }
  for (const pb::SessionCommand& command : message.commands()) OnCommand(command);
  switch (message.message_case()) {
    case pb::AttachRequest::kOpen:
      return Open(message.open());
    case pb::AttachRequest::kCommand:
      return OnCommand(message.command());
    case pb::AttachRequest::kFrames:
      return OnFrames(message.frames());
    default:
      return;  // commands alone, or of a newer client
  }
}

void AttachSession::Open(const pb::OpenSession& open) {
  const uint32_t session = open.session();
  if (seats_.contains(session)) {
    return Refuse(session, AlreadyExists("session {} is open on this stream", session));
  }
  if (seats_.size() >= kMaxSessions) {
    return Refuse(session, ResourceExhausted("a stream carries {} sessions", kMaxSessions));
  }
  absl::StatusOr<Ticket> ticket = ReadTicket(open);
  if (!ticket.ok()) return Refuse(session, ticket.status());
  Seat& seat = seats_[session];
  seat.sink = std::make_shared<AttachedParticipant>(Self<AttachSession>(), session);
  host_->Admit(
      *std::move(ticket), seat.sink, [self = Self<AttachSession>(), session](auto participant) {
        self->strand().Post([self, session, participant = std::move(participant)]() mutable {
          self->OnAdmitted(session, std::move(participant));
        });
      });
}

absl::StatusOr<Ticket> AttachSession::ReadTicket(const pb::OpenSession& open) const {
  PARLEY_ASSIGN_OR_RETURN(Ticket ticket, host_->ReadToken(open.token()));
  if (open.options().receive_codec() != pb::CODEC_UNSPECIFIED) {
    return InvalidArgument("receive_codec is for Join only; agent servers convert themselves");
  }
  if (!claims_.is_service() && claims_.project != ticket.room.project) {
    return PermissionDenied("the session's token belongs to another project than the stream's");
  }
  PARLEY_RETURN_IF_ERROR(Apply(open.options(), ticket.join));
  return ticket;
}

void AttachSession::OnAdmitted(uint32_t session,
                               absl::StatusOr<std::shared_ptr<room::Participant>> participant) {
  const auto seat = seats_.find(session);
  if (!participant.ok()) {
    if (seat != seats_.end()) seats_.erase(seat);
    return Refuse(session, participant.status());
  }
  // Over already: removed from the room, or the stream was lost, while we were being admitted.
  if (seat == seats_.end() || over_) {
    (*participant)->Leave(room::LeaveReason::kConnectionLost, "the connection was lost");
    return;
  }
  seat->second.participant = *std::move(participant);
  for (const auto& command : std::exchange(seat->second.early, {})) OnCommand(command);
}

void AttachSession::Refuse(uint32_t session, const absl::Status& status) {
  const ErrorReason why = ReasonOf(status);
  pb::AttachResponse response;
  pb::SessionClosed* closed = response.mutable_closed();
  closed->set_session(session);
  closed->set_code(static_cast<int32_t>(status.code()));
  closed->set_reason(why.reason);
  closed->set_message(std::string(Message(status)));
  if (const auto url = why.metadata.find("media_url"); url != why.metadata.end()) {
    closed->set_media_url(url->second);
  }
  if (const auto token = why.metadata.find("highest_token"); token != why.metadata.end()) {
    closed->set_highest_token(std::strtoull(token->second.c_str(), nullptr, 10));
  }
  SendOrClose(std::move(response));
}

void AttachSession::OnCommand(const pb::SessionCommand& command) {
  const auto seat = seats_.find(command.session());
  if (seat == seats_.end()) return;  // over; the client hears `closed`
  // A client may have heard `opened` before we did, and need not wait for it either.
  CommandOutcome outcome;
  if (seat->second.participant != nullptr) {
    outcome = Execute(*seat->second.participant, command.command());
  } else if (seat->second.early.size() < kMaxEarly) {
    return seat->second.early.push_back(command);
  } else {
    outcome.result = pb::CommandResult();
    outcome.result->set_request(command.command().update().request());
    outcome.result->set_code(static_cast<int32_t>(absl::StatusCode::kResourceExhausted));
    outcome.result->set_message("too many commands before `opened`");
  }
  if (outcome.published) seat->second.own.push_back(outcome.published->codec);
  if (!outcome.result) return;
  pb::AttachResponse response;
  response.mutable_event()->set_session(command.session());
  *response.mutable_event()->mutable_event()->mutable_result() = *std::move(outcome.result);
  SendOrClose(std::move(response));
}

void AttachSession::OnFrames(const pb::FrameBatch& batch) {
  RoomServerMetrics& metrics = host_->metrics();
  metrics.frames_in.Increment(batch.frames_size());
  int refused = 0;
  for (const pb::SessionFrame& frame : batch.frames()) {
    const auto seat = seats_.find(frame.session());
    if (seat == seats_.end() || seat->second.participant == nullptr) {
      ++refused;
      continue;
    }
    const std::vector<room::Codec>& own = seat->second.own;
    const uint32_t index = frame.track_number();
    if (index >= own.size() ||
        (frame.codec() != pb::CODEC_UNSPECIFIED && frame.codec() != ToProto(own[index])) ||
        seat->second.participant->SendFrame(index, {frame.timestamp(), frame.level(),
                                                    frame.data()}) == room::FrameResult::kInvalid) {
      ++refused;
    }
  }
  if (refused > 0) metrics.frames_refused.Increment(refused);
}

void AttachSession::OnClosed() {
  over_ = true;
  for (const auto& [session, seat] : std::exchange(seats_, {})) {
    if (seat.participant == nullptr) continue;
    seat.participant->Leave(room::LeaveReason::kConnectionLost,
                            "the connection of the agent server was lost");
  }
}

void AttachSession::SendOrClose(pb::AttachResponse response) {
  if (Send(std::move(response))) return;
  Close(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED,
                     "the agent server reads too slowly: 8192 messages are waiting"));
}

void AttachSession::OnSessionOver(uint32_t session) {
  strand().Post([self = Self<AttachSession>(), session] { self->seats_.erase(session); });
}

void AttachSession::AddFrame(uint32_t session, uint32_t track_number, room::Codec codec,
                             const room::Frame& frame) {
  const int64_t now_us = Clock::Real().MonotonicMicros();
  bool waiting = false;
  {
    MutexLock lock(&frames_mutex_);
    if (frames_.frames_size() >= kMaxHeldFrames) {
      host_->metrics().frames_late.Increment(double{kMaxHeldFrames / 2});
      frames_.mutable_frames()->DeleteSubrange(0, kMaxHeldFrames / 2);
    }
    pb::SessionFrame* out = frames_.add_frames();
    out->set_session(session);
    out->set_track_number(track_number);
    out->set_codec(ToProto(codec));
    out->set_timestamp(frame.timestamp);
    out->set_level(frame.level);
    out->set_data(frame.data.data(), frame.data.size());
    FlushLocked(now_us);
    waiting = frames_.frames_size() > 0;
  }
  if (waiting) host_->ticker().Arm();
}

void AttachSession::OnTick() {
  MutexLock lock(&frames_mutex_);
  FlushLocked(flushed_us_ + tick_us_);
  if (frames_.frames_size() > 0) host_->ticker().Arm();  // the stream is slow; once more
}

// Sends what is held when the last batch is a tick ago and the stream keeps up.
void AttachSession::FlushLocked(int64_t now_us) {
  if (frames_.frames_size() == 0 || now_us - flushed_us_ < tick_us_) return;
  if (queued() >= kLateAfter) return;
  flushed_us_ = std::max(now_us, Clock::Real().MonotonicMicros());
  const int frames = frames_.frames_size();
  pb::AttachResponse response;
  response.mutable_frames()->Swap(&frames_);
  frames_.Clear();
  if (!Send(std::move(response))) return host_->metrics().frames_late.Increment(frames);
  host_->metrics().frames_out.Increment(frames);
  host_->metrics().batches.Increment();
}

}  // namespace parley::room_server
