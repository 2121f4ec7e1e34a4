#include "tts_gateway/synthesize_session.h"

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/status.h"
#include "base/strings.h"
#include "tts_gateway/ssml.h"

namespace parley {
namespace {

constexpr size_t kMaxTextBytes = 64 << 10;      // a piece
constexpr size_t kMaxWaitingBytes = 256 << 10;  // not yet flushed
constexpr size_t kMaxSegments = 1024;
constexpr size_t kMaxChain = 8;
// The next sentence is made when the client has taken most of those before: a sentence is at most
// some 3,000 messages.
constexpr size_t kResumeAt = 512;
constexpr size_t kOutbox = 16'384;

constexpr const char* kCacheOption = "cache";

speech::TtsConfig ToConfig(const speech::v1::VoiceConfig& voice, const speech::Caller& caller) {
  speech::TtsConfig config;
  config.engine = voice.engine();
  config.voice = voice.voice();
  config.language = voice.language();
  config.rate = voice.rate() == 0 ? 1 : voice.rate();
  config.pitch = voice.pitch() == 0 ? 1 : voice.pitch();
  config.options.insert(voice.options().begin(), voice.options().end());
  config.options.erase(kCacheOption);  // ours, not the engine's
  config.caller = caller;
  return config;
}

}  // namespace

SynthesizeSession::SynthesizeSession(TtsGatewayParts& parts, std::string bearer)
    : BidiSession(parts.context.executor(), kOutbox),
      parts_(parts),
      bearer_(std::move(bearer)),
      last_message_(Clock::Real().Now()) {}

void SynthesizeSession::OnStart() {
  admitted_ = parts_.streams.Add(this, Self<SynthesizeSession>());
  if (!admitted_) {
    Close(rpc::ToGrpcStatus(gateway::Busy(
        "speaking streams", static_cast<size_t>(parts_.config.max_streams), "tts-max-streams")));
  }
}

void SynthesizeSession::OnMessage(const speech::v1::SynthesizeRequest& request) {
  if (!admitted_ || half_closed_) return;
  last_message_ = Clock::Real().Now();
  if (const absl::Status status = Handle(request); !status.ok()) Fail(status);
}

absl::Status SynthesizeSession::Handle(const speech::v1::SynthesizeRequest& request) {
  using Request = speech::v1::SynthesizeRequest;
  if (request.message_case() == Request::kConfig) {
    if (!engine_.empty()) return InvalidArgument("config comes once, as the first message");
    return Open(request.config());
  }
  if (engine_.empty()) return InvalidArgument("the first message must be config");
  switch (request.message_case()) {
    case Request::kText:
      return OnText(request.text());
    case Request::kFlush:
      return OnFlush(request.flush().segment());
    case Request::kCancel:
      OnCancelled();
      return absl::OkStatus();
    default:
      return InvalidArgument("a message without content");
  }
}

absl::Status SynthesizeSession::Open(const speech::v1::SynthesizeConfig& config) {
  PARLEY_ASSIGN_OR_RETURN(const speech::Caller caller,
                          gateway::CallerOf(parts_.context, bearer_, config.context()));
  deadline_ = gateway::DeadlineOf(config.context());
  if (deadline_ <= Clock::Real().Now()) return DeadlineExceeded("the deadline has passed");
  deadline_ = std::min(deadline_, Clock::Real().Now() + parts_.config.max_stream_time);
  if (config.voices().empty()) return InvalidArgument("config names no voice");
  if (static_cast<size_t>(config.voices_size()) > kMaxChain)
    return InvalidArgument("a chain of {} voices; at most {}", config.voices_size(), kMaxChain);
  session_id_ = config.context().session_id();
  trace_ = TraceContext::Parse(config.context().traceparent());
  speech::TtsChain::Options options;
  for (const speech::v1::VoiceConfig& voice : config.voices())
    options.voices.push_back(ToConfig(voice, caller));
  preferred_ = options.voices.front();
  options.pace = &parts_.pace;
  // The one embedded voice with word times; it reads English.
  if (preferred_.language.empty() || preferred_.language.starts_with("en"))
    options.reference = &parts_.ruler;
  options.serves = [this](const std::string& engine, const absl::Status& failed) {
    OnServes(engine, failed);
  };
  chain_.emplace(parts_.engines, parts_.breakers, std::move(options));
  PARLEY_RETURN_IF_ERROR(chain_->Open());
  PARLEY_ASSIGN_OR_RETURN(AudioPacker packer,
                          AudioPacker::Create(config.encoding(), config.sample_rate_hz(),
                                              chain_->sample_rate_hz(), config.ready_opus()));
  packer_.emplace(std::move(packer));
  engine_ = chain_->engine();
  const auto& first = config.voices(0).options();
  const auto wish = first.find(kCacheOption);
  const auto preferred = parts_.engines.Find(preferred_.engine);
  cached_ =
      parts_.cache != nullptr && preferred.ok() && (wish == first.end() || wish->second != "false");
  remote_ = preferred.ok() && !(*preferred)->embedded();
  if (cached_) version_ = (*preferred)->version();
  language_ = config.voices(0).language();
  ssml_ = config.ssml();
  parts_.metrics.streams_active.Increment();
  return absl::OkStatus();
}

// On the strand or on the thread that speaks.
void SynthesizeSession::OnServes(const std::string& engine, const absl::Status& failed) {
  if (failed.ok()) return;
  ++rescues_;
  parts_.metrics.fallbacks.Increment();
  parts_.context.log().Warn(
      "another voice speaks on",
      {{"engine", engine}, {"session", session_id_}, {"error", Message(failed)}});
}

absl::Status SynthesizeSession::OnText(const std::string& text) {
  if (text.size() > kMaxTextBytes)
    return InvalidArgument("{} bytes of text in one message; at most {}", text.size(),
                           kMaxTextBytes);
  if (text_.size() + text.size() > kMaxWaitingBytes)
    return ResourceExhausted("more than {} bytes of text wait for a flush", kMaxWaitingBytes);
  text_ += text;
  return absl::OkStatus();
}

absl::Status SynthesizeSession::OnFlush(uint64_t number) {
  if (segments_.size() >= kMaxSegments)
    return ResourceExhausted("{} segments wait to be spoken", kMaxSegments);
  Segment segment;
  segment.number = number;
  segment.since_us = Clock::Real().MonotonicMicros();
  segment.characters = static_cast<int64_t>(text_.size());
  PARLEY_ASSIGN_OR_RETURN(segment.sentences, Sentences());
  text_.clear();
  last_segment_ = number;
  parts_.metrics.characters.Increment(static_cast<double>(segment.characters));
  segments_.push_back(std::move(segment));
  Step();
  return absl::OkStatus();
}

absl::StatusOr<std::deque<SynthesizeSession::Sentence>> SynthesizeSession::Sentences() const {
  std::vector<SsmlPiece> pieces;
  if (ssml_ && IsSsml(text_)) {
    PARLEY_ASSIGN_OR_RETURN(pieces, ParseSsml(text_));
  } else {
    pieces.push_back({text_, absl::ZeroDuration(), 1, 1});
  }
  std::deque<Sentence> out;
  for (const SsmlPiece& piece : pieces) {
    speech::SentenceSplitter splitter;
    std::vector<std::string> sentences = splitter.Push(piece.text);
    for (std::string& rest : splitter.Flush()) sentences.push_back(std::move(rest));
    absl::Duration pause = piece.pause;
    for (const std::string& sentence : sentences) {
      std::string spoken = speech::SpokenText(sentence, language_);
      if (spoken.empty()) continue;
      out.push_back({std::move(spoken),
                     std::exchange(pause, absl::ZeroDuration()),
                     {piece.rate, piece.pitch}});
    }
    if (pause > absl::ZeroDuration()) out.push_back({{}, pause, {}});
  }
  return out;
}

void SynthesizeSession::OnCancelled() {
  text_.clear();
  cancel_->Cancel();
  parts_.metrics.cancelled.Increment(static_cast<double>(segments_.size()));
  // The sentence under way answers for its own segment when its thread comes back.
  const size_t keep = speaking_ ? 1 : 0;
  if (segments_.empty()) {
    Segment none;
    none.number = last_segment_;
    TellDone(none, 0, true);
  }
  std::deque<Segment> dropped;
  while (segments_.size() > keep) {
    dropped.push_front(std::move(segments_.back()));
    segments_.pop_back();
  }
  if (!speaking_) {
    for (const Segment& segment : dropped) TellDone(segment, 0, true);
    cancel_ = std::make_shared<speech::Cancellation>();
    if (packer_.has_value()) packer_->EndSegment();
    return FinishIfDone();
  }
  // In order: after the one under way. They have nothing left to speak.
  for (Segment& segment : dropped) {
    segment.sentences.clear();
    segment.cancelled = true;
    segments_.push_back(std::move(segment));
  }
}

void SynthesizeSession::Step() {
  while (!speaking_ && !over_ && !segments_.empty()) {
    Segment& segment = segments_.front();
    if (!segment.sentences.empty()) {
      if (queued() > kResumeAt) return;  // OnSent comes back
      return SpeakNext();
    }
    // Nothing in it that can be spoken, or cancelled before it began.
    TellDone(segment, 0, segment.cancelled);
    segments_.pop_front();
  }
  if (!over_) FinishIfDone();
}

void SynthesizeSession::SpeakNext() {
  Segment& segment = segments_.front();
  Sentence sentence = std::move(segment.sentences.front());
  segment.sentences.pop_front();
  const int64_t since_us = std::exchange(segment.started, true) ? 0 : segment.since_us;
  speaking_ = true;
  const bool posted =
      (remote_ ? parts_.remote_voices : parts_.voices)
          .Post([self = Self<SynthesizeSession>(), sentence = std::move(sentence),
                 last = segment.sentences.empty(), number = segment.number, since_us,
                 cancel = cancel_] { self->Speak(sentence, last, number, since_us, cancel); });
  if (posted) return;
  speaking_ = false;
  Fail(WithReason(ResourceExhausted("all voices of this gateway are busy; try again shortly"),
                  "GATEWAY_FULL", {{"retry_after_ms", "500"}}));
}

void SynthesizeSession::Speak(const Sentence& sentence, bool last, uint64_t number,
                              int64_t first_since_us,
                              const std::shared_ptr<speech::Cancellation>& cancel) {
  trace::Span span = parts_.context.tracer().Start("speak", trace::Kind::kServer, trace_);
  const TraceScope scope(span.context());
  span.Set("session_id", session_id_);
  span.Set("characters", static_cast<int64_t>(sentence.text.size()));
  bool refused = false;  // by the outbox
  int64_t waiting_since_us = first_since_us;
  const auto send = [&](std::vector<speech::v1::SynthesizedAudio> messages) {
    for (speech::v1::SynthesizedAudio& message : messages) {
      if (cancel->cancelled()) return false;
      message.set_segment(number);
      speech::v1::SynthesizeResponse response;
      *response.mutable_audio() = std::move(message);
      if (!Send(std::move(response))) {
        refused = true;
        return false;
      }
      if (waiting_since_us == 0) continue;
      parts_.metrics.first_audio_seconds(chain_->engine())
          .Observe(static_cast<double>(Clock::Real().MonotonicMicros() - waiting_since_us) / 1e6);
      waiting_since_us = 0;
    }
    return true;
  };
  if (sentence.pause > absl::ZeroDuration()) {
    const double samples = absl::ToDoubleSeconds(sentence.pause) * chain_->sample_rate_hz();
    send(packer_->Add(std::vector<int16_t>(static_cast<size_t>(samples)), {}));
    packer_->EndSentence();
  }
  absl::Status status = Say(
      sentence,
      [&](std::span<const int16_t> samples, const std::vector<speech::WordTime>& words) {
        return send(packer_->Add(samples, words));
      },
      [&](const speech::Phrase& phrase) { return send(packer_->AddPhrase(phrase)); }, *cancel);
  packer_->EndSentence();
  const bool cancelled = cancel->cancelled();
  const int segment_ms = packer_->MsSoFar();
  if (cancelled || last || !status.ok()) {
    std::vector<speech::v1::SynthesizedAudio> rest = packer_->EndSegment();
    if (!cancelled && status.ok()) send(std::move(rest));
  }
  if (refused) status = ResourceExhausted("the client does not read its audio");
  span.Set("engine", chain_->engine());
  if (!cancelled) span.Fail(status);
  strand().Post([self = Self<SynthesizeSession>(), status, engine = chain_->engine(), last,
                 segment_ms,
                 cancelled] { self->OnSpoken(status, engine, last, segment_ms, cancelled); });
}

absl::Status SynthesizeSession::Say(const Sentence& sentence, const speech::TtsSink& sink,
                                    const std::function<bool(const speech::Phrase&)>& play,
                                    const speech::Cancellation& cancel) {
  using Making = std::unique_ptr<SpeechCache::Making>;
  if (sentence.text.empty() || cancel.cancelled()) return absl::OkStatus();
  if (!cached_) return chain_->Speak(sentence.text, sink, cancel, sentence.prosody);
  const std::string& project = preferred_.caller.project;
  SpeechCache::Found found = parts_.cache->Find(
      project, PhraseDigest(speech::With(preferred_, sentence.prosody), version_, sentence.text),
      cancel);
  if (const auto* hit = std::get_if<SpeechCache::Hit>(&found)) {
    (hit->copied ? parts_.metrics.cache_copied : parts_.metrics.cache_hits).Increment();
    if (speech_redis::Ledger* ledger = parts_.shared.ledger(); ledger != nullptr) {
      ledger->Charge(project, session_id_, speech_redis::units::kTtsCached, preferred_.engine, true,
                     static_cast<int64_t>(sentence.text.size()));
    }
    play(*hit->phrase);
    return absl::OkStatus();
  }
  if (!std::holds_alternative<Making>(found)) {
    parts_.metrics.cache_passed.Increment();
    return chain_->Speak(sentence.text, sink, cancel, sentence.prosody);
  }
  const Making making = std::move(std::get<Making>(found));
  parts_.metrics.cache_made.Increment();
  speech::Phrase phrase;
  phrase.sample_rate_hz = chain_->sample_rate_hz();
  rescues_ = 0;
  bool wanted = true;
  absl::Status status = chain_->Speak(
      sentence.text,
      [&](std::span<const int16_t> samples, const std::vector<speech::WordTime>& words) {
        phrase.samples.insert(phrase.samples.end(), samples.begin(), samples.end());
        phrase.words.insert(phrase.words.end(), words.begin(), words.end());
        wanted = sink(samples, words);
        return wanted;
      },
      cancel, sentence.prosody);
  // Only what the preferred voice said from beginning to end is what others would have heard.
  const bool whole = status.ok() && wanted && !cancel.cancelled() && rescues_ == 0 &&
                     chain_->serving() == 0 && !phrase.samples.empty();
  if (whole) making->Finish(std::move(phrase));
  parts_.metrics.cache_bytes.Set(static_cast<double>(parts_.cache->bytes()));
  return status;
}

void SynthesizeSession::OnSpoken(const absl::Status& status, const std::string& engine, bool last,
                                 int segment_ms, bool cancelled) {
  speaking_ = false;
  engine_ = engine;
  if (closed_) return Leave();
  if (over_) return;
  cancelled = cancelled || cancel_->cancelled();
  if (cancelled || last) {
    TellDone(segments_.front(), segment_ms, cancelled);
    parts_.metrics.audio_seconds.Increment(segment_ms / 1000.0);
    segments_.pop_front();
  }
  if (cancelled) {
    cancel_ = std::make_shared<speech::Cancellation>();
  } else if (!status.ok()) {
    return Fail(status);
  }
  Step();
}

void SynthesizeSession::TellDone(const Segment& segment, int duration_ms, bool cancelled) {
  speech::v1::SynthesizeResponse response;
  speech::v1::SegmentDone* done = response.mutable_done();
  done->set_segment(segment.number);
  done->set_duration_ms(duration_ms);
  done->set_characters(segment.characters);
  done->set_cancelled(cancelled);
  done->set_engine(engine_);
  if (!Send(std::move(response)))
    Close(rpc::ToGrpcStatus(ResourceExhausted("the client does not read its audio")));
}

void SynthesizeSession::OnHalfClose() {
  half_closed_ = true;
  if (!admitted_) return;
  if (engine_.empty()) return Fail(InvalidArgument("the stream ended before its config"));
  if (!Trim(text_).empty()) {
    if (const absl::Status status = OnFlush(last_segment_ + 1); !status.ok()) Fail(status);
    return;
  }
  FinishIfDone();
}

void SynthesizeSession::FinishIfDone() {
  if (half_closed_ && !speaking_ && segments_.empty()) Close(grpc::Status::OK);
}

void SynthesizeSession::OnSent(size_t left) {
  if (left != kResumeAt) return;
  strand().Post([self = Self<SynthesizeSession>()] {
    if (self != nullptr) self->Step();
  });
}

void SynthesizeSession::Fail(const absl::Status& status) {
  parts_.metrics.CountError(status.code());
  over_ = true;
  cancel_->Cancel();
  Close(rpc::ToGrpcStatus(status));
}

void SynthesizeSession::Check(absl::Time now) {
  strand().Post([self = Self<SynthesizeSession>(), now] {
    if (self == nullptr || self->closed_) return;
    if (self->deadline_ <= now)
      return self->Fail(DeadlineExceeded("the deadline, or --tts-max-stream-time, has passed"));
    const absl::Duration idle = self->parts_.config.idle_timeout;
    if (self->segments_.empty() && now - self->last_message_ > idle) {
      self->Fail(DeadlineExceeded("nothing to speak for {} s; the stream is closed",
                                  absl::ToInt64Seconds(idle)));
    }
  });
}

void SynthesizeSession::OnClosed() {
  closed_ = true;
  over_ = true;
  cancel_->Cancel();
  if (!speaking_) Leave();
}

void SynthesizeSession::Leave() {
  if (!engine_.empty()) parts_.metrics.streams_active.Decrement();
  chain_.reset();
  if (admitted_) parts_.streams.Remove(this);
}

}  // namespace parley
