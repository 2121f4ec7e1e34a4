#pragma once
// Language models: what one looks like to a gateway.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "speech/caller.h"
#include "speech/cancel.h"

namespace parley::speech {

struct ChatImage {
  std::string url;     // as CheckImage() has it
  std::string detail;  // auto (also empty), low, high
};
struct ChatMessage {
  std::string role;  // system, user, assistant
  std::string text;
  bool interrupted = false;
  std::vector<ChatImage> images = {};  // of a user, after the text
};
struct ChatToolCall {
  std::string call_id;
  std::string name;
  std::string arguments_json;  // a JSON object
};
struct ChatToolResult {
  std::string call_id;
  std::string name;
  std::string output;
  bool is_error = false;
};
using ChatItem = std::variant<ChatMessage, ChatToolCall, ChatToolResult>;

struct ChatTool {
  std::string name;
  std::string description;
  std::string parameters_json;  // JSON schema of an object
};

// InvalidArgument: neither https:// with a name (not an address, not a name without a dot: whoever
// fetches it stands in the operator's network) nor data:image/{png,jpeg,gif,webp};base64,… with
// something in it; or a detail that does not exist.
absl::Status CheckImage(const ChatImage& image);

// What the text of an answer is.
struct ChatFormat {
  enum class Kind { kText, kJsonObject, kJsonSchema };
  Kind kind = Kind::kText;
  std::string json_schema;  // kJsonSchema: {"name": …, "schema": {…}, "strict": …}
};

struct ChatConfig {
  std::string engine;
  std::string model;
  std::optional<double> temperature;
  std::optional<int> max_tokens;
  std::map<std::string, std::string> options;
  std::string rules_json;  // engine `rules`
};

struct ChatPrompt {
  ChatConfig config;
  std::vector<ChatItem> items;  // history, oldest first
  std::vector<ChatTool> tools;
  std::string tool_choice;  // auto (also empty), none, required, or a tool's name
  // Engines may leave it to their caller (StopFilter) to end the text before the first of these.
  std::vector<std::string> stop;
  ChatFormat format;
  absl::Time deadline = absl::InfiniteFuture();
  Caller caller;
};

struct ChatUsage {
  int64_t input_tokens = 0;
  int64_t cached_input_tokens = 0;
  int64_t output_tokens = 0;
};
struct ChatDone {
  std::string finish_reason;  // stop, tool_calls, length, content_filter
  ChatUsage usage;
  std::string model;
};

struct ChatText {
  std::string text;  // the next piece of the answer
};
// Text as it is made; tool calls complete. Returns false to stop. Called on the thread that called
// Chat().
using ChatPiece = std::variant<ChatText, ChatToolCall>;
using ChatSink = std::function<bool(ChatPiece)>;

struct LlmModelInfo {
  std::string model;
  std::string description;
};

// Thread-safe.
class LlmEngine {
 public:
  virtual ~LlmEngine() = default;
  virtual std::string_view name() const = 0;
  virtual bool embedded() const = 0;  // needs no key and no network
  virtual std::vector<LlmModelInfo> Models() const = 0;

  // Streams the answer into `sink` and blocks until it is complete, `cancel` fired, or the prompt's
  // deadline passed: never on an event loop or in a gRPC reaction.
  //   InvalidArgument    the prompt or its config is wrong: another provider would say the same
  //   Unimplemented      this engine sees no pictures or writes no JSON: another may
  //   Unavailable        the provider; safe to retry or to try the next one while nothing was sunk
  //   ResourceExhausted  rate or quota; metadata retry_after_ms where known
  //   DeadlineExceeded, Cancelled
  virtual absl::StatusOr<ChatDone> Chat(const ChatPrompt& prompt, const ChatSink& sink,
                                        const Cancellation& cancel) = 0;
};

// Whether the prompt shows pictures.
bool HasImages(const ChatPrompt& prompt);

// Ends a text before the first of a few sequences, however the text is cut into pieces. What may be
// the beginning of one is kept until it is known. Not thread-safe.
class StopFilter {
 public:
  explicit StopFilter(std::vector<std::string> stops);  // none of them empty
  // The text that may go out now.
  std::string Push(std::string_view piece);
  // What was kept: the text is over.
  std::string Flush();
  bool stopped() const { return stopped_; }

 private:
  const std::vector<std::string> stops_;
  std::string kept_;
  bool stopped_ = false;
};

}  // namespace parley::speech
