#include "engines/openai/chat_codec.h"

#include <charconv>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/status.h"
#include "base/strings.h"
#include "speech/provider_words.h"

namespace parley::engines {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMaxRetryS = 3600;  // of what a provider asks us to wait
constexpr int kMaxDepth = 64;

Json Parse(std::string_view text) {
  if (!JsonNestsWithin(text, kMaxDepth)) return nullptr;
  Json value = Json::parse(text, nullptr, false);
  return value.is_discarded() ? Json(nullptr) : value;
}

std::string TextOf(const Json& object, const char* field) {
  if (!object.is_object()) return {};
  const auto it = object.find(field);
  return it != object.end() && it->is_string() ? it->get<std::string>() : std::string();
}

int64_t NumberOf(const Json& object, const char* field) {
  if (!object.is_object()) return 0;
  const auto it = object.find(field);
  return it != object.end() && it->is_number_integer() ? it->get<int64_t>() : 0;
}

// "invalid_request_error, context_length_exceeded, messages[2].content"; "no reason given".
std::string NamesIn(const Json& error) {
  return speech::NamesAmong({TextOf(error, "type"), TextOf(error, "code"), TextOf(error, "param")});
}

absl::StatusOr<Json> ObjectOf(std::string_view text, std::string_view what) {
  Json value = text.empty() ? Json::object() : Parse(text);
  if (!value.is_object()) return InvalidArgument("{} is no JSON object", what);
  return value;
}

Json ContentOf(const speech::ChatMessage& message) {
  if (message.images.empty()) return message.text;
  Json parts = Json::array();
  if (!message.text.empty()) parts.push_back({{"type", "text"}, {"text", message.text}});
  for (const speech::ChatImage& image : message.images) {
    Json url = {{"url", image.url}};
    if (!image.detail.empty()) url["detail"] = image.detail;
    parts.push_back({{"type", "image_url"}, {"image_url", std::move(url)}});
  }
  return parts;
}

absl::StatusOr<Json> EncodeItems(const std::vector<speech::ChatItem>& items) {
  Json messages = Json::array();
  for (const speech::ChatItem& item : items) {
    if (const auto* message = std::get_if<speech::ChatMessage>(&item)) {
      if (message->role != "system" && message->role != "user" && message->role != "assistant")
        return InvalidArgument("a message has the role \"{}\"", message->role);
      messages.push_back({{"role", message->role}, {"content", ContentOf(*message)}});
    } else if (const auto* call = std::get_if<speech::ChatToolCall>(&item)) {
      PARLEY_RETURN_IF_ERROR(
          ObjectOf(call->arguments_json, "the arguments of a call in the history").status());
      Json encoded = {
          {"id", call->call_id},
          {"type", "function"},
          {"function",
           {{"name", call->name},
            {"arguments", call->arguments_json.empty() ? "{}" : call->arguments_json}}}};
      // Calls of one answer stand in one message.
      if (!messages.empty() && messages.back().contains("tool_calls")) {
        messages.back()["tool_calls"].push_back(std::move(encoded));
      } else {
        messages.push_back({{"role", "assistant"},
                            {"content", nullptr},
                            {"tool_calls", Json::array({std::move(encoded)})}});
      }
    } else if (const auto* result = std::get_if<speech::ChatToolResult>(&item)) {
      messages.push_back({{"role", "tool"},
                          {"tool_call_id", result->call_id},
                          {"content", (result->is_error ? "Error: " : "") + result->output}});
    }
  }
  return messages;
}

absl::Status AddTools(const speech::ChatPrompt& prompt, Json& body) {
  if (prompt.tools.empty()) return absl::OkStatus();
  Json tools = Json::array();
  for (const speech::ChatTool& tool : prompt.tools) {
    PARLEY_ASSIGN_OR_RETURN(
        Json parameters,
        ObjectOf(tool.parameters_json, fmt::format("the schema of the tool \"{}\"", tool.name)));
    tools.push_back({{"type", "function"},
                     {"function",
                      {{"name", tool.name},
                       {"description", tool.description},
                       {"parameters", std::move(parameters)}}}});
  }
  body["tools"] = std::move(tools);
  const std::string& choice = prompt.tool_choice;
  if (choice.empty() || choice == "auto") return absl::OkStatus();
  if (choice == "none" || choice == "required") {
    body["tool_choice"] = choice;
  } else {
    body["tool_choice"] = {{"type", "function"}, {"function", {{"name", choice}}}};
  }
  return absl::OkStatus();
}

absl::Status AddFormat(const speech::ChatFormat& format, Json& body) {
  using Kind = speech::ChatFormat::Kind;
  if (format.kind == Kind::kText) return absl::OkStatus();
  if (format.kind == Kind::kJsonObject) {
    body["response_format"] = {{"type", "json_object"}};
    return absl::OkStatus();
  }
  PARLEY_ASSIGN_OR_RETURN(Json schema, ObjectOf(format.json_schema, "the schema of the answer"));
  if (TextOf(schema, "name").empty() || !schema.contains("schema") || !schema["schema"].is_object())
    return InvalidArgument("the schema of the answer has no name or no schema");
  body["response_format"] = {{"type", "json_schema"}, {"json_schema", std::move(schema)}};
  return absl::OkStatus();
}

absl::Status AddOptions(const speech::ChatPrompt& prompt, Json& body) {
  speech::ChatFormat format = prompt.format;
  for (const auto& [name, value] : prompt.config.options) {
    if (name == "response_format") {
      if (prompt.format.kind != speech::ChatFormat::Kind::kText || value == "text") continue;
      const bool object = value == "json_object";
      format.kind =
          object ? speech::ChatFormat::Kind::kJsonObject : speech::ChatFormat::Kind::kJsonSchema;
      if (!object) format.json_schema = value;
    } else if (name == "parallel_tool_calls") {
      if (value != "true" && value != "false")
        return InvalidArgument("parallel_tool_calls must be true or false, not \"{}\"", value);
      // Providers refuse it where there are no tools.
      if (!prompt.tools.empty()) body[name] = value == "true";
    } else {
      return InvalidArgument("openai has no option \"{}\"", name);
    }
  }
  return AddFormat(format, body);
}

}  // namespace

absl::StatusOr<std::string> EncodeChatRequest(const speech::ChatPrompt& prompt,
                                              const std::string& model) {
  const speech::ChatConfig& config = prompt.config;
  Json body = {{"model", model}, {"stream", true}, {"stream_options", {{"include_usage", true}}}};
  PARLEY_ASSIGN_OR_RETURN(body["messages"], EncodeItems(prompt.items));
  if (config.temperature.has_value()) {
    if (!(*config.temperature >= 0 && *config.temperature <= 2))
      return InvalidArgument("temperature {} is out of range: 0 to 2", *config.temperature);
    body["temperature"] = *config.temperature;
  }
  if (config.max_tokens.has_value()) {
    if (*config.max_tokens < 1)
      return InvalidArgument("max_tokens {} is out of range: at least 1", *config.max_tokens);
    body["max_tokens"] = *config.max_tokens;
  }
  if (!prompt.stop.empty()) body["stop"] = prompt.stop;
  PARLEY_RETURN_IF_ERROR(AddTools(prompt, body));
  PARLEY_RETURN_IF_ERROR(AddOptions(prompt, body));
  // Text that is not UTF-8 must not throw.
  return body.dump(-1, ' ', false, Json::error_handler_t::replace);
}

absl::StatusOr<std::string> ChatAssembler::OnChunk(std::string_view json) {
  const Json chunk = Parse(json);
  if (!chunk.is_object()) return Unavailable("the provider sent a chunk that is no JSON object");
  if (const auto error = chunk.find("error"); error != chunk.end() && !error->is_null())
    return Unavailable("the provider failed: {}", NamesIn(*error));
  if (const std::string model = TextOf(chunk, "model"); !model.empty()) done_.model = model;
  if (const auto usage = chunk.find("usage"); usage != chunk.end() && usage->is_object()) {
    done_.usage.input_tokens = NumberOf(*usage, "prompt_tokens");
    done_.usage.output_tokens = NumberOf(*usage, "completion_tokens");
    const auto details = usage->find("prompt_tokens_details");
    if (details != usage->end())
      done_.usage.cached_input_tokens = NumberOf(*details, "cached_tokens");
  }
  const auto choices = chunk.find("choices");
  if (choices == chunk.end() || !choices->is_array() || choices->empty()) return std::string();
  const Json& choice = choices->front();
  if (const std::string reason = TextOf(choice, "finish_reason"); !reason.empty())
    done_.finish_reason = reason;
  const auto delta = choice.is_object() ? choice.find("delta") : choice.end();
  if (!choice.is_object() || delta == choice.end() || !delta->is_object()) return std::string();
  if (const auto calls = delta->find("tool_calls"); calls != delta->end() && calls->is_array()) {
    for (const Json& part : *calls) {
      const auto index = static_cast<int>(NumberOf(part, "index"));
      if (calls_.size() >= kMaxToolCalls && calls_.count(index) == 0)
        return Unavailable("the provider sent more than {} tool calls", kMaxToolCalls);
      speech::ChatToolCall& call = calls_[index];
      if (std::string id = TextOf(part, "id"); !id.empty()) call.call_id = std::move(id);
      const auto function = part.is_object() ? part.find("function") : part.end();
      if (!part.is_object() || function == part.end()) continue;
      call.name += TextOf(*function, "name");
      call.arguments_json += TextOf(*function, "arguments");
      if (call.arguments_json.size() > kMaxArgumentsBytes)
        return Unavailable("the provider sent a tool call of more than {} bytes",
                           kMaxArgumentsBytes);
    }
  }
  return TextOf(*delta, "content");
}

absl::StatusOr<std::vector<speech::ChatToolCall>> ChatAssembler::Finish() {
  if (done_.finish_reason.empty()) return Unavailable("the provider's answer was cut short");
  std::vector<speech::ChatToolCall> calls;
  for (auto& [index, call] : calls_) {
    if (Trim(call.arguments_json).empty()) call.arguments_json = "{}";
    if (call.name.empty() || !Parse(call.arguments_json).is_object())
      return Unavailable("the model called a tool with arguments that are no JSON object");
    calls.push_back(std::move(call));
  }
  calls_.clear();
  // Some servers say "stop" although they call.
  if (!calls.empty()) done_.finish_reason = "tool_calls";
  return calls;
}

absl::Status ChatError(int status, std::string_view body, std::string_view retry_after) {
  const Json parsed = Parse(body);
  const bool nested = parsed.is_object() && parsed.contains("error");
  const std::string why = NamesIn(nested ? parsed["error"] : parsed);
  switch (status) {
    case 400:
    case 404:
    case 413:
    case 422:
      return InvalidArgument("the provider refused the prompt ({}): {}", status, why);
    case 401:
    case 403:
      // The operator's key, not the caller's.
      return WithReason(Unavailable("the provider refused this server's key ({}): check "
                                    "--llm-openai-key-file or PARLEY_LLM_OPENAI_KEY",
                                    status),
                        "PROVIDER_KEY_REFUSED");
    case 429: {
      int64_t seconds = 1;
      std::from_chars(retry_after.data(), retry_after.data() + retry_after.size(), seconds);
      return WithReason(
          ResourceExhausted("the provider limits the rate: {}", why), "PROVIDER_BUSY",
          {{"retry_after_ms", std::to_string(std::clamp<int64_t>(seconds, 0, kMaxRetryS) * 1000)}});
    }
    default:
      return Unavailable("the provider failed ({}): {}", status, why);
  }
}

}  // namespace parley::engines
