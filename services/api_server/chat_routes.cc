// /v1/chat/completions: the language models for programs that speak OpenAI's HTTP.
#include "api_server/chat_codec.h"
#include "api_server/routes.h"
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
    pump->StartRead(&pump->response_);
    pump->StartCall();
    pump->body_->OnGone([weak = std::weak_ptr<ChatPump>(pump)] {
      if (const auto alive = weak.lock()) alive->context_.TryCancel();
    });
    PARLEY_RETURN_IF_ERROR(pump->WaitBegun());
    return pump->body_;
  }

 private:
  explicit ChatPump(ChatRequest request)
      : request_(std::move(request)),
        body_(std::make_shared<http::BodyStream>()),
        writer_(WriterOf(request_.model)) {}

  void OnReadDone(bool ok) final {
    if (!ok) return;
    body_->Write(writer_.Chunk(response_, request_.usage_in_stream));
    Begun(absl::OkStatus());
    StartRead(&response_);
  }
  void OnDone(const grpc::Status& status) final {
    const absl::Status result = rpc::FromGrpcStatus(status);
    // What was begun and breaks off has no end: clients see that it is not whole.
    if (result.ok()) body_->Write(ChatWriter::End());
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

absl::StatusOr<http::Response> Chat(Backend& backend, const http::Request& request) {
  PARLEY_ASSIGN_OR_RETURN(const auth::Claims claims, Authenticate(backend, request));
  if (!claims.agent_admin) PARLEY_RETURN_IF_ERROR(auth::RequireRoomCreate(claims));
  PARLEY_ASSIGN_OR_RETURN(ChatRequest chat, ReadChat(request.body));
  chat.call.mutable_context()->set_project(claims.project);
  const std::string bearer = backend.context.ServiceToken(claims.project);
  if (chat.stream) {
    http::Response response;
    response.content_type = "text/event-stream";
    response.headers.emplace_back("cache-control", "no-cache");
    PARLEY_ASSIGN_OR_RETURN(response.stream, ChatPump::Start(backend, bearer, std::move(chat)));
    return response;
  }
  grpc::ClientContext context;
  Prepare(context, bearer, kLongest);
  ChatWriter writer = WriterOf(chat.model);
  const auto reader = backend.llm->Chat(&context, chat.call);
  llm::v1::ChatResponse piece;
  while (reader->Read(&piece)) writer.Add(piece);
  PARLEY_RETURN_IF_ERROR(rpc::FromGrpcStatus(reader->Finish()));
  return JsonResponse(writer.Whole());
}

}  // namespace

void AddChatRoutes(Backend& backend, std::vector<Route>& routes) {
  routes.push_back(
      {"POST", "/v1/chat/completions",
       "Language models: model is ENGINE/MODEL, an engine, or a model of the engine openai",
       "agent.admin or video.roomCreate",
       Json::parse(R"json({"type": "object", "required": ["model", "messages"], "properties": {
                      "model": {"type": "string"},
                      "messages": {"type": "array", "minItems": 1, "items": {"type": "object"}},
                      "tools": {"type": "array", "items": {"type": "object"}},
                      "tool_choice": {},
                      "temperature": {"type": "number", "minimum": 0, "maximum": 2},
                      "max_tokens": {"type": "integer", "minimum": 1, "maximum": 100000},
                      "stream": {"type": "boolean"}, "stream_options": {"type": "object"}}})json"),
       200, [&backend](const http::Request& request) { return Answer(Chat(backend, request)); }});
}

}  // namespace parley::api_server
