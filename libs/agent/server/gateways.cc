#include "agent/server/gateways.h"

#include <utility>

#include "base/status.h"
#include "rpc/channel.h"
#include "rpc/status.h"

namespace parley::agent {
namespace {

using parley::common::v1::CallContext;
using parley::job::v1::LlmCommand;
using parley::job::v1::RealtimeCommand;
using parley::job::v1::StreamFailed;
using parley::job::v1::SttCommand;
using parley::job::v1::ToJob;
using parley::job::v1::TtsCommand;
using parley::llm::v1::ChatRequest;
using parley::llm::v1::ChatResponse;
using parley::llm::v1::RealtimeRequest;
using parley::llm::v1::RealtimeResponse;
using parley::speech::v1::RecognizeConfig;
using parley::speech::v1::RecognizeRequest;
using parley::speech::v1::RecognizeResponse;
using parley::speech::v1::SynthesizeConfig;
using parley::speech::v1::SynthesizeRequest;
using parley::speech::v1::SynthesizeResponse;

constexpr size_t kStreamsPerKind = 64;  // of one job; a session needs two or three
constexpr absl::Duration kLongestChat = absl::Minutes(5);

void Fill(StreamFailed* failed, const absl::Status& status) {
  failed->set_code(static_cast<int32_t>(status.code()));
  failed->set_reason(ReasonOf(status).reason);
  failed->set_message(std::string(Message(status)));
}

absl::Status TooMany(std::string_view kind) {
  return ResourceExhausted("a job may have {} {} streams open at a time", kStreamsPerKind, kind);
}

}  // namespace

Gateways::Gateways(const Addresses& addresses, std::function<std::string(const std::string&)> token)
    : stt_(parley::speech::v1::SpeechToTextService::NewStub(rpc::MakeChannel(addresses.stt))),
      tts_(parley::speech::v1::TextToSpeechService::NewStub(rpc::MakeChannel(addresses.tts))),
      llm_(parley::llm::v1::LanguageModelService::NewStub(rpc::MakeChannel(addresses.llm))),
      token_(std::move(token)) {}

// One server-streaming Chat. Lives until gRPC is done with it.
class GatewayStreams::LlmCall : public grpc::ClientReadReactor<ChatResponse> {
 public:
  struct Callbacks {
    std::function<void(const ChatResponse&)> on_message;
    std::function<void(const absl::Status&)> on_done;
  };
  static std::shared_ptr<LlmCall> Open(Gateways& gateways, ChatRequest request,
                                       const std::string& token, Callbacks callbacks) {
    auto call = std::shared_ptr<LlmCall>(new LlmCall(std::move(request), std::move(callbacks)));
    call->self_ = call;
    rpc::SetBearer(call->context_, token);
    rpc::SetTimeout(call->context_, kLongestChat);
    gateways.llm().async()->Chat(&call->context_, &call->request_, call.get());
    call->StartRead(&call->in_);
    call->StartCall();
    return call;
  }
  void Cancel() { context_.TryCancel(); }

 private:
  LlmCall(ChatRequest request, Callbacks callbacks)
      : request_(std::move(request)), callbacks_(std::move(callbacks)) {}
  void OnReadDone(bool ok) final {
    if (!ok) return;
    callbacks_.on_message(in_);
    StartRead(&in_);
  }
  void OnDone(const grpc::Status& status) final {
    const auto self = std::move(self_);
    callbacks_.on_done(rpc::FromGrpcStatus(status));
  }

  const ChatRequest request_;
  const Callbacks callbacks_;
  grpc::ClientContext context_;
  ChatResponse in_;
  std::shared_ptr<LlmCall> self_;
};

GatewayStreams::GatewayStreams(std::shared_ptr<event::Loop> loop, Gateways& gateways,
                               CallContext identity, std::function<void(ToJob&)> emit)
    : loop_(std::move(loop)),
      gateways_(gateways),
      identity_(std::move(identity)),
      emit_(std::move(emit)) {}

GatewayStreams::~GatewayStreams() {
  for (auto& [id, stream] : stt_) stream->Cancel();
  for (auto& [id, stream] : tts_) stream->Cancel();
  for (auto& [id, call] : llm_) call->Cancel();
  for (auto& [id, stream] : realtime_) stream->Cancel();
}

// Only the loop's thread ever holds more than a weak reference: it alone destroys.
GatewayStreams::Poster GatewayStreams::MakePoster() {
  return [loop = loop_, weak = weak_from_this()](std::function<void(GatewayStreams&)> work) {
    loop->Post([weak, work = std::move(work)] {
      if (const auto self = weak.lock()) work(*self);
    });
  };
}

void GatewayStreams::FillContext(CallContext* context) const {
  context->set_project(identity_.project());
  context->set_agent_id(identity_.agent_id());
  context->set_agent_version(identity_.agent_version());
  context->set_session_id(identity_.session_id());
  if (context->traceparent().empty()) context->set_traceparent(identity_.traceparent());
}

// ---- speech to text ----

void GatewayStreams::OpenStt(uint32_t id, const RecognizeConfig& config) {
  if (stt_.contains(id)) return;
  if (stt_.size() >= kStreamsPerKind) return SttOver(id, TooMany("speech-to-text"));
  SttStream::Options options;
  options.bearer = gateways_.Token(identity_.project());
  options.on_message = [post = MakePoster(), id](RecognizeResponse& response) {
    post([id, response = std::move(response)](GatewayStreams& streams) mutable {
      ToJob message;
      message.mutable_stt()->set_stream(id);
      *message.mutable_stt()->mutable_response() = std::move(response);
      streams.emit_(message);
    });
  };
  options.on_done = [post = MakePoster(), id](const absl::Status& status) {
    post([id, status](GatewayStreams& streams) { streams.SttOver(id, status); });
  };
  const auto stream = SttStream::Open(
      [this](auto* context, auto* reactor) {
        gateways_.stt().async()->Recognize(context, reactor);
      },
      std::move(options));
  stt_[id] = stream;
  RecognizeRequest request;
  *request.mutable_config() = config;
  FillContext(request.mutable_config()->mutable_context());
  stream->Send(std::move(request));
}

void GatewayStreams::OnStt(const SttCommand& command) {
  const uint32_t id = command.stream();
  if (command.has_open()) return OpenStt(id, command.open());
  const auto it = stt_.find(id);
  if (it == stt_.end()) return;  // over; the job has been told
  RecognizeRequest request;
  switch (command.command_case()) {
    case SttCommand::kAudio:
      request.set_audio(command.audio());
      break;
    case SttCommand::kEndUtterance:
      *request.mutable_end_utterance() = command.end_utterance();
      break;
    case SttCommand::kReset:
      *request.mutable_reset() = command.reset();
      break;
    case SttCommand::kClose:
      return it->second->HalfClose();
    default:
      return;
  }
  if (it->second->Send(std::move(request))) return;
  // Its 1,024 messages are 20 s of audio: the gateway has stopped reading.
  it->second->Cancel();
  SttOver(id, ResourceExhausted("the speech-to-text gateway does not keep up"));
}

void GatewayStreams::SttOver(uint32_t id, const absl::Status& status) {
  const bool was_open = stt_.erase(id) > 0;
  if (!was_open && status.ok()) return;
  if (!was_open && absl::IsCancelled(status)) return;  // the echo of our own Cancel
  ToJob message;
  message.mutable_stt()->set_stream(id);
  if (status.ok()) {
    message.mutable_stt()->mutable_closed();
  } else {
    Fill(message.mutable_stt()->mutable_failed(), status);
  }
  emit_(message);
}

// ---- text to speech ----

void GatewayStreams::OpenTts(uint32_t id, const SynthesizeConfig& config) {
  if (tts_.contains(id)) return;
  if (tts_.size() >= kStreamsPerKind) return TtsOver(id, TooMany("text-to-speech"));
  TtsStream::Options options;
  options.bearer = gateways_.Token(identity_.project());
  options.on_message = [post = MakePoster(), id](SynthesizeResponse& response) {
    post([id, response = std::move(response)](GatewayStreams& streams) mutable {
      if (!streams.tts_.contains(id)) return;  // cancelled by the job
      ToJob message;
      message.mutable_tts()->set_stream(id);
      *message.mutable_tts()->mutable_response() = std::move(response);
      streams.emit_(message);
    });
  };
  options.on_done = [post = MakePoster(), id](const absl::Status& status) {
    post([id, status](GatewayStreams& streams) { streams.TtsOver(id, status); });
  };
  const auto stream = TtsStream::Open(
      [this](auto* context, auto* reactor) {
        gateways_.tts().async()->Synthesize(context, reactor);
      },
      std::move(options));
  tts_[id] = stream;
  SynthesizeRequest request;
  *request.mutable_config() = config;
  FillContext(request.mutable_config()->mutable_context());
  stream->Send(std::move(request));
}

void GatewayStreams::OnTts(const TtsCommand& command) {
  const uint32_t id = command.stream();
  if (command.has_open()) return OpenTts(id, command.open());
  const auto it = tts_.find(id);
  if (it == tts_.end()) return;
  SynthesizeRequest request;
  switch (command.command_case()) {
    case TtsCommand::kText:
      request.set_text(command.text());
      break;
    case TtsCommand::kFlush:
      *request.mutable_flush() = command.flush();
      break;
    case TtsCommand::kFinish:
      return it->second->HalfClose();
    case TtsCommand::kCancel:
      it->second->Cancel();
      return TtsOver(id, absl::OkStatus());
    default:
      return;
  }
  if (it->second->Send(std::move(request))) return;
  it->second->Cancel();
  TtsOver(id, ResourceExhausted("the text-to-speech gateway does not keep up"));
}

void GatewayStreams::TtsOver(uint32_t id, const absl::Status& status) {
  const bool was_open = tts_.erase(id) > 0;
  if (!was_open && (status.ok() || absl::IsCancelled(status))) return;
  ToJob message;
  message.mutable_tts()->set_stream(id);
  if (status.ok()) {
    message.mutable_tts()->mutable_closed();
  } else {
    Fill(message.mutable_tts()->mutable_failed(), status);
  }
  emit_(message);
}

// ---- language model ----

void GatewayStreams::OpenLlm(uint32_t id, const ChatRequest& request) {
  if (llm_.contains(id)) return;
  if (llm_.size() >= kStreamsPerKind) return LlmOver(id, TooMany("language model"));
  ChatRequest filled = request;
  FillContext(filled.mutable_context());
  LlmCall::Callbacks callbacks;
  callbacks.on_message = [post = MakePoster(), id](const ChatResponse& response) {
    post([id, response](GatewayStreams& streams) {
      if (!streams.llm_.contains(id)) return;  // cancelled by the job
      ToJob message;
      message.mutable_llm()->set_stream(id);
      *message.mutable_llm()->mutable_response() = response;
      streams.emit_(message);
    });
  };
  callbacks.on_done = [post = MakePoster(), id](const absl::Status& status) {
    post([id, status](GatewayStreams& streams) { streams.LlmOver(id, status); });
  };
  llm_[id] = LlmCall::Open(gateways_, std::move(filled), gateways_.Token(identity_.project()),
                           std::move(callbacks));
}

void GatewayStreams::OnLlm(const LlmCommand& command) {
  if (command.has_chat()) return OpenLlm(command.stream(), command.chat());
  const auto it = llm_.find(command.stream());
  if (!command.has_cancel() || it == llm_.end()) return;
  it->second->Cancel();
  llm_.erase(it);  // whatever still comes is dropped
}

// A good stream has ended with `done`; only failures need saying.
void GatewayStreams::LlmOver(uint32_t id, const absl::Status& status) {
  const bool was_open = llm_.erase(id) > 0;
  if (status.ok() || (!was_open && absl::IsCancelled(status))) return;
  ToJob message;
  message.mutable_llm()->set_stream(id);
  Fill(message.mutable_llm()->mutable_failed(), status);
  emit_(message);
}

// ---- models that hear and speak ----

void GatewayStreams::OpenRealtime(uint32_t id, const RealtimeRequest& request) {
  if (realtime_.size() >= kStreamsPerKind) return RealtimeOver(id, TooMany("realtime"));
  RealtimeStream::Options options;
  options.bearer = gateways_.Token(identity_.project());
  options.on_message = [post = MakePoster(), id](RealtimeResponse& response) {
    post([id, response = std::move(response)](GatewayStreams& streams) {
      if (!streams.realtime_.contains(id)) return;  // closed by the job
      ToJob message;
      message.mutable_realtime()->set_stream(id);
      *message.mutable_realtime()->mutable_response() = response;
      streams.emit_(message);
    });
  };
  options.on_done = [post = MakePoster(), id](const absl::Status& status) {
    post([id, status](GatewayStreams& streams) { streams.RealtimeOver(id, status); });
  };
  const auto stream = RealtimeStream::Open(
      [this](auto* context, auto* reactor) { gateways_.llm().async()->Realtime(context, reactor); },
      std::move(options));
  realtime_[id] = stream;
  RealtimeRequest first = request;
  FillContext(first.mutable_config()->mutable_context());
  stream->Send(std::move(first));
}

void GatewayStreams::OnRealtime(const RealtimeCommand& command) {
  const uint32_t id = command.stream();
  const auto it = realtime_.find(id);
  if (it == realtime_.end()) {
    if (command.request().has_config()) OpenRealtime(id, command.request());
    return;  // else it is over; the job has been told
  }
  if (command.has_close()) {
    it->second->Cancel();
    realtime_.erase(it);  // whatever still comes is dropped
    return;
  }
  if (command.request().has_config() || it->second->Send(command.request())) return;
  // Its 1,024 messages are 20 s of audio: the gateway has stopped reading.
  it->second->Cancel();
  RealtimeOver(id, ResourceExhausted("the realtime gateway does not keep up"));
}

void GatewayStreams::RealtimeOver(uint32_t id, const absl::Status& status) {
  const bool was_open = realtime_.erase(id) > 0;
  if (!was_open && (status.ok() || absl::IsCancelled(status))) return;
  ToJob message;
  message.mutable_realtime()->set_stream(id);
  if (status.ok()) {
    message.mutable_realtime()->mutable_closed();
  } else {
    Fill(message.mutable_realtime()->mutable_failed(), status);
  }
  emit_(message);
}

}  // namespace parley::agent
