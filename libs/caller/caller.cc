#include "caller/caller.h"

#include <algorithm>
#include <atomic>
#include <optional>
#include <thread>

#include "audio/level.h"
#include "audio/resample.h"
#include "audio/wav.h"
#include "base/clock.h"
#include "base/ids.h"
#include "base/status.h"
#include "caller/call_log.h"
#include "caller/connection.h"
#include "caller/microphone.h"
#include "caller/recording.h"

namespace parley::caller {
namespace {

namespace pb = ::parley::room::v1;

constexpr auto kAgentState = "lk.agent.state";
constexpr auto kMicrophoneCid = "microphone";
constexpr auto kBackgroundTrack = "background_audio";  // LiveKit's name for it, too
constexpr int64_t kTickUs = int64_t{audio::kFrameMs} * 1'000;
constexpr int64_t kLateUs = 5'000;
constexpr int64_t kGiveUpUs = 1'000'000;  // a microphone this late starts its grid anew
constexpr size_t kLateAfter = 50;         // requests waiting: a second of audio
constexpr absl::Duration kGoodbye = absl::Seconds(2);

}  // namespace

struct Caller::Impl {
  explicit Impl(CallerOptions o) : options(std::move(o)) {}

  // A track of somebody else.
  struct Remote {
    std::string identity;
    bool opus = true;
    bool background = false;  // what an agent plays beside its voice
    std::optional<audio::OpusDecoder> decoder;
    Placement placement;
  };

  int64_t Now() const { return Clock::Real().MonotonicMicros() - begin_us; }
  void Run();
  void Handle(const pb::JoinResponse& message, int64_t now_us);
  void OnSubscription(const pb::SubscriptionStarted& started);
  void OnAudio(const pb::AudioFrame& audio, int64_t now_us);
  void Tick(int64_t now_us);
  void SendFrame(const Microphone::Frame& frame) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  void TellLive();
  absl::Status SendCommand(pb::ParticipantCommand command);
  // Blocks until `ready` answers something, the call is over, or time is up. `again` asks anew that
  // often even when nothing happened.
  template <typename T>
  absl::StatusOr<T> Wait(std::string_view what, absl::Duration timeout,
                         const std::function<std::optional<T>()>& ready,
                         absl::Duration again = absl::InfiniteDuration());

  const CallerOptions options;
  std::unique_ptr<Connection> connection;
  int64_t begin_us = 0;
  std::thread thread;
  std::atomic<bool> stopping{false};

  mutable Mutex mutex;
  CondVar changed;
  CallLog log ABSL_GUARDED_BY(mutex);
  Recording recording ABSL_GUARDED_BY(mutex);
  std::optional<Microphone> microphone ABSL_GUARDED_BY(mutex);
  std::string microphone_sid ABSL_GUARDED_BY(mutex);
  absl::Status microphone_status ABSL_GUARDED_BY(mutex);
  int64_t played_at_us ABSL_GUARDED_BY(mutex) = 0;
  Counters counts ABSL_GUARDED_BY(mutex);
  // On the thread.
  std::map<std::string, Remote> remotes;
  int64_t next_tick_us = 0;
  size_t told = 0;  // events given to on_event
  std::vector<int16_t> decoded;
};

template <typename T>
absl::StatusOr<T> Caller::Impl::Wait(std::string_view what, absl::Duration timeout,
                                     const std::function<std::optional<T>()>& ready,
                                     absl::Duration again) {
  const int64_t until_us = Now() + absl::ToInt64Microseconds(timeout);
  MutexLock lock(&mutex);
  while (true) {
    if (std::optional<T> value = ready()) return *std::move(value);
    if (log.over()) return Cancelled("the call ended before {}", what);
    const int64_t left_us = until_us - Now();
    if (left_us <= 0) {
      return DeadlineExceeded("waited {} for {}", absl::FormatDuration(timeout), what);
    }
    changed.WaitFor(&mutex, std::min(again, absl::Microseconds(left_us)));
  }
}

Caller::Caller(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Caller::~Caller() { HangUp(); }

absl::StatusOr<std::unique_ptr<Caller>> Caller::Connect(CallerOptions options) {
  auto impl = std::make_unique<Impl>(std::move(options));
  const CallerOptions& o = impl->options;
  pb::JoinRoom join;
  join.set_token(o.token);
  join.mutable_options()->set_auto_subscribe(true);
  for (const auto& [key, value] : o.attributes) {
    (*join.mutable_options()->mutable_attributes())[key] = value;
  }
  if (o.microphone) {
    PARLEY_ASSIGN_OR_RETURN(impl->microphone, Microphone::Create(o.opus_complexity, o.silence));
  }
  PARLEY_ASSIGN_OR_RETURN(impl->connection, Connection::Join(o.media_url, join, o.connect_timeout));
  impl->begin_us = Clock::Real().MonotonicMicros();
  impl->next_tick_us = kTickUs;
  impl->decoded.resize(audio::OpusDecoder::MaxSamples(audio::kRoomRateHz));
  impl->log.OnJoined(impl->connection->joined());
  if (o.microphone) {
    pb::ParticipantCommand publish;
    publish.mutable_publish()->set_cid(kMicrophoneCid);
    publish.mutable_publish()->set_name(kMicrophoneCid);
    publish.mutable_publish()->set_kind(pb::TRACK_KIND_AUDIO);
    publish.mutable_publish()->set_source(pb::TRACK_SOURCE_MICROPHONE);
    publish.mutable_publish()->set_codec(pb::CODEC_OPUS);
    PARLEY_RETURN_IF_ERROR(impl->SendCommand(std::move(publish)));
  }
  Impl& state = *impl;
  std::unique_ptr<Caller> caller(new Caller(std::move(impl)));
  state.thread = std::thread([&state] { state.Run(); });
  if (!o.microphone) return caller;
  auto published = state.Wait<absl::Status>("the microphone to be published", o.connect_timeout,
                                            [&]() -> std::optional<absl::Status> {
                                              if (!state.microphone_status.ok())
                                                return state.microphone_status;
                                              if (state.microphone_sid.empty()) return std::nullopt;
                                              return absl::OkStatus();
                                            });
  PARLEY_RETURN_IF_ERROR(published.status());
  PARLEY_RETURN_IF_ERROR(*published);
  return caller;
}

void Caller::Impl::Run() {
  while (true) {
    const absl::Duration wait = absl::Microseconds(std::max<int64_t>(0, next_tick_us - Now()));
    const Connection::Received received = connection->Receive(wait);
    const int64_t now_us = Now();
    if (received.done) {
      MutexLock lock(&mutex);
      log.OnDisconnected(
          received.done->ok() ? "the server ended the call" : Message(*received.done), now_us);
      changed.SignalAll();
      break;
    }
    if (received.message) Handle(*received.message, now_us);
    if (now_us >= next_tick_us) Tick(now_us);
    TellLive();
  }
  TellLive();
}

void Caller::Impl::Handle(const pb::JoinResponse& message, int64_t now_us) {
  if (message.has_audio()) return OnAudio(message.audio(), now_us);
  if (!message.has_event()) return;
  const pb::RoomEvent& event = message.event();
  MutexLock lock(&mutex);
  if (event.has_subscription_started()) OnSubscription(event.subscription_started());
  if (event.has_track_unpublished()) remotes.erase(event.track_unpublished().track_sid());
  if (event.has_track_published() && event.track_published().cid() == kMicrophoneCid) {
    microphone_sid = event.track_published().track().sid();
  } else {
    log.OnEvent(event, now_us);
  }
  if (event.has_result() && event.result().code() != 0 && microphone_sid.empty()) {
    microphone_status = absl::Status(static_cast<absl::StatusCode>(event.result().code()),
                                     event.result().message());
  }
  changed.SignalAll();
}

void Caller::Impl::OnSubscription(const pb::SubscriptionStarted& started) {
  Remote& remote = remotes[started.track().sid()];
  remote.identity = started.participant_identity();
  remote.opus = started.track().codec() == pb::CODEC_OPUS;
  remote.background = started.track().name() == kBackgroundTrack;
  if (!remote.opus) return;
  auto decoder = audio::OpusDecoder::Create(audio::kRoomRateHz);
  if (decoder.ok()) remote.decoder = *std::move(decoder);
}

void Caller::Impl::OnAudio(const pb::AudioFrame& audio, int64_t now_us) {
  const auto found = remotes.find(audio.track_sid());
  if (found == remotes.end()) return;
  Remote& remote = found->second;
  std::span<const int16_t> samples;
  std::vector<int16_t> pcm;
  bool decodable = true;
  if (remote.opus) {
    const auto count = remote.decoder->Decode(audio.data(), decoded);
    decodable = count.ok();
    if (decodable) samples = std::span<const int16_t>(decoded).first(*count);
  } else {
    audio::AppendSamples(audio.data(), pcm);
    samples = pcm;
  }
  MutexLock lock(&mutex);
  ++counts.frames_received;
  if (!decodable) {
    ++counts.frames_undecodable;
    return;
  }
  if (remote.background) {
    ++counts.frames_background;
    return;
  }
  if (!log.IsAgent(remote.identity)) return;
  const int64_t arrival = audio::MicrosToSamples(now_us, audio::kRoomRateHz);
  const int64_t at = remote.placement.Place(audio.timestamp(), arrival);
  if (options.record) recording.AddAgent(at, samples);
  log.OnAgentFrame(remote.identity, audio::LevelDbov(samples) > options.speech_dbov,
                   audio::SamplesToMicros(at, audio::kRoomRateHz));
  changed.SignalAll();
}

void Caller::Impl::Tick(int64_t now_us) {
  MutexLock lock(&mutex);
  const size_t events = log.events().size();
  log.OnTime(now_us, absl::ToInt64Microseconds(options.speech_gap));
  if (log.events().size() != events) changed.SignalAll();
  if (now_us - next_tick_us > kGiveUpUs) next_tick_us = now_us;
  for (; next_tick_us <= now_us; next_tick_us += kTickUs) {
    if (!microphone || microphone_sid.empty()) continue;
    if (now_us - next_tick_us > kLateUs) ++counts.late_ticks;
    const auto frame = microphone->Next();
    if (!frame) continue;
    SendFrame(*frame);
    // A frame is spoken during the 20 ms before it is sent.
    if (options.record) {
      recording.AddCaller(audio::MicrosToSamples(next_tick_us - kTickUs, audio::kRoomRateHz),
                          frame->samples);
    }
    if (frame->last) {
      played_at_us = next_tick_us;
      changed.SignalAll();
    }
  }
}

void Caller::Impl::SendFrame(const Microphone::Frame& frame) {
  pb::JoinRequest request;
  pb::AudioFrame* audio = request.mutable_audio();
  audio->set_track_sid(microphone_sid);
  audio->set_timestamp(frame.timestamp);
  audio->set_level(frame.level);
  audio->set_codec(pb::CODEC_OPUS);
  audio->set_data(frame.packet.data(), frame.packet.size());
  const bool sent = connection->queued() < kLateAfter && connection->Send(std::move(request));
  ++(sent ? counts.frames_sent : counts.frames_dropped);
}

void Caller::Impl::TellLive() {
  if (!options.on_event) return;
  std::vector<CallEvent> news;
  {
    MutexLock lock(&mutex);
    news.assign(log.events().begin() + static_cast<std::ptrdiff_t>(told), log.events().end());
    told = log.events().size();
  }
  for (const CallEvent& event : news) options.on_event(event);
}

absl::Status Caller::Impl::SendCommand(pb::ParticipantCommand command) {
  pb::JoinRequest request;
  *request.mutable_command() = std::move(command);
  if (connection->Send(std::move(request))) return absl::OkStatus();
  return Unavailable("the call is over, or its connection does not keep up");
}

int64_t Caller::NowMicros() const { return impl_->Now(); }

absl::Status Caller::Play(std::span<const int16_t> samples, int rate_hz) {
  if (!impl_->options.microphone) return FailedPrecondition("the caller has no microphone");
  PARLEY_ASSIGN_OR_RETURN(const std::vector<int16_t> at_48k,
                          audio::Resample(samples, rate_hz, audio::kRoomRateHz));
  MutexLock lock(&impl_->mutex);
  impl_->microphone->Queue(at_48k);
  return absl::OkStatus();
}

absl::StatusOr<int64_t> Caller::WaitPlayed(absl::Duration timeout) {
  Impl& impl = *impl_;
  return impl.Wait<int64_t>("everything to be played", timeout, [&]() -> std::optional<int64_t> {
    if (!impl.microphone) return 0;
    if (impl.microphone->playing()) return std::nullopt;
    return impl.played_at_us;
  });
}

void Caller::StopPlaying() {
  MutexLock lock(&impl_->mutex);
  if (impl_->microphone) impl_->microphone->Clear();
  impl_->played_at_us = impl_->Now();
  impl_->changed.SignalAll();
}

absl::Status Caller::SendText(std::string_view text, std::string_view topic) {
  pb::ParticipantCommand command;
  pb::TextPacket* packet = command.mutable_text();
  packet->set_stream_id("ST_" + RandomBase62(12));
  packet->set_topic(std::string(topic));
  packet->set_text(std::string(text));
  packet->set_final(true);
  return impl_->SendCommand(std::move(command));
}

absl::Status Caller::SendData(std::string_view payload, std::string_view topic,
                              const std::vector<std::string>& destinations) {
  pb::ParticipantCommand command;
  pb::DataPacket* packet = command.mutable_data();
  packet->set_payload(std::string(payload));
  packet->set_topic(std::string(topic));
  packet->set_reliable(true);
  for (const std::string& to : destinations) packet->add_destination_identities(to);
  return impl_->SendCommand(std::move(command));
}

absl::StatusOr<CallEvent> Caller::WaitFor(std::string_view what,
                                          const std::function<bool(const CallEvent&)>& matches,
                                          absl::Duration timeout, int64_t after_us) {
  size_t seen = 0;
  return impl_->Wait<CallEvent>(what, timeout, [&]() -> std::optional<CallEvent> {
    for (const auto& events = impl_->log.events(); seen < events.size(); ++seen) {
      if (events[seen].at_us >= after_us && matches(events[seen])) return events[seen];
    }
    return std::nullopt;
  });
}

absl::StatusOr<std::string> Caller::WaitForAgent(absl::Duration timeout) {
  Impl& impl = *impl_;
  return impl.Wait<std::string>(
      "an agent to join and listen", timeout, [&]() -> std::optional<std::string> {
        std::string agent = impl.log.AudibleAgent();
        const bool heard = !impl.options.microphone || impl.log.microphone_heard();
        if (agent.empty() || !heard) return std::nullopt;
        return agent;
      });
}

absl::Status Caller::WaitForAgentState(std::string_view state, absl::Duration timeout) {
  Impl& impl = *impl_;
  return impl
      .Wait<bool>(fmt::format("the agent to be {}", state), timeout,
                  [&]() -> std::optional<bool> {
                    if (impl.log.AgentAttribute(kAgentState) != state) return std::nullopt;
                    return true;
                  })
      .status();
}

absl::StatusOr<int64_t> Caller::WaitForAgentAudio(int64_t after_us, absl::Duration timeout) {
  Impl& impl = *impl_;
  return impl.Wait<int64_t>("the agent to speak", timeout, [&]() -> std::optional<int64_t> {
    for (const CallLog::Spoken& spoken : impl.log.spoken()) {
      if (spoken.to_us > after_us) return std::max(spoken.from_us, after_us);
    }
    return std::nullopt;
  });
}

absl::StatusOr<int64_t> Caller::WaitForAgentSilence(int64_t after_us, absl::Duration quiet,
                                                    absl::Duration timeout) {
  Impl& impl = *impl_;
  const int64_t quiet_us = absl::ToInt64Microseconds(quiet);
  return impl.Wait<int64_t>(
      "the agent to finish speaking", timeout,
      [&]() -> std::optional<int64_t> {
        if (impl.log.spoken().empty()) return std::nullopt;
        const int64_t end_us = impl.log.spoken().back().to_us;
        if (end_us <= after_us || impl.Now() - end_us < quiet_us) return std::nullopt;
        return end_us;
      },
      absl::Milliseconds(10));
}

absl::StatusOr<Transcript> Caller::WaitForTranscript(bool of_agent, int64_t after_us,
                                                     absl::Duration timeout) {
  Impl& impl = *impl_;
  return impl.Wait<Transcript>(of_agent ? "a transcript of the agent" : "a transcript of a person",
                               timeout, [&]() -> std::optional<Transcript> {
                                 for (const Transcript& transcript : impl.log.transcripts()) {
                                   if (transcript.final && transcript.agent == of_agent &&
                                       transcript.first_at_us >= after_us) {
                                     return transcript;
                                   }
                                 }
                                 return std::nullopt;
                               });
}

std::vector<CallEvent> Caller::events() const {
  MutexLock lock(&impl_->mutex);
  return impl_->log.events();
}

std::vector<Transcript> Caller::transcripts() const {
  MutexLock lock(&impl_->mutex);
  return impl_->log.transcripts();
}

std::string Caller::room_name() const { return impl_->connection->joined().room().name(); }
std::string Caller::room_sid() const { return impl_->connection->joined().room().sid(); }
std::string Caller::identity() const {
  return impl_->connection->joined().participant().identity();
}

bool Caller::connected() const {
  MutexLock lock(&impl_->mutex);
  return !impl_->log.over();
}

Caller::Counters Caller::counters() const {
  MutexLock lock(&impl_->mutex);
  return impl_->counts;
}

void Caller::HangUp() {
  if (impl_->stopping.exchange(true) || !impl_->thread.joinable()) return;
  pb::ParticipantCommand leave;
  leave.mutable_leave()->set_reason(pb::DISCONNECT_REASON_CLIENT_INITIATED);
  (void)impl_->SendCommand(std::move(leave));  // over already is as good
  impl_->connection->HalfClose();
  (void)impl_->Wait<bool>("the server's goodbye", kGoodbye, []() { return std::nullopt; });
  impl_->connection->Cancel();
  impl_->thread.join();
}

absl::Status Caller::SaveRecording(const std::string& path) const {
  if (!impl_->options.record) return FailedPrecondition("the call was not recorded");
  std::vector<int16_t> caller;
  std::vector<int16_t> agent;
  {
    MutexLock lock(&impl_->mutex);
    caller.assign(impl_->recording.caller().begin(), impl_->recording.caller().end());
    agent.assign(impl_->recording.agent().begin(), impl_->recording.agent().end());
  }
  return audio::WriteStereoWav(path, audio::kRoomRateHz, caller, agent);
}

std::vector<int16_t> Caller::AgentAudio(int64_t from_us, int64_t to_us) const {
  const int64_t from = std::max<int64_t>(0, audio::MicrosToSamples(from_us, audio::kRoomRateHz));
  const int64_t to =
      std::min(audio::MicrosToSamples(to_us, audio::kRoomRateHz), from + Recording::kMaxSamples);
  std::vector<int16_t> samples(static_cast<size_t>(std::max<int64_t>(0, to - from)));
  MutexLock lock(&impl_->mutex);
  const auto heard = impl_->recording.agent();
  for (size_t i = 0; i < samples.size(); ++i) {
    const size_t at = static_cast<size_t>(from) + i;
    if (at < heard.size()) samples[i] = heard[at];
  }
  return samples;
}

}  // namespace parley::caller
