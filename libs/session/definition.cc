#include "session/definition.h"

#include <algorithm>

namespace parley::session {
namespace {

// As far as the definition tells: where it names no language, engines speak English.
bool SpeaksEnglish(const registry::AgentDefinition& definition) {
  const auto english = [](const std::string& language) {
    return language.empty() || language == "en" || language.starts_with("en-");
  };
  const bool heard = definition.stt.empty() || english(definition.stt.front().language);
  const bool said = definition.tts.empty() || english(definition.tts.front().language);
  const bool both = !definition.realtime || english(definition.realtime->language);
  return heard && said && both && definition.translate_to.empty();
}

}  // namespace

Context ContextOf(registry::HandoffContext context) {
  switch (context) {
    case registry::HandoffContext::kWhole:
      break;
    case registry::HandoffContext::kFresh:
      return Context::kFresh;
    case registry::HandoffContext::kSummary:
      return Context::kSummary;
  }
  return Context::kWhole;
}

Options OptionsOf(const registry::AgentDefinition& definition) {
  Options options;
  const registry::TurnDetection& turns = definition.turn_detection;
  switch (turns.mode) {
    case registry::TurnMode::kVad:
      options.turn_detection = TurnDetection::kVad;
      break;
    case registry::TurnMode::kStt:
      options.turn_detection = TurnDetection::kStt;
      break;
    case registry::TurnMode::kSemantic:
      options.turn_detection = TurnDetection::kSemantic;
      break;
    case registry::TurnMode::kManual:
      options.turn_detection = TurnDetection::kManual;
      break;
    case registry::TurnMode::kRealtime:
      options.turn_detection = TurnDetection::kRealtime;
      break;
  }
  options.listen_only = definition.transcription_only;
  options.turn_by_turn = !definition.translate_to.empty();
  options.realtime = definition.realtime.has_value();
  options.dynamic_endpointing = turns.dynamic;
  options.preemptive_generation = definition.preemptive_generation;
  options.ignore_backchannels = definition.interruption.ignore_backchannels;
  options.min_endpointing_delay = turns.min_delay;
  options.max_endpointing_delay = turns.max_delay;
  // The recogniser is asked for its final a moment before the turn is taken, so that the answer is
  // there by then, yet a breath inside a phrase does not cut it in two.
  options.min_silence = std::clamp(turns.min_delay - absl::Milliseconds(50),
                                   absl::Milliseconds(200), absl::Milliseconds(450));
  options.allow_interruptions = definition.interruption.enabled;
  options.min_interruption = definition.interruption.min_duration;
  options.min_interruption_words = definition.interruption.min_words;
  options.resume_false_after = definition.interruption.resume_false_after;
  options.max_tool_steps = definition.limits.max_tool_steps;
  options.max_duration = definition.limits.max_duration;
  if (definition.limits.max_stall > absl::ZeroDuration()) {
    options.max_stall = definition.limits.max_stall;
  }
  if (definition.session.hold) {
    options.hold = *definition.session.hold;
  } else if (!SpeaksEnglish(definition)) {
    options.hold.clear();
  }
  options.away_after = definition.session.away_after;
  options.dtmf_pause = definition.session.dtmf_pause;
  options.close_on_disconnect = definition.session.close_on_disconnect;
  return options;
}

std::string InstructionsOf(const registry::AgentDefinition& definition, const std::string& own) {
  if (definition.translate_to.empty()) return own;
  const std::string task =
      "You interpret. Say what the user says in this language: " + definition.translate_to +
      ". Say the translation alone: no answer to it, no remark, no quotation marks. What is in "
      "that language already, say as it is.";
  return own.empty() ? task : task + "\n\n" + own;
}

std::vector<Character> CharactersOf(const registry::AgentDefinition& definition) {
  std::vector<Character> characters = {{.name = definition.id,
                                        .instructions = definition.instructions,
                                        .greeting = definition.greeting,
                                        .farewell = definition.farewell,
                                        .handoffs = definition.handoffs}};
  for (const auto& [id, agent] : definition.agents) {
    characters.push_back({.name = id,
                          .instructions = agent.instructions,
                          .greeting = agent.greeting,
                          .farewell = agent.farewell,
                          .handoffs = agent.handoffs,
                          .context = ContextOf(agent.context)});
  }
  for (Character& one : characters) {
    one.instructions = InstructionsOf(definition, one.instructions);
    for (const registry::Tool& tool : definition.tools) {
      if (!tool.IsOf(one.name)) continue;
      one.tools.push_back({tool.name, tool.http.timeout, tool.filler, tool.confirm_duplicates});
    }
  }
  return characters;
}

}  // namespace parley::session
