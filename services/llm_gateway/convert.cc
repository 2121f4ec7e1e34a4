#include "llm_gateway/convert.h"

#include <utility>

#include "base/status.h"

namespace parley {
namespace {

constexpr int kMaxItems = 10'000;
constexpr int kMaxTools = 256;

}  // namespace

absl::StatusOr<speech::ChatItem> ToItem(const llm::v1::ChatItem& item) {
  switch (item.item_case()) {
    case llm::v1::ChatItem::kMessage:
      return speech::ChatMessage{item.message().role(), item.message().text(),
                                 item.message().interrupted()};
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
      return InvalidArgument("item {} of the history is empty", prompt.items.size() + 1);
    }
    prompt.items.push_back(*std::move(one));
  }
  for (const llm::v1::Tool& tool : request.tools())
    prompt.tools.push_back({tool.name(), tool.description(), tool.parameters_json()});
  prompt.tool_choice = request.tool_choice();
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
