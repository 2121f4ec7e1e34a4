#pragma once
// Agent definitions: what an agent is, as its owner writes it (YAML or JSON), checked in full.
// Pure: no network, no files.
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace parley::registry {

// One engine of a fallback chain for speech to text. Empty fields: the engine's default.
struct SttConfig {
  std::string engine;  // pocketsphinx, scripted
  std::string model;
  std::string language;              // BCP 47
  std::string grammar;               // a name in `grammars`
  std::vector<std::string> phrases;  // hints
  std::map<std::string, std::string> options;
};

struct LlmConfig {
  std::string engine;  // rules, openai, scripted
  std::string model;
  std::string rules;                  // a name in `rules`; engine rules
  std::optional<double> temperature;  // 0 to 2
  std::optional<int> max_tokens;      // 1 to 100,000
  std::map<std::string, std::string> options;
};

struct TtsConfig {
  std::string engine;  // flite, espeak, scripted
  std::string voice;
  std::string language;
  double rate = 1;   // 0.5 to 2
  double pitch = 1;  // 0.5 to 2
  std::map<std::string, std::string> options;
};

// A model that hears and speaks, in place of recogniser, model and voice.
struct RealtimeConfig {
  std::string engine;  // openai-realtime
  std::string model;
  std::string voice;
  std::string language;
  std::optional<int> max_tokens;  // 1 to 100,000
  std::map<std::string, std::string> options;
};

// What ends the caller's turn: silence; no new words; silence, longer where the words do not sound
// finished; the caller's own word; the detection of a model that hears.
enum class TurnMode { kVad, kStt, kSemantic, kManual, kRealtime };
std::string_view Name(TurnMode mode);  // as in a definition: vad, …, realtime

// What tells speech from the rest: WebRTC's detector, or Silero's neural one.
enum class VadEngine { kWebrtc, kSilero };

struct TurnDetection {
  TurnMode mode = TurnMode::kVad;
  VadEngine vad = VadEngine::kWebrtc;
  // Endpointing, from the end of speech. Where a definition says nothing: these, and 300 ms and
  // 2.5 s for kSemantic.
  absl::Duration min_delay = absl::Milliseconds(500);
  absl::Duration max_delay = absl::Seconds(3);
  bool dynamic = false;  // the minimum follows the caller's own pauses
};

struct Interruption {
  bool enabled = true;
  absl::Duration min_duration = absl::Milliseconds(500);
  int min_words = 0;
  absl::Duration resume_false_after = absl::Seconds(2);  // 0 = never resume
  bool ignore_backchannels = true;                       // "mhm", "okay" do not stop the agent
};

// What callers hear beside the agent's voice: sounds that every agent server makes itself. A
// definition names no file: it would be the server's.
inline constexpr std::array<std::string_view, 5> kSounds = {"room", "office", "rain", "keyboard",
                                                            "pulse"};
struct Background {
  std::string ambient;         // while somebody is there; empty: none
  std::string thinking;        // while the agent thinks, or a tool runs; empty: none
  double ambient_volume = 1;   // 0 to 4
  double thinking_volume = 1;  // 0 to 4
};

// How a tool is run: one HTTP call. `{name}` in the URL stands for a parameter, URL-encoded.
struct HttpTool {
  std::string method = "GET";  // GET, POST, PUT, PATCH, DELETE
  std::string url;
  std::map<std::string, std::string> headers;
  absl::Duration timeout = absl::Seconds(10);  // 10 ms to 60 s
  std::string body;    // a template, too; "" = the arguments as JSON (POST, PUT, PATCH)
  std::string result;  // JSONPath-like "$.a.b[0]" into the answer; "" = the whole answer
};

struct Tool {
  std::string name;  // [A-Za-z_][A-Za-z0-9_-]{0,63}
  std::string description;
  std::string parameters_json;  // JSON schema of an object; canonical
  HttpTool http;
  std::vector<std::string> agents;  // whose it is, by id; empty: of all
  std::string filler;               // said when the caller waits for it; empty: nothing
  bool confirm_duplicates = false;  // what was done before is done again only if confirmed
  bool IsOf(std::string_view agent) const;
};

// A server of tools that speaks MCP: one at a URL, or a program that the operator of the agent
// servers has named.
struct McpServerConfig {
  std::string name;  // the program's; empty: `url`
  std::string url;
  std::map<std::string, std::string> headers;
  std::vector<std::string> allowed_tools;     // empty: all
  absl::Duration timeout = absl::Seconds(5);  // of a list, and of a call; 10 ms to 60 s
  std::vector<std::string> agents;            // whose tools they are, by id; empty: of all
};

struct Limits {
  absl::Duration max_duration = absl::Hours(2);  // of a session
  int max_tool_steps = 3;
  int64_t memory_bytes = int64_t{256} << 20;  // of the job process
  absl::Duration max_stall;                   // of any stage, in silence; 0 = each has its own
};

struct SessionOptions {
  absl::Duration away_after = absl::Seconds(15);  // 0 = never
  bool close_on_disconnect = true;
  bool transcript = false;  // keep it with the session's record
  // Files of agent servers that have a folder for them: what `parley replay` takes, and the sound.
  bool record = false;
  bool record_sound = false;
  absl::Duration dtmf_pause =
      absl::Milliseconds(1500);  // ends a number that is keyed in; 0: none is
  // Said to a caller who waits for whatever stands still; empty: nothing. Unset: English words,
  // nothing where another language is spoken.
  std::optional<std::string> hold;
};

// One rule of the `rules` engine; the first that matches answers. A rule without `when` is the one
// that answers otherwise; it comes last.
struct Rule {
  std::string when;     // a speech::Pattern
  std::string call;     // a tool; its parameters are filled from slots of the same names
  std::string say;      // `{slot}`, `{result}`
  std::string handoff;  // an agent that takes over once `say` is said
};

// What an agent sees of what was said before it took over: everything; what the caller said last;
// that and a summary, which its model makes.
enum class HandoffContext { kWhole, kFresh, kSummary };
std::string_view Name(HandoffContext context);  // as in a definition: whole, fresh, summary

// An agent beside the first, which a conversation may be handed to. What it does not say is as the
// definition says.
struct PartAgent {
  std::string description;  // tells the model when to hand over to it
  std::string instructions;
  std::string greeting;  // said when it takes over; empty: it answers at once
  std::string farewell;
  std::vector<LlmConfig> llm;  // empty: the definition's
  std::vector<TtsConfig> tts;  // empty: the definition's
  std::vector<std::string> handoffs;
  HandoffContext context = HandoffContext::kWhole;
};

struct AgentDefinition {
  std::string id;          // [a-z0-9-]{1,63}
  std::string name;        // shown to people; default: id
  std::string agent_name;  // dispatch name, case-sensitive; default: id
  std::string pool = "default";
  std::map<std::string, std::string> labels;
  std::string instructions;
  std::string greeting;
  std::vector<SttConfig> stt;  // fallback chains; default: the embedded engines
  std::vector<LlmConfig> llm;
  std::vector<TtsConfig> tts;
  std::optional<RealtimeConfig> realtime;  // no stt, no llm; tts (or flite) says session.hold alone
  TurnDetection turn_detection;
  Interruption interruption;
  Background background;
  bool preemptive_generation = false;  // ask the model before the turn is taken
  std::vector<Tool> tools;
  std::vector<McpServerConfig> mcp_servers;
  bool transcription_enabled = true;
  bool transcription_only = false;    // the agent listens and says nothing
  bool transcribe_everybody = false;  // not only who is talked to
  std::string translate_to;           // a language, by name or BCP 47: the agent interprets into it
  Limits limits;
  SessionOptions session;
  std::string farewell;               // said before it hands over, where its answer says nothing
  std::vector<std::string> handoffs;  // whom the first agent may hand over to: ids in `agents`
  std::map<std::string, PartAgent> agents;      // by id
  std::map<std::string, std::string> grammars;  // JSGF
  std::map<std::string, std::vector<Rule>> rules;
  // Names of models that no engine runs yet: kept and given back, nothing more.
  std::string avatar_model;
  std::string vision_model;

  const Tool* FindTool(std::string_view tool_name) const;
};

inline constexpr size_t kMaxDefinitionBytes = 1 << 20;
inline constexpr size_t kMaxGrammarBytes = 64 << 10;

struct ParseOptions {
  bool allow_loopback = false;  // tools may be on this host: `parley dev`
};

// Reads YAML or JSON; field names in snake_case or camelCase. At most kMaxDefinitionBytes, 32
// levels deep, no anchors, aliases or tags, no key twice. Every error is InvalidArgument with
// reason DEFINITION_INVALID (UNSUPPORTED: it asks for what is not built yet), metadata `line` and
// `field`, and the text "SOURCE:LINE: FIELD: what is wrong".
absl::StatusOr<AgentDefinition> ParseDefinition(std::string_view text, std::string_view source_name,
                                                const ParseOptions& options = {});

// Canonical JSON: checked, defaults filled in, keys sorted, no white space. The same definition
// gives the same text, whatever it was written in.
std::string ToJson(const AgentDefinition& definition);
// What ToJson wrote (this version or an older one). Tool URLs are not judged again.
absl::StatusOr<AgentDefinition> FromJson(std::string_view json);
// SHA-256 of a text, lower-case hex: a version's content hash.
std::string ContentHash(std::string_view canonical_json);

// The published JSON schema of definitions, as text.
std::string_view SchemaJson();

}  // namespace parley::registry
