#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/status.h"
#include "engines/rules/rules.h"
#include "rehearsal/stage.h"
#include "session/definition.h"

namespace parley::rehearsal {
namespace {

speech::ChatItem ToSpeech(const session::ChatItem& item) {
  switch (item.kind) {
    case session::ChatItem::Kind::kToolCall:
      return speech::ChatToolCall{item.call_id, item.name, item.arguments_json};
    case session::ChatItem::Kind::kToolResult:
      return speech::ChatToolResult{item.call_id, item.name, item.text, item.is_error};
    case session::ChatItem::Kind::kMessage:
      break;
  }
  return speech::ChatMessage{item.role, item.text, item.interrupted};
}

// The first engine that answers by rules, as a model.
absl::StatusOr<std::shared_ptr<const engines::RuleSet>> RulesOf(
    const registry::AgentDefinition& definition) {
  const auto json = nlohmann::json::parse(registry::ToJson(definition), nullptr, false);
  for (const registry::LlmConfig& one : definition.llm) {
    if (one.engine != "rules" || !json.contains("rules") || !json["rules"].contains(one.rules)) {
      continue;
    }
    PARLEY_ASSIGN_OR_RETURN(auto rules, engines::RuleSet::Parse(json["rules"][one.rules].dump()));
    return std::make_shared<const engines::RuleSet>(std::move(rules));
  }
  return nullptr;
}

}  // namespace

absl::StatusOr<Cast> CastOf(const registry::AgentDefinition& definition) {
  Cast cast;
  cast.options = session::OptionsOf(definition);
  cast.character.instructions = definition.instructions;
  cast.character.greeting = definition.greeting;
  std::vector<speech::ChatTool> tools;
  for (const registry::Tool& tool : definition.tools) {
    cast.character.tools.push_back({.name = tool.name, .timeout = tool.http.timeout});
    tools.push_back({tool.name, tool.description, tool.parameters_json});
  }
  PARLEY_ASSIGN_OR_RETURN(const auto rules, RulesOf(definition));
  if (rules == nullptr) return cast;
  cast.model = [rules, tools](const std::vector<session::ChatItem>& prompt,
                              bool allow_tools) -> absl::StatusOr<ModelAnswer> {
    std::vector<speech::ChatItem> items;
    std::transform(prompt.begin(), prompt.end(), std::back_inserter(items), ToSpeech);
    PARLEY_ASSIGN_OR_RETURN(const engines::RuleAnswer answer, rules->Answer(items, tools));
    ModelAnswer out{.text = answer.say, .after_us = 0};
    if (answer.call) {
      if (!allow_tools) return FailedPrecondition("the rules call a tool where none is allowed");
      out.calls.push_back({answer.call->name, answer.call->arguments_json});
    }
    return out;
  };
  return cast;
}

}  // namespace parley::rehearsal
