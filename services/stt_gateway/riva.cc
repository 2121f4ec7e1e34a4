#include "stt_gateway/riva.h"

#include <utility>

#include "audio/pcm.h"
#include "audio/pcm_stream.h"
#include "audio/resample.h"
#include "audio/vad.h"
#include "base/status.h"
#include "rpc/bidi.h"
#include "rpc/channel.h"
#include "stt_gateway/riva_request.h"

namespace parley {
namespace {

namespace riva = nvidia::riva::asr;
using speech::v1::RecognizeRequest;
using speech::v1::RecognizeResponse;

constexpr size_t kThreads = 4;
constexpr size_t kWaitingCalls = 64;
constexpr size_t kOutbox = 1024;
constexpr size_t kPiece = 32 << 10;
constexpr absl::Duration kLongest = absl::Minutes(2);

// ---- what was heard ----

template <typename Result>
void Fill(const speech::v1::Transcript& from, bool words, float seconds, Result& to) {
  riva::SpeechRecognitionAlternative& alternative = *to.add_alternatives();
  alternative.set_transcript(from.text());
  alternative.set_confidence(from.confidence());
  if (!from.language().empty()) alternative.add_language_code(from.language());
  if (words) {
    for (const speech::v1::WordTiming& word : from.words()) {
      riva::WordInfo& info = *alternative.add_words();
      info.set_word(word.word());
      info.set_start_time(word.start_ms());
      info.set_end_time(word.end_ms());
      info.set_confidence(word.confidence());
    }
  }
  to.set_channel_tag(1);
  to.set_audio_processed(seconds);
}

// Finds the end of an utterance: speech, then silence.
class Endpointer {
 public:
  static absl::StatusOr<Endpointer> Create(int rate_hz) {
    PARLEY_ASSIGN_OR_RETURN(audio::Resampler resampler,
                            audio::Resampler::Create(rate_hz, audio::kVoiceRateHz));
    return Endpointer(std::move(resampler));
  }
  // Whether an utterance has ended in these.
  bool Hear(std::string_view pcm) {
    std::vector<int16_t> samples;
    audio::AppendSamples(pcm, samples);
    resampler_.Append(samples, waiting_);
    bool ended = false;
    size_t at = 0;
    for (; at + audio::kVoiceFrameSamples <= waiting_.size(); at += audio::kVoiceFrameSamples) {
      const bool speech =
          vad_->Process(std::span<const int16_t>(waiting_).subspan(at, audio::kVoiceFrameSamples))
              .speech;
      silence_ms_ = speech ? 0 : silence_ms_ + audio::kFrameMs;
      if (speech) speech_ms_ += audio::kFrameMs;
      if (speech_ms_ < kSpeechMs || silence_ms_ < kSilenceMs) continue;
      ended = true;
      speech_ms_ = 0;
    }
    waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(at));
    return ended;
  }

 private:
  static constexpr int kSpeechMs = 100;
  static constexpr int kSilenceMs = 800;
  explicit Endpointer(audio::Resampler resampler) : resampler_(std::move(resampler)) {}

  audio::Resampler resampler_;
  std::unique_ptr<audio::Vad> vad_ = audio::NewWebrtcVad();
  std::vector<int16_t> waiting_;
  int speech_ms_ = 0;
  int silence_ms_ = 0;
};

// One StreamingRecognize. The strand owns all state; what comes from inside comes on gRPC's threads
// and goes straight out.
class Session
    : public rpc::BidiSession<riva::StreamingRecognizeRequest, riva::StreamingRecognizeResponse> {
 public:
  Session(speech::v1::SpeechToTextService::Stub& stub, const std::vector<std::string>& engines,
          Executor& executor, std::string bearer)
      : BidiSession(executor, kOutbox),
        stub_(stub),
        engines_(engines),
        bearer_(std::move(bearer)) {}

 private:
  using Inner = rpc::ClientBidi<RecognizeRequest, RecognizeResponse>;

  void OnMessage(const riva::StreamingRecognizeRequest& request) override {
    const absl::Status status = request.has_streaming_config() ? Open(request.streaming_config())
                                                               : Feed(request.audio_content());
    if (!status.ok()) Close(rpc::ToGrpcStatus(status));
  }
  void OnHalfClose() override {
    if (inner_ == nullptr)
      return Close(rpc::ToGrpcStatus(InvalidArgument("the stream ended before its config")));
    inner_->HalfClose();
  }
  void OnClosed() override {
    if (inner_ != nullptr) inner_->Cancel();
  }

  absl::Status Open(const riva::StreamingRecognitionConfig& config) {
    if (inner_ != nullptr)
      return InvalidArgument("streaming_config comes once, as the first message");
    PARLEY_ASSIGN_OR_RETURN(RecognizeRequest request,
                            ReadRivaConfig(config.config(), engines_, config.interim_results()));
    PARLEY_ASSIGN_OR_RETURN(Endpointer endpointer,
                            Endpointer::Create(request.config().sample_rate_hz()));
    endpointer_.emplace(std::move(endpointer));
    pcm_.emplace(RivaChannels(config.config()));
    Inner::Options options;
    options.bearer = bearer_;
    options.outbox_limit = kOutbox;
    const std::weak_ptr<Session> weak = Self<Session>();
    const bool words = config.config().enable_word_time_offsets();
    // Milliseconds of audio are told by the words at most: what was sent is not known here.
    options.on_message = [weak, words](RecognizeResponse& response) {
      if (const auto self = weak.lock()) self->Tell(response, words);
    };
    options.on_done = [weak](const absl::Status& status) {
      if (const auto self = weak.lock()) self->Close(rpc::ToGrpcStatus(status));
    };
    inner_ = Inner::Open(
        [this](auto* context, auto* reactor) { stub_.async()->Recognize(context, reactor); },
        std::move(options));
    return Pass(std::move(request));
  }
  absl::Status Feed(const std::string& bytes) {
    if (inner_ == nullptr) return InvalidArgument("the first message must be streaming_config");
    PARLEY_ASSIGN_OR_RETURN(std::string pcm, pcm_->Append(bytes));
    for (size_t at = 0; at < pcm.size(); at += kPiece) {
      RecognizeRequest request;
      request.set_audio(pcm.substr(at, kPiece));
      const bool ended = endpointer_->Hear(request.audio());
      PARLEY_RETURN_IF_ERROR(Pass(std::move(request)));
      if (!ended) continue;
      RecognizeRequest end;
      end.mutable_end_utterance()->set_utterance(++utterance_);
      PARLEY_RETURN_IF_ERROR(Pass(std::move(end)));
    }
    return absl::OkStatus();
  }
  // The inner stream's own end says more than a message that it did not take.
  absl::Status Pass(RecognizeRequest request) {
    if (inner_->Send(std::move(request)) || inner_->queued() < kOutbox) return absl::OkStatus();
    return WithReason(ResourceExhausted("audio comes faster than it can be heard"), "GATEWAY_FULL",
                      {{"retry_after_ms", "500"}});
  }
  void Tell(const RecognizeResponse& response, bool words) {
    if (!response.has_partial() && !response.has_final()) return;
    const speech::v1::Transcript& heard =
        response.has_final() ? response.final() : response.partial();
    if (heard.text().empty()) return;
    riva::StreamingRecognizeResponse out;
    riva::StreamingRecognitionResult& result = *out.add_results();
    const float seconds =
        heard.words().empty() ? 0 : static_cast<float>(heard.words().rbegin()->end_ms()) / 1000;
    Fill(heard, words, seconds, result);
    result.set_is_final(response.has_final());
    result.set_stability(response.has_final() ? 1 : 0.5F);
    if (!Send(std::move(out)))
      Close(rpc::ToGrpcStatus(ResourceExhausted("the client does not read its results")));
  }

  speech::v1::SpeechToTextService::Stub& stub_;
  const std::vector<std::string>& engines_;
  const std::string bearer_;
  std::shared_ptr<Inner> inner_;
  std::optional<audio::PcmStream> pcm_;
  std::optional<Endpointer> endpointer_;
  uint64_t utterance_ = 0;
};

absl::Status RecognizeAll(speech::v1::SpeechToTextService::Stub& stub, const std::string& bearer,
                          const std::vector<std::string>& engines,
                          const riva::RecognizeRequest& request,
                          riva::RecognizeResponse& response) {
  PARLEY_ASSIGN_OR_RETURN(RecognizeRequest message,
                          ReadRivaConfig(request.config(), engines, false));
  PARLEY_ASSIGN_OR_RETURN(const std::string pcm, ReadRivaAudio(request, message));
  const float seconds =
      static_cast<float>(pcm.size()) / 2 / static_cast<float>(message.config().sample_rate_hz());
  grpc::ClientContext context;
  rpc::SetBearer(context, bearer);
  rpc::SetTimeout(context, kLongest);
  const auto stream = stub.Recognize(&context);
  stream->Write(message);
  for (size_t at = 0; at < pcm.size(); at += kPiece) {
    message.set_audio(pcm.substr(at, kPiece));
    if (!stream->Write(message)) break;
  }
  stream->WritesDone();
  RecognizeResponse answer;
  while (stream->Read(&answer)) {
    if (!answer.has_final() || answer.final().text().empty()) continue;
    Fill(answer.final(), request.config().enable_word_time_offsets(), seconds,
         *response.add_results());
  }
  return rpc::FromGrpcStatus(stream->Finish());
}

}  // namespace

RivaRecognition::RivaRecognition(grpc::Service& own, std::vector<std::string> engines,
                                 Executor& executor)
    : inner_(own),
      stub_(speech::v1::SpeechToTextService::NewStub(inner_.channel())),
      engines_(std::move(engines)),
      executor_(executor),
      waiting_(kThreads, kWaitingCalls) {}

grpc::ServerUnaryReactor* RivaRecognition::Recognize(grpc::CallbackServerContext* context,
                                                     const riva::RecognizeRequest* request,
                                                     riva::RecognizeResponse* response) {
  return rpc::Unary(waiting_, context, [this, bearer = rpc::BearerOf(*context), request, response] {
    return RecognizeAll(*stub_, bearer, engines_, *request, *response);
  });
}

grpc::ServerBidiReactor<riva::StreamingRecognizeRequest, riva::StreamingRecognizeResponse>*
RivaRecognition::StreamingRecognize(grpc::CallbackServerContext* context) {
  return Session::Start<Session>(*stub_, engines_, executor_, rpc::BearerOf(*context));
}

grpc::ServerUnaryReactor* RivaRecognition::GetRivaSpeechRecognitionConfig(
    grpc::CallbackServerContext* context, const riva::RivaSpeechRecognitionConfigRequest* request,
    riva::RivaSpeechRecognitionConfigResponse* response) {
  return rpc::Unary(
      waiting_, context,
      [this, bearer = rpc::BearerOf(*context), request, response]() -> absl::Status {
        grpc::ClientContext call;
        rpc::SetBearer(call, bearer);
        rpc::SetTimeout(call, absl::Seconds(5));
        speech::v1::ListEnginesResponse engines;
        PARLEY_RETURN_IF_ERROR(rpc::FromGrpcStatus(
            stub_->ListEngines(&call, speech::v1::ListEnginesRequest(), &engines)));
        for (const speech::v1::EngineInfo& engine : engines.engines()) {
          if (!request->model_name().empty() && request->model_name() != engine.name()) continue;
          auto& config = *response->add_model_config();
          config.set_model_name(engine.name());
          auto& parameters = *config.mutable_parameters();
          parameters["streaming"] = engine.streaming() ? "True" : "False";
          parameters["sample_rate"] = std::to_string(kRivaHearsHz);
          if (!engine.languages().empty()) parameters["language_code"] = engine.languages(0);
        }
        return absl::OkStatus();
      });
}

}  // namespace parley
