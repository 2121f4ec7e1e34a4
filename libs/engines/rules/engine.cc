#include "engines/rules/engine.h"

#include <utility>

#include "base/ids.h"
#include "base/status.h"

namespace parley::engines {
namespace {

constexpr size_t kMaxCompiled = 256;

}  // namespace

std::vector<speech::LlmModelInfo> RulesEngine::Models() const {
  return {{"", "patterns with slots, from the agent's definition"}};
}

absl::StatusOr<std::shared_ptr<const RuleSet>> RulesEngine::Compiled(
    const std::string& rules_json) {
  {
    MutexLock lock(&mutex_);
    const auto it = compiled_.find(rules_json);
    if (it != compiled_.end()) return it->second;
  }
  PARLEY_ASSIGN_OR_RETURN(RuleSet set, RuleSet::Parse(rules_json));
  auto compiled = std::make_shared<const RuleSet>(std::move(set));
  MutexLock lock(&mutex_);
  // Any of them may go: what is in use comes back with its next request.
  if (compiled_.size() >= kMaxCompiled) compiled_.erase(compiled_.begin());
  compiled_[rules_json] = compiled;
  return compiled;
}

absl::StatusOr<speech::ChatDone> RulesEngine::Chat(const speech::ChatPrompt& prompt,
                                                   const speech::ChatSink& sink,
                                                   const speech::Cancellation& cancel) {
  if (prompt.config.rules_json.empty())
    return InvalidArgument("the engine rules needs rules: {{engine: rules, rules: NAME}}");
  if (prompt.format.kind != speech::ChatFormat::Kind::kText)
    return Error(absl::StatusCode::kUnimplemented, "the engine rules promises no JSON");
  if (speech::HasImages(prompt))
    return Error(absl::StatusCode::kUnimplemented, "the engine rules sees no pictures");
  PARLEY_ASSIGN_OR_RETURN(const std::shared_ptr<const RuleSet> rules,
                          Compiled(prompt.config.rules_json));
  PARLEY_ASSIGN_OR_RETURN(RuleAnswer answer, rules->Answer(prompt.items, prompt.tools));
  if (cancel.cancelled()) return Cancelled("cancelled");
  speech::ChatDone done;
  if (answer.call.has_value() && prompt.tool_choice == "none") {
    return FailedPrecondition(
        "the rule that matches calls the tool \"{}\", and tool_choice is none", answer.call->name);
  }
  if (!answer.say.empty() || !answer.call.has_value())
    sink(speech::ChatText{std::move(answer.say)});
  if (answer.call.has_value()) {
    answer.call->call_id = NewId("call_");
    done.finish_reason = "tool_calls";
    sink(*std::move(answer.call));
  } else {
    done.finish_reason = "stop";
  }
  return done;
}

}  // namespace parley::engines
