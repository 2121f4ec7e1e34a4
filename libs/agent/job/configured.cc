// The entrypoint of configured agents: a definition becomes a session.
#include <nlohmann/json.hpp>
#include <utility>

#include "agent/agent.h"
#include "base/status.h"
#include "registry/definition.h"
#include "session/definition.h"

namespace parley::agent {
namespace {

absl::StatusOr<std::vector<SttEngine>> SttOf(const registry::AgentDefinition& definition) {
  std::vector<SttEngine> engines;
  for (const registry::SttConfig& one : definition.stt) {
    SttEngine engine{.engine = one.engine,
                     .model = one.model,
                     .language = one.language,
                     .phrases = one.phrases,
                     .options = one.options};
    if (!one.grammar.empty()) {
      const auto grammar = definition.grammars.find(one.grammar);
      if (grammar == definition.grammars.end()) {
        return InvalidArgument("stt: there is no grammar \"{}\" under grammars", one.grammar);
      }
      engine.grammar = grammar->second;
    }
    engines.push_back(std::move(engine));
  }
  return engines;
}

// A rule list goes to its engine as the JSON it was written in.
absl::StatusOr<std::vector<LlmEngine>> LlmOf(const registry::AgentDefinition& definition,
                                             const std::string& definition_json) {
  const auto json = nlohmann::json::parse(definition_json, nullptr, false);
  std::vector<LlmEngine> engines;
  for (const registry::LlmConfig& one : definition.llm) {
    LlmEngine engine{.engine = one.engine,
                     .model = one.model,
                     .temperature = one.temperature,
                     .max_tokens = one.max_tokens,
                     .options = one.options};
    if (!one.rules.empty()) {
      if (!json.is_object() || !json.contains("rules") || !json["rules"].contains(one.rules)) {
        return InvalidArgument("llm: there is no rule list \"{}\" under rules", one.rules);
      }
      engine.rules_json = json["rules"][one.rules].dump();
    }
    engines.push_back(std::move(engine));
  }
  return engines;
}

std::vector<TtsEngine> TtsOf(const registry::AgentDefinition& definition) {
  std::vector<TtsEngine> engines;
  for (const registry::TtsConfig& one : definition.tts) {
    engines.push_back({.engine = one.engine,
                       .voice = one.voice,
                       .language = one.language,
                       .rate = static_cast<float>(one.rate),
                       .pitch = static_cast<float>(one.pitch),
                       .options = one.options});
  }
  return engines;
}

absl::StatusOr<SessionConfig> ConfigOf(const std::string& definition_json) {
  PARLEY_ASSIGN_OR_RETURN(const registry::AgentDefinition definition,
                          registry::FromJson(definition_json));
  SessionConfig config;
  config.instructions = definition.instructions;
  config.greeting = definition.greeting;
  PARLEY_ASSIGN_OR_RETURN(config.stt, SttOf(definition));
  PARLEY_ASSIGN_OR_RETURN(config.llm, LlmOf(definition, definition_json));
  config.tts = TtsOf(definition);
  for (const registry::Tool& tool : definition.tools) {
    config.tools.push_back({.name = tool.name,
                            .description = tool.description,
                            .parameters_json = tool.parameters_json,
                            .timeout = tool.http.timeout,
                            .run = nullptr});
  }
  config.options = session::OptionsOf(definition);
  config.publish_transcripts = definition.transcription_enabled;
  config.keep_transcript = definition.session.transcript;
  return config;
}

}  // namespace

absl::Status RunConfiguredAgent(JobContext& job) {
  absl::StatusOr<SessionConfig> config = ConfigOf(job.info().definition_json);
  if (!config.ok()) {
    job.FailDefinition(Message(config.status()));
    return config.status();
  }
  absl::StatusOr<AgentSession*> session = job.StartSession(*std::move(config));
  if (session.ok()) return (*session)->Wait();
  if (absl::IsInvalidArgument(session.status())) job.FailDefinition(Message(session.status()));
  return session.status();
}

}  // namespace parley::agent
