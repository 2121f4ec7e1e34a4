#pragma once
// Runs a scenario: a session with scripted engines, a caller, a room and a clock, all on one thread
// and in no time. The same scenario always gives the same decision log.
#include <absl/status/statusor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "rehearsal/scenario.h"
#include "session/session.h"

namespace parley::rehearsal {

// Who is on the stage.
struct Cast {
  session::Options options;
  session::Character character;
  std::vector<session::Character> others;  // whom it may hand over to
  // Answers in place of the scenario's `model`, where that has nothing to say; `agent` is empty
  // where there is only one. Called on the caller's thread. May be empty, and has no answer where
  // it says NotFound.
  std::function<absl::StatusOr<ModelAnswer>(
      const std::string& agent, const std::vector<session::ChatItem>& prompt, bool allow_tools)>
      model;
  // Tools that are run in place of being scripted: arguments as a JSON object → output, or an error
  // for the model. They take no time on the stage's clock.
  std::map<std::string, std::function<absl::StatusOr<std::string>(std::string_view)>> tools;
};

// The cast of a definition. Rules, where it has them, answer for real; tools are scripted.
absl::StatusOr<Cast> CastOf(const registry::AgentDefinition& definition);

struct Outcome {
  struct Line {
    int64_t at_us = 0;
    std::string text;
  };
  std::vector<Line> log;  // what the session decided, see session/decision_log.h
  std::vector<std::string> history;
  std::vector<session::TurnReport> turns;
  std::vector<std::string> failures;  // what was expected and did not come; empty: passed
  int64_t played_us = 0;              // how long the conversation was

  bool passed() const { return failures.empty(); }
  std::string LogText() const;
};

// Runs to the scenario's end, or to the session's. With a `recorder` the session is recorded; a
// scenario that ends before its session does shuts it down.
Outcome Perform(const Scenario& scenario, const Cast& cast, session::Recorder* recorder = nullptr);

}  // namespace parley::rehearsal
