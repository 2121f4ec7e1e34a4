#include <openssl/evp.h>

#include <array>
#include <nlohmann/json.hpp>

#include "base/status.h"
#include "base/strings.h"
#include "registry/definition.h"
#include "registry/store.h"

namespace parley::registry {
namespace {

using Json = nlohmann::json;  // keeps its keys sorted

void PutText(Json& json, const char* name, const std::string& value) {
  if (!value.empty()) json[name] = value;
}

template <typename Container>
void PutAll(Json& json, const char* name, const Container& values) {
  if (!values.empty()) json[name] = values;
}

Json SttJson(const SttConfig& stt) {
  Json json = {{"engine", stt.engine}};
  PutText(json, "model", stt.model);
  PutText(json, "language", stt.language);
  PutText(json, "grammar", stt.grammar);
  PutAll(json, "phrases", stt.phrases);
  PutAll(json, "options", stt.options);
  return json;
}

Json LlmJson(const LlmConfig& llm) {
  Json json = {{"engine", llm.engine}};
  PutText(json, "model", llm.model);
  PutText(json, "rules", llm.rules);
  if (llm.temperature) json["temperature"] = *llm.temperature;
  if (llm.max_tokens) json["max_tokens"] = *llm.max_tokens;
  PutAll(json, "options", llm.options);
  return json;
}

Json TtsJson(const TtsConfig& tts) {
  Json json = {{"engine", tts.engine}, {"rate", tts.rate}, {"pitch", tts.pitch}};
  PutText(json, "voice", tts.voice);
  PutText(json, "language", tts.language);
  PutAll(json, "options", tts.options);
  return json;
}

Json RealtimeJson(const RealtimeConfig& realtime) {
  Json json = {{"engine", realtime.engine}, {"model", realtime.model}};
  PutText(json, "voice", realtime.voice);
  PutText(json, "language", realtime.language);
  if (realtime.max_tokens) json["max_tokens"] = *realtime.max_tokens;
  PutAll(json, "options", realtime.options);
  return json;
}

Json ToolJson(const Tool& tool) {
  Json http = {{"method", tool.http.method},
               {"url", tool.http.url},
               {"timeout", DurationText(tool.http.timeout)}};
  PutAll(http, "headers", tool.http.headers);
  PutText(http, "body", tool.http.body);
  PutText(http, "result", tool.http.result);
  Json json = {{"name", tool.name},
               {"parameters", Json::parse(tool.parameters_json, nullptr, false)},
               {"http", std::move(http)}};
  PutText(json, "description", tool.description);
  PutAll(json, "agents", tool.agents);
  PutText(json, "filler", tool.filler);
  if (tool.confirm_duplicates) json["confirm_duplicates"] = true;
  return json;
}

Json McpJson(const McpServerConfig& server) {
  Json json = {{"timeout", DurationText(server.timeout)}};
  PutText(json, "name", server.name);
  PutText(json, "url", server.url);
  PutAll(json, "headers", server.headers);
  PutAll(json, "allowed_tools", server.allowed_tools);
  PutAll(json, "agents", server.agents);
  return json;
}

Json RuleJson(const Rule& rule) {
  if (rule.when.empty()) return {{"otherwise", rule.say}};
  Json json = {{"when", rule.when}};
  PutText(json, "call", rule.call);
  PutText(json, "say", rule.say);
  PutText(json, "handoff", rule.handoff);
  return json;
}

template <typename T>
Json ListJson(const std::vector<T>& values, Json (*convert)(const T&)) {
  Json list = Json::array();
  for (const T& value : values) list.push_back(convert(value));
  return list;
}

Json AgentJson(const PartAgent& agent) {
  Json json = {{"instructions", agent.instructions},
               {"greeting", agent.greeting},
               {"context", Name(agent.context)}};
  PutText(json, "description", agent.description);
  PutText(json, "farewell", agent.farewell);
  if (!agent.llm.empty()) json["llm"] = ListJson(agent.llm, LlmJson);
  if (!agent.tts.empty()) json["tts"] = ListJson(agent.tts, TtsJson);
  PutAll(json, "handoffs", agent.handoffs);
  return json;
}

}  // namespace

std::string ToJson(const AgentDefinition& d) {
  Json json = {
      {"id", d.id},
      {"name", d.name},
      {"agent_name", d.agent_name},
      {"pool", d.pool},
      {"labels", d.labels},
      {"instructions", d.instructions},
      {"greeting", d.greeting},
      {"stt", ListJson(d.stt, SttJson)},
      {"llm", ListJson(d.llm, LlmJson)},
      {"tts", ListJson(d.tts, TtsJson)},
      {"turn_detection",
       {{"mode", Name(d.turn_detection.mode)},
        {"vad", d.turn_detection.vad == VadEngine::kSilero ? "silero" : "webrtc"},
        {"endpointing",
         {{"mode", d.turn_detection.dynamic ? "dynamic" : "fixed"},
          {"min_delay", DurationText(d.turn_detection.min_delay)},
          {"max_delay", DurationText(d.turn_detection.max_delay)}}}}},
      {"interruption",
       {{"enabled", d.interruption.enabled},
        {"min_duration", DurationText(d.interruption.min_duration)},
        {"min_words", d.interruption.min_words},
        {"resume_false_after", DurationText(d.interruption.resume_false_after)},
        {"ignore_backchannels", d.interruption.ignore_backchannels}}},
      {"preemptive_generation", d.preemptive_generation},
      {"tools", ListJson(d.tools, ToolJson)},
      {"transcription",
       {{"enabled", d.transcription_enabled},
        {"only", d.transcription_only},
        {"speakers", d.transcribe_everybody ? "all" : "linked"}}},
      {"limits",
       {{"max_duration", DurationText(d.limits.max_duration)},
        {"max_tool_steps", d.limits.max_tool_steps},
        {"memory", SizeText(d.limits.memory_bytes)}}},
      {"session",
       {{"away_after", DurationText(d.session.away_after)},
        {"close_on_disconnect", d.session.close_on_disconnect},
        {"dtmf_pause", DurationText(d.session.dtmf_pause)},
        {"record", d.session.record},
        {"record_sound", d.session.record_sound},
        {"transcript", d.session.transcript}}},
      {"grammars", d.grammars},
  };
  if (const Background& b = d.background; !b.ambient.empty() || !b.thinking.empty()) {
    json["background"] = {{"ambient_volume", b.ambient_volume},
                          {"thinking_volume", b.thinking_volume}};
    PutText(json["background"], "ambient", b.ambient);
    PutText(json["background"], "thinking", b.thinking);
  }
  PutText(json["transcription"], "translate_to", d.translate_to);
  if (d.realtime) {
    json["realtime"] = RealtimeJson(*d.realtime);
    for (const char* chain : {"stt", "llm"}) json.erase(chain);
    if (d.tts.empty()) json.erase("tts");
  }
  if (!d.mcp_servers.empty()) json["mcp_servers"] = ListJson(d.mcp_servers, McpJson);
  if (d.limits.max_stall > absl::ZeroDuration()) {
    json["limits"]["max_stall"] = DurationText(d.limits.max_stall);
  }
  if (d.session.hold) json["session"]["hold"] = *d.session.hold;
  PutText(json, "farewell", d.farewell);
  PutAll(json, "handoffs", d.handoffs);
  for (const auto& [name, model] :
       {std::pair("avatar", d.avatar_model), std::pair("vision", d.vision_model)}) {
    if (!model.empty()) json[name] = {{"enabled", false}, {"model", model}};
  }
  for (const auto& [id, agent] : d.agents) json["agents"][id] = AgentJson(agent);
  json["rules"] = Json::object();
  for (const auto& [name, rules] : d.rules) json["rules"][name] = ListJson(rules, RuleJson);
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string ContentHash(std::string_view canonical_json) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  EVP_Digest(canonical_json.data(), canonical_json.size(), digest.data(), &size, EVP_sha256(),
             nullptr);
  std::string hex;
  for (unsigned int i = 0; i < size; ++i) hex += fmt::format("{:02x}", digest[i]);
  return hex;
}

AgentRecord MakeRecord(std::string_view project, const AgentDefinition& definition) {
  AgentRecord record;
  record.project = std::string(project);
  record.id = definition.id;
  record.name = definition.name;
  record.agent_name = definition.agent_name;
  record.pool = definition.pool;
  record.labels = definition.labels;
  record.definition_json = ToJson(definition);
  record.content_hash = ContentHash(record.definition_json);
  return record;
}

}  // namespace parley::registry
