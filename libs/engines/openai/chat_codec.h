#pragma once
// The JSON of /v1/chat/completions, apart from how it travels.
#include <absl/status/statusor.h>

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "speech/llm.h"

namespace parley::engines {

// The request's body. Options: `response_format` (text, json_object, or the JSON of a
// {"name", "schema"}), which the prompt's own format goes before; `parallel_tool_calls` (true,
// false). InvalidArgument: a tool's parameters, a call's arguments or a schema are no JSON object,
// options that do not exist, values out of range.
absl::StatusOr<std::string> EncodeChatRequest(const speech::ChatPrompt& prompt,
                                              const std::string& model);

// Puts the answer together from its chunks. Not thread-safe.
class ChatAssembler {
 public:
  static constexpr size_t kMaxToolCalls = 64;
  static constexpr size_t kMaxArgumentsBytes = 256 << 10;

  // One `data:` of the stream. Returns the text it brought (maybe none).
  //   Unavailable  not what the protocol says, or the provider reports an error within the stream
  absl::StatusOr<std::string> OnChunk(std::string_view json);
  // After the last chunk: the calls, complete, in order.
  //   Unavailable  arguments are no JSON object, or the stream ended before it was done
  absl::StatusOr<std::vector<speech::ChatToolCall>> Finish();
  const speech::ChatDone& done() const { return done_; }

 private:
  std::map<int, speech::ChatToolCall> calls_;
  speech::ChatDone done_;
};

// What a status other than 200 means. `body` as the provider sent it, `retry_after` its header. Of
// its words names alone are repeated (speech/provider_words.h).
absl::Status ChatError(int status, std::string_view body, std::string_view retry_after);

}  // namespace parley::engines
