#include "engines/openai/openai.h"

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/status.h"
#include "engines/openai/chat_codec.h"
#include "engines/openai/provider.h"
#include "http/sse.h"

namespace parley::engines {
namespace {

// One answer as it streams in.
struct Answer {
  const speech::ChatSink& sink;
  http::SseParser parser = {};
  ChatAssembler assembler = {};
  absl::Status failure = absl::OkStatus();
  bool any = false;
  bool sunk = false;     // something was handed out: no retry elsewhere
  bool stopped = false;  // by the sink
  bool ended = false;    // [DONE]

  bool OnData(std::string_view bytes) {
    any = true;
    if (!parser.Append(bytes)) {
      failure = Unavailable("the provider sent an event of more than {} bytes",
                            http::SseParser::kMaxEventBytes);
      return false;
    }
    while (std::optional<http::SseEvent> event = parser.Next()) {
      if (event->data == "[DONE]") {
        ended = true;
        return true;
      }
      auto text = assembler.OnChunk(event->data);
      if (!text.ok()) {
        failure = text.status();
        return false;
      }
      if (text->empty()) continue;
      sunk = true;
      if (!sink(speech::ChatText{*std::move(text)})) {
        stopped = true;
        return false;
      }
    }
    return true;
  }
};

}  // namespace

OpenAiEngine::OpenAiEngine(OpenAiOptions options) : options_(std::move(options)) {}

std::vector<speech::LlmModelInfo> OpenAiEngine::Models() const {
  return {{options_.default_model, "OpenAI-compatible server at " + options_.base_url}};
}

absl::StatusOr<speech::ChatDone> OpenAiEngine::Chat(const speech::ChatPrompt& prompt,
                                                    const speech::ChatSink& sink,
                                                    const speech::Cancellation& cancel) {
  const std::string model =
      prompt.config.model.empty() ? options_.default_model : prompt.config.model;
  if (model.empty()) return InvalidArgument("the engine openai needs a model");
  openai::Request request(options_.base_url, options_.keys, prompt.caller.project,
                          "/chat/completions");
  http::Call& call = request.call;
  call.headers.emplace_back("content-type", "application/json");
  call.headers.emplace_back("accept", "text/event-stream");
  PARLEY_ASSIGN_OR_RETURN(call.body, EncodeChatRequest(prompt, model));
  call.timeout = std::min(options_.timeout, prompt.deadline - Clock::Real().Now());
  if (call.timeout <= absl::ZeroDuration()) return DeadlineExceeded("the deadline has passed");
  call.max_response_bytes = 64 << 20;

  Answer answer{sink};
  const int64_t first_until =
      Clock::Real().MonotonicMicros() + absl::ToInt64Microseconds(options_.first_token_timeout);
  bool silent = false;
  const auto reply = client_.Stream(
      call, [&answer](std::string_view bytes) { return answer.OnData(bytes); },
      [&] {
        silent = !answer.any && Clock::Real().MonotonicMicros() > first_until;
        return silent || cancel.cancelled();
      });
  if (cancel.cancelled() || answer.stopped) return Cancelled("cancelled");
  if (!answer.failure.ok()) return request.Failed(answer.failure);
  if (silent) {
    return request.Failed(Unavailable("the provider was silent for {} s",
                                      absl::ToInt64Seconds(options_.first_token_timeout)));
  }
  if (!reply.ok()) return request.Lost(reply.status(), "--llm-openai-base-url");
  if (reply->status != 200) return request.Refused(*reply);
  auto calls = answer.assembler.Finish();
  if (!calls.ok()) return request.Failed(calls.status());
  for (speech::ChatToolCall& tool_call : *calls) {
    if (!sink(std::move(tool_call))) return Cancelled("cancelled");
  }
  speech::ChatDone done = answer.assembler.done();
  if (done.model.empty()) done.model = model;
  return done;
}

}  // namespace parley::engines
