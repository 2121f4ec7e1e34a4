#include "engines/rules/rules.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/status.h"
#include "base/strings.h"

namespace parley::engines {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxSayBytes = 4 << 10;
constexpr std::string_view kResult = "result";
constexpr std::string_view kHandoffTool = "transfer_to_";  // session::HandoffTool
constexpr std::string_view kToolFailed = "Sorry, I could not find that out just now.";
constexpr std::string_view kNothingToSay = "Sorry, I did not understand that.";

// Calls `on_text` and `on_name` for the pieces of "A {room} room is {result}".
template <typename OnText, typename OnName>
void ForEachPiece(std::string_view text, OnText on_text, OnName on_name) {
  while (!text.empty()) {
    const size_t open = text.find('{');
    const size_t close = open == std::string_view::npos ? open : text.find('}', open);
    if (close == std::string_view::npos) return on_text(text);
    on_text(text.substr(0, open));
    on_name(text.substr(open + 1, close - open - 1));
    text.remove_prefix(close + 1);
  }
}

std::string Scalar(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_null()) return {};
  if (value.is_number_float()) {
    // 89.0 is said "89".
    const double number = value.get<double>();
    return fmt::format("{:g}", number);
  }
  if (value.is_array()) {
    std::string list;
    for (const Json& item : value) list += (list.empty() ? "" : ", ") + Scalar(item);
    return list;
  }
  if (value.is_object()) {
    std::string list;
    for (const auto& [key, item] : value.items())
      list += fmt::format("{}{} {}", list.empty() ? "" : ", ", key, Scalar(item));
    return list;
  }
  return value.dump();
}

Json ParsedOrNull(std::string_view text) {
  if (!JsonNestsWithin(text, 32)) return nullptr;
  Json value = Json::parse(text, nullptr, false);
  return value.is_discarded() ? Json(nullptr) : value;
}

absl::Status CheckTemplate(std::string_view say, const std::vector<std::string>& slots,
                           bool has_result) {
  absl::Status status;
  ForEachPiece(
      say, [](std::string_view) {},
      [&](std::string_view name) {
        const bool result = name == kResult || name.substr(0, 7) == "result.";
        if (result ? has_result : std::find(slots.begin(), slots.end(), name) != slots.end())
          return;
        if (!status.ok()) return;
        status = result
                     ? InvalidArgument("say uses {{{}}}, but the rule calls no tool", name)
                     : InvalidArgument("say uses {{{}}}, but the pattern has no such slot", name);
      });
  return status;
}

absl::StatusOr<std::string> TextField(const Json& rule, const char* field) {
  const auto it = rule.find(field);
  if (it == rule.end()) return std::string();
  if (!it->is_string()) return InvalidArgument("{} is no text", field);
  auto text = it->get<std::string>();
  if (Trim(text).empty()) return InvalidArgument("{} is empty", field);
  if (text.size() > kMaxSayBytes)
    return InvalidArgument("{} has {} bytes; at most {}", field, text.size(), kMaxSayBytes);
  return text;
}

}  // namespace

std::string SpokenResult(std::string_view output) {
  const Json value = ParsedOrNull(output);
  if (value.is_null()) return std::string(Trim(output));
  if (value.is_object() && value.size() == 1) return Scalar(value.begin().value());
  return Scalar(value);
}

std::string FillTemplate(std::string_view text, const std::map<std::string, std::string>& slots,
                         std::string_view result) {
  std::string out;
  ForEachPiece(
      text, [&out](std::string_view piece) { out += piece; },
      [&](std::string_view name) {
        if (name == kResult) {
          out += SpokenResult(result);
        } else if (name.substr(0, 7) == "result.") {
          const Json value = ParsedOrNull(result);
          const auto field = value.is_object() ? value.find(name.substr(7)) : value.end();
          if (field != value.end()) out += Scalar(*field);
        } else if (const auto slot = slots.find(std::string(name)); slot != slots.end()) {
          out += slot->second;
        }
      });
  return out;
}

absl::StatusOr<RuleSet> RuleSet::Parse(std::string_view rules_json) {
  if (rules_json.size() > kMaxRulesBytes)
    return InvalidArgument("rules: {} bytes; at most {}", rules_json.size(), kMaxRulesBytes);
  const Json list = ParsedOrNull(rules_json);
  if (!list.is_array()) {
    return InvalidArgument(
        "rules: not a JSON list of {{\"when\", \"call\", \"say\"}} and {{\"otherwise\"}}");
  }
  if (list.size() > kMaxRules)
    return InvalidArgument("rules: {} of them; at most {}", list.size(), kMaxRules);
  RuleSet set;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string where = fmt::format("rule {}", i + 1);
    const Json& item = list[i];
    if (item.is_object() && item.contains("otherwise")) {
      auto otherwise = TextField(item, "otherwise");
      if (!otherwise.ok()) return Annotate(otherwise.status(), where);
      if (item.size() != 1) return InvalidArgument("{}: otherwise stands alone", where);
      if (!set.otherwise_.empty())
        return InvalidArgument("{}: there is an otherwise already", where);
      set.otherwise_ = *std::move(otherwise);
      continue;
    }
    auto rule = ParseRule(item.dump());
    if (!rule.ok()) return Annotate(rule.status(), where);
    set.rules_.push_back(*std::move(rule));
  }
  if (set.rules_.empty() && set.otherwise_.empty()) return InvalidArgument("rules: there are none");
  return set;
}

absl::StatusOr<RuleSet::Rule> RuleSet::ParseRule(std::string_view json) {
  const Json item = Json::parse(json);
  if (!item.is_object()) return InvalidArgument("not an object");
  for (const auto& [key, value] : item.items()) {
    if (key != "when" && key != "call" && key != "say" && key != "handoff") {
      return InvalidArgument(
          "unknown field \"{}\"; a rule has when, call, say, handoff, or otherwise", key);
    }
  }
  Rule rule;
  PARLEY_ASSIGN_OR_RETURN(const std::string when, TextField(item, "when"));
  PARLEY_ASSIGN_OR_RETURN(rule.call, TextField(item, "call"));
  PARLEY_ASSIGN_OR_RETURN(rule.say, TextField(item, "say"));
  PARLEY_ASSIGN_OR_RETURN(const std::string handoff, TextField(item, "handoff"));
  if (!handoff.empty()) {
    if (!rule.call.empty()) return InvalidArgument("it has both call and handoff");
    rule.call = std::string(kHandoffTool) + handoff;
    rule.hands_over = true;
  }
  if (when.empty()) return InvalidArgument("it has no when");
  if (rule.call.empty() && rule.say.empty())
    return InvalidArgument("it has neither call nor say nor handoff");
  PARLEY_ASSIGN_OR_RETURN(rule.when, speech::Pattern::Compile(when));
  PARLEY_RETURN_IF_ERROR(
      CheckTemplate(rule.say, rule.when->slots(), !rule.call.empty() && !rule.hands_over));
  return rule;
}

absl::StatusOr<RuleAnswer> RuleSet::Answer(const std::vector<speech::ChatItem>& items,
                                           const std::vector<speech::ChatTool>& tools) const {
  const speech::ChatToolResult* result = nullptr;
  std::string said;
  // What the user said last, and whether a tool has answered since.
  for (auto it = items.rbegin(); it != items.rend(); ++it) {
    if (const auto* tool = std::get_if<speech::ChatToolResult>(&*it);
        tool != nullptr && result == nullptr) {
      result = tool;
    }
    const auto* message = std::get_if<speech::ChatMessage>(&*it);
    if (message == nullptr || message->role != "user") continue;
    said = speech::NormalisedSpeech(message->text);
    break;
  }
  RuleAnswer answer;
  for (const Rule& rule : rules_) {
    const auto slots = rule.when->Match(said);
    if (!slots.has_value()) continue;
    if (result != nullptr && rule.call == result->name) {
      answer.say = result->is_error   ? std::string(kToolFailed)
                   : rule.say.empty() ? SpokenResult(result->output)
                                      : FillTemplate(rule.say, *slots, result->output);
      return answer;
    }
    if (rule.call.empty()) {
      answer.say = FillTemplate(rule.say, *slots, {});
      return answer;
    }
    const bool known = std::any_of(tools.begin(), tools.end(),
                                   [&rule](const auto& tool) { return tool.name == rule.call; });
    if (!known)
      return InvalidArgument("a rule calls the tool \"{}\", which this agent does not have",
                             rule.call);
    speech::ChatToolCall call;
    call.name = rule.call;
    call.arguments_json = rule.hands_over ? "{}" : Json(*slots).dump();
    if (rule.hands_over) answer.say = FillTemplate(rule.say, *slots, {});
    answer.call = std::move(call);
    return answer;
  }
  // A result whose question no rule recognises any more is still worth saying.
  if (result != nullptr) {
    answer.say = result->is_error ? std::string(kToolFailed) : SpokenResult(result->output);
  } else {
    answer.say = otherwise_.empty() ? std::string(kNothingToSay) : otherwise_;
  }
  return answer;
}

}  // namespace parley::engines
