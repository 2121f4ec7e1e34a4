#include "agent/console/stage.h"

#include <unistd.h>

#include <utility>

#include "audio/pcm.h"
#include "base/status.h"

namespace parley::agent {
namespace {

namespace dispatchv1 = parley::dispatch::v1;
namespace jobv1 = parley::job::v1;
namespace roomv1 = parley::room::v1;

constexpr char kPerson[] = "you";
constexpr char kAgent[] = "agent";
constexpr char kRoom[] = "console";
constexpr char kTrackSid[] = "TR_you";
constexpr char kAgentTrackSid[] = "TR_agent";
constexpr uint32_t kTrack = 1;
constexpr int kRateHz = 48'000;
constexpr int kStopGraceMs = 5'000;
constexpr size_t kMaxOutputLine = 16 * 1024;

absl::Status StatusOf(const jobv1::Ended& ended) {
  switch (ended.reason()) {
    case dispatchv1::JOB_REASON_PARTICIPANTS_LEFT:
    case dispatchv1::JOB_REASON_SHUTDOWN:
    case dispatchv1::JOB_REASON_ROOM_CLOSED:
    case dispatchv1::JOB_REASON_TERMINATED:
      return absl::OkStatus();
    default:
      return Unavailable("{}: {}", dispatchv1::JobReason_Name(ended.reason()), ended.error());
  }
}

}  // namespace

Stage::Stage(std::shared_ptr<event::Loop> loop, Gateways& gateways, supervise::JobForked forked,
             Options options, Callbacks callbacks)
    : loop_(std::move(loop)),
      options_(std::move(options)),
      callbacks_(std::move(callbacks)),
      output_(std::move(forked.output)),
      output_watcher_(*loop_, output_.get()),
      decoder_(audio::OpusDecoder::Create(kRateHz)),
      decoded_(audio::OpusDecoder::MaxSamples(kRateHz)) {
  output_watcher_.Start(true, false, [this](bool, bool) { OnOutput(); });
  socket_ = std::make_unique<JobSocket>(
      *loop_, std::move(forked.socket),
      JobSocket::Callbacks{
          .on_message = [this](const jobv1::FromJob& message) { OnMessage(message); },
          .on_closed = [](const std::string&) {}});
  jobv1::ToJob message;
  jobv1::Assignment& assignment = *message.mutable_assignment();
  dispatchv1::Assignment& job = *assignment.mutable_job();
  job.set_job_id("AJ_console");
  job.set_dispatch_id("AD_console");
  job.set_session_id("AS_console");
  job.set_fencing_token(1);
  job.set_attempt(1);
  job.set_project("default");
  job.set_agent_name(options_.agent_name);
  job.set_room(kRoom);
  job.set_metadata(options_.metadata);
  assignment.set_identity(kAgent);
  assignment.set_name(options_.agent_name);
  auto& context = *assignment.mutable_context();
  context.set_project(job.project());
  context.set_agent_id(options_.agent_name);
  context.set_session_id(job.session_id());
  streams_ = std::make_shared<GatewayStreams>(loop_, gateways, context,
                                              [this](jobv1::ToJob& event) { Send(event); });
  Send(message);
}

Stage::~Stage() = default;

void Stage::Send(const roomv1::RoomEvent& event) {
  jobv1::ToJob message;
  *message.mutable_room_event() = event;
  Send(message);
}

// ---- the person ----

void Stage::Write(const std::string& text) {
  roomv1::RoomEvent event;
  roomv1::TextPacket& packet = *event.mutable_text();
  packet.set_stream_id(std::to_string(++texts_));
  packet.set_topic("lk.chat");
  packet.set_from_identity(kPerson);
  packet.set_text(text);
  packet.set_final(true);
  Send(event);
}

void Stage::Hear(std::span<const int16_t> frame) {
  jobv1::AudioIn& audio = *heard_.mutable_audio();
  audio.set_track_number(kTrack);
  audio.set_codec(roomv1::CODEC_PCM16);
  audio.set_data(std::string(audio::AsBytes(frame)));
  socket_->SendFresh(heard_, /*wait=*/false);
}

void Stage::Leave() {
  roomv1::RoomEvent event;
  event.mutable_participant_left()->set_identity(kPerson);
  event.mutable_participant_left()->set_reason(roomv1::DISCONNECT_REASON_CLIENT_INITIATED);
  Send(event);
}

void Stage::Stop() {
  jobv1::ToJob message;
  message.mutable_shutdown()->set_why(jobv1::Shutdown::TERMINATED);
  message.mutable_shutdown()->set_grace_ms(kStopGraceMs);
  Send(message);
}

void Stage::OnExited(const supervise::JobExited& exited) {
  socket_->Drain();
  OnOutput();
  End(exited.signal != 0 ? Unavailable("the job process was killed by signal {}", exited.signal)
                         : Unavailable("the job process ended without a word, with exit code {}",
                                       exited.exit_code));
}

void Stage::End(const absl::Status& status) {
  if (!std::exchange(ended_, true)) callbacks_.ended(status);
}

// ---- the job ----

void Stage::OnMessage(const jobv1::FromJob& message) {
  using Message = jobv1::FromJob;
  switch (message.message_case()) {
    case Message::kJoin:
      return OnJoin();
    case Message::kRoomCommand:
      return OnRoomCommand(message.room_command());
    case Message::kAudio:
      return OnAudio(message.audio());
    case Message::kStt:
      if (options_.sound) streams_->OnStt(message.stt());
      return;
    case Message::kTts:
      return OnTts(message.tts());
    case Message::kLlm:
      return streams_->OnLlm(message.llm());
    case Message::kRealtime:
      return streams_->OnRealtime(message.realtime());
    case Message::kToolCall: {
      if (message.tool_call().cancel()) return;
      jobv1::ToJob result;
      result.mutable_tool_result()->set_call(message.tool_call().call());
      result.mutable_tool_result()->set_is_error(true);
      result.mutable_tool_result()->set_output("the tool has no function, and there is no server");
      return Send(result);
    }
    case Message::kLog:
      return callbacks_.log(message.log());
    case Message::kTurn:
      return callbacks_.turn(message.turn());
    case Message::kEnded:
      return End(StatusOf(message.ended()));
    default:
      return;
  }
}

void Stage::OnJoin() {
  jobv1::ToJob message;
  roomv1::Joined& joined = *message.mutable_joined();
  joined.mutable_room()->set_name(kRoom);
  joined.mutable_participant()->set_identity(kAgent);
  roomv1::Participant& person = *joined.add_others();
  person.set_identity(kPerson);
  person.set_name(kPerson);
  person.set_kind(roomv1::PARTICIPANT_KIND_STANDARD);
  Send(message);
  if (!options_.sound) return;
  roomv1::RoomEvent event;
  auto& started = *event.mutable_subscription_started();
  started.set_participant_identity(kPerson);
  started.mutable_track()->set_sid(kTrackSid);
  started.mutable_track()->set_kind(roomv1::TRACK_KIND_AUDIO);
  started.mutable_track()->set_source(roomv1::TRACK_SOURCE_MICROPHONE);
  started.set_track_number(kTrack);
  Send(event);
}

void Stage::OnRoomCommand(const roomv1::ParticipantCommand& command) {
  if (command.has_publish()) {
    roomv1::RoomEvent event;
    auto& published = *event.mutable_track_published();
    published.set_participant_identity(kAgent);
    published.set_cid(command.publish().cid());
    published.mutable_track()->set_sid(kAgentTrackSid);
    Send(event);
    event.mutable_track_subscribed()->set_track_sid(kAgentTrackSid);
    event.mutable_track_subscribed()->set_subscriber_identity(kPerson);
    return Send(event);
  }
  if (command.has_update()) {
    const auto& attributes = command.update().attributes();
    const auto state = attributes.find("lk.agent.state");
    if (state != attributes.end()) callbacks_.agent_state(state->second);
  }
  if (command.has_text()) OnText(command.text());
}

// A person's text comes whole each time, the agent's in pieces.
void Stage::OnText(const roomv1::TextPacket& packet) {
  if (packet.topic() != "lk.transcription") return;
  const auto final = packet.attributes().find("lk.transcription_final");
  const bool over = final != packet.attributes().end() && final->second == "true";
  if (packet.from_identity() != kAgent) return callbacks_.said(false, packet.text(), over);
  agent_text_ += packet.text();
  callbacks_.said(true, agent_text_, over);
  if (over) agent_text_.clear();
}

void Stage::OnAudio(const jobv1::AudioOut& audio) {
  // Of the voice; a terminal plays no background.
  if (!decoder_.ok() || audio.track_number() != 0) return;
  const auto count = decoder_->Decode(audio.data(), decoded_);
  if (count.ok()) callbacks_.audio(std::span(decoded_).first(*count));
}

void Stage::OnTts(const jobv1::TtsCommand& command) {
  if (options_.sound) return streams_->OnTts(command);
  if (!command.has_flush()) return;
  jobv1::ToJob message;  // read, not heard: done as soon as it is there
  message.mutable_tts()->set_stream(command.stream());
  message.mutable_tts()->mutable_response()->mutable_done()->set_segment(command.flush().segment());
  Send(message);
}

void Stage::OnOutput() {
  char piece[4096];
  ssize_t got = 0;
  while ((got = read(output_.get(), piece, sizeof piece)) > 0) {
    output_line_.append(piece, static_cast<size_t>(got));
    for (size_t end = output_line_.find('\n');
         end != std::string::npos || output_line_.size() > kMaxOutputLine;
         end = output_line_.find('\n')) {
      jobv1::LogLine line;
      line.set_level("info");
      line.set_message(output_line_.substr(0, end));
      output_line_.erase(0, end == std::string::npos ? end : end + 1);
      callbacks_.log(line);
    }
  }
  if (got == 0) output_watcher_.Stop();
}

}  // namespace parley::agent
