#include "stt_gateway/recognize_session.h"

#include <algorithm>
#include <utility>

#include "audio/pcm.h"
#include "base/clock.h"
#include "base/status.h"

namespace parley {
namespace {

constexpr size_t kOutbox = 1024;
constexpr size_t kMaxAudioBytes = 1 << 20;
constexpr size_t kMaxAwaited = 256;
constexpr int kOpusRateHz = 16000;
constexpr size_t kMaxChain = 8;

double SecondsSince(int64_t micros) {
  return static_cast<double>(Clock::Real().MonotonicMicros() - micros) / 1e6;
}

speech::SttConfig ToConfig(const speech::v1::EngineConfig& proto, bool interim,
                           const speech::Caller& caller) {
  speech::SttConfig config;
  config.engine = proto.engine();
  config.model = proto.model();
  config.language = proto.language();
  config.grammar = proto.grammar();
  config.phrases.assign(proto.phrases().begin(), proto.phrases().end());
  config.options.insert(proto.options().begin(), proto.options().end());
  config.interim_results = interim;
  config.caller = caller;
  return config;
}

void Fill(speech::SttTranscript from, speech::v1::Transcript* to) {
  to->set_text(std::move(from.text));
  to->set_confidence(from.confidence);
  to->set_language(std::move(from.language));
  to->set_utterance(from.utterance);
  for (speech::WordTime& word : from.words) {
    speech::v1::WordTiming* timing = to->add_words();
    timing->set_word(std::move(word.word));
    timing->set_start_ms(word.start_ms);
    timing->set_end_ms(word.end_ms);
    timing->set_confidence(word.confidence);
  }
}

speech::v1::RecognizeResponse Fill(const speech::SttActivity& from) {
  speech::v1::RecognizeResponse response;
  response.mutable_activity()->set_kind(from.speech ? speech::v1::Activity::KIND_SPEECH_STARTED
                                                    : speech::v1::Activity::KIND_SPEECH_ENDED);
  response.mutable_activity()->set_at_ms(from.at_ms);
  return response;
}

}  // namespace

RecognizeSession::RecognizeSession(SttGatewayParts& parts, std::string bearer)
    : BidiSession(parts.context.executor(), kOutbox),
      parts_(parts),
      bearer_(std::move(bearer)),
      last_audio_(Clock::Real().Now()) {}

void RecognizeSession::OnStart() {
  admitted_ = parts_.streams.Add(this, Self<RecognizeSession>());
  if (!admitted_) {
    Close(rpc::ToGrpcStatus(gateway::Busy(
        "listening streams", static_cast<size_t>(parts_.config.max_streams), "stt-max-streams")));
  }
}

void RecognizeSession::OnMessage(const speech::v1::RecognizeRequest& request) {
  const TraceScope scope(trace_);
  if (const absl::Status status = Handle(request); !status.ok()) Fail(status);
}

absl::Status RecognizeSession::Handle(const speech::v1::RecognizeRequest& request) {
  using Request = speech::v1::RecognizeRequest;
  if (half_closed_ || !admitted_) return absl::OkStatus();
  if (request.message_case() == Request::kConfig) {
    if (chain_.has_value()) return InvalidArgument("config comes once, as the first message");
    return Open(request.config());
  }
  if (!listening_) return InvalidArgument("the first message must be config");
  switch (request.message_case()) {
    case Request::kAudio:
      return OnAudio(request.audio());
    case Request::kEndUtterance:
      return EndUtterance(request.end_utterance().utterance());
    case Request::kReset:
      first_audio_us_ = 0;
      heard_since_final_ = false;
      partial_.clear();
      return chain_->Reset();
    default:
      return InvalidArgument("a message without content");
  }
}

absl::Status RecognizeSession::Open(const speech::v1::RecognizeConfig& config) {
  PARLEY_ASSIGN_OR_RETURN(const speech::Caller caller,
                          gateway::CallerOf(parts_.context, bearer_, config.context()));
  deadline_ = gateway::DeadlineOf(config.context());
  if (deadline_ <= Clock::Real().Now()) return DeadlineExceeded("the deadline has passed");
  deadline_ = std::min(deadline_, Clock::Real().Now() + parts_.config.max_stream_time);
  PARLEY_RETURN_IF_ERROR(PrepareAudio(config));
  if (config.engines().empty()) return InvalidArgument("config names no engine");
  if (static_cast<size_t>(config.engines_size()) > kMaxChain)
    return InvalidArgument("a chain of {} engines; at most {}", config.engines_size(), kMaxChain);
  session_id_ = config.context().session_id();
  trace_ = TraceContext::Parse(config.context().traceparent());
  const TraceScope scope(trace_);
  speech::SttChain::Options options;
  for (const speech::v1::EngineConfig& engine : config.engines())
    options.engines.push_back(ToConfig(engine, config.interim_results(), caller));
  options.input_rate_hz = input_rate_hz_;
  options.final_timeout = parts_.config.final_timeout;
  options.pace = &parts_.pace;
  speech::SttChain::Listener listener;
  listener.serves = [this](const std::string& engine, const absl::Status& failed) {
    OnServes(engine, failed);
  };
  listener.event = [this](speech::SttEvent event) { OnEvent(std::move(event)); };
  listener.deliver = [weak = std::weak_ptr(Self<RecognizeSession>())](uint64_t generation,
                                                                      speech::SttEvent event) {
    const std::shared_ptr<RecognizeSession> self = weak.lock();
    if (self == nullptr) return;
    self->strand().Post([self, generation, event = std::move(event)]() mutable {
      if (self->chain_.has_value()) self->chain_->OnEvent(generation, std::move(event));
    });
  };
  chain_.emplace(parts_.engines, parts_.breakers, Clock::Real(), std::move(options),
                 std::move(listener));
  start_us_ = Clock::Real().MonotonicMicros();
  PARLEY_RETURN_IF_ERROR(chain_->Open());
  listening_ = true;
  parts_.metrics.streams_active.Increment();
  return absl::OkStatus();
}

void RecognizeSession::OnServes(const std::string& engine, const absl::Status& failed) {
  if (!listening_) parts_.metrics.engine(engine).open_seconds->Observe(SecondsSince(start_us_));
  if (!failed.ok()) {
    parts_.metrics.fallbacks.Increment();
    parts_.context.log().Warn(
        "another engine listens on",
        {{"engine", engine}, {"session", session_id_}, {"error", Message(failed)}});
  }
  speech::v1::RecognizeResponse response;
  response.mutable_started()->set_engine(engine);
  Tell(std::move(response));
}

absl::Status RecognizeSession::PrepareAudio(const speech::v1::RecognizeConfig& config) {
  if (config.sample_rate_hz() < 8000 || config.sample_rate_hz() > 48000)
    return InvalidArgument("sample_rate_hz {} is out of range: 8000 to 48000",
                           config.sample_rate_hz());
  switch (config.encoding()) {
    case speech::v1::AUDIO_ENCODING_UNSPECIFIED:
    case speech::v1::AUDIO_ENCODING_PCM16:
      input_rate_hz_ = config.sample_rate_hz();
      return absl::OkStatus();
    case speech::v1::AUDIO_ENCODING_OPUS: {
      opus_ = true;
      // Opus decodes to any of its rates; recognisers want this one.
      input_rate_hz_ = kOpusRateHz;
      PARLEY_ASSIGN_OR_RETURN(audio::OpusDecoder decoder, audio::OpusDecoder::Create(kOpusRateHz));
      decoder_.emplace(std::move(decoder));
      return absl::OkStatus();
    }
    default:
      return InvalidArgument("encoding {} is not known: PCM16 or OPUS",
                             static_cast<int>(config.encoding()));
  }
}

absl::Status RecognizeSession::OnAudio(const std::string& bytes) {
  if (bytes.size() > kMaxAudioBytes)
    return InvalidArgument("{} bytes of audio in one message; at most {}", bytes.size(),
                           kMaxAudioBytes);
  decoded_.clear();
  if (opus_) {
    decoded_.resize(audio::OpusDecoder::MaxSamples(input_rate_hz_));
    PARLEY_ASSIGN_OR_RETURN(const size_t samples, decoder_->Decode(bytes, decoded_));
    decoded_.resize(samples);
  } else {
    if (bytes.size() % sizeof(int16_t) != 0)
      return InvalidArgument("{} bytes of PCM16 are not whole samples", bytes.size());
    audio::AppendSamples(bytes, decoded_);
  }
  if (decoded_.empty()) return absl::OkStatus();
  const double seconds = static_cast<double>(decoded_.size()) / input_rate_hz_;
  audio_seconds_ += seconds;
  parts_.metrics.audio_seconds.Increment(seconds);
  last_audio_ = Clock::Real().Now();
  if (!heard_since_final_) first_audio_us_ = Clock::Real().MonotonicMicros();
  heard_since_final_ = true;
  return chain_->Write(decoded_);
}

absl::Status RecognizeSession::EndUtterance(uint64_t utterance) {
  if (asked_us_.size() >= kMaxAwaited)
    return ResourceExhausted("{} finals are awaited already", kMaxAwaited);
  asked_us_.push_back(Clock::Real().MonotonicMicros());
  asked_spans_.push_back(
      parts_.context.tracer().Start("final transcript", trace::Kind::kServer, trace_));
  asked_spans_.back().Set("session_id", session_id_);
  asked_spans_.back().Set("engine", chain_->engine());
  const TraceScope scope(asked_spans_.back().context());
  heard_since_final_ = false;
  partial_.clear();
  PARLEY_RETURN_IF_ERROR(chain_->EndUtterance(utterance));
  CheckSoon();
  return absl::OkStatus();
}

void RecognizeSession::CheckSoon() {
  const absl::Duration wait = chain_->CheckAfter();
  if (wait < absl::InfiniteDuration()) parts_.streams.CheckIn(this, wait);
}

void RecognizeSession::OnEvent(speech::SttEvent event) {
  if (auto* failed = std::get_if<speech::SttFailed>(&event)) return Fail(failed->status);
  if (const auto* activity = std::get_if<speech::SttActivity>(&event)) return Tell(Fill(*activity));
  if (auto* partial = std::get_if<speech::SttPartial>(&event))
    return OnTranscript(std::move(partial->transcript), false);
  OnTranscript(std::move(std::get<speech::SttFinal>(event).transcript), true);
}

void RecognizeSession::OnTranscript(speech::SttTranscript transcript, bool final) {
  const SttGatewayMetrics::Engine& metrics = parts_.metrics.engine(chain_->engine());
  if (first_audio_us_ != 0 && !transcript.text.empty()) {
    metrics.first_result_seconds->Observe(SecondsSince(first_audio_us_));
    first_audio_us_ = 0;
  }
  if (!final && transcript.text == std::exchange(partial_, transcript.text)) return;
  speech::v1::RecognizeResponse response;
  Fill(std::move(transcript), final ? response.mutable_final() : response.mutable_partial());
  Tell(std::move(response));
  if (!final) return;
  if (!asked_us_.empty()) {
    metrics.final_seconds->Observe(SecondsSince(asked_us_.front()));
    asked_us_.pop_front();
    asked_spans_.pop_front();
  }
  parts_.metrics.utterances.Increment();
  FinishIfDone();
}

void RecognizeSession::OnHalfClose() {
  half_closed_ = true;
  if (!admitted_) return;
  if (!listening_) return Fail(InvalidArgument("the stream ended before its config"));
  if (heard_since_final_) {
    if (const absl::Status status = EndUtterance(0); !status.ok()) return Fail(status);
  }
  FinishIfDone();
}

void RecognizeSession::FinishIfDone() {
  if (!half_closed_ || !asked_us_.empty()) return;
  speech::v1::RecognizeResponse response;
  response.mutable_usage()->set_audio_seconds(audio_seconds_);
  Tell(std::move(response));
  Close(grpc::Status::OK);
}

void RecognizeSession::Tell(speech::v1::RecognizeResponse response) {
  if (!Send(std::move(response)))
    Close(rpc::ToGrpcStatus(ResourceExhausted("the client does not read its results")));
}

void RecognizeSession::Fail(const absl::Status& status) {
  parts_.metrics.CountError(status.code());
  Close(rpc::ToGrpcStatus(status));
}

void RecognizeSession::Check(absl::Time now) {
  strand().Post([self = Self<RecognizeSession>(), now] {
    if (self->deadline_ <= now)
      return self->Fail(DeadlineExceeded("the deadline, or --stt-max-stream-time, has passed"));
    const SttGatewayConfig& config = self->parts_.config;
    if (now - self->last_audio_ > config.idle_timeout) {
      return self->Fail(DeadlineExceeded("no audio for {} s; the stream is closed",
                                         absl::ToInt64Seconds(config.idle_timeout)));
    }
    if (!self->listening_) return;
    self->chain_->CheckStalled();
    self->CheckSoon();
  });
}

void RecognizeSession::OnClosed() {
  if (std::exchange(listening_, false)) parts_.metrics.streams_active.Decrement();
  chain_.reset();
  if (admitted_) parts_.streams.Remove(this);
}

}  // namespace parley
