// Reads a definition section by section. Order matters: rules and engines refer to tools and
// grammars, which are read first.
#include <algorithm>
#include <array>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <set>

#include "base/strings.h"
#include "registry/checks.h"
#include "registry/definition.h"
#include "registry/node_json.h"
#include "registry/reader.h"
#include "speech/pattern.h"

namespace parley::registry {
namespace {

constexpr std::array<TurnMode, 5> kTurnModes = {TurnMode::kVad, TurnMode::kStt, TurnMode::kSemantic,
                                                TurnMode::kManual, TurnMode::kRealtime};
constexpr std::array<HandoffContext, 3> kContexts = {HandoffContext::kWhole, HandoffContext::kFresh,
                                                     HandoffContext::kSummary};
constexpr size_t kMaxChain = 8;
constexpr size_t kMaxTools = 64;
constexpr size_t kMaxMcpServers = 8;
constexpr size_t kMaxRules = 500;
constexpr size_t kMaxSets = 32;  // grammars, rule sets
constexpr size_t kMaxAgents = 32;

class Parser {
 public:
  Parser(std::string_view source, const ParseOptions& options)
      : errors_(source), options_(options) {}

  absl::StatusOr<AgentDefinition> Parse(const Node& root) {
    MapReader map(root, "", errors_);
    ReadIdentity(map);
    ReadGrammars(map);
    ReadTools(map);
    ReadMcpServers(map);
    ReadRules(map);
    ReadRealtime(map);
    ReadTranscription(map);
    ReadStt(map);
    ReadLlm(map);
    ReadTts(map);
    ReadAgents(map);
    ReadTurns(map);
    ReadInterruption(map);
    CheckEngines(map);
    map.Bool("preemptive_generation", &definition_.preemptive_generation);
    ReadBackground(map);
    ReadLimits(map);
    ReadSession(map);
    map.NotBuilt("secrets");
    map.Text("avatar_model", &definition_.avatar_model, {1, 256});
    ReadModelOnly(map, "avatar", &definition_.avatar_model);
    ReadModelOnly(map, "vision", &definition_.vision_model);
    map.Finish();
    if (!errors_.ok()) return errors_.status();
    return std::move(definition_);
  }

 private:
  // {enabled: false, model: …}: turning it on is refused, its model is kept.
  void ReadModelOnly(MapReader& map, const char* field, std::string* model) {
    const Node* node = map.Take(field);
    if (node == nullptr || node->kind != Node::Kind::kMap) return map.NotBuilt(field);
    MapReader fields(*node, map.PathOf(field), errors_);
    fields.NotBuilt("enabled");
    fields.Text("model", model, {1, 256});
    fields.Finish();
  }

  void ReadIdentity(MapReader& map) {
    AgentDefinition& d = definition_;
    map.Required("id");
    if (map.Text("id", &d.id, {1, 63}) && !IsId(d.id)) {
      map.Fail("id", "\"{}\" must be 1 to 63 of a to z, 0 to 9 and -", d.id);
    }
    d.name = d.agent_name = d.id;
    map.Text("name", &d.name, {1, 256});
    if (map.Text("agent_name", &d.agent_name, {1, 256}) &&
        std::any_of(d.agent_name.begin(), d.agent_name.end(),
                    [](unsigned char letter) { return letter < 0x20 || letter == 0x7f; })) {
      map.Fail("agent_name", "must not hold control characters");
    }
    if (map.Text("pool", &d.pool, {1, 63}) && !IsId(d.pool)) {
      map.Fail("pool", "\"{}\" must be 1 to 63 of a to z, 0 to 9 and -", d.pool);
    }
    map.Texts("labels", &d.labels, 64, {1, 63}, {0, 256});
    map.Text("instructions", &d.instructions, {0, 256 << 10});
    map.Text("greeting", &d.greeting, {0, 8 << 10});
    map.Text("farewell", &d.farewell, {0, 8 << 10});
  }

  void ReadGrammars(MapReader& map) {
    map.Map("grammars", [&](const Node& node, const std::string& path) {
      if (node.items.size() > kMaxSets) {
        errors_.Fail(node.line, path, "has {} grammars; at most {} are taken", node.items.size(),
                     kMaxSets);
      }
      for (size_t i = 0; i < node.items.size() && errors_.ok(); ++i) {
        const Node& value = node.items[i];
        const std::string field = path + "." + node.keys[i];
        const int line = node.key_lines[i];
        if (!IsToolName(node.keys[i])) {
          errors_.Fail(line, field, "its name must be letters, digits, _ and -");
        } else if (value.kind != Node::Kind::kText) {
          errors_.Fail(line, field, "must be a grammar in JSGF");
        } else if (value.text.size() > kMaxGrammarBytes) {
          errors_.Fail(line, field, "has {} bytes; at most {} are taken", value.text.size(),
                       kMaxGrammarBytes);
        } else if (const std::string problem = GrammarProblem(value.text); !problem.empty()) {
          errors_.Fail(line, field, "{}", problem);
        }
        definition_.grammars[node.keys[i]] = value.text;
      }
    });
  }

  // ---- tools ----

  void ReadTools(MapReader& map) {
    map.List("tools", kMaxTools, [&](const Node& node, const std::string& path) {
      MapReader fields(node, path, errors_);
      Tool tool;
      fields.Required("name");
      if (fields.Text("name", &tool.name) && !IsToolName(tool.name)) {
        fields.Fail("name", "\"{}\" must be 1 to 64 letters, digits, _ and -, no digit first",
                    tool.name);
      }
      if (definition_.FindTool(tool.name) != nullptr) {
        fields.Fail("name", "two tools are called {}", tool.name);
      }
      fields.Text("description", &tool.description, {0, 4096});
      fields.Text("filler", &tool.filler, {0, 1024});
      fields.Bool("confirm_duplicates", &tool.confirm_duplicates);
      fields.TextList("agents", &tool.agents, kMaxAgents, {1, 63});
      for (const std::string& agent : tool.agents)
        named_.push_back({fields.LineOf("agents"), fields.PathOf("agents"), agent});
      const Node* schema = fields.Take("parameters");
      ReadParameters(schema, fields, &tool);
      fields.Required("http");
      fields.Map("http", [&](const Node& http, const std::string& at) {
        ReadHttp(http, at, schema, &tool.http);
      });
      fields.Finish();
      definition_.tools.push_back(std::move(tool));
    });
  }

  void ReadMcpServers(MapReader& map) {
    map.List("mcp_servers", kMaxMcpServers, [&](const Node& node, const std::string& path) {
      MapReader fields(node, path, errors_);
      McpServerConfig server;
      if (fields.Text("name", &server.name) && !IsId(server.name)) {
        fields.Fail("name", "\"{}\" must be 1 to 63 of a to z, 0 to 9 and -", server.name);
      }
      if (fields.Text("url", &server.url, {1, 2048})) {
        const std::string problem = UrlProblem(server.url, options_.allow_loopback);
        if (!problem.empty()) fields.Fail("url", "{}", problem);
      }
      if (server.name.empty() == server.url.empty()) {
        fields.Fail("", "needs either `url` or the `name` of a server of the operator's");
      }
      fields.Texts("headers", &server.headers, 32, {1, 64}, {0, 4096});
      for (const auto& [name, value] : server.headers) {
        const std::string field = "headers." + name;
        if (!IsHeaderName(name)) fields.Fail(field, "is not a header that a tool may set");
        if (value.find_first_of("\r\n") != value.npos) fields.Fail(field, "holds a line break");
      }
      if (!server.headers.empty() && server.url.empty()) {
        fields.Fail("headers", "stand beside a URL; a program has none");
      }
      fields.TextList("allowed_tools", &server.allowed_tools, kMaxTools, {1, 64});
      fields.Duration("timeout", &server.timeout, absl::Milliseconds(10), absl::Seconds(60));
      fields.TextList("agents", &server.agents, kMaxAgents, {1, 63});
      for (const std::string& agent : server.agents)
        named_.push_back({fields.LineOf("agents"), fields.PathOf("agents"), agent});
      fields.Finish();
      definition_.mcp_servers.push_back(std::move(server));
    });
  }

  void ReadParameters(const Node* schema, MapReader& fields, Tool* tool) {
    nlohmann::json json = {{"type", "object"}, {"properties", nlohmann::json::object()}};
    if (schema != nullptr) {
      int line = 0;
      const std::string problem = ParametersProblem(*schema, &line);
      if (!problem.empty()) return errors_.Fail(line, fields.PathOf("parameters"), "{}", problem);
      json = ToJsonValue(*schema);
      if (!json.contains("properties")) json["properties"] = nlohmann::json::object();
    }
    tool->parameters_json = json.dump();
  }

  void ReadHttp(const Node& node, const std::string& path, const Node* schema, HttpTool* http) {
    MapReader fields(node, path, errors_);
    constexpr std::array<std::string_view, 5> kMethods = {"GET", "POST", "PUT", "PATCH", "DELETE"};
    if (fields.Text("method", &http->method) &&
        std::find(kMethods.begin(), kMethods.end(), http->method) == kMethods.end()) {
      fields.Fail("method", "\"{}\" is none of GET, POST, PUT, PATCH, DELETE", http->method);
    }
    fields.Required("url");
    if (fields.Text("url", &http->url, {1, 2048})) {
      const std::string problem = UrlProblem(http->url, options_.allow_loopback);
      if (!problem.empty()) fields.Fail("url", "{}", problem);
      CheckPlaces(fields, "url", http->url, schema);
    }
    if (fields.Texts("headers", &http->headers, 32, {1, 64}, {0, 4096})) {
      for (const auto& [name, value] : http->headers) {
        const std::string field = "headers." + name;
        if (!IsHeaderName(name)) fields.Fail(field, "is not a header that a tool may set");
        if (value.find_first_of("\r\n") != value.npos) fields.Fail(field, "holds a line break");
        CheckPlaces(fields, field, value, schema);
      }
    }
    if (fields.Text("body", &http->body, {0, 64 << 10})) {
      CheckPlaces(fields, "body", http->body, schema);
    }
    fields.Duration("timeout", &http->timeout, absl::Milliseconds(10), absl::Seconds(60));
    if (fields.Text("result", &http->result) && !http->result.empty()) {
      const std::string problem = ResultPathProblem(http->result);
      if (!problem.empty()) fields.Fail("result", "{}", problem);
    }
    fields.Finish();
  }

  // Each {place} of a template must be a parameter.
  void CheckPlaces(MapReader& fields, std::string_view field, std::string_view text,
                   const Node* schema) {
    std::string problem;
    const std::vector<std::string> places = PlacesOf(text, &problem);
    if (!problem.empty()) return fields.Fail(field, "{}", problem);
    const Node* properties = schema == nullptr ? nullptr : schema->Find("properties");
    for (const std::string& place : places) {
      if (properties == nullptr || properties->Find(place) == nullptr) {
        fields.Fail(field, "{{{}}} is not among the tool's parameters", place);
      }
    }
  }

  // ---- rules ----

  void ReadRules(MapReader& map) {
    map.Map("rules", [&](const Node& node, const std::string& path) {
      if (node.items.size() > kMaxSets) {
        errors_.Fail(node.line, path, "has {} sets; at most {} are taken", node.items.size(),
                     kMaxSets);
      }
      for (size_t i = 0; i < node.items.size() && errors_.ok(); ++i) {
        const std::string at = path + "." + node.keys[i];
        const Node& list = node.items[i];
        if (!IsToolName(node.keys[i])) {
          errors_.Fail(node.key_lines[i], at, "its name must be letters, digits, _ and -");
        } else if (list.kind != Node::Kind::kList || list.items.empty()) {
          errors_.Fail(node.key_lines[i], at, "must be a list of rules");
        } else if (list.items.size() > kMaxRules) {
          errors_.Fail(node.key_lines[i], at, "has {} rules; at most {} are taken",
                       list.items.size(), kMaxRules);
        }
        std::vector<Rule>& rules = definition_.rules[node.keys[i]];
        for (size_t j = 0; j < list.items.size() && errors_.ok(); ++j) {
          ReadRule(list.items[j], fmt::format("{}[{}]", at, j), j + 1 == list.items.size(), &rules);
        }
      }
    });
  }

  void ReadRule(const Node& node, const std::string& path, bool last, std::vector<Rule>* rules) {
    MapReader fields(node, path, errors_);
    Rule rule;
    if (fields.Text("otherwise", &rule.say, {1, 4096})) {
      if (!last)
        fields.Fail("otherwise", "must be the last rule: those after it are never reached");
      CheckSay(fields, "otherwise", rule.say, {}, false);
    } else {
      fields.Required("when");
      fields.Text("when", &rule.when, {1, speech::kMaxPatternBytes});
      fields.Text("call", &rule.call, {1, 64});
      fields.Text("say", &rule.say, {1, 4096});
      if (fields.Text("handoff", &rule.handoff, {1, 63})) {
        named_.push_back({fields.LineOf("handoff"), fields.PathOf("handoff"), rule.handoff});
      }
      CheckRule(fields, rule);
    }
    fields.Finish();
    rules->push_back(std::move(rule));
  }

  void CheckRule(MapReader& fields, const Rule& rule) {
    if (!errors_.ok()) return;
    const absl::StatusOr<speech::Pattern> pattern = speech::Pattern::Compile(rule.when);
    if (!pattern.ok()) return fields.Fail("when", "{}", Message(pattern.status()));
    if (rule.call.empty() && rule.say.empty() && rule.handoff.empty()) {
      return fields.Fail("", "needs `say`, `call` or `handoff`: what is the answer?");
    }
    if (!rule.call.empty() && !rule.handoff.empty()) {
      return fields.Fail("handoff", "stands beside `call`: a rule does one of them");
    }
    CheckSay(fields, "say", rule.say, pattern->slots(), !rule.call.empty());
    if (rule.call.empty()) return;
    const Tool* tool = definition_.FindTool(rule.call);
    // What MCP servers offer shows when a session starts.
    if (tool == nullptr && !definition_.mcp_servers.empty()) return;
    if (tool == nullptr) return fields.Fail("call", "there is no tool {}", rule.call);
    const auto schema = nlohmann::json::parse(tool->parameters_json, nullptr, false);
    for (const auto& name : schema.value("required", nlohmann::json::array())) {
      const auto& slots = pattern->slots();
      if (std::find(slots.begin(), slots.end(), name.get<std::string>()) == slots.end()) {
        fields.Fail("call", "tool {} needs {}, which is no slot of `when`", rule.call,
                    name.get<std::string>());
      }
    }
  }

  void CheckSay(MapReader& fields, std::string_view field, std::string_view say,
                const std::vector<std::string>& slots, bool has_result) {
    std::string problem;
    const std::vector<std::string> places = PlacesOf(say, &problem);
    if (!problem.empty()) return fields.Fail(field, "{}", problem);
    for (const std::string& place : places) {
      if (place == "result" && has_result) continue;
      if (std::find(slots.begin(), slots.end(), place) == slots.end()) {
        fields.Fail(field, "{{{}}} is neither a slot of `when` nor the result of a tool", place);
      }
    }
  }

  // ---- engines ----

  void Engine(MapReader& fields, std::string* engine,
              std::initializer_list<std::string_view> built) {
    fields.Required("engine");
    if (!fields.Text("engine", engine, {1, 64})) return;
    if (std::find(built.begin(), built.end(), *engine) != built.end()) return;
    std::string names;
    for (const std::string_view name : built) {
      if (name != "scripted") names += (names.empty() ? "" : ", ") + std::string(name);
    }
    fields.Fail("engine", "engine {} is not built yet in this version; there are: {}", *engine,
                names);
  }

  void Options(MapReader& fields, std::map<std::string, std::string>* options) {
    fields.Texts("options", options, 32, {1, 64}, {0, 4096});
  }

  void ReadRealtime(MapReader& map) {
    map.Map("realtime", [&](const Node& node, const std::string& path) {
      MapReader fields(node, path, errors_);
      RealtimeConfig& realtime = definition_.realtime.emplace();
      Engine(fields, &realtime.engine, {"openai-realtime"});
      fields.Required("model");
      fields.Text("model", &realtime.model, {1, 256});
      fields.Text("voice", &realtime.voice, {1, 256});
      fields.Text("language", &realtime.language, {2, 35});
      int max_tokens = 0;
      if (fields.Int("max_tokens", &max_tokens, 1, 100'000)) realtime.max_tokens = max_tokens;
      Options(fields, &realtime.options);
      fields.Finish();
    });
  }

  // What engines there are for what is asked. A model that hears and speaks takes the place of
  // three, and has no words where words count.
  void CheckEngines(MapReader& map) {
    const AgentDefinition& d = definition_;
    if (!d.translate_to.empty() && !d.llm.empty() && d.llm.front().engine == "rules")
      map.Fail("transcription", "translate_to needs a model that translates; rules do not");
    const TurnMode mode = d.turn_detection.mode;
    if (!d.realtime) {
      if (mode == TurnMode::kRealtime)
        map.Fail("turn_detection", "realtime needs `realtime`: a model that hears");
      return;
    }
    const bool parts = std::any_of(d.agents.begin(), d.agents.end(), [](const auto& one) {
      return !one.second.llm.empty() || !one.second.tts.empty();
    });
    if (!d.stt.empty() || !d.llm.empty() || parts) {
      map.Fail("realtime", "stands in place of stt and llm, and of other agents' llm and tts");
    }
    if (mode == TurnMode::kStt || mode == TurnMode::kSemantic)
      map.Fail("turn_detection", "{} needs stt: with realtime there are vad, manual, realtime",
               Name(mode));
    if (d.interruption.min_words > 0)
      map.Fail("interruption", "min_words needs stt: with realtime use min_duration");
    for (const auto& [id, agent] : d.agents) {
      if (agent.context == HandoffContext::kSummary)
        map.Fail("agents", "{}: a summary needs llm: with realtime there are whole, fresh", id);
    }
  }

  void ReadStt(MapReader& map) {
    std::vector<SttConfig>& chain = definition_.stt;
    map.List("stt", kMaxChain, [&](const Node& node, const std::string& path) {
      MapReader fields(node, path, errors_);
      SttConfig stt;
      Engine(fields, &stt.engine, {"pocketsphinx", "openai", "wyoming", "scripted"});
      fields.Text("model", &stt.model);
      fields.Text("language", &stt.language, {2, 35});
      if (fields.Text("grammar", &stt.grammar, {1, 64}) &&
          !definition_.grammars.contains(stt.grammar)) {
        fields.Fail("grammar", "there is no grammar {} under `grammars`", stt.grammar);
      }
      fields.TextList("phrases", &stt.phrases, 500, {1, 256});
      Options(fields, &stt.options);
      fields.Finish();
      chain.push_back(std::move(stt));
    });
    if (!chain.empty() || definition_.realtime) return;
    SttConfig stt;
    stt.engine = "pocketsphinx";
    if (definition_.grammars.size() == 1) stt.grammar = definition_.grammars.begin()->first;
    chain.push_back(std::move(stt));
  }

  void ReadLlmChain(MapReader& map, std::vector<LlmConfig>* chain) {
    map.List("llm", kMaxChain, [&](const Node& node, const std::string& path) {
      MapReader fields(node, path, errors_);
      LlmConfig llm;
      Engine(fields, &llm.engine, {"rules", "openai", "scripted"});
      fields.Text("model", &llm.model);
      if (fields.Text("rules", &llm.rules, {1, 64}) && !definition_.rules.contains(llm.rules)) {
        fields.Fail("rules", "there are no rules {} under `rules`", llm.rules);
      }
      if (llm.engine == "rules" && llm.rules.empty()) fields.Required("rules");
      if (llm.engine == "openai" && llm.model.empty()) fields.Required("model");
      double temperature = 0;
      if (fields.Double("temperature", &temperature, 0, 2)) llm.temperature = temperature;
      int max_tokens = 0;
      if (fields.Int("max_tokens", &max_tokens, 1, 100'000)) llm.max_tokens = max_tokens;
      Options(fields, &llm.options);
      fields.Finish();
      chain->push_back(std::move(llm));
    });
  }

  void ReadLlm(MapReader& map) {
    std::vector<LlmConfig>& chain = definition_.llm;
    ReadLlmChain(map, &chain);
    if (!chain.empty() || definition_.realtime) return;
    if (definition_.transcription_only && definition_.rules.empty()) return;  // it never thinks
    if (definition_.rules.size() != 1) {
      return map.Fail("llm", "is missing: name what thinks, e.g. [{{engine: rules, rules: NAME}}]");
    }
    LlmConfig llm;
    llm.engine = "rules";
    llm.rules = definition_.rules.begin()->first;
    chain.push_back(std::move(llm));
  }

  void ReadTtsChain(MapReader& map, std::vector<TtsConfig>* chain) {
    map.List("tts", kMaxChain, [&](const Node& node, const std::string& path) {
      MapReader fields(node, path, errors_);
      TtsConfig tts;
      Engine(fields, &tts.engine, {"flite", "espeak", "openai", "wyoming", "scripted"});
      fields.Text("voice", &tts.voice);
      fields.Text("language", &tts.language, {2, 35});
      fields.Double("rate", &tts.rate, 0.5, 2);
      fields.Double("pitch", &tts.pitch, 0.5, 2);
      Options(fields, &tts.options);
      if (bool cache = true; fields.Bool("cache", &cache) && !cache) tts.options["cache"] = "false";
      fields.Finish();
      chain->push_back(std::move(tts));
    });
  }

  void ReadTts(MapReader& map) {
    std::vector<TtsConfig>& chain = definition_.tts;
    ReadTtsChain(map, &chain);
    if (!chain.empty() || definition_.realtime) return;
    TtsConfig tts;
    tts.engine = "flite";
    tts.voice = "slt";
    chain.push_back(std::move(tts));
  }

  // ---- several agents ----

  void ReadAgents(MapReader& map) {
    AgentDefinition& d = definition_;
    ReadHandoffs(map, &d.handoffs);
    map.Map("agents", [&](const Node& node, const std::string& path) {
      if (node.items.size() > kMaxAgents) {
        errors_.Fail(node.line, path, "has {} agents; at most {} are taken", node.items.size(),
                     kMaxAgents);
      }
      for (size_t i = 0; i < node.items.size() && errors_.ok(); ++i) {
        const std::string& id = node.keys[i];
        const std::string at = path + "." + id;
        if (!IsId(id) || id == d.id) {
          errors_.Fail(node.key_lines[i], at, "its id must be 1 to 63 of a to z, 0 to 9 and -{}",
                       id == d.id ? ", and not the definition's own" : "");
        } else if (node.items[i].kind != Node::Kind::kMap) {
          errors_.Fail(node.key_lines[i], at, "must be a map");
        } else {
          ReadAgent(node.items[i], at, &d.agents[id]);
        }
      }
    });
    for (const Named& one : named_) {
      if (one.agent == d.id || d.agents.contains(one.agent)) continue;
      errors_.Fail(one.line, one.field, "there is no agent {} under `agents`", one.agent);
    }
    CheckAgents(map);
  }

  void ReadAgent(const Node& node, const std::string& path, PartAgent* agent) {
    MapReader fields(node, path, errors_);
    fields.Text("description", &agent->description, {0, 4096});
    fields.Text("instructions", &agent->instructions, {0, 256 << 10});
    fields.Text("greeting", &agent->greeting, {0, 8 << 10});
    fields.Text("farewell", &agent->farewell, {0, 8 << 10});
    ReadLlmChain(fields, &agent->llm);
    ReadTtsChain(fields, &agent->tts);
    ReadHandoffs(fields, &agent->handoffs);
    std::string context = "whole";
    if (fields.Text("context", &context)) {
      const auto* const known =
          std::find_if(kContexts.begin(), kContexts.end(),
                       [&](HandoffContext one) { return Name(one) == context; });
      if (known == kContexts.end()) {
        fields.Fail("context", "\"{}\" is none of whole, fresh, summary", context);
      } else {
        agent->context = *known;
      }
    }
    const std::vector<LlmConfig>& llm = agent->llm.empty() ? definition_.llm : agent->llm;
    if (agent->context == HandoffContext::kSummary && !llm.empty() &&
        llm.front().engine == "rules") {
      fields.Fail("context", "summary needs a model that writes one; rules do not");
    }
    fields.Finish();
  }

  void ReadHandoffs(MapReader& map, std::vector<std::string>* handoffs) {
    map.TextList("handoffs", handoffs, kMaxAgents, {1, 63});
    for (const std::string& agent : *handoffs)
      named_.push_back({map.LineOf("handoffs"), map.PathOf("handoffs"), agent});
  }

  // Each agent's rules do what that agent may do, and each agent is reached.
  void CheckAgents(MapReader& map) {
    const AgentDefinition& d = definition_;
    std::set<std::string> reached = {d.id};
    const auto check = [&](const std::string& id, const std::vector<LlmConfig>& llm,
                           const std::vector<std::string>& handoffs) {
      reached.insert(handoffs.begin(), handoffs.end());
      for (const LlmConfig& one : llm) {
        const auto rules = d.rules.find(one.rules);
        if (rules == d.rules.end()) continue;
        for (const Rule& rule : rules->second) {
          if (!rule.handoff.empty() &&
              std::find(handoffs.begin(), handoffs.end(), rule.handoff) == handoffs.end()) {
            map.Fail("handoffs", "rules.{} hand over to {}, which is not among the handoffs of {}",
                     one.rules, rule.handoff, id);
          }
          const Tool* tool = d.FindTool(rule.call);
          if (tool == nullptr || tool->IsOf(id)) continue;
          map.Fail("agents", "rules.{} call {}, which is no tool of {}", one.rules, rule.call, id);
        }
      }
    };
    check(d.id, d.llm, d.handoffs);
    for (const auto& [id, agent] : d.agents) {
      check(id, agent.llm.empty() ? d.llm : agent.llm, agent.handoffs);
    }
    for (const auto& [id, agent] : d.agents) {
      if (!reached.contains(id)) map.Fail("agents", "nobody hands over to {}", id);
    }
    constexpr std::string_view kTransfer = "transfer_to_";
    for (const Tool& tool : d.tools) {
      if (!d.agents.empty() && tool.name.starts_with(kTransfer)) {
        map.Fail("tools", "{}: names that begin with {} stand for handoffs", tool.name, kTransfer);
      }
    }
  }

  // ---- behaviour ----

  void ReadTurns(MapReader& map) {
    TurnDetection& turns = definition_.turn_detection;
    map.Map("turn_detection", [&](const Node& node, const std::string& path) {
      MapReader fields(node, path, errors_);
      std::string mode = "vad";
      if (fields.Text("mode", &mode)) {
        const auto* const known = std::find_if(kTurnModes.begin(), kTurnModes.end(),
                                               [&](TurnMode one) { return Name(one) == mode; });
        if (known == kTurnModes.end()) {
          fields.Fail("mode", "\"{}\" is none of vad, stt, semantic, manual, realtime", mode);
        } else {
          turns.mode = *known;
        }
      }
      std::string vad = "webrtc";
      if (fields.Text("vad", &vad) && vad != "webrtc" && vad != "silero") {
        fields.Fail("vad", "\"{}\" is none of webrtc, silero", vad);
      }
      turns.vad = vad == "silero" ? VadEngine::kSilero : VadEngine::kWebrtc;
      if (turns.mode == TurnMode::kSemantic) {
        turns.min_delay = absl::Milliseconds(300);
        turns.max_delay = absl::Milliseconds(2500);
      }
      fields.Map("endpointing", [&](const Node& delays, const std::string& at) {
        MapReader endpointing(delays, at, errors_);
        std::string kind = "fixed";
        if (endpointing.Text("mode", &kind) && kind != "fixed" && kind != "dynamic") {
          endpointing.Fail("mode", "\"{}\" is none of fixed, dynamic", kind);
        }
        turns.dynamic = kind == "dynamic";
        endpointing.Duration("min_delay", &turns.min_delay, absl::Milliseconds(50),
                             absl::Seconds(10));
        endpointing.Duration("max_delay", &turns.max_delay, absl::Milliseconds(50),
                             absl::Seconds(60));
        if (turns.max_delay < turns.min_delay) {
          endpointing.Fail("max_delay", "must not be shorter than min_delay ({})",
                           DurationText(turns.min_delay));
        }
        endpointing.Finish();
      });
      fields.Finish();
    });
  }

  void ReadInterruption(MapReader& map) {
    Interruption& interruption = definition_.interruption;
    map.Map("interruption", [&](const Node& node, const std::string& path) {
      MapReader fields(node, path, errors_);
      fields.Bool("enabled", &interruption.enabled);
      fields.Duration("min_duration", &interruption.min_duration, absl::ZeroDuration(),
                      absl::Seconds(10));
      fields.Int("min_words", &interruption.min_words, 0, 100);
      fields.Duration("resume_false_after", &interruption.resume_false_after, absl::ZeroDuration(),
                      absl::Seconds(60));
      fields.Bool("ignore_backchannels", &interruption.ignore_backchannels);
      fields.Finish();
    });
  }

  void ReadBackground(MapReader& map) {
    Background& background = definition_.background;
    map.Map("background", [&](const Node& node, const std::string& path) {
      MapReader fields(node, path, errors_);
      for (const auto& [name, sound] : {std::pair("ambient", &background.ambient),
                                        std::pair("thinking", &background.thinking)}) {
        if (!fields.Text(name, sound) || sound->empty()) continue;
        if (std::ranges::find(kSounds, *sound) == kSounds.end()) {
          fields.Fail(name, "\"{}\" is none of {}", *sound, fmt::join(kSounds, ", "));
        }
      }
      fields.Double("ambient_volume", &background.ambient_volume, 0, 4);
      fields.Double("thinking_volume", &background.thinking_volume, 0, 4);
      fields.Finish();
    });
  }

  void ReadTranscription(MapReader& map) {
    map.Map("transcription", [&](const Node& node, const std::string& path) {
      MapReader fields(node, path, errors_);
      fields.Bool("enabled", &definition_.transcription_enabled);
      AgentDefinition& d = definition_;
      fields.Bool("only", &d.transcription_only);
      std::string speakers = "linked";
      if (fields.Text("speakers", &speakers) && speakers != "linked" && speakers != "all")
        fields.Fail("speakers", "\"{}\" is none of linked, all", speakers);
      d.transcribe_everybody = speakers == "all";
      fields.Text("translate_to", &d.translate_to, {2, 64});
      if (d.transcription_only && !d.transcription_enabled)
        fields.Fail("only", "needs `enabled`: it would neither speak nor write");
      if (d.transcription_only && !d.translate_to.empty())
        fields.Fail("translate_to", "is spoken: it stands without `only`");
      if (d.realtime && (d.transcription_only || d.transcribe_everybody))
        fields.Fail("only", "and `speakers: all` need stt, which realtime takes the place of");
      fields.Finish();
    });
  }

  void ReadLimits(MapReader& map) {
    Limits& limits = definition_.limits;
    map.Map("limits", [&](const Node& node, const std::string& path) {
      MapReader fields(node, path, errors_);
      fields.Duration("max_duration", &limits.max_duration, absl::Seconds(1), absl::Hours(24));
      fields.Int("max_tool_steps", &limits.max_tool_steps, 0, 50);
      fields.Size("memory", &limits.memory_bytes, int64_t{16} << 20, int64_t{64} << 30);
      fields.Duration("max_stall", &limits.max_stall, absl::Seconds(1), absl::Seconds(60));
      fields.Finish();
    });
  }

  void ReadSession(MapReader& map) {
    SessionOptions& session = definition_.session;
    map.Map("session", [&](const Node& node, const std::string& path) {
      MapReader fields(node, path, errors_);
      fields.Duration("away_after", &session.away_after, absl::ZeroDuration(), absl::Hours(24));
      fields.Bool("close_on_disconnect", &session.close_on_disconnect);
      fields.Duration("dtmf_pause", &session.dtmf_pause, absl::ZeroDuration(), absl::Seconds(60));
      std::string hold;
      if (fields.Text("hold", &hold, {0, 200})) session.hold = hold;
      fields.Bool("record", &session.record);
      fields.Bool("record_sound", &session.record_sound);
      fields.Bool("transcript", &session.transcript);
      fields.Finish();
    });
  }

  struct Named {
    int line;
    std::string field;
    std::string agent;
  };
  Errors errors_;
  const ParseOptions options_;
  AgentDefinition definition_;
  std::vector<Named> named_;  // agents that somebody speaks of
};

}  // namespace

std::string_view Name(TurnMode mode) {
  static constexpr std::array<std::string_view, 5> kNames = {"vad", "stt", "semantic", "manual",
                                                             "realtime"};
  return kNames.at(static_cast<size_t>(mode));
}

std::string_view Name(HandoffContext context) {
  static constexpr std::array<std::string_view, 3> kNames = {"whole", "fresh", "summary"};
  return kNames.at(static_cast<size_t>(context));
}

bool Tool::IsOf(std::string_view agent) const {
  return agents.empty() || std::find(agents.begin(), agents.end(), agent) != agents.end();
}

const Tool* AgentDefinition::FindTool(std::string_view tool_name) const {
  for (const Tool& tool : tools) {
    if (tool.name == tool_name) return &tool;
  }
  return nullptr;
}

absl::StatusOr<AgentDefinition> ParseDefinition(std::string_view text, std::string_view source_name,
                                                const ParseOptions& options) {
  if (text.size() > kMaxDefinitionBytes) {
    return DefinitionError(
        source_name, 0, "",
        fmt::format("has {} bytes; at most {} are taken", text.size(), kMaxDefinitionBytes));
  }
  PARLEY_ASSIGN_OR_RETURN(const Node root, ParseTree(text, source_name));
  return Parser(source_name, options).Parse(root);
}

absl::StatusOr<AgentDefinition> FromJson(std::string_view json) {
  ParseOptions options;
  options.allow_loopback = true;  // judged when it was registered
  PARLEY_ASSIGN_OR_RETURN(const Node root, ParseJsonTree(json, "definition"));
  return Parser("definition", options).Parse(root);
}

}  // namespace parley::registry
