#pragma once
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/mutex.h"
#include "engines/rules/rules.h"
#include "speech/llm.h"

namespace parley::engines {

// Answers by the rules in ChatConfig::rules_json; no model, no network, at once. With
// tool_choice `none` a rule that calls is FailedPrecondition. Compiled rules are kept, the last 256
// of them.
class RulesEngine : public speech::LlmEngine {
 public:
  std::string_view name() const override { return "rules"; }
  bool embedded() const override { return true; }
  std::vector<speech::LlmModelInfo> Models() const override;
  absl::StatusOr<speech::ChatDone> Chat(const speech::ChatPrompt& prompt,
                                        const speech::ChatSink& sink,
                                        const speech::Cancellation& cancel) override;

 private:
  absl::StatusOr<std::shared_ptr<const RuleSet>> Compiled(const std::string& rules_json);

  Mutex mutex_;
  std::map<std::string, std::shared_ptr<const RuleSet>> compiled_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace parley::engines
