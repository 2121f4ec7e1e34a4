#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <re2/re2.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "base/strings.h"
#include "registry/definition.h"
#include "registry/mcp_programs.h"
#include "registry/store.h"
#include "testing/matchers.h"

namespace parley::registry {
namespace {

using ::parley::testing::HasReason;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using Json = nlohmann::json;

std::string FileText(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::filesystem::path ExamplesFolder() {
  const char* source = std::getenv("PARLEY_SOURCE_DIR");
  return std::filesystem::path(source == nullptr ? "." : source) / "examples";
}

// An agent that is fine, with `more` fields after it (from line 3 on).
std::string With(std::string_view more) {
  return "id: x\nllm: [{engine: openai, model: m}]\n" + std::string(more);
}

std::string ErrorOf(std::string_view text) {
  const auto definition = ParseDefinition(text, "a.yaml");
  if (definition.ok()) return "it parses";
  const bool missing = ReasonOf(definition.status()).reason == "UNSUPPORTED";
  EXPECT_THAT(definition, HasReason(missing ? "UNSUPPORTED" : "DEFINITION_INVALID"));
  return std::string(Message(definition.status()));
}

// The part of JSON schema that agent.schema.json uses. "" = valid.
std::string SchemaProblem(const Json& value, const Json& schema, const Json& root,
                          const std::string& at) {
  if (schema.contains("$ref")) {
    const std::string name = schema["$ref"].get<std::string>().substr(8);
    return SchemaProblem(value, root["$defs"][name], root, at);
  }
  const auto is = [&](const std::string& type) {
    if (type == "integer") return value.is_number_integer();
    if (type == "number") return value.is_number();
    return type == value.type_name();
  };
  if (schema.contains("type")) {
    const Json types = schema["type"].is_array() ? schema["type"] : Json::array({schema["type"]});
    if (std::none_of(types.begin(), types.end(), is)) return at + ": wrong type";
  }
  if (schema.contains("const") && value != schema["const"]) return at + ": not the constant";
  if (schema.contains("enum")) {
    const Json& choices = schema["enum"];
    if (std::find(choices.begin(), choices.end(), value) == choices.end()) return at + ": enum";
  }
  if (value.is_string()) {
    const std::string text = value.get<std::string>();
    if (text.size() < schema.value("minLength", size_t{0})) return at + ": too short";
    if (text.size() > schema.value("maxLength", SIZE_MAX)) return at + ": too long";
    if (schema.contains("pattern") &&
        !RE2::PartialMatch(text, schema["pattern"].get<std::string>())) {
      return at + ": pattern";
    }
  }
  if (value.is_number()) {
    if (schema.contains("minimum") && value < schema["minimum"]) return at + ": too small";
    if (schema.contains("maximum") && value > schema["maximum"]) return at + ": too large";
  }
  if (value.is_array()) {
    if (value.size() < schema.value("minItems", size_t{0})) return at + ": too few";
    if (value.size() > schema.value("maxItems", SIZE_MAX)) return at + ": too many";
    for (size_t i = 0; schema.contains("items") && i < value.size(); ++i) {
      const std::string problem =
          SchemaProblem(value[i], schema["items"], root, fmt::format("{}[{}]", at, i));
      if (!problem.empty()) return problem;
    }
  }
  if (schema.contains("oneOf")) {
    const Json& forms = schema["oneOf"];
    const auto fits = std::count_if(forms.begin(), forms.end(), [&](const Json& form) {
      return SchemaProblem(value, form, root, at).empty();
    });
    if (fits != 1) return at + ": is none, or several, of its forms";
  }
  if (!value.is_object()) return "";
  if (value.size() > schema.value("maxProperties", SIZE_MAX)) return at + ": too many";
  for (const Json& name : schema.value("required", Json::array())) {
    if (!value.contains(name.get<std::string>())) return at + ": lacks " + name.dump();
  }
  const Json properties = schema.value("properties", Json::object());
  for (const auto& [name, item] : value.items()) {
    Json rule = true;
    if (properties.contains(name)) {
      rule = properties[name];
    } else if (schema.contains("additionalProperties")) {
      rule = schema["additionalProperties"];
    }
    if (rule == false) return at + "." + name + ": not a known field";
    if (rule.is_boolean()) continue;
    const std::string problem = SchemaProblem(item, rule, root, at + "." + name);
    if (!problem.empty()) return problem;
  }
  return "";
}

std::string SchemaProblem(const Json& value) {
  static const Json kSchema = Json::parse(SchemaJson());
  return SchemaProblem(value, kSchema, kSchema, "$");
}

TEST(DefinitionTest, ExamplesParseAndFitTheSchema) {
  ParseOptions options;
  options.allow_loopback = true;
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(ExamplesFolder())) {
    if (entry.path().extension() != ".yaml") continue;
    ++count;
    PARLEY_ASSERT_OK_AND_ASSIGN(
        AgentDefinition definition,
        ParseDefinition(FileText(entry.path()), entry.path().filename().string(), options));
    EXPECT_EQ(definition.id, entry.path().stem());
    EXPECT_EQ(SchemaProblem(Json::parse(ToJson(definition))), "") << entry.path();
  }
  EXPECT_GE(count, 3);
}

TEST(DefinitionTest, EverythingIsRead) {
  PARLEY_ASSERT_OK_AND_ASSIGN(AgentDefinition d, ParseDefinition(R"(
id: front-desk
name: Front desk
agent_name: Front-Desk
pool: hotel
labels: {team: hotel, floor: 3}
instructions: |
  Two
  lines.
greeting: Good day.
stt: [{engine: pocketsphinx, grammar: rooms, language: en, phrases: [suite], options: {a: b}}]
llm: [{engine: openai, model: m, temperature: 0.3, max_tokens: 200}, {engine: rules, rules: rooms}]
tts: [{engine: flite, voice: slt, rate: 1.5}, {engine: espeak, voice: en-us, pitch: 0.5}]
turn_detection: {mode: semantic, endpointing: {mode: dynamic, min_delay: 0.3s, max_delay: 2s}}
interruption: {enabled: false, min_duration: 250ms, min_words: 2, resume_false_after: 0s, ignore_backchannels: false}
preemptive_generation: true
tools:
  - name: room_rate
    description: Rate
    parameters: {type: object, properties: {room: {type: string, enum: [single]}}, required: [room]}
    http: {method: POST, url: "https://rates.example/{room}", headers: {X-Room: "{room}"},
           body: '{{"room": "{room}"}}', timeout: 2s, result: "$.rates[0].price"}
transcription: {enabled: false, translate_to: null}
vision: {enabled: false}
avatar: null
realtime: null
mcp_servers: []
handoffs: []
secrets: []
limits: {max_duration: 1h, max_tool_steps: 5, memory: 64MiB}
session: {away_after: 30s, close_on_disconnect: false, record: false, transcript: true}
grammars: {rooms: "#JSGF V1.0; grammar rooms; public <u> = single | <two>; <two> = suite;"}
rules:
  rooms:
    - {when: "rate .*{room:single|suite}", call: room_rate, say: "{room}: {result}"}
    - {otherwise: "What?"}
)",
                                                                 "a.yaml"));
  EXPECT_EQ(d.agent_name, "Front-Desk");
  EXPECT_EQ(d.labels.at("floor"), "3");
  EXPECT_EQ(d.instructions, "Two\nlines.\n");
  EXPECT_EQ(d.stt[0].grammar, "rooms");
  EXPECT_EQ(d.stt[0].phrases, std::vector<std::string>{"suite"});
  EXPECT_EQ(d.llm[0].temperature, 0.3);
  EXPECT_EQ(d.llm[1].rules, "rooms");
  EXPECT_EQ(d.tts[1].pitch, 0.5);
  EXPECT_EQ(d.turn_detection.mode, TurnMode::kSemantic);
  EXPECT_TRUE(d.turn_detection.dynamic);
  EXPECT_FALSE(d.interruption.ignore_backchannels);
  EXPECT_TRUE(d.preemptive_generation);
  EXPECT_EQ(d.turn_detection.min_delay, absl::Milliseconds(300));
  EXPECT_FALSE(d.interruption.enabled);
  EXPECT_EQ(d.interruption.min_words, 2);
  ASSERT_NE(d.FindTool("room_rate"), nullptr);
  EXPECT_EQ(d.FindTool("room_rate")->http.result, "$.rates[0].price");
  EXPECT_EQ(d.limits.memory_bytes, int64_t{64} << 20);
  EXPECT_EQ(d.session.away_after, absl::Seconds(30));
  EXPECT_TRUE(d.session.transcript);
  ASSERT_EQ(d.rules["rooms"].size(), 2u);
  EXPECT_TRUE(d.rules["rooms"][1].when.empty());
  EXPECT_EQ(SchemaProblem(Json::parse(ToJson(d))), "");
  PARLEY_ASSERT_OK_AND_ASSIGN(AgentDefinition again, FromJson(ToJson(d)));
  EXPECT_EQ(ToJson(again), ToJson(d));
}

constexpr const char* kHotelOfTwo = R"(id: desk
farewell: One moment.
handoffs: [billing]
tools:
  - {name: refund, agents: [billing], http: {url: "https://pay.example/refund"}}
agents:
  billing:
    description: Invoices and refunds
    greeting: Billing here.
    tts: [{engine: espeak}]
    llm: [{engine: rules, rules: billing}]
    handoffs: [desk]
    context: fresh
llm: [{engine: rules, rules: desk}]
rules:
  desk: [{when: "bill", say: "I will get somebody.", handoff: billing}, {otherwise: "Good day."}]
  billing: [{when: "refund", call: refund}, {when: "back", handoff: desk}]
)";

TEST(DefinitionTest, AgentsBesideTheFirst) {
  const auto d = ParseDefinition(kHotelOfTwo, "a.yaml");
  ASSERT_TRUE(d.ok()) << Message(d.status());
  EXPECT_EQ(d->handoffs, std::vector<std::string>{"billing"});
  const PartAgent& billing = d->agents.at("billing");
  EXPECT_EQ(billing.greeting, "Billing here.");
  EXPECT_EQ(billing.tts.at(0).engine, "espeak");
  EXPECT_EQ(billing.context, HandoffContext::kFresh);
  EXPECT_TRUE(d->FindTool("refund")->IsOf("billing"));
  EXPECT_FALSE(d->FindTool("refund")->IsOf("desk"));
  EXPECT_EQ(d->rules.at("desk").at(0).handoff, "billing");
  const std::string json = ToJson(*d);
  EXPECT_EQ(SchemaProblem(Json::parse(json)), "");
  const auto again = FromJson(json);
  ASSERT_TRUE(again.ok()) << Message(again.status());
  EXPECT_EQ(ToJson(*again), json);
}

TEST(DefinitionTest, AgentsThatCannotWorkAreRefused) {
  const auto refusal = [](std::string_view old, std::string_view now) {
    std::string text = kHotelOfTwo;
    const size_t at = text.find(old);
    EXPECT_NE(at, text.npos) << old;
    text.replace(at, old.size(), now);
    return std::string(Message(ParseDefinition(text, "a.yaml").status()));
  };
  EXPECT_EQ(refusal("handoffs: [billing]", "handoffs: [biling, billing]"),
            "a.yaml:3: handoffs: there is no agent biling under `agents`");
  EXPECT_EQ(refusal("agents: [billing]", "agents: [sales]"),
            "a.yaml:5: tools[0].agents: there is no agent sales under `agents`");
  EXPECT_EQ(refusal("handoff: desk", "handoff: cook"),
            "a.yaml:17: rules.billing[1].handoff: there is no agent cook under `agents`");
  EXPECT_EQ(refusal("handoffs: [billing]", "handoffs: []"),
            "a.yaml:3: handoffs: rules.desk hand over to billing, which is not among the handoffs "
            "of desk");
  EXPECT_EQ(refusal("agents: [billing]", "agents: [desk]"),
            "a.yaml:6: agents: rules.billing call refund, which is no tool of billing");
  EXPECT_THAT(refusal("  billing:\n    desc",
                      "  other: {llm: [{engine: openai, model: m}]}\n  billing:\n    desc"),
              HasSubstr("agents: nobody hands over to other"));
  EXPECT_THAT(refusal("  billing:\n    desc", "  desk: {}\n  billing:\n    desc"),
              HasSubstr("agents.desk: its id must be"));
  EXPECT_THAT(refusal("context: fresh", "context: stale"),
              HasSubstr("agents.billing.context: \"stale\" is none of whole, fresh, summary"));
  EXPECT_THAT(refusal("context: fresh", "context: summary"),
              HasSubstr("agents.billing.context: summary needs a model that writes one"));
  EXPECT_THAT(refusal("call: refund", "call: refund, handoff: desk"),
              HasSubstr("rules.billing[0].handoff: stands beside `call`"));
  EXPECT_THAT(refusal("name: refund", "name: transfer_to_x"), HasSubstr("there is no tool refund"));
}

TEST(DefinitionTest, BackgroundSoundsAreThoseThatAreMade) {
  const auto d = ParseDefinition(
      With("background: {ambient: office, ambientVolume: 0.5, thinking: keyboard}\n"), "a.yaml");
  ASSERT_TRUE(d.ok()) << Message(d.status());
  EXPECT_EQ(d->background.ambient, "office");
  EXPECT_EQ(d->background.ambient_volume, 0.5);
  EXPECT_EQ(d->background.thinking, "keyboard");
  const std::string json = ToJson(*d);
  EXPECT_EQ(SchemaProblem(Json::parse(json)), "");
  EXPECT_EQ(ToJson(*FromJson(json)), json);
  // No file of the server's, whatever its name.
  EXPECT_THAT(
      std::string(Message(
          ParseDefinition(With("background: {thinking: /etc/passwd}\n"), "a.yaml").status())),
      HasSubstr("background.thinking: \"/etc/passwd\" is none of room, office, rain"));
  EXPECT_THAT(std::string(Message(
                  ParseDefinition(With("background: {ambient_volume: 5}\n"), "a.yaml").status())),
              HasSubstr("background.ambient_volume"));
}

TEST(DefinitionTest, McpServersRecordingsAndDetectors) {
  const std::string text = With(R"(session: {record: true, recordSound: true}
turn_detection: {vad: silero}
tools:
  - {name: book, confirmDuplicates: true, http: {url: "https://book.example/"}}
mcp_servers:
  - {url: "https://mcp.example/mcp", headers: {X-Key: k}, allowed_tools: [search], timeout: 2s}
  - {name: files}
)");
  const auto d = ParseDefinition(text, "a.yaml");
  ASSERT_TRUE(d.ok()) << Message(d.status());
  EXPECT_TRUE(d->session.record && d->session.record_sound);
  EXPECT_EQ(d->turn_detection.vad, VadEngine::kSilero);
  EXPECT_TRUE(d->FindTool("book")->confirm_duplicates);
  ASSERT_EQ(d->mcp_servers.size(), 2U);
  EXPECT_EQ(d->mcp_servers[0].allowed_tools, std::vector<std::string>{"search"});
  EXPECT_EQ(d->mcp_servers[0].timeout, absl::Seconds(2));
  EXPECT_EQ(d->mcp_servers[1].name, "files");
  const std::string json = ToJson(*d);
  EXPECT_EQ(SchemaProblem(Json::parse(json)), "");
  const auto again = FromJson(json);
  ASSERT_TRUE(again.ok()) << Message(again.status());
  EXPECT_EQ(ToJson(*again), json);

  const auto refusal = [](const std::string& servers) {
    return std::string(
        Message(ParseDefinition(With("mcp_servers: [" + servers + "]\n"), "a.yaml").status()));
  };
  EXPECT_THAT(refusal("{name: files, url: \"https://x.example/\"}"), HasSubstr("needs either"));
  EXPECT_THAT(refusal("{timeout: 2s}"), HasSubstr("needs either"));
  EXPECT_THAT(refusal("{url: \"http://127.0.0.1:9/\"}"), HasSubstr("mcp_servers[0].url: "));
  EXPECT_THAT(refusal("{name: files, headers: {X-Key: k}}"), HasSubstr("a program has none"));
  EXPECT_THAT(refusal("{name: files, command: [rm]}"), HasSubstr("mcp_servers[0].command"));
  EXPECT_THAT(refusal("{name: files, agents: [nobody]}"), HasSubstr("there is no agent nobody"));
}

TEST(McpProgramsTest, AreWhatTheOperatorAllows) {
  const auto programs =
      ParseMcpPrograms("files: {command: [serve, /srv], environment: {TZ: UTC}}\n", "mcp.yaml");
  ASSERT_TRUE(programs.ok()) << Message(programs.status());
  EXPECT_EQ(programs->at("files").command, (std::vector<std::string>{"serve", "/srv"}));
  EXPECT_EQ(programs->at("files").environment.at("TZ"), "UTC");
  const auto refusal = [](std::string_view text) {
    return std::string(Message(ParseMcpPrograms(text, "mcp.yaml").status()));
  };
  EXPECT_EQ(refusal("Files: {command: [a]}\n"),
            "mcp.yaml:1: Files: its name must be 1 to 63 of a to z, 0 to 9 and -");
  EXPECT_EQ(refusal("a:\n  command: []\n"), "mcp.yaml:2: a.command: must name a program");
  EXPECT_THAT(refusal("a: {command: [a], user: root}\n"), HasSubstr("a.user"));
  EXPECT_THAT(refusal("- a\n"), HasSubstr("must be a map"));
}

TEST(DefinitionTest, DefaultsAreFilledIn) {
  PARLEY_ASSERT_OK_AND_ASSIGN(AgentDefinition d, ParseDefinition(R"(
id: hello
grammars: {only: "#JSGF V1.0; grammar g; public <u> = yes;"}
rules: {only: [{otherwise: hi}]}
)",
                                                                 "a.yaml"));
  EXPECT_EQ(d.name, "hello");
  EXPECT_EQ(d.agent_name, "hello");
  EXPECT_EQ(d.stt.at(0).engine, "pocketsphinx");
  EXPECT_EQ(d.stt.at(0).grammar, "only");
  EXPECT_EQ(d.llm.at(0).rules, "only");
  EXPECT_EQ(d.tts.at(0).voice, "slt");
  EXPECT_EQ(d.interruption.min_duration, absl::Milliseconds(500));
}

TEST(DefinitionTest, AnAgentMayForbidThatItsSpeechIsKept) {
  const auto cached = [](std::string_view field) {
    const auto definition =
        ParseDefinition(With(fmt::format("tts: [{{engine: flite{}}}]\n", field)), "a.yaml");
    EXPECT_TRUE(definition.ok()) << definition.status();
    return !definition.ok() || !definition->tts[0].options.contains("cache");
  };
  EXPECT_TRUE(cached(""));
  EXPECT_TRUE(cached(", cache: true"));
  EXPECT_FALSE(cached(", cache: false"));
  EXPECT_THAT(ErrorOf(With("tts: [{engine: flite, cache: perhaps}]\n")), HasSubstr("cache"));
}

TEST(DefinitionTest, SameContentIsTheSameTextInAnySpelling) {
  PARLEY_ASSERT_OK_AND_ASSIGN(
      AgentDefinition yaml,
      ParseDefinition(
          With("agent_name: \"caf\xc3\xa9 \xf0\x9f\x98\x80\"\nlimits: {max_tool_steps: 4}\n"),
          "a.yaml"));
  PARLEY_ASSERT_OK_AND_ASSIGN(
      AgentDefinition json,
      ParseDefinition(R"({"limits":{"maxToolSteps":4},"agentName":"caf\u00e9 \ud83d\ude00",
                          "llm":[{"model":"m","engine":"openai"}],"id":"x"})",
                      "a.json"));
  EXPECT_EQ(ToJson(yaml), ToJson(json));
  EXPECT_EQ(ContentHash(ToJson(yaml)), ContentHash(ToJson(json)));
  EXPECT_EQ(ContentHash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(MakeRecord("hotel", yaml).content_hash, ContentHash(ToJson(yaml)));
}

struct Refusal {
  std::string text;
  std::string error;
};

class RefusalTest : public ::testing::TestWithParam<Refusal> {};

TEST_P(RefusalTest, NamesFileLineAndField) {
  EXPECT_THAT(ErrorOf(GetParam().text), StartsWith(GetParam().error))
      << GetParam().text.substr(0, 1000);
}

INSTANTIATE_TEST_SUITE_P(
    Fields, RefusalTest,
    ::testing::Values(
        Refusal{"name: x\n", "a.yaml:1: id: is missing"},
        Refusal{"id: Front Desk\n", "a.yaml:1: id: \"Front Desk\" must be"},
        Refusal{"id: x\n", "a.yaml:1: llm: is missing"},
        Refusal{With("instrucions: hi\n"),
                "a.yaml:3: instrucions: is not a known field; did you mean instructions?"},
        Refusal{With("zzz: 1\n"), "a.yaml:3: zzz: is not a known field"},
        Refusal{With("id: y\n"), "a.yaml:3: \"id\" stands here twice"},
        Refusal{With("agent_name: a\nagentName: b\n"), "a.yaml:4: agent_name: stands here twice"},
        Refusal{With("name: [1]\n"), "a.yaml:3: name: must be text"},
        Refusal{With("agent_name: " + std::string(257, 'a') + "\n"),
                "a.yaml:3: agent_name: has 257 bytes"},
        Refusal{With("pool: My pool\n"), "a.yaml:3: pool: "},
        Refusal{With("labels: [a]\n"), "a.yaml:3: labels: must be a map"},
        Refusal{With("turn_detection:\n  mode: vad\n  endpointing:\n    min_delay: 5\n"),
                "a.yaml:6: turn_detection.endpointing.min_delay: must be a duration with a unit"},
        Refusal{With("turn_detection: {endpointing: {min_delay: 11s}}\n"),
                "a.yaml:3: turn_detection.endpointing.min_delay: must be from 50ms to 10s"},
        Refusal{With("turn_detection: {endpointing: {min_delay: 4s}}\n"),
                "a.yaml:3: turn_detection.endpointing.max_delay: must not be shorter"},
        Refusal{With("turn_detection: {mode: telepathy}\n"),
                "a.yaml:3: turn_detection.mode: \"telepathy\" is none of"},
        Refusal{With("interruption: {min_words: 1.5}\n"),
                "a.yaml:3: interruption.min_words: must be a whole number"},
        Refusal{With("interruption: {enabled: maybe}\n"),
                "a.yaml:3: interruption.enabled: must be true or false"},
        Refusal{With("limits: {memory: 1}\n"), "a.yaml:3: limits.memory: must be from 16MiB"},
        Refusal{With("limits: {max_duration: 25h}\n"), "a.yaml:3: limits.max_duration: "},
        Refusal{With("stt: [{engine: pocketsphinx, grammar: rooms}]\n"),
                "a.yaml:3: stt[0].grammar: there is no grammar rooms"},
        Refusal{With("stt: [{model: m}]\n"), "a.yaml:3: stt[0].engine: is missing"},
        Refusal{With("tts: [{engine: flite, rate: 3}]\n"),
                "a.yaml:3: tts[0].rate: must be a number"},
        Refusal{"id: x\nllm: [{engine: rules}]\n", "a.yaml:2: llm[0].rules: is missing"},
        Refusal{"id: x\nllm: [{engine: rules, rules: r}]\n",
                "a.yaml:2: llm[0].rules: there are no"},
        Refusal{"id: x\nllm: [{engine: openai}]\n", "a.yaml:2: llm[0].model: is missing"}));

INSTANTIATE_TEST_SUITE_P(
    NotBuilt, RefusalTest,
    ::testing::Values(
        Refusal{With("realtime: {engine: r}\n"),
                "a.yaml:3: realtime.engine: engine r is not built yet in this version; there are: "
                "openai-realtime"},
        Refusal{With("vision: {enabled: true}\n"), "a.yaml:3: vision.enabled: not built yet"},
        Refusal{With("avatar: bob\n"), "a.yaml:3: avatar: not built yet"},
        Refusal{With("avatar: {enabled: true, model: bob}\n"),
                "a.yaml:3: avatar.enabled: not built yet"},
        Refusal{With("secrets: [KEY]\n"), "a.yaml:3: secrets: not built yet"},
        Refusal{With("turn_detection: {mode: realtime}\n"),
                "a.yaml:3: turn_detection: realtime needs `realtime`: a model that hears"},
        Refusal{With("stt: [{engine: deepgram}]\n"),
                "a.yaml:3: stt[0].engine: engine deepgram is not built yet in this version; there "
                "are: pocketsphinx"},
        Refusal{With("tts: [{engine: eleven}]\n"),
                "a.yaml:3: tts[0].engine: engine eleven is not built yet in this version; there "
                "are: flite, espeak"}));

std::string Tool(std::string_view http, std::string_view parameters = "{type: object}") {
  return With(
      fmt::format("tools:\n  - name: t\n    parameters: {}\n    http: {}\n", parameters, http));
}

INSTANTIATE_TEST_SUITE_P(
    Tools, RefusalTest,
    ::testing::Values(
        Refusal{With("tools: [{name: t}]\n"), "a.yaml:3: tools[0].http: is missing"},
        Refusal{With("tools: [{name: 1t, http: {url: \"https://x.example/\"}}]\n"),
                "a.yaml:3: tools[0].name: "},
        Refusal{With("tools:\n  - {name: t, http: {url: \"https://x.example/\"}}\n"
                     "  - {name: t, http: {url: \"https://x.example/\"}}\n"),
                "a.yaml:5: tools[1].name: two tools are called t"},
        Refusal{Tool("{url: \"ftp://x.example/\"}"),
                "a.yaml:6: tools[0].http.url: must start with"},
        Refusal{Tool("{url: \"http://127.0.0.1/x\"}"),
                "a.yaml:6: tools[0].http.url: 127.0.0.1 is inside this network"},
        Refusal{Tool("{url: \"http://LOCALHOST:80/\"}"),
                "a.yaml:6: tools[0].http.url: LOCALHOST is"},
        Refusal{Tool("{url: \"http://[::1]/\"}"), "a.yaml:6: tools[0].http.url: [::1] is inside"},
        Refusal{Tool("{url: \"http://169.254.169.254/\"}"), "a.yaml:6: tools[0].http.url: 169."},
        Refusal{Tool("{url: \"http://10.1.2.3\"}"), "a.yaml:6: tools[0].http.url: 10."},
        Refusal{Tool("{url: \"http://2130706433/\"}"),
                "a.yaml:6: tools[0].http.url: 2130706433 is"},
        Refusal{Tool("{url: \"http://0x7f.1/\"}"), "a.yaml:6: tools[0].http.url: 0x7f.1 is"},
        Refusal{Tool("{url: \"https://a:b@x.example/\"}"),
                "a.yaml:6: tools[0].http.url: must not hold"},
        Refusal{Tool("{url: \"https://{host}/\"}"),
                "a.yaml:6: tools[0].http.url: its host must not come"},
        Refusal{Tool("{url: \"https://x.example:99999/\"}"),
                "a.yaml:6: tools[0].http.url: its port"},
        Refusal{Tool("{url: \"https://x.example/{room}\"}"),
                "a.yaml:6: tools[0].http.url: {room} is not among the tool's parameters"},
        Refusal{Tool("{url: \"https://x.example/{room\"}"),
                "a.yaml:6: tools[0].http.url: has a brace"},
        Refusal{Tool("{url: \"https://x.example/\", method: TRACE}"),
                "a.yaml:6: tools[0].http.method: \"TRACE\" is none of"},
        Refusal{Tool("{url: \"https://x.example/\", headers: {Host: a}}"),
                "a.yaml:6: tools[0].http.headers.Host: is not a header"},
        Refusal{Tool("{url: \"https://x.example/\", timeout: 5m}"),
                "a.yaml:6: tools[0].http.timeout: must be from"},
        Refusal{Tool("{url: \"https://x.example/\", result: rate}"),
                "a.yaml:6: tools[0].http.result: must be a path"},
        Refusal{Tool("{url: \"https://x.example/\"}", "{type: array}"),
                "a.yaml:5: tools[0].parameters: its type must be object"},
        Refusal{
            Tool("{url: \"https://x.example/\"}", "{type: object, properties: {a: {type: no}}}"),
            "a.yaml:5: tools[0].parameters: the type of a must be one of"},
        Refusal{Tool("{url: \"https://x.example/\"}", "{type: object, required: [a]}"),
                "a.yaml:5: tools[0].parameters: \"a\" is required"}));

std::string Rules(std::string_view rules) {
  return With(
      "tools:\n  - name: t\n    parameters: {type: object, properties: {a: {type: string}}, "
      "required: [a]}\n    http: {url: \"https://x.example/\"}\nrules:\n  r:\n" +
      std::string(rules));
}

INSTANTIATE_TEST_SUITE_P(
    RulesAndGrammars, RefusalTest,
    ::testing::Values(
        Refusal{Rules("    - {when: \"(\", say: x}\n"), "a.yaml:9: rules.r[0].when: "},
        Refusal{Rules("    - {when: \"((a{1,100}){1,100}){1,100}\", say: x}\n"),
                "a.yaml:9: rules.r[0].when: "},
        Refusal{Rules("    - {when: x}\n"),
                "a.yaml:9: rules.r[0]: needs `say`, `call` or `handoff`"},
        Refusal{Rules("    - {say: x}\n"), "a.yaml:9: rules.r[0].when: is missing"},
        Refusal{Rules("    - {when: x, call: nothing}\n"),
                "a.yaml:9: rules.r[0].call: there is no tool nothing"},
        Refusal{Rules("    - {when: x, call: t}\n"),
                "a.yaml:9: rules.r[0].call: tool t needs a, which is no slot"},
        Refusal{Rules("    - {when: \"{b:x|y}\", say: \"{a}\"}\n"),
                "a.yaml:9: rules.r[0].say: {a} is neither a slot"},
        Refusal{Rules("    - {when: x, say: \"{result}\"}\n"),
                "a.yaml:9: rules.r[0].say: {result} is neither"},
        Refusal{Rules("    - {otherwise: x}\n    - {when: y, say: z}\n"),
                "a.yaml:9: rules.r[0].otherwise: must be the last rule"},
        Refusal{Rules("    - {otherwise: x, say: y}\n"),
                "a.yaml:9: rules.r[0].say: is not a known"},
        Refusal{With("rules: {r: []}\n"), "a.yaml:3: rules.r: must be a list of rules"},
        Refusal{With("grammars: {g: public}\n"), "a.yaml:3: grammars.g: must begin with"},
        Refusal{With("grammars: {g: \"#JSGF V1.0; grammar g; <u> = a;\"}\n"),
                "a.yaml:3: grammars.g: has no public rule"},
        Refusal{With("grammars: {g: \"#JSGF V1.0; grammar g; public <u> = <v>;\"}\n"),
                "a.yaml:3: grammars.g: rule <v> is used but not defined"},
        Refusal{With("grammars: {g: \"#JSGF V1.0; grammar g; public <u> = (a;\"}\n"),
                "a.yaml:3: grammars.g: rule <u>: a \")\" is missing"},
        Refusal{With("grammars: {g: \"#JSGF V1.0; grammar g; public <u> = a\"}\n"),
                "a.yaml:3: grammars.g: its last rule must end with"},
        Refusal{With("grammars: {g: \"#JSGF V1.0; grammar g; import <x.y>; public <u> = a;\"}\n"),
                "a.yaml:3: grammars.g: imports are not taken"},
        Refusal{With("grammars:\n  g: \"#JSGF " + std::string(65 << 10, 'a') + "\"\n"),
                "a.yaml:4: grammars.g: has 66566 bytes"}));

INSTANTIATE_TEST_SUITE_P(
    Documents, RefusalTest,
    ::testing::Values(
        Refusal{"", "a.yaml:1: "}, Refusal{"just text", "a.yaml:1: must be a map"},
        Refusal{"id: [x\n", "a.yaml:"},
        Refusal{"id: x\n---\nid: y\n", "a.yaml:1: holds more than one"},
        Refusal{"id: \xff\xfe\n", "a.yaml: not UTF-8"},
        Refusal{"id: &a x\nname: *a\n", "a.yaml:1: anchors (&name) are not taken"},
        Refusal{"id: !!binary aGk=\n", "a.yaml:1: tags"},
        Refusal{"id: x\n? [a]\n: b\n", "a.yaml:2: a key must be text"},
        Refusal{"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\n",
                "a.yaml:1: anchors (&name) are not taken"},
        Refusal{"id: x\nlabels: " + std::string(40, '[') + std::string(40, ']') + "\n",
                "a.yaml:2: nested more than 32"},
        Refusal{"id: x\nlabels: " + std::string(100'000, '[') + "\n", "a.yaml:2: "},
        Refusal{R"({"id": "x", "id": "y"})", "a.yaml:1: \"id\" stands here twice"},
        Refusal{"{\n\"id\": \"x\",\n\"zzz\": 1,\n\"rules\": {\"r\": [{\"otherwise\": \"a\"}]}}",
                "a.yaml:3: zzz: is not a known field"},
        Refusal{std::string((1 << 20) + 1, ' '), "a.yaml: has 1048577 bytes"}));

TEST(DefinitionTest, ErrorsCarryLineAndFieldForPrograms) {
  const auto definition = ParseDefinition(With("limits: {memory: huge}\n"), "a.yaml");
  const ErrorReason reason = ReasonOf(definition.status());
  EXPECT_EQ(reason.metadata.at("line"), "3");
  EXPECT_EQ(reason.metadata.at("field"), "limits.memory");
}

// A model that hears and speaks takes the place of three chains, and of what counts words.
TEST(DefinitionTest, RealtimeStandsAlone) {
  const std::string head = "id: x\nrealtime: {engine: openai-realtime, model: m, voice: v}\n";
  PARLEY_ASSERT_OK_AND_ASSIGN(
      AgentDefinition d, ParseDefinition(head + "turn_detection: {mode: realtime}\n"
                                                "agents: {b: {context: fresh}}\nhandoffs: [b]\n",
                                         "a"));
  EXPECT_EQ(d.realtime->voice, "v");
  EXPECT_TRUE(d.stt.empty() && d.llm.empty() && d.tts.empty());
  PARLEY_ASSERT_OK_AND_ASSIGN(AgentDefinition again, FromJson(ToJson(d)));
  EXPECT_EQ(ToJson(again), ToJson(d));
  EXPECT_EQ(again.turn_detection.mode, TurnMode::kRealtime);
  // But for the voice that asks who waits for a moment.
  PARLEY_ASSERT_OK_AND_ASSIGN(d, ParseDefinition(head + "tts: [{engine: espeak}]\n", "a"));
  PARLEY_ASSERT_OK_AND_ASSIGN(again, FromJson(ToJson(d)));
  ASSERT_EQ(again.tts.size(), 1u);
  EXPECT_EQ(again.tts[0].engine, "espeak");
  for (const char* rest :
       {"llm: [{engine: openai, model: m}]\n", "stt: [{engine: pocketsphinx}]\n",
        "turn_detection: {mode: semantic}\n", "turn_detection: {mode: stt}\n",
        "interruption: {min_words: 1}\n", "agents: {b: {context: summary}}\nhandoffs: [b]\n",
        "agents: {b: {tts: [{engine: flite}]}}\nhandoffs: [b]\n"}) {
    EXPECT_THAT(ParseDefinition(head + rest, "a"), HasReason("DEFINITION_INVALID")) << rest;
  }
}

TEST(DefinitionTest, WhoIsWrittenDownAndWhoInterprets) {
  const std::string head = "id: x\nllm: [{engine: openai, model: m}]\ntranscription: ";
  PARLEY_ASSERT_OK_AND_ASSIGN(AgentDefinition writer,
                              ParseDefinition(head + "{only: true, speakers: all}\n", "a"));
  EXPECT_TRUE(writer.transcription_only);
  EXPECT_TRUE(writer.transcribe_everybody);
  PARLEY_ASSERT_OK_AND_ASSIGN(AgentDefinition thoughtless,
                              ParseDefinition("id: x\ntranscription: {only: true}\n", "a"));
  EXPECT_TRUE(thoughtless.llm.empty());
  PARLEY_ASSERT_OK_AND_ASSIGN(AgentDefinition interpreter,
                              ParseDefinition(head + "{translate_to: German}\n", "a"));
  EXPECT_EQ(interpreter.translate_to, "German");
  for (const AgentDefinition& one : {writer, interpreter, thoughtless}) {
    PARLEY_ASSERT_OK_AND_ASSIGN(const AgentDefinition again, FromJson(ToJson(one)));
    EXPECT_EQ(ToJson(again), ToJson(one));
    EXPECT_EQ(SchemaProblem(Json::parse(ToJson(one))), "");
  }
  for (const char* bad :
       {"{only: true, enabled: false}", "{only: true, translate_to: German}", "{speakers: some}"}) {
    EXPECT_THAT(ParseDefinition(head + bad + "\n", "a"), HasReason("DEFINITION_INVALID")) << bad;
  }
  EXPECT_THAT(ParseDefinition("id: x\nrules: {r: [{otherwise: What?}]}\n"
                              "transcription: {translate_to: German}\n",
                              "a"),
              HasReason("DEFINITION_INVALID"));
}

TEST(DefinitionTest, LoopbackToolsOnlyWhenAllowed) {
  const std::string text = Tool("{url: \"http://127.0.0.1:8080/demo\"}");
  ParseOptions options;
  options.allow_loopback = true;
  PARLEY_EXPECT_OK(ParseDefinition(text, "a.yaml", options));
  EXPECT_FALSE(ParseDefinition(Tool("{url: \"http://10.0.0.1/\"}"), "a.yaml", options).ok());
}

TEST(DefinitionTest, WhatIsNotBuiltIsUnsupportedAndItsModelIsKept) {
  const auto parse = [](std::string_view rest) {
    return ParseDefinition("id: x\nllm: [{engine: openai, model: m}]\n" + std::string(rest), "a");
  };
  for (const char* on :
       {"avatar: {enabled: true, model: bob}", "vision: {enabled: true}", "avatar: bob"}) {
    EXPECT_THAT(parse(on), HasReason("UNSUPPORTED")) << on;
  }
  PARLEY_ASSERT_OK_AND_ASSIGN(AgentDefinition kept,
                              parse("avatarModel: bob\nvision: {enabled: false, model: eye}\n"));
  const Json json = Json::parse(ToJson(kept));
  EXPECT_EQ(json["avatar"], Json({{"enabled", false}, {"model", "bob"}}));
  EXPECT_EQ(json["vision"], Json({{"enabled", false}, {"model", "eye"}}));
  PARLEY_ASSERT_OK_AND_ASSIGN(AgentDefinition again, FromJson(ToJson(kept)));
  EXPECT_EQ(ToJson(again), ToJson(kept));
}

Deployment Shares(std::vector<VersionShare> versions, bool sticky) {
  Deployment deployment;
  deployment.versions = std::move(versions);
  deployment.sticky = sticky;
  EXPECT_TRUE(Settle(deployment).ok());
  return deployment;
}

TEST(DeploymentTest, SharesMakeAHundred) {
  const std::vector<VersionShare> bad[] = {
      {{1, 99}},
      {{1, 60}, {2, 60}},
      {{1, 50}, {1, 50}},
      {{0, 100}},
      {{1, 0}, {2, 100}},
      {{1, 101}},
      {{1, 10}, {2, 10}, {3, 10}, {4, 10}, {5, 10}, {6, 10}, {7, 10}, {8, 10}, {9, 20}}};
  for (const auto& versions : bad) {
    Deployment deployment;
    deployment.versions = versions;
    EXPECT_FALSE(Settle(deployment).ok());
  }
  Deployment empty;
  PARLEY_EXPECT_OK(Settle(empty));
  EXPECT_EQ(Choose(empty, "a", "room", "x"), 0u) << "the newest";
}

TEST(DeploymentTest, SharesAreKeptOverManyRooms) {
  const Deployment deployment = Shares({{1, 70}, {2, 30}}, /*sticky=*/true);
  EXPECT_EQ(deployment.versions[0].version, 2u) << "newest first";
  int second = 0;
  for (int i = 0; i < 10'000; ++i) {
    const std::string room = fmt::format("room-{}", i);
    const uint64_t version = Choose(deployment, "desk", room, "x");
    EXPECT_EQ(Choose(deployment, "desk", room, "y"), version) << "sticky";
    second += version == 2 ? 1 : 0;
  }
  EXPECT_NEAR(second, 3000, 200);
}

TEST(DeploymentTest, ARoomOfTheCanaryStaysThereWhenItGrows) {
  const Deployment small = Shares({{1, 95}, {2, 5}}, true),
                   large = Shares({{1, 50}, {2, 50}}, true);
  int stayed = 0;
  for (int i = 0; i < 2'000; ++i) {
    const std::string room = fmt::format("room-{}", i);
    if (Choose(small, "desk", room, "") != 2) continue;
    ++stayed;
    EXPECT_EQ(Choose(large, "desk", room, ""), 2u);
  }
  EXPECT_GT(stayed, 20);
}

TEST(DeploymentTest, WithoutStickinessEachDrawDecides) {
  const Deployment deployment = Shares({{1, 50}, {2, 50}}, false);
  std::set<uint64_t> seen;
  for (int i = 0; i < 100; ++i) seen.insert(Choose(deployment, "desk", "lobby", std::to_string(i)));
  EXPECT_EQ(seen.size(), 2u);
}

TEST(DeploymentTest, TextsComeBackAndOthersAreRefused) {
  for (const Deployment& deployment :
       {Shares({{3, 10}, {1, 90}}, true), Shares({{1, 100}}, false), Deployment()}) {
    PARLEY_ASSERT_OK_AND_ASSIGN(Deployment again, ParseShares(SharesText(deployment)));
    EXPECT_EQ(again, deployment);
  }
  for (const char* text : {"", "0", "2 1:100", "0 1:99", "0 1", "0 1:100,", "0 a:100", "01:100"}) {
    EXPECT_FALSE(ParseShares(text).ok()) << text;
  }
}

// What the schema refuses, the parser refuses, and the other way round, for shapes that both see.
TEST(SchemaTest, AgreesWithTheParser) {
  const std::vector<std::pair<std::string, bool>> cases = {
      {R"({"id": "x"})", true},
      {R"({"id": "X"})", false},
      {R"({"id": "x", "nope": 1})", false},
      {R"({"id": "x", "stt": [{"engine": "deepgram"}]})", false},
      {R"({"id": "x", "tts": [{"engine": "flite", "rate": 2.5}]})", false},
      {R"({"id": "x", "realtime": {"engine": "openai-realtime"}})", false},
      {R"({"id": "x", "realtime": {"engine": "mine", "model": "m"}})", false},
      {R"({"id": "x", "mcp_servers": [{}]})", false},
      {R"({"id": "x", "mcp_servers": [{"name": "a"}, {"url": "https://b.example/"}]})", true},
      {R"({"id": "x", "mcp_servers": [{"name": "a", "url": "https://b.example/"}]})", false},
      {R"({"id": "x", "limits": {"memory": "64MB"}})", false},
      {R"({"id": "x", "limits": {"memory": "64MiB", "max_tool_steps": 51}})", false},
      {R"({"id": "x", "session": {"away_after": "0"}})", true},
      {R"({"id": "x", "session": {"away_after": "1 s"}})", false},
      {R"({"id": "x", "turn_detection": {"mode": "stt"}, "preemptive_generation": true})", true},
      {R"({"id": "x", "turn_detection": {"endpointing": {"mode": "quick"}}})", false},
      {R"({"id": "x", "tools": [{"name": "t"}]})", false},
      {R"({"id": "x", "tools": [{"name": "t", "http": {"url": "ftp://a.example"}}]})", false},
      {R"({"id": "x", "rules": {"r": []}})", false},
      {R"({"id": "x", "grammars": {"g": "nothing"}})", false},
      {R"({"id": "x", "vision": {"enabled": true}})", false},
      {R"({"id": "x", "vision": {"enabled": false, "model": "m"}})", true},
      {R"({"id": "x", "avatar_model": "bob"})", true},
      {R"({"id": "x", "avatar": {"model": "bob"}})", true},
      {R"({"id": "x", "avatar": "bob"})", false},
  };
  for (const auto& [text, good] : cases) {
    Json json = Json::parse(text);
    json["llm"] = Json::parse(R"([{"engine": "openai", "model": "m"}])");
    EXPECT_EQ(ParseDefinition(json.dump(), "a").ok(), good) << text << ErrorOf(json.dump());
    EXPECT_EQ(SchemaProblem(json).empty(), good) << text << SchemaProblem(json);
  }
}

}  // namespace
}  // namespace parley::registry
