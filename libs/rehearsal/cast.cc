#include <algorithm>
#include <map>
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
    case session::ChatItem::Kind::kHandoff:  // no part of prompts
      break;
  }
  return speech::ChatMessage{item.role, item.text, item.interrupted};
}

using Rules = std::shared_ptr<const engines::RuleSet>;

// The first engine that answers by rules, as a model; null: there is none.
absl::StatusOr<Rules> RulesOf(const nlohmann::json& json,
                              const std::vector<registry::LlmConfig>& llm) {
  for (const registry::LlmConfig& one : llm) {
    if (one.engine != "rules" || !json.contains("rules") || !json["rules"].contains(one.rules)) {
      continue;
    }
    PARLEY_ASSIGN_OR_RETURN(auto rules, engines::RuleSet::Parse(json["rules"][one.rules].dump()));
    return std::make_shared<const engines::RuleSet>(std::move(rules));
  }
  return nullptr;
}

// What thinks for one agent.
struct Brain {
  Rules rules;
  std::vector<speech::ChatTool> tools;
};

std::vector<speech::ChatTool> ToolsOf(const registry::AgentDefinition& definition,
                                      const session::Character& agent) {
  std::vector<speech::ChatTool> tools;
  for (const session::ToolSpec& spec : agent.tools) {
    const registry::Tool& tool = *definition.FindTool(spec.name);
    tools.push_back({tool.name, tool.description, tool.parameters_json});
  }
  for (const std::string& next : agent.handoffs)
    tools.push_back({session::HandoffTool(next), "", R"({"type":"object","properties":{}})"});
  return tools;
}

}  // namespace

absl::StatusOr<Cast> CastOf(const registry::AgentDefinition& definition) {
  Cast cast;
  cast.options = session::OptionsOf(definition);
  const std::vector<session::Character> agents = session::CharactersOf(definition);
  cast.character = agents.front();
  cast.others.assign(agents.begin() + 1, agents.end());
  const auto json = nlohmann::json::parse(registry::ToJson(definition), nullptr, false);
  std::map<std::string, Brain> brains;
  bool any = false;
  for (const session::Character& agent : agents) {
    const auto part = definition.agents.find(agent.name);
    const bool own = part != definition.agents.end() && !part->second.llm.empty();
    Brain& brain = brains[agent.name];
    PARLEY_ASSIGN_OR_RETURN(brain.rules, RulesOf(json, own ? part->second.llm : definition.llm));
    brain.tools = ToolsOf(definition, agent);
    any = any || brain.rules != nullptr;
  }
  if (!any) return cast;
  cast.model = [brains, first = definition.id](const std::string& agent,
                                               const std::vector<session::ChatItem>& prompt,
                                               bool allow_tools) -> absl::StatusOr<ModelAnswer> {
    const Brain& brain = brains.at(agent.empty() ? first : agent);
    if (brain.rules == nullptr) return NotFound("{} does not answer by rules", agent);
    std::vector<speech::ChatItem> items;
    std::transform(prompt.begin(), prompt.end(), std::back_inserter(items), ToSpeech);
    PARLEY_ASSIGN_OR_RETURN(const engines::RuleAnswer answer,
                            brain.rules->Answer(items, brain.tools));
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
