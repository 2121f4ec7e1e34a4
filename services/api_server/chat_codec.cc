#include "api_server/chat_codec.h"

#include <algorithm>
#include <map>
#include <utility>

#include "api_server/v1.h"
#include "base/status.h"
#include "base/strings.h"
#include "registry/definition.h"
#include "speech/llm.h"

namespace parley::api_server {
namespace {

constexpr int kMaxDepth = 64;
constexpr size_t kMaxMessages = 10'000;
constexpr size_t kMaxTools = 256;
constexpr size_t kMaxStops = 4;
constexpr int kMaxTokens = 100'000;
constexpr size_t kMaxCallBytes = 3 << 20;  // gateways take messages of 4 MiB
constexpr std::string_view kAgents = "agents/";

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string Event(const Json& chunk) { return "data: " + Dump(chunk) + "\n\n"; }

// A text member; "" when it is missing or null.
std::string Text(const Json& object, const char* name) {
  const auto it = object.find(name);
  return it != object.end() && it->is_string() ? it->get<std::string>() : std::string();
}

absl::Status BadMessage(size_t index, std::string_view why) {
  return InvalidArgument("messages[{}] {}", index, why);
}

absl::Status ReadImage(const Json& part, size_t index, llm::v1::Message& out) {
  const auto it = part.find("image_url");
  if (it == part.end() || !it->is_object() || Text(*it, "url").empty())
    return BadMessage(index, "has a picture without image_url.url");
  llm::v1::Image& image = *out.add_images();
  image.set_url(Text(*it, "url"));
  image.set_detail(Text(*it, "detail"));
  const absl::Status checked = speech::CheckImage({image.url(), image.detail()});
  return checked.ok() ? checked : BadMessage(index, Message(checked));
}

// A text, or parts that are texts and, of a user, pictures: these come after all text.
absl::Status ReadContent(const Json& message, size_t index, llm::v1::Message& out) {
  const auto it = message.find("content");
  if (it == message.end() || it->is_null()) return absl::OkStatus();
  if (it->is_string()) {
    out.set_text(it->get<std::string>());
    return absl::OkStatus();
  }
  if (!it->is_array()) return BadMessage(index, "has a content that is neither text nor parts");
  for (const Json& part : *it) {
    if (part.is_object() && Text(part, "type") == "image_url" && out.role() == "user") {
      PARLEY_RETURN_IF_ERROR(ReadImage(part, index, out));
      continue;
    }
    if (!part.is_object() || Text(part, "type") != "text" || !part.contains("text") ||
        !part["text"].is_string()) {
      return BadMessage(index,
                        "has a part that is neither text nor, of a user, an image_url: sound and "
                        "files are not heard or read here");
    }
    *out.mutable_text() += part["text"].get<std::string>();
  }
  return absl::OkStatus();
}

absl::Status ReadCalls(const Json& message, size_t index, std::map<std::string, std::string>& names,
                       llm::v1::ChatRequest& out) {
  const auto calls = message.find("tool_calls");
  if (calls == message.end() || calls->is_null()) return absl::OkStatus();
  if (!calls->is_array()) return BadMessage(index, "has tool_calls that are not a list");
  for (const Json& call : *calls) {
    if (!call.is_object() || !call.contains("function") || !call["function"].is_object())
      return BadMessage(index, "has a tool call without a function");
    llm::v1::ToolCall& made = *out.add_items()->mutable_tool_call();
    made.set_call_id(Text(call, "id"));
    made.set_name(Text(call["function"], "name"));
    const std::string arguments = Text(call["function"], "arguments");
    made.set_arguments_json(arguments.empty() ? "{}" : arguments);
    if (made.call_id().empty() || made.name().empty())
      return BadMessage(index, "has a tool call without id or name");
    names[made.call_id()] = made.name();
  }
  return absl::OkStatus();
}

absl::Status ReadMessages(const Json& messages, llm::v1::ChatRequest& out) {
  if (!messages.is_array() || messages.empty())
    return InvalidArgument("the body: messages is missing or not a list");
  if (messages.size() > kMaxMessages)
    return InvalidArgument("the body: more than {} messages", kMaxMessages);
  std::map<std::string, std::string> names;  // of tools, by call
  for (size_t i = 0; i < messages.size(); ++i) {
    const Json& message = messages[i];
    if (!message.is_object()) return BadMessage(i, "is not an object");
    std::string role = Text(message, "role");
    if (role == "developer") role = "system";
    llm::v1::Message said;
    said.set_role(role);
    PARLEY_RETURN_IF_ERROR(ReadContent(message, i, said));
    if (role == "tool") {
      llm::v1::ToolResult& result = *out.add_items()->mutable_tool_result();
      result.set_call_id(Text(message, "tool_call_id"));
      result.set_name(names[result.call_id()]);
      result.set_output(said.text());
      if (result.name().empty()) return BadMessage(i, "answers a tool call that was not made");
      continue;
    }
    if (role != "system" && role != "user" && role != "assistant")
      return BadMessage(i, "has a role that is not system, developer, user, assistant or tool");
    if (!said.text().empty() || role != "assistant")
      *out.add_items()->mutable_message() = std::move(said);
    if (role == "assistant") PARLEY_RETURN_IF_ERROR(ReadCalls(message, i, names, out));
  }
  return absl::OkStatus();
}

absl::Status ReadTools(const Json& body, llm::v1::ChatRequest& out) {
  const auto tools = body.find("tools");
  if (tools != body.end() && !tools->is_null()) {
    if (!tools->is_array() || tools->size() > kMaxTools)
      return InvalidArgument("the body: tools must be a list of at most {}", kMaxTools);
    for (const Json& tool : *tools) {
      const bool function = tool.is_object() && Text(tool, "type") == "function" &&
                            tool.contains("function") && tool["function"].is_object();
      if (!function || Text(tool["function"], "name").empty())
        return InvalidArgument("the body: a tool is not a function with a name");
      llm::v1::Tool& made = *out.add_tools();
      made.set_name(Text(tool["function"], "name"));
      made.set_description(Text(tool["function"], "description"));
      const auto parameters = tool["function"].find("parameters");
      const bool given = parameters != tool["function"].end() && parameters->is_object();
      made.set_parameters_json(given ? Dump(*parameters) : R"({"type":"object","properties":{}})");
    }
  }
  const auto choice = body.find("tool_choice");
  if (choice == body.end() || choice->is_null()) return absl::OkStatus();
  if (choice->is_string()) {
    out.set_tool_choice(choice->get<std::string>());
  } else if (choice->is_object() && choice->contains("function") &&
             (*choice)["function"].is_object()) {
    out.set_tool_choice(Text((*choice)["function"], "name"));
  }
  const std::string& wish = out.tool_choice();
  const bool known = wish == "auto" || wish == "none" || wish == "required" ||
                     std::any_of(out.tools().begin(), out.tools().end(),
                                 [&](const auto& tool) { return tool.name() == wish; });
  if (!known) return InvalidArgument("the body: tool_choice names no tool");
  return absl::OkStatus();
}

absl::Status ReadModel(const Json& body, ChatRequest& out) {
  out.model = Text(body, "model");
  if (out.model.empty()) return InvalidArgument("the body: model is missing");
  llm::v1::ModelConfig& model = *out.call.add_models();
  if (out.model.starts_with(kAgents)) {
    out.agent = out.model.substr(kAgents.size());
    if (out.agent.empty()) return InvalidArgument("the body: model names no agent");
  } else {
    V1Model named = ReadV1Model(out.model);
    model.set_engine(std::move(named.engine));
    model.set_model(std::move(named.model));
  }
  if (const auto t = body.find("temperature"); t != body.end() && !t->is_null()) {
    if (!t->is_number() || !(t->get<double>() >= 0 && t->get<double>() <= 2))
      return InvalidArgument("the body: temperature must be a number from 0 to 2");
    model.set_temperature(t->get<double>());
  }
  for (const char* name : {"max_tokens", "max_completion_tokens"}) {
    const auto most = body.find(name);
    if (most == body.end() || most->is_null()) continue;
    if (!most->is_number_unsigned() || most->get<uint64_t>() < 1 ||
        most->get<uint64_t>() > kMaxTokens) {
      return InvalidArgument("the body: {} must be a whole number from 1 to {}", name, kMaxTokens);
    }
    model.set_max_tokens(most->get<int32_t>());
  }
  return absl::OkStatus();
}

absl::Status ReadFormat(const Json& body, llm::v1::ChatRequest& out) {
  const auto it = body.find("response_format");
  if (it == body.end() || it->is_null()) return absl::OkStatus();
  const std::string type = it->is_object() ? Text(*it, "type") : std::string();
  if (type == "text") return absl::OkStatus();
  llm::v1::ResponseFormat& format = *out.mutable_response_format();
  if (type == "json_object") {
    format.set_kind(llm::v1::ResponseFormat::KIND_JSON_OBJECT);
    return absl::OkStatus();
  }
  const auto schema = it->is_object() ? it->find("json_schema") : it->end();
  if (type != "json_schema" || schema == it->end() || !schema->is_object() ||
      Text(*schema, "name").empty() || !schema->contains("schema")) {
    return InvalidArgument(
        "the body: response_format must be text, json_object, or json_schema with a name and a "
        "schema");
  }
  format.set_kind(llm::v1::ResponseFormat::KIND_JSON_SCHEMA);
  format.set_json_schema(Dump(*schema));
  return absl::OkStatus();
}

// What is in it is the gateway's to judge.
absl::Status ReadStop(const Json& body, llm::v1::ChatRequest& out) {
  const auto it = body.find("stop");
  if (it == body.end() || it->is_null()) return absl::OkStatus();
  const Json list = it->is_array() ? *it : Json::array({*it});
  if (list.size() > kMaxStops)
    return InvalidArgument("the body: more than {} stop sequences", kMaxStops);
  for (const Json& one : list) {
    if (!one.is_string()) return InvalidArgument("the body: stop must be text or a list of texts");
    out.add_stop(one.get<std::string>());
  }
  return absl::OkStatus();
}

// Wishes that would change the answer, and are not fulfilled here.
absl::Status RefuseOther(const Json& body) {
  const auto given = [&body](const char* name) {
    const auto it = body.find(name);
    return it == body.end() || it->is_null() ? Json() : *it;
  };
  if (const Json n = given("n"); !n.is_null() && n != 1)
    return InvalidArgument("the body: n must be 1");
  if (const Json modalities = given("modalities");
      !modalities.is_null() && modalities != Json::array({"text"})) {
    return InvalidArgument("the body: modalities must be text alone");
  }
  if (given("logprobs") == true) return InvalidArgument("the body: logprobs are not told here");
  for (const char* name : {"audio", "functions", "function_call"}) {
    if (!given(name).is_null()) return InvalidArgument("the body: {} is not served here", name);
  }
  return absl::OkStatus();
}

Json ToolCallJson(const llm::v1::ToolCall& call) {
  return {{"id", call.call_id()},
          {"type", "function"},
          {"function", {{"name", call.name()}, {"arguments", call.arguments_json()}}}};
}

Json UsageJson(const llm::v1::Usage& usage) {
  return {{"prompt_tokens", usage.input_tokens()},
          {"completion_tokens", usage.output_tokens()},
          {"total_tokens", usage.input_tokens() + usage.output_tokens()},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_input_tokens()}}}};
}

}  // namespace

absl::StatusOr<ChatRequest> ReadChat(std::string_view text) {
  if (!JsonNestsWithin(text, kMaxDepth)) return InvalidArgument("the body nests too deep");
  const Json body = Json::parse(text, nullptr, false);
  if (!body.is_object()) return InvalidArgument("the body is not a JSON object");
  ChatRequest out;
  PARLEY_RETURN_IF_ERROR(ReadModel(body, out));
  PARLEY_RETURN_IF_ERROR(
      ReadMessages(body.contains("messages") ? body["messages"] : Json(), out.call));
  PARLEY_RETURN_IF_ERROR(ReadTools(body, out.call));
  PARLEY_RETURN_IF_ERROR(ReadFormat(body, out.call));
  PARLEY_RETURN_IF_ERROR(ReadStop(body, out.call));
  PARLEY_RETURN_IF_ERROR(RefuseOther(body));
  if (out.call.ByteSizeLong() > kMaxCallBytes)
    return InvalidArgument("the body: messages, pictures and tools of more than {} bytes",
                           kMaxCallBytes);
  const auto flag = [](const Json& object, const char* name) {
    const auto it = object.find(name);
    return it != object.end() && it->is_boolean() && it->get<bool>();
  };
  out.stream = flag(body, "stream");
  const auto options = body.find("stream_options");
  out.usage_in_stream =
      options != body.end() && options->is_object() && flag(*options, "include_usage");
  return out;
}

absl::Status AskAs(const std::string& definition_json, llm::v1::ChatRequest& call) {
  PARLEY_ASSIGN_OR_RETURN(const registry::AgentDefinition agent,
                          registry::FromJson(definition_json));
  const Json json = Json::parse(definition_json, nullptr, false);
  const llm::v1::ModelConfig wish = call.models(0);
  call.clear_models();
  for (const registry::LlmConfig& one : agent.llm) {
    llm::v1::ModelConfig& model = *call.add_models();
    model.set_engine(one.engine);
    model.set_model(one.model);
    if (one.temperature) model.set_temperature(*one.temperature);
    if (one.max_tokens) model.set_max_tokens(*one.max_tokens);
    model.mutable_options()->insert(one.options.begin(), one.options.end());
    // A rule list goes to its engine as the JSON it was written in.
    if (!one.rules.empty()) model.set_rules_json(json.at("rules").at(one.rules).dump());
    model.MergeFrom(wish);
  }
  const bool instructed = call.items_size() > 0 && call.items(0).message().role() == "system";
  if (instructed || agent.instructions.empty()) return absl::OkStatus();
  llm::v1::Message& first = *call.add_items()->mutable_message();
  first.set_role("system");
  first.set_text(agent.instructions);
  for (int i = call.items_size() - 1; i > 0; --i) call.mutable_items()->SwapElements(i, i - 1);
  return absl::OkStatus();
}

Json ChatWriter::Head(const char* object) const {
  return {{"id", id_}, {"object", object}, {"created", created_}, {"model", model_}};
}

Json ChatWriter::ChunkOf(Json delta, Json finish_reason) {
  if (!std::exchange(begun_, true)) delta["role"] = "assistant";
  Json chunk = Head("chat.completion.chunk");
  chunk["choices"] = Json::array(
      {{{"index", 0}, {"delta", std::move(delta)}, {"finish_reason", std::move(finish_reason)}}});
  return chunk;
}

std::string ChatWriter::BrokenOff(const absl::Status& status) {
  return Event({{"error", V1Error(status)}});
}

std::string ChatWriter::Chunk(const llm::v1::ChatResponse& piece, bool with_usage) {
  if (piece.has_text()) return Event(ChunkOf({{"content", piece.text().text()}}, nullptr));
  if (piece.has_tool_call()) {
    Json call = ToolCallJson(piece.tool_call());
    call["index"] = tool_calls_++;
    return Event(ChunkOf({{"tool_calls", Json::array({std::move(call)})}}, nullptr));
  }
  if (!piece.has_done()) return {};
  std::string events = Event(ChunkOf(Json::object(), piece.done().finish_reason()));
  if (with_usage) {
    Json last = Head("chat.completion.chunk");
    last["choices"] = Json::array();
    last["usage"] = UsageJson(piece.done().usage());
    events += Event(last);
  }
  return events;
}

absl::Status ChatWriter::Add(const llm::v1::ChatResponse& piece) {
  if (piece.has_text()) text_ += piece.text().text();
  if (text_.size() > kMaxAnswerBytes)
    return ResourceExhausted("the model's answer is longer than {} bytes", kMaxAnswerBytes);
  if (piece.has_tool_call()) calls_.push_back(ToolCallJson(piece.tool_call()));
  if (piece.has_done()) done_ = piece.done();
  return absl::OkStatus();
}

Json ChatWriter::Whole() const {
  Json message = {{"role", "assistant"}, {"content", nullptr}, {"refusal", nullptr}};
  if (!text_.empty() || calls_.empty()) message["content"] = text_;
  if (!calls_.empty()) message["tool_calls"] = calls_;
  Json whole = Head("chat.completion");
  whole["choices"] = Json::array({{{"index", 0},
                                   {"message", std::move(message)},
                                   {"finish_reason", done_.finish_reason()},
                                   {"logprobs", nullptr}}});
  whole["usage"] = UsageJson(done_.usage());
  return whole;
}

}  // namespace parley::api_server
