#include "agent/job/conversation.h"

#include <google/protobuf/timestamp.pb.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <thread>

#include "agent/job/convert.h"
#include "audio/pcm.h"
#include "base/status.h"

namespace parley::agent {
namespace {

namespace command = session::command;
namespace event_ = session::event;
namespace jobv1 = parley::job::v1;
namespace roomv1 = parley::room::v1;
namespace speechv1 = parley::speech::v1;

constexpr char kChatTopic[] = "lk.chat";
constexpr char kTurnTopic[] = "parley.turn";
constexpr char kStalledTopic[] = "parley.stalled";
constexpr char kTurnReportTopic[] = "parley.turn_report";
constexpr char kBackgroundCid[] = "agent-background";
constexpr uint32_t kBackgroundTrack = 1;  // its own tracks, by number: the voice is 0
constexpr size_t kMaxChats = 16;
constexpr size_t kMaxWaitingEvents = 4096;  // while paused: some seconds of engines' answers
constexpr size_t kMaxChatBytes = size_t{16} * 1024;
constexpr size_t kMaxTranscriptItems = 2'000;
constexpr int64_t kFrameUs = 20'000;
constexpr uint32_t kUnknownLevel = 127;
constexpr size_t kMaxScribes = 16;
// Beyond any number that a session gives.
constexpr uint32_t kFirstScribeStream = 1U << 30;
constexpr absl::Duration kToolMargin = absl::Milliseconds(500);

std::vector<session::ToolSpec> SpecsOf(const std::vector<Tool>& tools) {
  std::vector<session::ToolSpec> specs;
  for (const Tool& tool : tools) {
    // Whoever runs the tool gives up first, and says why.
    specs.push_back({tool.name, tool.timeout + kToolMargin, tool.filler, tool.confirm_duplicates});
  }
  return specs;
}

session::Character CharacterOf(const AgentConfig& agent) {
  return {.name = agent.name,
          .instructions = agent.instructions,
          .greeting = agent.greeting,
          .tools = SpecsOf(agent.tools),
          .farewell = agent.farewell,
          .handoffs = agent.handoffs,
          .context = agent.context};
}

std::vector<session::Character> CharactersOf(const SessionConfig& config) {
  std::vector<session::Character> agents = {{.name = config.name,
                                             .instructions = config.instructions,
                                             .greeting = config.greeting,
                                             .tools = SpecsOf(config.tools),
                                             .farewell = config.farewell,
                                             .handoffs = config.handoffs}};
  for (const AgentConfig& one : config.agents) agents.push_back(CharacterOf(one));
  return agents;
}

void Give(const jobv1::AudioIn& audio, Listener& listener) {
  if (audio.codec() == roomv1::CODEC_PCM16) {
    listener.OnPcm(audio.data());
  } else {
    listener.OnOpus(audio.data(), audio.timestamp(), audio.level());
  }
}

std::string ErrorText(const jobv1::StreamFailed& failed) {
  return failed.reason().empty() ? failed.message() : failed.reason() + ": " + failed.message();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Conversation>> Conversation::Create(
    event::Loop& loop, std::shared_ptr<Mailbox> mailbox, Host host, const RoomView& room,
    const jobv1::Assignment& assignment, SessionConfig config, HooksByName hooks) {
  PARLEY_RETURN_IF_ERROR(CheckConfig(config));
  PARLEY_ASSIGN_OR_RETURN(audio::OpusEncoder encoder, Playout::MakeEncoder());
  std::unique_ptr<Conversation> made(new Conversation(loop, std::move(mailbox), std::move(host),
                                                      room, assignment, std::move(config),
                                                      std::move(hooks)));
  Conversation* self = made.get();
  Listener::Sinks ears = {.voice =
                              [self](bool speech, int64_t quiet_us) {
                                // Whoever is interrupted is to know what was heard.
                                self->playout_->TellProgress();
                                if (speech) quiet_us += self->late_us_;
                                self->Handle(event_::Voice{speech, quiet_us}, self->heard_us_);
                              },
                          .recogniser =
                              [self](std::string_view pcm16) {
                                if (self->config_.realtime) {
                                  parley::llm::v1::RealtimeRequest request;
                                  request.mutable_audio()->assign(pcm16);
                                  return self->SendRealtime(self->stt_stream_, std::move(request));
                                }
                                jobv1::SttCommand& stt = *self->stt_audio_.mutable_stt();
                                stt.set_stream(self->stt_stream_);
                                stt.mutable_audio()->assign(pcm16);
                                self->host_.send(self->stt_audio_);
                              },
                          .heard = {}};
  std::function<void(std::span<const int16_t>, int64_t)> said;
  if (made->config_.record_sound) {
    ears.heard = [self](std::span<const int16_t> frame) {
      if (self->sound_ != nullptr) self->sound_->OnCaller(frame, self->heard_us_);
    };
    said = [self](std::span<const int16_t> frame, int64_t due_us) {
      if (self->sound_ != nullptr) self->sound_->OnAgent(frame, due_us + kFrameUs);
    };
  }
  PARLEY_ASSIGN_OR_RETURN(made->listener_, Listener::Create(std::move(ears), made->NewVad()));
  made->playout_ = std::make_unique<Playout>(
      loop, std::move(encoder),
      Playout::Sinks{.frame =
                         [self](const Playout::Frame& frame) {
                           jobv1::AudioOut& audio = *self->audio_out_.mutable_audio();
                           audio.set_codec(roomv1::CODEC_OPUS);
                           audio.set_timestamp(frame.timestamp);
                           audio.set_level(frame.level);
                           audio.mutable_data()->assign(
                               frame.packet);  // set_data makes a copy first
                           audio.set_due_us(frame.due_us);
                           self->host_.send_fresh(self->audio_out_, frame.more);
                         },
                     .cut =
                         [self](int64_t after_us) {
                           jobv1::FromJob message;
                           message.mutable_audio_cut()->set_after_us(after_us);
                           self->host_.send(message);
                         },
                     .played = std::move(said),
                     .progress =
                         [self](uint64_t speech, int64_t position_us) {
                           self->Handle(event_::Played{speech, position_us});
                         }},
      absl::Milliseconds(assignment.audio_ahead_ms()));
  PARLEY_RETURN_IF_ERROR(made->MakeBackground(absl::Milliseconds(assignment.audio_ahead_ms())));
  PARLEY_RETURN_IF_ERROR(made->StartRecording());
  return made;
}

absl::Status Conversation::MakeBackground(absl::Duration ahead) {
  const auto silent = [](const BackgroundSound& one) {
    return one.name.empty() && one.samples.empty();
  };
  if (silent(config_.background.ambient) && silent(config_.background.thinking)) {
    return absl::OkStatus();
  }
  const auto send = [this](const BackgroundPlayer::Frame& frame) {
    jobv1::AudioOut& audio = *background_out_.mutable_audio();
    audio.set_track_number(kBackgroundTrack);
    audio.set_codec(roomv1::CODEC_OPUS);
    audio.set_timestamp(frame.timestamp);
    audio.set_level(kUnknownLevel);  // nobody is to be shown as speaking for it
    audio.mutable_data()->assign(frame.packet);
    audio.set_due_us(frame.due_us);
    host_.send_fresh(background_out_, frame.more);
  };
  PARLEY_ASSIGN_OR_RETURN(background_,
                          BackgroundPlayer::Create(loop_, config_.background, send, ahead));
  return absl::OkStatus();
}

void Conversation::UpdateBackground() {
  if (background_ == nullptr) return;
  const session::AgentState state = session_.state();
  const bool present = state != session::AgentState::kInitializing &&
                       state != session::AgentState::kIdle && !paused_ && !ended_;
  background_->Play(present, present && state == session::AgentState::kThinking);
}

Conversation::Conversation(event::Loop& loop, std::shared_ptr<Mailbox> mailbox, Host host,
                           const RoomView& room, const jobv1::Assignment& assignment,
                           SessionConfig config, HooksByName hooks)
    : loop_(loop),
      mailbox_(std::move(mailbox)),
      host_(std::move(host)),
      room_(room),
      config_(std::move(config)),
      hooks_(std::move(hooks)),
      context_(assignment.context()),
      session_id_(assignment.job().session_id()),
      participant_identity_(assignment.job().participant_identity()),
      segment_prefix_("SG_" + assignment.job().job_id() + "_" +
                      std::to_string(assignment.job().fencing_token()) + "_"),
      voices_(VoicesOf(config_)),
      recording_timer_(loop),
      session_(config_.options, CharactersOf(config_)),
      timer_(loop),
      hand_over_timer_(loop) {
  if (config_.on_recording || config_.record) {
    session_.RecordTo(&recorder_.emplace([this](std::string_view line) { KeepLine(line); }));
  }
  const std::string& checkpoint = assignment.job().checkpoint();
  if (!assignment.job().resuming() || checkpoint.empty()) return;
  if (const absl::Status restored = session_.Restore(checkpoint); !restored.ok()) {
    Warn("the checkpoint cannot be used; the conversation begins anew",
         std::string(Message(restored)));
  }
}

std::unique_ptr<audio::Vad> Conversation::NewVad() {
  if (config_.vad != VoiceDetector::kSilero) return audio::NewWebrtcVad();
  if (VadModel() != nullptr) return audio::NewSileroVad(VadModel());
  Warn("the neural voice detector is not here; the other one listens",
       "name its file with --vad-model");
  return audio::NewWebrtcVad();
}

Conversation::~Conversation() { *self_ = nullptr; }

Conversation::Voice Conversation::VoiceOf(const SessionConfig& config, const AgentConfig& agent) {
  // A recording of the sound wants samples, and what is put together of pieces.
  const bool ready_opus = !config.record_sound && !config.realtime;
  return {ChatRequestOf(config, agent), SynthesizeConfigOf(agent.tts, Playout::kRateHz, ready_opus),
          agent.tools};
}

std::map<std::string, Conversation::Voice> Conversation::VoicesOf(const SessionConfig& config) {
  std::map<std::string, Voice> voices;
  const auto add = [&](const std::string& name, const AgentConfig& agent) {
    voices[name] = VoiceOf(config, agent);
  };
  const AgentConfig first{
      .llm = config.llm, .tts = config.tts, .tools = config.tools, .handoffs = config.handoffs};
  add("", first);
  add(config.name, first);
  for (AgentConfig one : config.agents) {
    if (one.llm.empty()) one.llm = config.llm;
    if (one.tts.empty()) one.tts = config.tts;
    add(one.name, one);
  }
  return voices;
}

const Conversation::Voice& Conversation::VoiceOf(const std::string& agent) const {
  const auto found = voices_.find(agent);
  return found == voices_.end() ? voices_.at("") : found->second;
}

AgentHooks* Conversation::HooksOf(const std::string& agent) const {
  const auto found = hooks_.find(agent);
  return found == hooks_.end() ? nullptr : found->second.get();
}

void Conversation::TellPresent() const {
  std::vector<std::shared_ptr<AgentHooks>> present;
  for (const std::string& name : present_) {
    if (const auto found = hooks_.find(name); found != hooks_.end()) {
      present.push_back(found->second);
    }
  }
  host_.present(std::move(present));
}

void Conversation::AddAgent(AgentConfig agent, std::shared_ptr<AgentHooks> hooks,
                            session::SwitchKind how) {
  if (ended_) {
    if (hooks != nullptr) hooks->SessionOver();
    return;
  }
  if (agent.llm.empty()) agent.llm = config_.llm;
  if (agent.tts.empty()) agent.tts = config_.tts;
  voices_[agent.name] = VoiceOf(config_, agent);
  hooks_.erase(agent.name);
  if (hooks != nullptr) hooks_[agent.name] = std::move(hooks);
  Handle(event_::AddAgent{CharacterOf(agent)});
  Handle(event_::SetAgent{.name = agent.name, .how = how});
}

void Conversation::Start() {
  jobv1::FromJob publish;
  roomv1::PublishTrack& track = *publish.mutable_room_command()->mutable_publish();
  track.set_cid(kVoiceCid);
  track.set_name("roomio_audio");
  track.set_kind(roomv1::TRACK_KIND_AUDIO);
  track.set_source(roomv1::TRACK_SOURCE_MICROPHONE);
  track.set_codec(roomv1::CODEC_OPUS);
  host_.send(publish);
  if (background_ != nullptr) {
    track.set_cid(kBackgroundCid);
    track.set_name("background_audio");
    track.set_source(roomv1::TRACK_SOURCE_UNSPECIFIED);
    host_.send(publish);
  }
  session_.Start(loop_.NowMicros());
  event_::Joined joined;
  for (session::Person& person : room_.people()) {
    if (participant_identity_.empty() || person.identity == participant_identity_) {
      joined.people.push_back(std::move(person));
    }
  }
  // Whoever takes a conversation over is in already.
  present_ = {session_.agent()};
  TellPresent();
  AgentHooks* const hooks = HooksOf(session_.agent());
  if (hooks != nullptr && session_.history().items().empty()) hooks->Enter();
  Handle(std::move(joined));
}

void Conversation::Handle(session::Event event, int64_t now_us) {
  if (ended_ || (paused_ && events_.size() >= kMaxWaitingEvents)) return;
  // Doing a command may itself make an event (the first frame that is played): it waits its turn.
  if (driving_ || paused_) {
    events_.emplace_back(std::move(event), now_us);
    return;
  }
  session_.Handle(event, now_us);
  Drive();
}

void Conversation::Drive() {
  driving_ = true;
  while (!ended_) {
    std::vector<session::Command> commands = session_.Take();
    for (const session::Command& one : commands) {
      std::visit([this](const auto& command) { Do(command); }, one);
    }
    if (!commands.empty()) continue;
    if (events_.empty()) break;
    const auto [event, at_us] = std::move(events_.front());
    events_.pop_front();
    session_.Handle(event, at_us);
  }
  driving_ = false;
  if (ended_) return;
  Arm();
  if (hand_over_ != nullptr && session_.at_rest()) FinishHandOver();
}

void Conversation::Arm() {
  const int64_t deadline_us = session_.deadline_us();
  // Deadlines move away with nearly every frame: a timer that is early enough is left alone and
  // looks again when it rings.
  if (armed_us_ <= deadline_us) return;
  armed_us_ = deadline_us;
  const int64_t wait_us = std::max<int64_t>(deadline_us - loop_.NowMicros(), 0);
  timer_.StartOnce(absl::Microseconds(wait_us), [this] {
    armed_us_ = std::numeric_limits<int64_t>::max();
    session_.Tick(loop_.NowMicros());
    Drive();
  });
}

// ---- in ----

void Conversation::OnMessage(const jobv1::ToJob& message, int64_t now_us) {
  switch (message.message_case()) {
    case jobv1::ToJob::kAudio:
      return OnAudio(message.audio(), now_us);
    case jobv1::ToJob::kRoomEvent:
      return OnRoomEvent(message.room_event(), now_us);
    case jobv1::ToJob::kStt:
      return OnStt(message.stt(), now_us);
    case jobv1::ToJob::kLlm:
      return OnLlm(message.llm(), now_us);
    case jobv1::ToJob::kTts:
      return OnTts(message.tts(), now_us);
    case jobv1::ToJob::kRealtime:
      return OnRealtime(message.realtime(), now_us);
    case jobv1::ToJob::kToolResult: {
      const jobv1::ToolResult& result = message.tool_result();
      return Handle(event_::ToolDone{result.call(), result.output(), result.is_error()}, now_us);
    }
    default:
      return;
  }
}

void Conversation::OnRoomEvent(const roomv1::RoomEvent& event, int64_t now_us) {
  switch (event.event_case()) {
    case roomv1::RoomEvent::kParticipantJoined: {
      const roomv1::Participant& one = event.participant_joined().participant();
      const bool wanted = participant_identity_.empty() || one.identity() == participant_identity_;
      if (!wanted || !room_.IsPerson(one.identity())) return;
      return Handle(event_::PersonJoined{{one.identity(), one.name()}}, now_us);
    }
    case roomv1::RoomEvent::kParticipantLeft: {
      const roomv1::ParticipantLeft& left = event.participant_left();
      if (room_.Has(left.identity())) return;  // an older connection of somebody who is back
      scribes_.erase(left.identity());
      return Handle(event_::PersonLeft{left.identity(), LeftForGood(left.reason())}, now_us);
    }
    case roomv1::RoomEvent::kTrackSubscribed:
      if (event.track_subscribed().track_sid() != room_.own_track()) return;
      return Handle(event_::OutputSubscribed{}, now_us);
    case roomv1::RoomEvent::kText:
      return OnText(event.text(), now_us);
    case roomv1::RoomEvent::kData:
      return OnData(event.data(), now_us);
    case roomv1::RoomEvent::kDisconnected: {
      event_::RoomClosed closed;
      closed.reason = EndOf(event.disconnected(), closed.error);
      return Handle(std::move(closed), now_us);
    }
    default:
      return;
  }
}

void Conversation::OnText(const roomv1::TextPacket& packet, int64_t now_us) {
  if (packet.topic() != kChatTopic || packet.from_identity() == room_.own_identity()) return;
  if (chats_.size() >= kMaxChats && !chats_.contains(packet.stream_id())) return;
  std::string& text = chats_[packet.stream_id()];
  text += std::string_view(packet.text())
              .substr(0, kMaxChatBytes - std::min(text.size(), kMaxChatBytes));
  if (!packet.final()) return;
  event_::Chat chat{packet.from_identity(), std::move(text)};
  chats_.erase(packet.stream_id());
  Handle(std::move(chat), now_us);
}

// The caller's own button, where turns are taken by hand.
void Conversation::OnData(const roomv1::DataPacket& packet, int64_t now_us) {
  if (packet.topic() == kDtmfTopic) {
    const std::string& keys = packet.payload();
    if (keys.size() != 1 || event_::kDtmfKeys.find(keys) == std::string_view::npos) return;
    const char key = keys.front();
    if (config_.on_dtmf) config_.on_dtmf(packet.from_identity(), key);
    return Handle(event_::Dtmf{packet.from_identity(), key}, now_us);
  }
  if (config_.on_data) config_.on_data(packet.from_identity(), packet.topic(), packet.payload());
  if (packet.topic() != kTurnTopic || packet.from_identity() != linked_) return;
  if (packet.payload() == "commit") return Handle(event_::CommitTurn{}, now_us);
  if (packet.payload() == "clear") return Handle(event_::ClearTurn{}, now_us);
  using session::TurnDetection;
  for (const auto one : {TurnDetection::kVad, TurnDetection::kStt, TurnDetection::kSemantic,
                         TurnDetection::kManual}) {
    if (packet.payload() == fmt::format("detect {}", session::Name(one))) {
      return Handle(event_::SetTurnDetection{one}, now_us);
    }
  }
}

void Conversation::OnAudio(const jobv1::AudioIn& audio, int64_t now_us) {
  if (paused_) return;
  if (linked_.empty() || !room_.IsVoiceOf(linked_, audio.track_number()))
    return OnOtherAudio(audio);
  heard_us_ = now_us;
  late_us_ = lateness_.Of(audio.timestamp(), now_us);
  Give(audio, *listener_);
}

void Conversation::OnOtherAudio(const jobv1::AudioIn& audio) {
  if (!config_.transcribe_everybody || ended_) return;
  const std::string identity = room_.SpeakerOf(audio.track_number());
  if (identity.empty() || identity == linked_ || !room_.IsPerson(identity)) return;
  auto found = scribes_.find(identity);
  if (found == scribes_.end()) {
    if (scribes_.size() >= kMaxScribes) return;
    speechv1::RecognizeConfig config = RecognizeConfigOf(config_);
    *config.mutable_context() = ContextOf("");
    auto made = Scribe::Create(
        loop_, NewVad(), std::move(config), config_.options,
        {.send = host_.send,
         .text = [this, identity](uint64_t utterance, std::string_view text,
                                  bool final) { Overhear(identity, utterance, text, final); },
         .new_stream = [this] { return kFirstScribeStream + ++scribe_streams_; }});
    if (!made.ok())
      return Warn("somebody cannot be transcribed", std::string(Message(made.status())));
    found = scribes_.emplace(identity, *std::move(made)).first;
  }
  Give(audio, found->second->listener());
}

void Conversation::Overhear(const std::string& identity, uint64_t utterance, std::string_view text,
                            bool final) {
  if (config_.publish_transcripts) {
    const std::string segment = segment_prefix_ + identity + "_" + std::to_string(utterance);
    SendText(segment + "." + std::to_string(++user_texts_), segment, text, true, final, identity);
  }
  if (!final || text.empty()) return;
  if (config_.on_overheard) config_.on_overheard(identity, text);
  session::Person person{.identity = identity};
  for (const session::Person& one : room_.people()) {
    if (one.identity == identity) person = one;
  }
  Handle(event_::Overheard{std::move(person), std::string(text)});
}

void Conversation::OnStt(const jobv1::SttEvent& event, int64_t now_us) {
  const uint32_t stream = event.stream();
  for (const auto& [identity, scribe] : scribes_) {
    const std::shared_ptr<Scribe> held = scribe;  // its words may end the session
    if (held->OnStt(event)) return;
  }
  if (event.has_failed())
    return Handle(event_::SttFailed{stream, ErrorText(event.failed())}, now_us);
  if (event.has_closed()) return Handle(event_::SttFailed{stream, "the stream ended"}, now_us);
  const speechv1::RecognizeResponse& response = event.response();
  if (response.has_partial())
    return Handle(event_::SttPartial{stream, response.partial().text()}, now_us);
  if (response.has_activity()) {
    const bool speech = response.activity().kind() == speechv1::Activity::KIND_SPEECH_STARTED;
    return Handle(event_::SttActivity{stream, speech}, now_us);
  }
  if (response.has_usage()) {
    return Handle(event_::SttUsage{stream, response.usage().audio_seconds()}, now_us);
  }
  if (!response.has_final()) return;
  const speechv1::Transcript& final = response.final();
  Handle(event_::SttFinal{stream, final.utterance(), final.text()}, now_us);
}

void Conversation::OnLlm(const jobv1::LlmEvent& event, int64_t now_us) {
  const uint32_t stream = event.stream();
  if (event.has_failed())
    return Handle(event_::LlmFailed{stream, ErrorText(event.failed())}, now_us);
  const auto& response = event.response();
  if (response.has_text()) return Handle(event_::LlmText{stream, response.text().text()}, now_us);
  if (response.has_tool_call()) {
    const auto& call = response.tool_call();
    return Handle(event_::LlmToolCall{stream, call.call_id(), call.name(), call.arguments_json()},
                  now_us);
  }
  if (!response.has_done()) return;
  const auto& usage = response.done().usage();
  Handle(event_::LlmDone{stream, usage.input_tokens(), usage.output_tokens()}, now_us);
}

void Conversation::OnTts(const jobv1::TtsEvent& event, int64_t now_us) {
  const uint32_t stream = event.stream();
  if (event.has_failed())
    return Handle(event_::TtsFailed{stream, ErrorText(event.failed())}, now_us);
  if (event.has_closed()) return Handle(event_::TtsClosed{stream}, now_us);
  if (stream != tts_stream_) return;  // what was cancelled still trickles in
  const speechv1::SynthesizeResponse& response = event.response();
  if (config_.realtime) return OnAside(stream, response, now_us);
  if (response.has_audio()) return OnTtsAudio(stream, response.audio(), now_us);
  if (response.has_done() && !response.done().cancelled()) {
    Handle(event_::TtsSegmentDone{stream, response.done().segment()}, now_us);
  }
}

void Conversation::OnTtsAudio(uint32_t stream, const speechv1::SynthesizedAudio& audio,
                              int64_t now_us) {
  samples_.clear();
  audio::AppendSamples(audio.data(), samples_);
  const bool leveled = audio.levels().size() == static_cast<size_t>(audio.packets_size());
  for (int i = 0; i < audio.packets_size(); ++i) {
    const uint32_t level =
        leveled ? static_cast<uint8_t>(audio.levels()[static_cast<size_t>(i)]) : kUnknownLevel;
    playout_->AppendPacket(audio.packets(i), std::min(level, kUnknownLevel));
  }
  const auto count = static_cast<int64_t>(samples_.size()) +
                     audio.packets_size() * static_cast<int64_t>(Playout::kFrameSamples);
  event_::TtsAudio heard{
      stream, audio.segment(), audio::SamplesToMicros(count, Playout::kRateHz), {}};
  AddWords(audio.words(), heard.words);
  playout_->Append(samples_);
  Handle(std::move(heard), now_us);
}

// ---- out ----

parley::common::v1::CallContext Conversation::ContextOf(const std::string& turn_id) const {
  parley::common::v1::CallContext context = context_;
  context.set_turn_id(turn_id);
  return context;
}

void Conversation::Do(const command::Link& link) {
  linked_ = link.identity;
  scribes_.erase(linked_);
  listener_->Reset();
  lateness_.Reset();
  if (ServerTurns()) listener_->Feed(absl::ZeroDuration());
}

void Conversation::Do(const command::SttOpen& open) {
  stt_stream_ = open.stream;
  if (config_.realtime) return OpenRealtime(open);
  jobv1::FromJob message;
  message.mutable_stt()->set_stream(open.stream);
  *message.mutable_stt()->mutable_open() = RecognizeConfigOf(config_);
  *message.mutable_stt()->mutable_open()->mutable_context() = ContextOf("");
  host_.send(message);
}

void Conversation::Do(const command::SttStart& start) { listener_->Feed(start.preroll); }

void Conversation::Do(const command::SttEnd& end) {
  listener_->StopFeeding();
  if (config_.realtime) {
    parley::llm::v1::RealtimeRequest request;
    request.mutable_commit()->set_utterance(end.utterance);
    return SendRealtime(end.stream, std::move(request));
  }
  jobv1::FromJob message;
  message.mutable_stt()->set_stream(end.stream);
  message.mutable_stt()->mutable_end_utterance()->set_utterance(end.utterance);
  host_.send(message);
}

void Conversation::Do(const command::SttClose& close) {
  jobv1::FromJob message;
  if (config_.realtime) {
    message.mutable_realtime()->set_stream(close.stream);
    message.mutable_realtime()->mutable_close();
    return host_.send(message);
  }
  message.mutable_stt()->set_stream(close.stream);
  message.mutable_stt()->mutable_close();
  host_.send(message);
}

void Conversation::Do(const command::ReviewTurn& turn) {
  const auto reviewed = [mailbox = mailbox_, self = self_](event_::TurnReviewed answer) {
    mailbox->Post([self, answer = std::move(answer)]() mutable {
      if (*self != nullptr) (*self)->Handle(std::move(answer));
    });
  };
  AgentHooks* const hooks = HooksOf(session_.agent());
  if (hooks != nullptr) return hooks->Review(turn.review, turn.text, reviewed);
  reviewed({.review = turn.review, .text = turn.text});
}

void Conversation::Do(const command::LlmChat& chat) {
  jobv1::FromJob message;
  message.mutable_llm()->set_stream(chat.stream);
  auto& request = *message.mutable_llm()->mutable_chat();
  request = VoiceOf(chat.agent).chat;
  *request.mutable_context() = ContextOf(chat.turn_id);
  request.mutable_context()->set_deadline_unix_ms(absl::ToUnixMillis(absl::Now() + chat.timeout));
  if (!chat.allow_tools && request.tools_size() > 0) request.set_tool_choice("none");
  AddItems(chat.items, request);
  host_.send(message);
}

void Conversation::Do(const command::LlmCancel& cancel) {
  if (config_.realtime) {
    if (response_ == cancel.stream) response_ = 0;
    parley::llm::v1::RealtimeRequest request;
    request.mutable_cancel()->set_response(cancel.stream);
    return SendRealtime(stt_stream_, std::move(request));
  }
  jobv1::FromJob message;
  message.mutable_llm()->set_stream(cancel.stream);
  message.mutable_llm()->mutable_cancel();
  host_.send(message);
}

void Conversation::Do(const command::CallTool& call) {
  const std::vector<Tool>& tools = VoiceOf(call.agent).tools;
  const auto tool = std::find_if(tools.begin(), tools.end(),
                                 [&](const Tool& one) { return one.name == call.name; });
  if (tool == tools.end() || tool->run == nullptr) {
    jobv1::FromJob message;
    message.mutable_tool_call()->set_call(call.call);
    message.mutable_tool_call()->set_name(call.name);
    message.mutable_tool_call()->set_arguments_json(call.arguments_json);
    return host_.send(message);
  }
  // The program's own code: it may block, so it has a thread; a result that comes too late finds
  // nobody.
  const auto owner = hooks_.find(call.agent.empty() ? config_.name : call.agent);
  std::thread([run = tool->run, handoff = tool->handoff, call,
               owner = owner == hooks_.end() ? nullptr : owner->second, mailbox = mailbox_,
               self = self_] {
    absl::StatusOr<std::string> result = absl::InternalError("");
    try {
      result = run(call.arguments_json);
    } catch (const std::exception& error) {
      result = Internal("an internal error occurred: {}", error.what());
    }
    event_::ToolDone done{call.call, "", !result.ok(), handoff};
    done.output = result.ok() ? *std::move(result) : std::string(Message(result.status()));
    mailbox->Post([self, done] {
      if (*self != nullptr) (*self)->Handle(done);
    });
  }).detach();
}

void Conversation::Do(const command::CancelTool& cancel) {
  jobv1::FromJob message;
  message.mutable_tool_call()->set_call(cancel.call);
  message.mutable_tool_call()->set_cancel(true);
  host_.send(message);
}

void Conversation::Do(const command::TtsOpen& open) {
  tts_stream_ = open.stream;
  aside_ = {};
  aside_samples_.clear();
  playout_->Begin();
  jobv1::FromJob message;
  message.mutable_tts()->set_stream(open.stream);
  *message.mutable_tts()->mutable_open() = VoiceOf(open.agent).speech;
  *message.mutable_tts()->mutable_open()->mutable_context() = ContextOf(open.turn_id);
  host_.send(message);
}

void Conversation::Do(const command::TtsText& text) {
  jobv1::FromJob message;
  message.mutable_tts()->set_stream(text.stream);
  message.mutable_tts()->set_text(text.text);
  host_.send(message);
  message.mutable_tts()->mutable_flush()->set_segment(text.segment);
  host_.send(message);
}

void Conversation::AddClip(uint64_t clip, std::vector<int16_t> samples) {
  constexpr size_t kMaxClips = 32;  // as many speeches may wait
  if (clips_.size() >= kMaxClips) clips_.erase(clips_.begin());
  clips_[clip] = std::move(samples);
}

void Conversation::Do(const command::TakeClip& take) {
  tts_stream_ = take.stream;
  playout_->Begin();
  const auto found = clips_.extract(take.clip);
  const std::vector<int16_t> none;
  const std::vector<int16_t>& samples = found.empty() ? none : found.mapped();
  playout_->Append(samples);
  const auto count = static_cast<int64_t>(samples.size());
  const int64_t duration_us = audio::SamplesToMicros(count, Playout::kRateHz);
  Handle(event_::TtsAudio{take.stream, take.segment, duration_us, {}});
  Handle(event_::TtsSegmentDone{take.stream, take.segment});
}

void Conversation::Do(const command::TtsFinish& finish) {
  jobv1::FromJob message;
  message.mutable_tts()->set_stream(finish.stream);
  message.mutable_tts()->mutable_finish();
  host_.send(message);
}

void Conversation::Do(const command::TtsCancel& cancel) {
  if (cancel.stream == tts_stream_) tts_stream_ = 0;
  jobv1::FromJob message;
  message.mutable_tts()->set_stream(cancel.stream);
  message.mutable_tts()->mutable_cancel();
  host_.send(message);
}

void Conversation::Do(const command::PlayStart& start) { playout_->Start(start.speech); }
void Conversation::Do(const command::PlayPause&) { playout_->Pause(); }
void Conversation::Do(const command::PlayResume&) { playout_->Resume(); }
void Conversation::Do(const command::PlayClear&) { playout_->Clear(); }

void Conversation::Do(const command::SetState& state) {
  jobv1::FromJob message;
  auto& attributes = *message.mutable_room_command()->mutable_update()->mutable_attributes();
  attributes["lk.agent.state"] = std::string(session::Name(state.state));
  host_.send(message);
  UpdateBackground();
  if (config_.on_agent_state) config_.on_agent_state(state.state);
}

void Conversation::Do(const command::SetUserState& state) {
  if (config_.on_user_state) config_.on_user_state(state.state);
}

void Conversation::Do(const command::UserText& text) {
  if (config_.on_user_text) config_.on_user_text(text.text, text.final);
  if (!config_.publish_transcripts) return;
  // Each update is a text of its own that replaces the one before.
  const std::string segment = segment_prefix_ + text.segment_id;
  SendText(segment + "." + std::to_string(++user_texts_), segment, text.text, true, text.final,
           linked_);
}

void Conversation::Do(const command::AgentText& text) {
  if (!config_.publish_transcripts) return;
  const std::string segment = segment_prefix_ + text.segment_id;
  SendText(segment, segment, text.delta, text.final, text.final, room_.own_identity());
}

void Conversation::SendText(const std::string& stream_id, const std::string& segment_id,
                            std::string_view text, bool stream_over, bool final,
                            const std::string& identity) {
  jobv1::FromJob message;
  roomv1::TextPacket& packet = *message.mutable_room_command()->mutable_text();
  packet.set_stream_id(stream_id);
  packet.set_topic("lk.transcription");
  packet.set_text(std::string(text));
  packet.set_final(stream_over);
  packet.set_from_identity(identity);
  auto& attributes = *packet.mutable_attributes();
  attributes["lk.segment_id"] = segment_id;
  attributes["lk.transcription_final"] = final ? "true" : "false";
  const bool own = identity == room_.own_identity();
  attributes["lk.transcribed_track_id"] = own ? room_.own_track() : room_.TrackOf(identity);
  host_.send(message);
}

void Conversation::Do(const command::ItemAdded& added) {
  if (config_.on_item) config_.on_item(added.item);
  using Kind = session::ChatItem::Kind;
  if (!config_.keep_transcript) return;
  if (added.item.kind == Kind::kToolCall || added.item.kind == Kind::kHandoff) return;
  if (transcript_.size() >= kMaxTranscriptItems) return;
  const bool message = added.item.kind == Kind::kMessage;
  const std::string role = message ? added.item.role : "tool";
  // A user who goes on extends what was said before.
  const bool extends = role == "user" && !transcript_.empty() &&
                       transcript_.back().role() == role &&
                       added.item.text.starts_with(transcript_.back().text());
  auto& item = extends ? transcript_.back() : transcript_.emplace_back();
  item.set_role(role);
  item.set_text(added.item.text);
  item.set_interrupted(added.item.interrupted);
  const int64_t now_ms = absl::ToUnixMillis(absl::Now());
  item.mutable_time()->set_seconds(now_ms / 1000);
  item.mutable_time()->set_nanos(static_cast<int32_t>(now_ms % 1000 * 1'000'000));
}

void Conversation::Do(const command::AgentChanged& changed) {
  static constexpr const char* kSaid[] = {"the conversation was handed over", "a task begins",
                                          "a task is over"};
  Do(command::Log{command::Log::Level::kInfo, kSaid[static_cast<int>(changed.how)],
                  changed.from + " to " + changed.to});
  using session::SwitchKind;
  if (changed.how == SwitchKind::kHandOver) {  // and whoever waited does so no more
    for (const std::string& left : present_) {
      if (AgentHooks* const hooks = HooksOf(left); hooks != nullptr) hooks->ExitSoon();
    }
    present_.clear();
  } else if (changed.how == SwitchKind::kEndTask && present_.size() > 1) {
    if (AgentHooks* const hooks = HooksOf(present_.back()); hooks != nullptr) hooks->ExitSoon();
    present_.pop_back();
  }
  if (changed.how != SwitchKind::kEndTask) {
    present_.push_back(changed.to);
    if (AgentHooks* const hooks = HooksOf(changed.to); hooks != nullptr) hooks->Enter();
  }
  TellPresent();
  if (config_.on_agent_changed) config_.on_agent_changed(changed.from, changed.to);
}

void Conversation::Do(const command::TurnDone& done) {
  tool_calls_ += done.report.tool_calls;
  if (done.report.interrupted) ++interruptions_;
  if (config_.on_turn) config_.on_turn(done.report);
  jobv1::FromJob message;
  const jobv1::TurnReport& report = *message.mutable_turn() = ReportOf(done.report);
  host_.send(message);
  // Whoever shows the call may show how long the answer took, and why.
  const nlohmann::json told = {{"turn_id", report.turn_id()},
                               {"endpointing_ms", report.endpointing_ms()},
                               {"transcript_ms", report.transcript_ms()},
                               {"llm_ms", report.llm_ms()},
                               {"tts_ms", report.tts_ms()},
                               {"output_ms", report.output_ms()},
                               {"total_ms", report.total_ms()},
                               {"interrupted", report.interrupted()},
                               {"tool_calls", report.tool_calls()}};
  SendData(kTurnReportTopic, told.dump());
}

void Conversation::Do(const command::SpeechDone& done) { host_.speech_done(done); }

void Conversation::Do(const command::FalseInterruption&) {}

void Conversation::Do(const command::Stalled& stalled) {
  jobv1::FromJob message;
  jobv1::Stalled& out = *message.mutable_stalled();
  out.set_stage(std::string(session::Name(stalled.stage)));
  out.set_detail(stalled.detail);
  out.set_waited_ms(absl::ToDoubleMilliseconds(stalled.waited));
  out.set_given_up(stalled.given_up);
  host_.send(message);
  if (config_.on_stalled) config_.on_stalled(stalled);
  // Whoever shows the call may show why it is silent.
  const nlohmann::json told = {{"stage", out.stage()},
                               {"waited_ms", absl::ToInt64Milliseconds(stalled.waited)},
                               {"given_up", stalled.given_up}};
  SendData(kStalledTopic, told.dump());
}

void Conversation::SendData(const char* topic, std::string payload) {
  jobv1::FromJob message;
  roomv1::DataPacket& packet = *message.mutable_room_command()->mutable_data();
  packet.set_topic(topic);
  packet.set_reliable(true);
  packet.set_payload(std::move(payload));
  host_.send(message);
}

void Conversation::Do(const command::SaveCheckpoint& save) {
  jobv1::FromJob message;
  message.mutable_checkpoint()->set_blob(save.blob);
  host_.send(message);
}

void Conversation::Do(const command::Log& log) {
  static constexpr const char* kLevels[] = {"info", "warn", "error"};
  jobv1::FromJob message;
  message.mutable_log()->set_level(kLevels[static_cast<int>(log.level)]);
  message.mutable_log()->set_message(log.message);
  if (!log.detail.empty()) (*message.mutable_log()->mutable_fields())["detail"] = log.detail;
  host_.send(message);
}

void Conversation::Warn(std::string message, std::string detail) {
  Do(command::Log{command::Log::Level::kWarn, std::move(message), std::move(detail)});
}

void Conversation::Do(const command::End& end) {
  ended_ = true;
  scribes_.clear();
  timer_.Stop();
  playout_->Clear();
  UpdateBackground();
  EndRecording();
  for (const auto& [name, hooks] : hooks_) hooks->SessionOver();
  host_.ended(end.reason, end.error);
}

parley::dispatch::v1::SessionReport Conversation::Report() const {
  parley::dispatch::v1::SessionReport report;
  report.set_session_id(session_id_);
  const session::Usage& usage = session_.usage();
  auto& out = *report.mutable_usage();
  out.set_turns(usage.turns);
  out.set_stt_audio_seconds(static_cast<double>(usage.stt_audio_us) / 1e6);
  out.set_tts_characters(usage.tts_characters);
  out.set_llm_input_tokens(usage.input_tokens);
  out.set_llm_output_tokens(usage.output_tokens);
  out.set_tool_calls(tool_calls_);
  out.set_interruptions(interruptions_);
  for (const auto& item : transcript_) *report.add_transcript() = item;
  return report;
}

}  // namespace parley::agent
