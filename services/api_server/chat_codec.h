#pragma once
// OpenAI's chat completions, as far as our language models go: requests in, answers and chunks out.
#include <absl/status/statusor.h>
#include <parley/llm/v1/llm.pb.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "api_server/json.h"

namespace parley::api_server {

struct ChatRequest {
  // Without its context. Its one model names an engine, or of an agent none until AskAs().
  llm::v1::ChatRequest call;
  std::string model;  // as it was asked for
  std::string agent;  // of the model "agents/ID": its id
  bool stream = false;
  bool usage_in_stream = false;
};

// Fields that change nothing here are read over, as that API's clients expect; what asks for
// something else than one answer in text (or JSON) and tool calls is refused by name.
//   InvalidArgument
absl::StatusOr<ChatRequest> ReadChat(std::string_view body);

// Lets the agent's models answer, by its instructions unless the request begins with some. What the
// request says of temperature and length holds for each of them.
//   InvalidArgument  the definition, as the registry has it, cannot be read
absl::Status AskAs(const std::string& definition_json, llm::v1::ChatRequest& call);

// Builds one answer, whole or chunk by chunk.
class ChatWriter {
 public:
  static constexpr size_t kMaxAnswerBytes = 4 << 20;  // of text

  // `id`: chatcmpl-…; `created`: seconds since 1970.
  ChatWriter(std::string id, int64_t created, std::string model)
      : id_(std::move(id)), created_(created), model_(std::move(model)) {}

  // The events ("data: …\n\n") for the next piece of the answer.
  std::string Chunk(const llm::v1::ChatResponse& piece, bool with_usage);
  // What stands at a good end.
  static std::string End() { return "data: [DONE]\n\n"; }
  // What stands where an answer that was begun breaks off.
  static std::string BrokenOff(const absl::Status& status);
  // Keeps a piece for Whole().
  //   ResourceExhausted  the answer is longer than kMaxAnswerBytes
  absl::Status Add(const llm::v1::ChatResponse& piece);
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
