#pragma once
// Conversation rules: the language model that needs no model.
//
//   [{"when": "(how much|price) .* {room:single|double}", "call": "room_rate",
//     "say": "A {room} room is {result} euros a night."},
//    {"otherwise": "I can tell you our room rates."}]
//
// The first rule whose pattern (speech::Pattern) is found in what the user said last answers.
// `call` calls a tool with the slots as its arguments; `say` is then said with {result} filled in.
// Without `call`, `say` is said at once. `handoff` names an agent that takes over once `say` is
// said, by a call of the tool transfer_to_AGENT. `otherwise` answers when no rule does.
#include <absl/status/statusor.h>

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "speech/llm.h"
#include "speech/pattern.h"

namespace parley::engines {

inline constexpr size_t kMaxRules = 500;
inline constexpr size_t kMaxRulesBytes = 256 << 10;

struct RuleAnswer {
  std::string say;
  std::optional<speech::ChatToolCall> call;  // after what is said; its id is not set
};

// Immutable, thread-safe.
class RuleSet {
 public:
  // InvalidArgument names the rule (from 1) and the field: JSON, unknown fields, patterns,
  // templates with slots that the pattern lacks, no rule that could answer.
  static absl::StatusOr<RuleSet> Parse(std::string_view rules_json);

  // What to answer to the history: to the last thing the user said, or, where results of tools
  // stand after it, to these.
  //   InvalidArgument  a rule calls a tool that is not among `tools`
  absl::StatusOr<RuleAnswer> Answer(const std::vector<speech::ChatItem>& items,
                                    const std::vector<speech::ChatTool>& tools) const;

 private:
  struct Rule {
    std::optional<speech::Pattern> when;
    std::string call;
    std::string say;
    bool hands_over = false;  // by `call`
  };
  static absl::StatusOr<Rule> ParseRule(std::string_view json);

  std::vector<Rule> rules_;
  std::string otherwise_;
};

// A tool's output as speech: JSON strings without quotes, one-field objects as their value, other
// text as it is.
std::string SpokenResult(std::string_view output);
// Puts values for {name}; {result.field} takes a field of a JSON object result. Names without a
// value become "".
std::string FillTemplate(std::string_view text, const std::map<std::string, std::string>& slots,
                         std::string_view result);

}  // namespace parley::engines
