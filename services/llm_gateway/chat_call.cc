#include "llm_gateway/chat_call.h"

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/status.h"
#include "llm_gateway/convert.h"
#include "rpc/status.h"
#include "speech/chain_errors.h"

namespace parley {
namespace {

constexpr size_t kOutbox = 256;
constexpr int kMaxChain = 8;

}  // namespace

grpc::ServerWriteReactor<llm::v1::ChatResponse>* ChatCall::Start(
    LlmGatewayParts& parts, std::string bearer, const llm::v1::ChatRequest& request) {
  auto call = std::make_shared<ChatCall>(parts, std::move(bearer), request);
  call->self_ = call;
  call->admitted_ = parts.streams.Add(call.get(), call);
  if (!call->admitted_ || !parts.models.Post([call] { call->Run(); })) {
    call->End(
        gateway::Busy("answers", static_cast<size_t>(parts.config.max_chats), "llm-max-chats"));
  }
  return call.get();
}

ChatCall::ChatCall(LlmGatewayParts& parts, std::string bearer, const llm::v1::ChatRequest& request)
    : parts_(parts),
      bearer_(std::move(bearer)),
      request_(request),
      start_us_(Clock::Real().MonotonicMicros()),
      deadline_(std::min(gateway::DeadlineOf(request.context()),
                         Clock::Real().Now() + parts.config.timeout)) {}

void ChatCall::Run() {
  trace::Span span = parts_.context.tracer().Start(
      "chat", trace::Kind::kServer, TraceContext::Parse(request_.context().traceparent()));
  const TraceScope scope(span.context());
  span.Set("session_id", request_.context().session_id());
  span.Set("turn_id", request_.context().turn_id());
  parts_.metrics.chats_active.Increment();
  absl::Status status = Answer();
  if (!status.ok() && Clock::Real().Now() >= deadline_)
    status = DeadlineExceeded("the deadline passed before the answer was complete");
  parts_.metrics.chats_active.Decrement();
  parts_.metrics.CountError(status.code());
  span.Fail(status);
  span.End();
  End(status);
}

absl::Status ChatCall::Answer() {
  PARLEY_ASSIGN_OR_RETURN(speech::Caller caller,
                          gateway::CallerOf(parts_.context, bearer_, request_.context()));
  if (deadline_ <= Clock::Real().Now()) return DeadlineExceeded("the deadline has passed");
  if (request_.models().empty()) return InvalidArgument("the request names no model");
  if (request_.models_size() > kMaxChain)
    return InvalidArgument("a chain of {} models; at most {}", request_.models_size(), kMaxChain);
  PARLEY_ASSIGN_OR_RETURN(speech::ChatPrompt prompt, ToPrompt(request_));
  prompt.deadline = deadline_;
  prompt.caller = std::move(caller);
  return AskChain(std::move(prompt));
}

absl::Status ChatCall::AskChain(speech::ChatPrompt prompt) {
  speech::ChainErrors errors;
  for (const llm::v1::ModelConfig& model : request_.models()) {
    const absl::StatusOr<speech::ChatDone> done = AskOne(model, prompt);
    if (done.ok()) {
      parts_.metrics.input_tokens.Increment(static_cast<double>(done->usage.input_tokens));
      parts_.metrics.output_tokens.Increment(static_cast<double>(done->usage.output_tokens));
      Send(ToProto(*done, model.engine()));
      return absl::OkStatus();
    }
    // What was said cannot be unsaid: another model would begin anew.
    if (!errors.Add(model.engine(), done.status()) || sunk_ || cancel_.cancelled()) break;
    parts_.metrics.fallbacks.Increment();
    parts_.context.log().Warn("model passed over", {{"engine", model.engine()},
                                                    {"session", request_.context().session_id()},
                                                    {"error", Message(done.status())}});
  }
  absl::Status failed = errors.Result();
  // None of the chain's engines can what is wished.
  if (absl::IsUnimplemented(failed)) return InvalidArgument("{}", Message(failed));
  return failed;
}

absl::StatusOr<speech::ChatDone> ChatCall::AskOne(const llm::v1::ModelConfig& model,
                                                  speech::ChatPrompt& prompt) {
  PARLEY_ASSIGN_OR_RETURN(speech::LlmEngine * engine, parts_.engines.Find(model.engine()));
  // A provider's model, not an agent's: one that is down is down for all.
  const std::string key = model.engine() + "/" + model.model();
  if (!engine->embedded() && !parts_.breakers.Allow(key))
    return Unavailable("{} failed lately and is not asked for now", model.engine());
  trace::Span span = parts_.context.tracer().Start(
      "ask a model", engine->embedded() ? trace::Kind::kInternal : trace::Kind::kClient);
  const TraceScope scope(span.context());
  span.Set("engine", model.engine());
  span.Set("model", model.model());
  prompt.config = ToConfig(model);
  const auto send = [&](speech::ChatPiece piece) {
    if (!std::exchange(sunk_, true)) {
      parts_.metrics.first_piece_seconds(model.engine())
          .Observe(static_cast<double>(Clock::Real().MonotonicMicros() - start_us_) / 1e6);
    }
    return Send(ToProto(std::move(piece)));
  };
  speech::StopFilter filter(prompt.stop);
  const auto say = [&](std::string text) {
    return text.empty() || send(speech::ChatText{std::move(text)});
  };
  // An engine that does not stop is heard to its end: what it used is known then.
  const auto sink = [&](speech::ChatPiece piece) {
    if (prompt.stop.empty()) return send(std::move(piece));
    if (const auto* text = std::get_if<speech::ChatText>(&piece))
      return say(filter.Push(text->text));
    return say(filter.Flush()) && send(std::move(piece));
  };
  absl::StatusOr<speech::ChatDone> done = engine->Chat(prompt, sink, cancel_);
  span.Fail(done.status());
  if (done.ok()) {
    if (filter.stopped() && done->finish_reason == "length") done->finish_reason = "stop";
    say(filter.Flush());
    span.Set("input_tokens", done->usage.input_tokens);
    span.Set("output_tokens", done->usage.output_tokens);
  }
  if (!engine->embedded()) parts_.breakers.Report(key, done.status());
  return done;
}

bool ChatCall::Send(llm::v1::ChatResponse response) {
  MutexLock lock(&mutex_);
  while (outbox_.size() >= kOutbox && !cancel_.cancelled())
    room_.WaitFor(&mutex_, absl::Milliseconds(100));
  if (cancel_.cancelled() || ended_) return false;
  outbox_.push_back(std::move(response));
  if (writing_) return true;
  writing_ = true;
  StartWrite(&outbox_.front());
  return true;
}

void ChatCall::OnWriteDone(bool ok) {
  MutexLock lock(&mutex_);
  writing_ = false;
  outbox_.pop_front();
  if (!ok) {
    outbox_.clear();
    cancel_.Cancel();
  }
  room_.SignalAll();
  if (!outbox_.empty()) {
    writing_ = true;
    StartWrite(&outbox_.front());
  } else if (ended_ && !finished_) {
    finished_ = true;
    Finish(rpc::ToGrpcStatus(final_status_));
  }
}

void ChatCall::End(const absl::Status& status) {
  MutexLock lock(&mutex_);
  if (ended_) return;
  ended_ = true;
  final_status_ = status;
  if (writing_ || finished_) return;
  finished_ = true;
  Finish(rpc::ToGrpcStatus(status));
}

void ChatCall::OnCancel() { cancel_.Cancel(); }

void ChatCall::Check(absl::Time now) {
  if (now >= deadline_) cancel_.Cancel();
}

void ChatCall::OnDone() {
  if (admitted_) parts_.streams.Remove(this);
  const std::shared_ptr<ChatCall> self = std::move(self_);
}

}  // namespace parley
