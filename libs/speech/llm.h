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

struct ChatMessage {
  std::string role;  // system, user, assistant
  std::string text;
  bool interrupted = false;
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
  //   Unavailable        the provider; safe to retry or to try the next one while nothing was sunk
  //   ResourceExhausted  rate or quota; metadata retry_after_ms where known
  //   DeadlineExceeded, Cancelled
  virtual absl::StatusOr<ChatDone> Chat(const ChatPrompt& prompt, const ChatSink& sink,
                                        const Cancellation& cancel) = 0;
};

}  // namespace parley::speech
