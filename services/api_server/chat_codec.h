#pragma once
// OpenAI's chat completions, as far as our language models go: requests in, answers and chunks out.
#include <absl/status/statusor.h>
#include <parley/llm/v1/llm.pb.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "api_server/json.h"

namespace parley::api_server {

struct ChatRequest {
  llm::v1::ChatRequest call;  // without its context
  std::string model;          // as it was asked for: "ENGINE/MODEL", an engine, or openai's model
  bool stream = false;
  bool usage_in_stream = false;
};

// Fields that change nothing here are read over, as that API's clients expect; what asks for
// something else than one answer in text and tool calls is refused by name.
//   InvalidArgument
absl::StatusOr<ChatRequest> ReadChat(std::string_view body);

// Builds one answer, whole or chunk by chunk.
class ChatWriter {
 public:
  // `id`: chatcmpl-…; `created`: seconds since 1970.
  ChatWriter(std::string id, int64_t created, std::string model)
      : id_(std::move(id)), created_(created), model_(std::move(model)) {}

  // The events ("data: …\n\n") for the next piece of the answer.
  std::string Chunk(const llm::v1::ChatResponse& piece, bool with_usage);
  static std::string End() { return "data: [DONE]\n\n"; }
  // Keeps a piece for Whole().
  void Add(const llm::v1::ChatResponse& piece);
  Json Whole() const;

 private:
  Json Head(const char* object) const;
  Json ChunkOf(Json delta, Json finish_reason);

  const std::string id_;
  const int64_t created_;
  const std::string model_;
  bool begun_ = false;
  int tool_calls_ = 0;
  std::string text_;
  Json calls_ = Json::array();
  llm::v1::Done done_;
};

}  // namespace parley::api_server
