#include "llm_gateway/convert.h"

#include <utility>

#include "base/status.h"

namespace parley {
namespace {

constexpr int kMaxItems = 10'000;
constexpr int kMaxTools = 256;
constexpr int kMaxImages = 16;  // of a message
constexpr int kMaxStops = 4;
constexpr size_t kMaxStopBytes = 256;
constexpr size_t kMaxSchemaBytes = 64 << 10;

absl::StatusOr<speech::ChatMessage> ToMessage(const llm::v1::Message& from) {
  speech::ChatMessage message{from.role(), from.text(), from.interrupted()};
  if (from.images_size() > kMaxImages)
    return InvalidArgument("{} pictures in a message; at most {}", from.images_size(), kMaxImages);
  if (!from.images().empty() && from.role() != "user")
    return InvalidArgument("pictures are shown by users, not by \"{}\"", from.role());
  for (const llm::v1::Image& image : from.images()) {
    message.images.push_back({image.url(), image.detail()});
    PARLEY_RETURN_IF_ERROR(speech::CheckImage(message.images.back()));
  }
  return message;
}

absl::StatusOr<speech::ChatFormat> ToFormat(const llm::v1::ResponseFormat& from) {
  using Kind = speech::ChatFormat::Kind;
  switch (from.kind()) {
    case llm::v1::ResponseFormat::KIND_UNSPECIFIED:
      return speech::ChatFormat();
    case llm::v1::ResponseFormat::KIND_JSON_OBJECT:
      return speech::ChatFormat{Kind::kJsonObject, {}};
    case llm::v1::ResponseFormat::KIND_JSON_SCHEMA:
      if (from.json_schema().size() > kMaxSchemaBytes)
        return InvalidArgument("a schema of more than {} bytes", kMaxSchemaBytes);
      return speech::ChatFormat{Kind::kJsonSchema, from.json_schema()};
    default:
      return InvalidArgument("response_format {} is not known", static_cast<int>(from.kind()));
  }
}

}  // namespace

absl::StatusOr<speech::ChatItem> ToItem(const llm::v1::ChatItem& item) {
  switch (item.item_case()) {
    case llm::v1::ChatItem::kMessage:
      return ToMessage(item.message());
    case llm::v1::ChatItem::kToolCall:
      return speech::ChatToolCall{item.tool_call().call_id(), item.tool_call().name(),
                                  item.tool_call().arguments_json()};
    case llm::v1::ChatItem::kToolResult:
      return speech::ChatToolResult{item.tool_result().call_id(), item.tool_result().name(),
                                    item.tool_result().output(), item.tool_result().is_error()};
    default:
      return InvalidArgument("the item is empty");
  }
}

absl::StatusOr<speech::ChatPrompt> ToPrompt(const llm::v1::ChatRequest& request) {
  if (request.items_size() > kMaxItems)
    return InvalidArgument("a history of {} items; at most {}", request.items_size(), kMaxItems);
  if (request.tools_size() > kMaxTools)
    return InvalidArgument("{} tools; at most {}", request.tools_size(), kMaxTools);
  speech::ChatPrompt prompt;
  for (const llm::v1::ChatItem& item : request.items()) {
    absl::StatusOr<speech::ChatItem> one = ToItem(item);
    if (!one.ok()) {
      return InvalidArgument("item {} of the history: {}", prompt.items.size() + 1,
                             Message(one.status()));
    }
    prompt.items.push_back(*std::move(one));
  }
  for (const llm::v1::Tool& tool : request.tools())
    prompt.tools.push_back({tool.name(), tool.description(), tool.parameters_json()});
  prompt.tool_choice = request.tool_choice();
  if (request.stop_size() > kMaxStops)
    return InvalidArgument("{} stop sequences; at most {}", request.stop_size(), kMaxStops);
  for (const std::string& stop : request.stop()) {
    if (stop.empty() || stop.size() > kMaxStopBytes)
      return InvalidArgument("a stop sequence must have 1 to {} bytes", kMaxStopBytes);
    prompt.stop.push_back(stop);
  }
  PARLEY_ASSIGN_OR_RETURN(prompt.format, ToFormat(request.response_format()));
  return prompt;
}

speech::ChatConfig ToConfig(const llm::v1::ModelConfig& model) {
  speech::ChatConfig config;
  config.engine = model.engine();
  config.model = model.model();
  if (model.has_temperature()) config.temperature = model.temperature();
  if (model.has_max_tokens()) config.max_tokens = model.max_tokens();
  config.options.insert(model.options().begin(), model.options().end());
  config.rules_json = model.rules_json();
  return config;
}

llm::v1::ChatResponse ToProto(speech::ChatPiece piece) {
  llm::v1::ChatResponse response;
  if (auto* text = std::get_if<speech::ChatText>(&piece)) {
    response.mutable_text()->set_text(std::move(text->text));
    return response;
  }
  auto& call = std::get<speech::ChatToolCall>(piece);
  llm::v1::ToolCall* out = response.mutable_tool_call();
  out->set_call_id(std::move(call.call_id));
  out->set_name(std::move(call.name));
  out->set_arguments_json(std::move(call.arguments_json));
  return response;
}

llm::v1::ChatResponse ToProto(const speech::ChatDone& done, std::string_view engine) {
  llm::v1::ChatResponse response;
  llm::v1::Done* out = response.mutable_done();
  out->set_finish_reason(done.finish_reason);
  out->set_engine(std::string(engine));
  out->set_model(done.model);
  out->mutable_usage()->set_input_tokens(done.usage.input_tokens);
  out->mutable_usage()->set_cached_input_tokens(done.usage.cached_input_tokens);
  out->mutable_usage()->set_output_tokens(done.usage.output_tokens);
  return response;
}

}  // namespace parley
