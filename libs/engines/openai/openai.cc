#include "engines/openai/openai.h"

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/status.h"
#include "engines/openai/chat_codec.h"
#include "engines/openai/sse.h"

namespace parley::engines {
namespace {

constexpr size_t kMaxErrorBytes = 64 << 10;

// One answer as it streams in.
struct Answer {
  const speech::ChatSink& sink;
  SseParser parser = {};
  ChatAssembler assembler = {};
  absl::Status failure = absl::OkStatus();
  std::string raw = {};  // the start of the body: an error's text, when the status says so
  bool sunk = false;     // something was handed out: no retry elsewhere
  bool stopped = false;  // by the sink
  bool ended = false;    // [DONE]

  bool OnData(std::string_view bytes) {
    if (raw.size() < kMaxErrorBytes) raw += bytes.substr(0, kMaxErrorBytes - raw.size());
    if (!parser.Append(bytes)) {
      failure = Unavailable("the provider sent an event of more than {} bytes",
                            SseParser::kMaxEventBytes);
      return false;
    }
    while (std::optional<SseEvent> event = parser.Next()) {
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
  http::Call call;
  call.method = "POST";
  call.url = options_.base_url + "/chat/completions";
  call.headers = {{"content-type", "application/json"}, {"accept", "text/event-stream"}};
  if (!options_.key.empty()) call.headers.emplace_back("authorization", "Bearer " + options_.key);
  PARLEY_ASSIGN_OR_RETURN(call.body, EncodeChatRequest(prompt, model));
  call.timeout = std::min(options_.timeout, prompt.deadline - Clock::Real().Now());
  if (call.timeout <= absl::ZeroDuration()) return DeadlineExceeded("the deadline has passed");
  // The address is the operator's own.
  call.reach = http::Reach::kAny;
  call.max_response_bytes = 64 << 20;

  Answer answer{sink};
  const int64_t first_until =
      Clock::Real().MonotonicMicros() + absl::ToInt64Microseconds(options_.first_token_timeout);
  bool silent = false;
  const auto reply = client_.Stream(
      call, [&answer](std::string_view bytes) { return answer.OnData(bytes); },
      [&] {
        silent = answer.raw.empty() && Clock::Real().MonotonicMicros() > first_until;
        return silent || cancel.cancelled();
      });
  if (cancel.cancelled() || answer.stopped) return Cancelled("cancelled");
  if (!answer.failure.ok() && (!reply.ok() || reply->status == 200)) return answer.failure;
  if (silent)
    return Unavailable("the provider was silent for {} s",
                       absl::ToInt64Seconds(options_.first_token_timeout));
  if (!reply.ok()) {
    // Wherever it broke on the way, the prompt is not to blame.
    if (absl::IsInvalidArgument(reply.status()) || absl::IsPermissionDenied(reply.status()))
      return Unavailable("--llm-openai-base-url: {}", Message(reply.status()));
    return reply.status();
  }
  if (reply->status != 200) {
    const auto retry = reply->headers.find("retry-after");
    return ChatError(reply->status, answer.raw,
                     retry == reply->headers.end() ? std::string_view() : retry->second);
  }
  PARLEY_ASSIGN_OR_RETURN(std::vector<speech::ChatToolCall> calls, answer.assembler.Finish());
  for (speech::ChatToolCall& tool_call : calls) {
    if (!sink(std::move(tool_call))) return Cancelled("cancelled");
  }
  speech::ChatDone done = answer.assembler.done();
  if (done.model.empty()) done.model = model;
  return done;
}

}  // namespace parley::engines
