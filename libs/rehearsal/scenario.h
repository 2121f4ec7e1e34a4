#pragma once
// A conversation written down: who speaks when, what the engines answer, and what must come of it.
//
//   name: a cough does not stop the agent
//   options: {interruption: {min_duration: 500ms}}     # as in an agent definition
//   model: [{text: "We are open from nine to five."}]  # the language model's answers, in order
//   timeline:                                          # all times in ms
//     - {at: 1000, speak: "when are you open", for: 1200}
//     - {at: 4000, noise: 200}
//   expect:
//     - {line: "play", at: 2780, within: 40}           # how a line of the decision log begins
//     - {line: "pause", never: true}
//   history: ["user: when are you open", "assistant: We are open from nine to five."]
//
// With an agent of `realtime`, `model` hears and speaks: its words take `voice: per_word` each.
// docs/rehearsals.md describes every field.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "registry/definition.h"
#include "session/events.h"

namespace parley::rehearsal {

inline constexpr size_t kMaxScenarioBytes = 256 << 10;

// A stretch of sound from the caller. Words are spread evenly over it; without words it is a noise.
struct Sound {
  int64_t start_us = 0;
  int64_t end_us = 0;
  std::vector<std::string> words;
  std::optional<std::string> heard;  // what the recogniser makes of it instead
};

// Something else that happens.
struct Step {
  int64_t at_us = 0;
  session::Event event;  // streams of engines: 0 stands for the one in use
};

struct ModelAnswer {
  struct Call {
    std::string name;
    std::string arguments_json = "{}";
  };
  std::string when;  // found in the last item of the prompt, ignoring case; empty: always
  std::string text;
  std::vector<Call> calls;
  int64_t after_us = 100'000;
  int64_t per_word_us = 0;
  std::string fails;    // with this error
  bool silent = false;  // never answers
  bool again = false;   // may serve more than once
};

struct ToolAnswer {
  std::string output;
  int64_t after_us = 50'000;
  bool is_error = false;
  bool silent = false;
  std::string handoff;  // the agent that goes on; empty: who called it
};

struct Expectation {
  std::string line;  // how a line of the decision log begins, without its time; "*x": holds x
  std::optional<int64_t> at_us;
  int64_t within_us = 40'000;
  int64_t from_us = 0;
  std::optional<int64_t> to_us;
  std::optional<int> count;  // exactly; 0 is `never`
  int source_line = 0;
  std::string Text() const;
};

struct Scenario {
  std::string name;
  std::string source;
  std::string agent_json;    // the agent it brings; empty: none
  std::string options_json;  // what it changes of its agent

  std::vector<Sound> sounds;  // in order, without overlap
  std::vector<Step> steps;    // in order
  std::vector<ModelAnswer> model;
  std::map<std::string, ToolAnswer> tools;
  int64_t end_us = 0;
  // For tests in C++: the caller's frames and the finals come up to so much late, at random but the
  // same each time; the program does not answer the first so many of its looks at turns.
  int64_t jitter_us = 0;
  uint32_t jitter_seed = 1;
  int silent_reviews = 0;

  struct Recogniser {
    int64_t final_after_us = 30'000;    // from the end of the utterance being told
    int64_t partial_after_us = 80'000;  // from the end of the word
    bool partials = true;
    bool silent = false;         // never gives a final
    int silent_times = 0;        // … for the first so many
    int64_t pause_after_us = 0;  // tells when speech begins, and so long a silence; 0: it does not
  } recogniser;
  struct Voice {
    int64_t after_us = 30'000;
    int64_t per_word_us = 250'000;
    bool word_times = true;
    std::string fails;
    bool silent = false;
    int silent_times = 0;   // … for so many sentences, 0 with `silent_from`: all
    int silent_from = 0;    // … from this one on, which is 1 unless it says
    int64_t played_us = 0;  // the playout of the first speech stops here; 0: it does not
  } voice;

  std::vector<Expectation> expect;
  std::optional<std::vector<std::string>> history;
};

// InvalidArgument: "SOURCE:LINE: FIELD: what is wrong".
absl::StatusOr<Scenario> ParseScenario(std::string_view text, std::string_view source);

// The agent of a run: `agent_json` (canonical, of whoever runs it; empty: the scenario's own, else
// one that only has scripted engines), changed by the scenario's options.
//   InvalidArgument  the outcome is no valid definition
absl::StatusOr<registry::AgentDefinition> AgentOf(const Scenario& scenario,
                                                  const std::string& agent_json = {});

}  // namespace parley::rehearsal
