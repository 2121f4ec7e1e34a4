// The entrypoint of configured agents: a definition becomes a session.
#include <algorithm>
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
absl::StatusOr<std::vector<LlmEngine>> LlmOf(const std::vector<registry::LlmConfig>& chain,
                                             const nlohmann::json& json) {
  std::vector<LlmEngine> engines;
  for (const registry::LlmConfig& one : chain) {
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

std::vector<TtsEngine> TtsOf(const std::vector<registry::TtsConfig>& chain) {
  std::vector<TtsEngine> engines;
  for (const registry::TtsConfig& one : chain) {
    engines.push_back({.engine = one.engine,
                       .voice = one.voice,
                       .language = one.language,
                       .rate = static_cast<float>(one.rate),
                       .pitch = static_cast<float>(one.pitch),
                       .options = one.options});
  }
  return engines;
}

std::vector<Tool> ToolsOf(const registry::AgentDefinition& definition,
                          const std::vector<ServerTool>& offered, std::string_view agent) {
  std::vector<Tool> tools;
  for (const registry::Tool& tool : definition.tools) {
    if (!tool.IsOf(agent)) continue;
    tools.push_back({.name = tool.name,
                     .description = tool.description,
                     .parameters_json = tool.parameters_json,
                     .timeout = tool.http.timeout,
                     .run = nullptr,
                     .filler = tool.filler,
                     .confirm_duplicates = tool.confirm_duplicates});
  }
  for (const ServerTool& tool : offered) {
    const bool known = definition.FindTool(tool.name) != nullptr;
    const bool own = tool.agents.empty() ||
                     std::find(tool.agents.begin(), tool.agents.end(), agent) != tool.agents.end();
    if (known || !own) continue;
    tools.push_back({.name = tool.name,
                     .description = tool.description,
                     .parameters_json = tool.parameters_json,
                     .timeout = tool.timeout,
                     .run = nullptr,
                     .filler = {}});
  }
  return tools;
}

absl::StatusOr<SessionConfig> ConfigOf(const JobInfo& job) {
  const std::string& definition_json = job.definition_json;
  PARLEY_ASSIGN_OR_RETURN(const registry::AgentDefinition definition,
                          registry::FromJson(definition_json));
  const auto json = nlohmann::json::parse(definition_json, nullptr, false);
  SessionConfig config;
  config.name = definition.id;
  config.instructions = session::InstructionsOf(definition, definition.instructions);
  config.greeting = definition.greeting;
  config.farewell = definition.farewell;
  config.handoffs = definition.handoffs;
  if (definition.realtime) {
    const registry::RealtimeConfig& realtime = *definition.realtime;
    config.realtime = {.engine = realtime.engine,
                       .model = realtime.model,
                       .voice = realtime.voice,
                       .language = realtime.language,
                       .max_tokens = realtime.max_tokens,
                       .options = realtime.options};
  } else {
    PARLEY_ASSIGN_OR_RETURN(config.stt, SttOf(definition));
    PARLEY_ASSIGN_OR_RETURN(config.llm, LlmOf(definition.llm, json));
  }
  config.tts = TtsOf(definition.tts);
  if (config.tts.empty()) config.tts.push_back({.engine = "flite", .voice = "slt"});
  config.tools = ToolsOf(definition, job.server_tools, definition.id);
  for (const auto& [id, part] : definition.agents) {
    AgentConfig agent{.name = id,
                      .description = part.description,
                      .instructions = session::InstructionsOf(definition, part.instructions),
                      .greeting = part.greeting,
                      .farewell = part.farewell,
                      .tts = TtsOf(part.tts),
                      .tools = ToolsOf(definition, job.server_tools, id),
                      .handoffs = part.handoffs,
                      .context = session::ContextOf(part.context)};
    PARLEY_ASSIGN_OR_RETURN(agent.llm, LlmOf(part.llm, json));
    config.agents.push_back(std::move(agent));
  }
  config.options = session::OptionsOf(definition);
  if (definition.turn_detection.vad == registry::VadEngine::kSilero) {
    config.vad = VoiceDetector::kSilero;
  }
  config.background.ambient = {.name = definition.background.ambient,
                               .volume = definition.background.ambient_volume};
  config.background.thinking = {.name = definition.background.thinking,
                                .volume = definition.background.thinking_volume};
  config.publish_transcripts = definition.transcription_enabled;
  config.transcribe_everybody = definition.transcribe_everybody;
  config.keep_transcript = definition.session.transcript;
  config.record = definition.session.record;
  config.record_sound = definition.session.record_sound;
  return config;
}

}  // namespace

absl::Status RunConfiguredAgent(JobContext& job) {
  absl::StatusOr<SessionConfig> config = ConfigOf(job.info());
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
