#include "tts_gateway/riva.h"

#include <map>
#include <utility>

#include "base/status.h"
#include "rpc/bidi.h"
#include "rpc/channel.h"
#include "tts_gateway/riva_request.h"

namespace parley {
namespace {

namespace riva = nvidia::riva::tts;
using speech::v1::SynthesizeRequest;
using speech::v1::SynthesizeResponse;

constexpr size_t kThreads = 4;
constexpr size_t kWaitingCalls = 64;
constexpr size_t kOutbox = 16'384;  // as the gateway's own: a sentence is some 3,000 messages
constexpr size_t kMaxTexts = 1024;
constexpr size_t kMaxAudioBytes = 4'000'000;  // a message may hold 4 MiB
constexpr absl::Duration kLongest = absl::Minutes(2);

void AddWords(const speech::v1::SynthesizedAudio& audio,
              riva::SynthesizeSpeechResponseMetadata& meta) {
  for (const speech::v1::WordTiming& word : audio.words()) {
    riva::WordTiming& timing = *meta.add_words();
    timing.set_word(word.word());
    timing.set_start_time(word.start_ms());
    timing.set_end_time(word.end_ms());
  }
}

// One SynthesizeOnline.
class Session
    : public rpc::BidiSession<riva::SynthesizeSpeechRequest, riva::SynthesizeSpeechResponse> {
 public:
  Session(speech::v1::TextToSpeechService::Stub& stub, const std::vector<std::string>& engines,
          Executor& executor, std::string bearer)
      : BidiSession(executor, kOutbox),
        stub_(stub),
        engines_(engines),
        bearer_(std::move(bearer)) {}

 private:
  using Inner = rpc::ClientBidi<SynthesizeRequest, SynthesizeResponse>;

  void OnMessage(const riva::SynthesizeSpeechRequest& request) override {
    if (const absl::Status status = Say(request); !status.ok()) Close(rpc::ToGrpcStatus(status));
  }
  void OnHalfClose() override {
    if (inner_ == nullptr)
      return Close(rpc::ToGrpcStatus(InvalidArgument("the stream ended before its text")));
    inner_->HalfClose();
  }
  void OnClosed() override {
    if (inner_ != nullptr) inner_->Cancel();
  }
  absl::Status Say(const riva::SynthesizeSpeechRequest& request) {
    if (inner_ == nullptr) PARLEY_RETURN_IF_ERROR(Open(request));
    SynthesizeRequest text;
    text.set_text(request.text());
    PARLEY_RETURN_IF_ERROR(Pass(std::move(text)));
    SynthesizeRequest flush;
    flush.mutable_flush()->set_segment(++segment_);
    return Pass(std::move(flush));
  }
  absl::Status Open(const riva::SynthesizeSpeechRequest& request) {
    PARLEY_ASSIGN_OR_RETURN(SynthesizeRequest config, ReadRivaVoice(request, engines_));
    Inner::Options options;
    options.bearer = bearer_;
    options.outbox_limit = kMaxTexts;
    const std::weak_ptr<Session> weak = Self<Session>();
    options.on_message = [weak](SynthesizeResponse& response) {
      const auto self = weak.lock();
      if (self == nullptr || !response.has_audio()) return;
      riva::SynthesizeSpeechResponse out;
      AddWords(response.audio(), *out.mutable_meta());
      out.set_audio(std::move(*response.mutable_audio()->mutable_data()));
      if (!self->Send(std::move(out)))
        self->Close(rpc::ToGrpcStatus(ResourceExhausted("the client does not read its audio")));
    };
    options.on_done = [weak](const absl::Status& status) {
      if (const auto self = weak.lock()) self->Close(rpc::ToGrpcStatus(status));
    };
    inner_ = Inner::Open(
        [this](auto* context, auto* reactor) { stub_.async()->Synthesize(context, reactor); },
        std::move(options));
    return Pass(std::move(config));
  }
  // The inner stream's own end says more than a message that it did not take.
  absl::Status Pass(SynthesizeRequest request) {
    if (inner_->Send(std::move(request)) || inner_->queued() < kMaxTexts) return absl::OkStatus();
    return WithReason(ResourceExhausted("{} texts wait to be spoken", kMaxTexts), "GATEWAY_FULL",
                      {{"retry_after_ms", "500"}});
  }

  speech::v1::TextToSpeechService::Stub& stub_;
  const std::vector<std::string>& engines_;
  const std::string bearer_;
  std::shared_ptr<Inner> inner_;
  uint64_t segment_ = 0;
};

absl::Status SynthesizeAll(speech::v1::TextToSpeechService::Stub& stub, const std::string& bearer,
                           const std::vector<std::string>& engines,
                           const riva::SynthesizeSpeechRequest& request,
                           riva::SynthesizeSpeechResponse& response) {
  if (request.text().empty()) return InvalidArgument("there is no text");
  PARLEY_ASSIGN_OR_RETURN(SynthesizeRequest message, ReadRivaVoice(request, engines));
  grpc::ClientContext context;
  rpc::SetBearer(context, bearer);
  rpc::SetTimeout(context, kLongest);
  const auto stream = stub.Synthesize(&context);
  stream->Write(message);
  message.set_text(request.text());
  stream->Write(message);
  stream->WritesDone();
  SynthesizeResponse answer;
  while (stream->Read(&answer)) {
    if (!answer.has_audio()) continue;
    *response.mutable_audio() += answer.audio().data();
    AddWords(answer.audio(), *response.mutable_meta());
    if (response.audio().size() <= kMaxAudioBytes) continue;
    context.TryCancel();
    stream->Finish();
    return ResourceExhausted("more than {} bytes of audio; SynthesizeOnline sends it in pieces",
                             kMaxAudioBytes);
  }
  response.mutable_meta()->set_text(request.text());
  return rpc::FromGrpcStatus(stream->Finish());
}

}  // namespace

RivaSynthesis::RivaSynthesis(grpc::Service& own, std::vector<std::string> engines,
                             Executor& executor)
    : inner_(own),
      stub_(speech::v1::TextToSpeechService::NewStub(inner_.channel())),
      engines_(std::move(engines)),
      executor_(executor),
      waiting_(kThreads, kWaitingCalls) {}

grpc::ServerUnaryReactor* RivaSynthesis::Synthesize(grpc::CallbackServerContext* context,
                                                    const riva::SynthesizeSpeechRequest* request,
                                                    riva::SynthesizeSpeechResponse* response) {
  return rpc::Unary(waiting_, context, [this, bearer = rpc::BearerOf(*context), request, response] {
    return SynthesizeAll(*stub_, bearer, engines_, *request, *response);
  });
}

grpc::ServerBidiReactor<riva::SynthesizeSpeechRequest, riva::SynthesizeSpeechResponse>*
RivaSynthesis::SynthesizeOnline(grpc::CallbackServerContext* context) {
  return Session::Start<Session>(*stub_, engines_, executor_, rpc::BearerOf(*context));
}

grpc::ServerUnaryReactor* RivaSynthesis::GetRivaSynthesisConfig(
    grpc::CallbackServerContext* context, const riva::RivaSynthesisConfigRequest* request,
    riva::RivaSynthesisConfigResponse* response) {
  return rpc::Unary(
      waiting_, context,
      [this, bearer = rpc::BearerOf(*context), request, response]() -> absl::Status {
        grpc::ClientContext call;
        rpc::SetBearer(call, bearer);
        rpc::SetTimeout(call, absl::Seconds(5));
        speech::v1::ListVoicesResponse voices;
        PARLEY_RETURN_IF_ERROR(rpc::FromGrpcStatus(
            stub_->ListVoices(&call, speech::v1::ListVoicesRequest(), &voices)));
        std::map<std::string, riva::RivaSynthesisConfigResponse::Config> models;
        for (const speech::v1::VoiceInfo& voice : voices.voices()) {
          if (!request->model_name().empty() && request->model_name() != voice.engine()) continue;
          auto& model = models[voice.engine()];
          model.set_model_name(voice.engine());
          auto& parameters = *model.mutable_parameters();
          if (!voice.language().empty()) parameters["language_code"] = voice.language();
          parameters["sample_rate"] = std::to_string(voice.native_sample_rate_hz());
          // The subvoices of a model, as its clients list them.
          std::string& names = parameters["subvoices"];
          names += (names.empty() ? "" : ",") + voice.voice();
        }
        for (auto& [name, model] : models) *response->add_model_config() = std::move(model);
        return absl::OkStatus();
      });
}

}  // namespace parley
