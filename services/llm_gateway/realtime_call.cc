#include "llm_gateway/realtime_call.h"

#include <algorithm>
#include <utility>

#include "audio/pcm.h"
#include "base/clock.h"
#include "base/status.h"
#include "llm_gateway/convert.h"
#include "rpc/status.h"

namespace parley {
namespace {

// The model makes minutes of audio in seconds: 1,024 pieces are five minutes, and 16 MiB.
constexpr size_t kOutbox = 1024;
constexpr size_t kPieceBytes = size_t{16} << 10;
constexpr size_t kMaxAudioBytes = size_t{64} << 10;
constexpr absl::Duration kReadyWithin = absl::Seconds(10);

absl::Status CheckRate(const char* name, int rate_hz) {
  if (rate_hz >= 8000 && rate_hz <= 48000) return absl::OkStatus();
  return InvalidArgument("{} {} is out of range: 8000 to 48000", name, rate_hz);
}

absl::Status NoPictures() { return InvalidArgument("realtime models are shown no pictures here"); }

}  // namespace

RealtimeCall::RealtimeCall(LlmGatewayParts& parts, std::string bearer)
    : BidiSession(parts.context.executor(), kOutbox), parts_(parts), bearer_(std::move(bearer)) {}

void RealtimeCall::OnStart() {
  admitted_ = parts_.streams.Add(this, Self<RealtimeCall>());
  if (!admitted_) {
    Close(rpc::ToGrpcStatus(
        gateway::Busy("answers", static_cast<size_t>(parts_.config.max_chats), "llm-max-chats")));
  }
}

void RealtimeCall::OnMessage(const llm::v1::RealtimeRequest& request) {
  if (const absl::Status status = Handle(request); !status.ok()) Fail(status);
}

absl::Status RealtimeCall::Handle(const llm::v1::RealtimeRequest& request) {
  using Request = llm::v1::RealtimeRequest;
  if (!admitted_) return absl::OkStatus();
  if (request.message_case() == Request::kConfig) {
    if (stream_ != nullptr) return InvalidArgument("config comes once, as the first message");
    return Open(request.config());
  }
  if (stream_ == nullptr) return InvalidArgument("the first message must be config");
  switch (request.message_case()) {
    case Request::kAudio:
      return OnAudio(request.audio());
    case Request::kCommit:
      stream_->Commit(request.commit().utterance());
      return absl::OkStatus();
    case Request::kClear:
      stream_->Clear(request.clear().from_utterance());
      return absl::OkStatus();
    case Request::kItem: {
      PARLEY_ASSIGN_OR_RETURN(const speech::ChatItem item, ToItem(request.item()));
      if (!request.item().message().images().empty()) return NoPictures();
      stream_->Add(item);
      return absl::OkStatus();
    }
    case Request::kRespond:
      if (request.respond().response() == 0) return InvalidArgument("a response has number 0");
      return stream_->Respond(request.respond().response(), request.respond().instructions(),
                              request.respond().tool_choice());
    case Request::kCancel:
      stream_->Cancel(request.cancel().response());
      return absl::OkStatus();
    case Request::kTruncate:
      if (request.truncate().audio_ms() < 0)
        return InvalidArgument("audio_ms {} is negative", request.truncate().audio_ms());
      stream_->Truncate(request.truncate().response(),
                        absl::Milliseconds(request.truncate().audio_ms()));
      return absl::OkStatus();
    default:
      return InvalidArgument("a message without content");
  }
}

absl::Status RealtimeCall::Open(const llm::v1::RealtimeConfig& config) {
  speech::RealtimeConfig out;
  PARLEY_ASSIGN_OR_RETURN(out.caller, gateway::CallerOf(parts_.context, bearer_, config.context()));
  deadline_ = gateway::DeadlineOf(config.context());
  PARLEY_RETURN_IF_ERROR(CheckRate("input_rate_hz", config.input_rate_hz()));
  PARLEY_RETURN_IF_ERROR(CheckRate("output_rate_hz", config.output_rate_hz()));
  engine_ = config.model().engine();
  model_ = config.model().model();
  session_id_ = config.context().session_id();
  PARLEY_ASSIGN_OR_RETURN(speech::RealtimeEngine * engine, parts_.realtime.Find(engine_));
  PARLEY_ASSIGN_OR_RETURN(audio::Resampler in,
                          audio::Resampler::Create(config.input_rate_hz(), engine->rate_hz()));
  PARLEY_ASSIGN_OR_RETURN(audio::Resampler back,
                          audio::Resampler::Create(engine->rate_hz(), config.output_rate_hz()));
  in_.emplace(std::move(in));
  out_.emplace(std::move(back));
  llm::v1::ChatRequest history;
  *history.mutable_items() = config.items();
  *history.mutable_tools() = config.tools();
  PARLEY_ASSIGN_OR_RETURN(speech::ChatPrompt prompt, ToPrompt(history));
  if (speech::HasImages(prompt)) return NoPictures();
  out.model = ToConfig(config.model());
  out.voice = config.voice();
  out.items = std::move(prompt.items);
  out.tools = std::move(prompt.tools);
  out.server_turns = config.server_turns();
  out.silence = absl::Milliseconds(config.silence_ms());
  out.language = config.language();
  const std::string key = engine_ + "/" + model_;
  if (!parts_.breakers.Allow(key))
    return Unavailable("{} failed lately and is not asked for now", engine_);
  breaker_ = key;
  opened_ = Clock::Real().Now();
  auto stream =
      engine->Open(out, [weak = std::weak_ptr(Self<RealtimeCall>())](speech::RealtimeEvent event) {
        const std::shared_ptr<RealtimeCall> self = weak.lock();
        if (self == nullptr) return;
        self->strand().Post(
            [self, event = std::move(event)]() mutable { self->OnEvent(std::move(event)); });
      });
  PARLEY_RETURN_IF_ERROR(stream.status());
  stream_ = *std::move(stream);
  parts_.metrics.realtime_active.Increment();
  return absl::OkStatus();
}

absl::Status RealtimeCall::OnAudio(const std::string& bytes) {
  if (bytes.size() > kMaxAudioBytes || bytes.size() % sizeof(int16_t) != 0) {
    return InvalidArgument("{} bytes of audio: whole samples, at most {} bytes", bytes.size(),
                           kMaxAudioBytes);
  }
  samples_.clear();
  resampled_.clear();
  audio::AppendSamples(bytes, samples_);
  in_->Append(samples_, resampled_);
  if (!resampled_.empty()) stream_->Audio(resampled_);
  return absl::OkStatus();
}

void RealtimeCall::OnEvent(speech::RealtimeEvent event) {
  if (stream_ == nullptr) return;  // over
  llm::v1::RealtimeResponse response;
  if (auto* audio = std::get_if<speech::RealtimeAudio>(&event)) return OnAudio(std::move(*audio));
  if (const auto* failed = std::get_if<speech::RealtimeFailed>(&event)) {
    return Fail(failed->status);
  }
  if (const auto* warning = std::get_if<speech::RealtimeWarning>(&event)) {
    return parts_.context.log().Warn(
        "the realtime provider complains",
        {{"engine", engine_}, {"session", session_id_}, {"error", warning->text}});
  }
  if (std::holds_alternative<speech::RealtimeReady>(event)) {
    if (std::exchange(ready_, true)) return;
    parts_.breakers.Report(std::exchange(breaker_, {}), absl::OkStatus());
    response.mutable_ready()->set_engine(engine_);
    response.mutable_ready()->set_model(model_);
  } else if (const auto* speech = std::get_if<speech::RealtimeSpeech>(&event)) {
    response.mutable_speech()->set_started(speech->started);
    response.mutable_speech()->set_utterance(speech->utterance);
  } else if (auto* transcript = std::get_if<speech::RealtimeTranscript>(&event)) {
    response.mutable_transcript()->set_utterance(transcript->utterance);
    response.mutable_transcript()->set_text(std::move(transcript->text));
    response.mutable_transcript()->set_final(transcript->final);
  } else if (auto* text = std::get_if<speech::RealtimeText>(&event)) {
    response.mutable_text()->set_response(text->response);
    response.mutable_text()->set_delta(std::move(text->delta));
  } else if (auto* call = std::get_if<speech::RealtimeToolCall>(&event)) {
    response.mutable_tool_call()->set_response(call->response);
    *response.mutable_tool_call()->mutable_call() =
        ToProto(speech::ChatPiece(std::move(call->call))).tool_call();
  } else if (auto* done = std::get_if<speech::RealtimeDone>(&event)) {
    parts_.metrics.input_tokens.Increment(static_cast<double>(done->usage.input_tokens));
    parts_.metrics.output_tokens.Increment(static_cast<double>(done->usage.output_tokens));
    speech::ChatDone plain;
    plain.finish_reason = done->finish_reason;
    plain.usage = done->usage;
    llm::v1::RealtimeDone& out = *response.mutable_done();
    out.set_response(done->response);
    out.set_finish_reason(done->finish_reason);
    out.set_error(std::move(done->error));
    *out.mutable_usage() = ToProto(plain, engine_).done().usage();
  }
  Tell(std::move(response));
}

void RealtimeCall::OnAudio(speech::RealtimeAudio audio) {
  resampled_.clear();
  out_->Append(audio.samples, resampled_);
  constexpr size_t kMost = kPieceBytes / sizeof(int16_t);
  for (size_t at = 0; at < resampled_.size(); at += kMost) {
    const size_t count = std::min(kMost, resampled_.size() - at);
    llm::v1::RealtimeResponse response;
    response.mutable_audio()->set_response(audio.response);
    response.mutable_audio()->set_data(
        std::string(audio::AsBytes(std::span(resampled_).subspan(at, count))));
    Tell(std::move(response));
  }
}

void RealtimeCall::Tell(llm::v1::RealtimeResponse response) {
  if (!Send(std::move(response)))
    Close(rpc::ToGrpcStatus(ResourceExhausted("the client does not read what the model says")));
}

void RealtimeCall::Fail(const absl::Status& status) {
  if (!breaker_.empty()) parts_.breakers.Report(std::exchange(breaker_, {}), status);
  parts_.metrics.CountError(status.code());
  Close(rpc::ToGrpcStatus(status));
}

void RealtimeCall::Check(absl::Time now) {
  strand().Post([self = Self<RealtimeCall>(), now] {
    if (self == nullptr || self->stream_ == nullptr) return;
    if (self->deadline_ <= now) return self->Fail(DeadlineExceeded("the deadline has passed"));
    if (!self->ready_ && now - self->opened_ > kReadyWithin) {
      return self->Fail(Unavailable("the provider was not ready within {} s",
                                    absl::ToInt64Seconds(kReadyWithin)));
    }
    self->stream_->Check();
  });
}

void RealtimeCall::OnClosed() {
  if (stream_ != nullptr) parts_.metrics.realtime_active.Decrement();
  stream_.reset();
  // Nobody waited for it: it says nothing of the provider.
  if (!breaker_.empty()) parts_.breakers.Report(breaker_, Cancelled("closed"));
  if (admitted_) parts_.streams.Remove(this);
}

}  // namespace parley
