// /v1/chat/completions and /v1/models: the language models for programs that speak OpenAI's HTTP.
#include <algorithm>

#include "api_server/chat_codec.h"
#include "api_server/event_pump.h"
#include "api_server/routes.h"
#include "api_server/v1.h"
#include "base/ids.h"
#include "base/mutex.h"
#include "base/status.h"
#include "rpc/status.h"

namespace parley::api_server {
namespace {

constexpr absl::Duration kLongest = absl::Minutes(2);

ChatWriter WriterOf(const std::string& model) {
  return {"chatcmpl-" + RandomBase62(24), absl::ToUnixSeconds(absl::Now()), model};
}

// One streamed answer: reads from the gateway, writes to its client, and ends with either.
class ChatPump : public grpc::ClientReadReactor<llm::v1::ChatResponse> {
 public:
  // Blocks until the first piece is there, so that a refusal is the answer.
  static absl::StatusOr<std::shared_ptr<http::BodyStream>> Start(Backend& backend,
                                                                 const std::string& bearer,
                                                                 ChatRequest request) {
    const auto pump = std::shared_ptr<ChatPump>(new ChatPump(std::move(request)));
    pump->self_ = pump;
    Prepare(pump->context_, bearer, kLongest);
    backend.llm->async()->Chat(&pump->context_, &pump->request_.call, pump.get());
    pump->body_->OnGone([weak = std::weak_ptr<ChatPump>(pump)] {
      if (const auto alive = weak.lock()) alive->context_.TryCancel();
    });
    pump->StartRead(&pump->response_);
    pump->StartCall();
    PARLEY_RETURN_IF_ERROR(pump->WaitBegun());
    return pump->body_;
  }

 private:
  explicit ChatPump(ChatRequest request)
      : request_(std::move(request)),
        body_(std::make_shared<http::BodyStream>(/*endless=*/false)),
        writer_(WriterOf(request_.model)) {}

  void OnReadDone(bool ok) final {
    if (!ok) return;  // OnDone says why
    const bool taken = body_->Write(writer_.Chunk(response_, request_.usage_in_stream));
    Begun(absl::OkStatus());
    if (!taken) context_.TryCancel();
    StartRead(&response_);
  }
  void OnDone(const grpc::Status& status) final {
    const absl::Status result = rpc::FromGrpcStatus(status);
    // Who was refused before the first piece gets that as the answer.
    body_->Write(result.ok() ? ChatWriter::End() : ChatWriter::BrokenOff(result));
    Begun(result);
    body_->End();
    const auto self = std::move(self_);
  }
  void Begun(const absl::Status& status) {
    MutexLock lock(&mutex_);
    if (begun_) return;
    begun_ = true;
    status_ = status;
    changed_.SignalAll();
  }
  absl::Status WaitBegun() {
    MutexLock lock(&mutex_);
    while (!begun_) changed_.Wait(&mutex_);  // at most the call's deadline
    return status_;
  }

  const ChatRequest request_;
  grpc::ClientContext context_;
  llm::v1::ChatResponse response_;
  const std::shared_ptr<http::BodyStream> body_;
  ChatWriter writer_;
  std::shared_ptr<ChatPump> self_;  // until OnDone
  Mutex mutex_;
  CondVar changed_;
  bool begun_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

// The version that serves most of what is dispatched; 0: the newest.
absl::StatusOr<uint64_t> VersionOf(Backend& backend, const std::string& bearer,
                                   const std::string& agent) {
  registry::v1::GetDeploymentRequest call;
  call.set_id(agent);
  grpc::ClientContext context;
  Prepare(context, bearer);
  registry::v1::GetDeploymentResponse response;
  PARLEY_RETURN_IF_ERROR(
      rpc::FromGrpcStatus(backend.registry->GetDeployment(&context, call, &response)));
  const auto& shares = response.deployment().versions();
  const auto most =
      std::max_element(shares.begin(), shares.end(),
                       [](const auto& a, const auto& b) { return a.percent() < b.percent(); });
  return most == shares.end() ? 0 : most->version();
}

absl::Status AskAsAgent(Backend& backend, const std::string& bearer, ChatRequest& chat) {
  registry::v1::GetAgentRequest call;
  call.set_id(chat.agent);
  PARLEY_ASSIGN_OR_RETURN(const uint64_t version, VersionOf(backend, bearer, chat.agent));
  call.set_version(version);
  grpc::ClientContext context;
  Prepare(context, bearer);
  registry::v1::GetAgentResponse response;
  PARLEY_RETURN_IF_ERROR(
      rpc::FromGrpcStatus(backend.registry->GetAgent(&context, call, &response)));
  return AskAs(response.agent().definition_json(), chat.call);
}

absl::StatusOr<http::Response> Chat(Backend& backend, const http::Request& request) {
  PARLEY_ASSIGN_OR_RETURN(const auth::Claims claims, AuthenticateV1(backend, request));
  PARLEY_ASSIGN_OR_RETURN(ChatRequest chat, ReadChat(request.body));
  const std::string bearer = backend.context.ServiceToken(claims.project);
  if (!chat.agent.empty()) PARLEY_RETURN_IF_ERROR(AskAsAgent(backend, bearer, chat));
  chat.call.mutable_context()->set_project(claims.project);
  chat.call.mutable_context()->set_traceparent(CurrentTrace().Traceparent());
  if (chat.stream) {
    PARLEY_ASSIGN_OR_RETURN(auto body, ChatPump::Start(backend, bearer, std::move(chat)));
    return EventStream(std::move(body));
  }
  grpc::ClientContext context;
  Prepare(context, bearer, kLongest);
  ChatWriter writer = WriterOf(chat.model);
  const auto reader = backend.llm->Chat(&context, chat.call);
  llm::v1::ChatResponse piece;
  absl::Status kept;
  while (kept.ok() && reader->Read(&piece)) kept = writer.Add(piece);
  if (!kept.ok()) context.TryCancel();
  const absl::Status ended = rpc::FromGrpcStatus(reader->Finish());
  PARLEY_RETURN_IF_ERROR(kept);
  PARLEY_RETURN_IF_ERROR(ended);
  return JsonResponse(writer.Whole());
}

absl::StatusOr<http::Response> ListModels(Backend& backend, const http::Request& request) {
  PARLEY_ASSIGN_OR_RETURN(const auth::Claims claims, AuthenticateV1(backend, request));
  grpc::ClientContext context;
  Prepare(context, backend.context.ServiceToken(claims.project));
  llm::v1::ListModelsResponse models;
  PARLEY_RETURN_IF_ERROR(rpc::FromGrpcStatus(backend.llm->ListModels(&context, {}, &models)));
  Json list = Json::array();
  for (const llm::v1::ModelInfo& model : models.models()) {
    const std::string id =
        model.model().empty() ? model.engine() : model.engine() + "/" + model.model();
    list.push_back({{"id", id}, {"object", "model"}, {"created", 0}, {"owned_by", model.engine()}});
  }
  return JsonResponse({{"object", "list"}, {"data", std::move(list)}});
}

}  // namespace

void AddChatRoutes(Backend& backend, std::vector<Route>& routes) {
  routes.push_back(
      {"POST", "/v1/chat/completions",
       "Language models: model is ENGINE/MODEL, an engine, a model of the engine openai, or "
       "agents/ID: the models and instructions of a registered agent",
       kV1Grant,
       Json::parse(R"json({"type": "object", "required": ["model", "messages"], "properties": {
                      "model": {"type": "string"},
                      "messages": {"type": "array", "minItems": 1, "items": {"type": "object"}},
                      "tools": {"type": "array", "items": {"type": "object"}},
                      "tool_choice": {},
                      "response_format": {"type": "object"},
                      "stop": {},
                      "temperature": {"type": "number", "minimum": 0, "maximum": 2},
                      "max_tokens": {"type": "integer", "minimum": 1, "maximum": 100000},
                      "stream": {"type": "boolean"}, "stream_options": {"type": "object"}}})json"),
       200, [&backend](const http::Request& request) {
         return AnswerV1(backend, [&] { return Chat(backend, request); });
       }});
  routes.push_back({"GET", "/v1/models", "The language models that there are", kV1Grant, nullptr,
                    200, [&backend](const http::Request& request) {
                      return AnswerV1(backend, [&] { return ListModels(backend, request); });
                    }});
}

}  // namespace parley::api_server
