#include "rehearsal/scenario.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/status.h"
#include "registry/node_json.h"
#include "registry/reader.h"
#include "session/text.h"

namespace parley::rehearsal {
namespace {

namespace event = session::event;
using nlohmann::json;
using registry::MapReader;
using registry::Node;

constexpr int kMaxMs = 3'600'000;
constexpr size_t kMaxEntries = 10'000;
constexpr size_t kMaxText = 16 << 10;
// What is left of a conversation after its last written moment.
constexpr int64_t kTailUs = 10'000'000;

class Parser {
 public:
  Parser(std::string_view source) : errors_(source) { scenario_.source = source; }

  absl::StatusOr<Scenario> Parse(const Node& root) {
    MapReader map(root, "", errors_);
    map.Required("name");
    map.Text("name", &scenario_.name, {1, 256});
    std::string about;
    map.Text("about", &about, {0, 4096});
    ReadAgent(map);
    ReadRecogniser(map);
    ReadVoice(map);
    ReadModel(map);
    ReadTools(map);
    ReadTimeline(map);
    ReadExpectations(map);
    int end_ms = 0;
    if (map.Int("end", &end_ms, 1, kMaxMs)) scenario_.end_us = int64_t{end_ms} * 1000;
    map.Finish();
    if (!errors_.ok()) return errors_.status();
    return std::move(scenario_);
  }

 private:
  static bool Millis(MapReader& map, std::string_view name, int64_t* out_us) {
    int ms = 0;
    if (!map.Int(name, &ms, 0, kMaxMs)) return false;
    *out_us = int64_t{ms} * 1000;
    return true;
  }

  void ReadAgent(MapReader& map) {
    if (const Node* agent = map.Take("agent"); agent != nullptr) {
      json value = registry::ToJsonValue(*agent);
      if (!value.is_object()) return map.Fail("agent", "must be an agent definition");
      if (!value.contains("id")) value["id"] = "scenario";
      if (!value.contains("llm") && !value.contains("rules") && !value.contains("realtime")) {
        value["llm"] = json::array({{{"engine", "scripted"}}});
      }
      if (value.contains("tools") && value["tools"].is_array()) {
        for (json& tool : value["tools"]) {
          // Its answers come from `tools`: what it would call is of no interest.
          if (tool.is_object() && !tool.contains("http"))
            tool["http"] = {{"url", "https://tool.invalid/"}};
        }
      }
      scenario_.agent_json = value.dump(-1, ' ', false, json::error_handler_t::replace);
    }
    const Node* options = map.Take("options");
    if (options == nullptr) return;
    const json value = registry::ToJsonValue(*options);
    if (!value.is_object()) return map.Fail("options", "must be a map");
    scenario_.options_json = value.dump(-1, ' ', false, json::error_handler_t::replace);
  }

  void ReadRecogniser(MapReader& map) {
    map.Map("recogniser", [&](const Node& node, const std::string& path) {
      MapReader fields(node, path, errors_);
      Scenario::Recogniser& one = scenario_.recogniser;
      Millis(fields, "final_after", &one.final_after_us);
      Millis(fields, "partial_after", &one.partial_after_us);
      fields.Bool("partials", &one.partials);
      fields.Bool("silent", &one.silent);
      fields.Int("silent_times", &one.silent_times, 0, 1000);
      Millis(fields, "pause_after", &one.pause_after_us);
      fields.Finish();
    });
  }

  void ReadVoice(MapReader& map) {
    map.Map("voice", [&](const Node& node, const std::string& path) {
      MapReader fields(node, path, errors_);
      Scenario::Voice& one = scenario_.voice;
      Millis(fields, "after", &one.after_us);
      Millis(fields, "per_word", &one.per_word_us);
      fields.Bool("word_times", &one.word_times);
      fields.Text("fails", &one.fails);
      fields.Bool("silent", &one.silent);
      fields.Int("silent_times", &one.silent_times, 0, 1000);
      fields.Int("silent_from", &one.silent_from, 0, 1000);
      Millis(fields, "stops_after", &one.played_us);
      fields.Finish();
    });
  }

  void ReadModel(MapReader& map) {
    map.List("model", kMaxEntries, [&](const Node& node, const std::string& path) {
      MapReader fields(node, path, errors_);
      ModelAnswer answer;
      fields.Text("when", &answer.when);
      fields.Text("text", &answer.text, {0, kMaxText});
      Millis(fields, "after", &answer.after_us);
      Millis(fields, "per_word", &answer.per_word_us);
      fields.Text("fails", &answer.fails);
      fields.Bool("silent", &answer.silent);
      fields.Bool("again", &answer.again);
      fields.List("calls", 64, [&](const Node& call, const std::string& at) {
        MapReader inner(call, at, errors_);
        ModelAnswer::Call one;
        inner.Required("name");
        inner.Text("name", &one.name, {1, 64});
        if (const Node* arguments = inner.Take("arguments"); arguments != nullptr) {
          one.arguments_json = registry::ToJsonValue(*arguments)
                                   .dump(-1, ' ', false, json::error_handler_t::replace);
        }
        inner.Finish();
        answer.calls.push_back(std::move(one));
      });
      fields.Finish();
      scenario_.model.push_back(std::move(answer));
    });
  }

  void ReadTools(MapReader& map) {
    const Node* node = map.Take("tools");
    if (node == nullptr) return;
    if (node->kind != Node::Kind::kMap) return map.Fail("tools", "must be a map");
    for (size_t i = 0; i < node->items.size() && errors_.ok(); ++i) {
      MapReader fields(node->items[i], "tools." + node->keys[i], errors_);
      ToolAnswer answer;
      fields.Text("output", &answer.output, {0, kMaxText});
      Millis(fields, "after", &answer.after_us);
      fields.Bool("error", &answer.is_error);
      fields.Text("handoff", &answer.handoff, {1, 63});
      fields.Bool("silent", &answer.silent);
      fields.Finish();
      scenario_.tools[node->keys[i]] = std::move(answer);
    }
  }

  // ---- what happens ----

  void ReadTimeline(MapReader& map) {
    bool has_join = false;
    map.List("timeline", kMaxEntries, [&](const Node& node, const std::string& path) {
      MapReader fields(node, path, errors_);
      int64_t at_us = 0;
      fields.Required("at");
      Millis(fields, "at", &at_us);
      int64_t until_us = at_us;
      int kinds = ReadSound(fields, at_us, &until_us) ? 1 : 0;
      kinds += ReadStep(fields, at_us, &has_join);
      if (errors_.ok() && kinds != 1) fields.Fail("", "must hold one thing that happens");
      fields.Finish();
      scenario_.end_us = std::max(scenario_.end_us, until_us + kTailUs);
    });
    std::stable_sort(scenario_.sounds.begin(), scenario_.sounds.end(),
                     [](const Sound& a, const Sound& b) { return a.start_us < b.start_us; });
    for (size_t i = 1; i < scenario_.sounds.size(); ++i) {
      if (scenario_.sounds[i].start_us < scenario_.sounds[i - 1].end_us)
        map.Fail("timeline", "two sounds of the caller overlap at {} ms",
                 scenario_.sounds[i].start_us / 1000);
    }
    if (!has_join) {
      Add(0, event::PersonJoined{{.identity = "caller"}});
      Add(0, event::OutputSubscribed{});
    }
    std::stable_sort(scenario_.steps.begin(), scenario_.steps.end(),
                     [](const Step& a, const Step& b) { return a.at_us < b.at_us; });
  }

  bool ReadSound(MapReader& fields, int64_t at_us, int64_t* until_us) {
    std::string text;
    Sound sound{.start_us = at_us};
    int64_t length_us = 0;
    if (fields.Text("speak", &text, {1, kMaxText})) {
      sound.words = session::Words(text);
      // 150 words a minute, unless it says.
      length_us = static_cast<int64_t>(sound.words.size()) * 400'000;
      Millis(fields, "for", &length_us);
      std::string heard;
      if (fields.Text("heard", &heard, {0, kMaxText})) sound.heard = heard;
    } else if (Millis(fields, "noise", &length_us)) {
      std::string heard;
      if (fields.Text("heard", &heard, {0, kMaxText})) sound.heard = heard;
    } else {
      return false;
    }
    sound.end_us = *until_us = at_us + length_us;
    scenario_.sounds.push_back(std::move(sound));
    return true;
  }

  void Add(int64_t at_us, session::Event event) {
    scenario_.steps.push_back({at_us, std::move(event)});
  }

  static void ReadHandle(MapReader& fields, uint64_t* handle, session::Priority* priority) {
    int number = 0;
    if (fields.Int("handle", &number, 1, 1'000'000)) *handle = static_cast<uint64_t>(number);
    std::string name;
    if (!fields.Text("priority", &name)) return;
    if (name == "low") {
      *priority = session::Priority::kLow;
    } else if (name == "high") {
      *priority = session::Priority::kHigh;
    } else if (name != "normal") {
      fields.Fail("priority", "\"{}\" is none of low, normal, high", name);
    }
  }

  // How many things it was.
  int ReadStep(MapReader& fields, int64_t at_us, bool* has_join) {
    int count = 0;
    std::string text;
    bool yes = true;
    if (fields.Text("join", &text)) {
      *has_join = true;
      ++count;
      bool listens = true;
      fields.Bool("listens", &listens);
      Add(at_us, event::PersonJoined{{.identity = text}});
      if (listens) Add(at_us, event::OutputSubscribed{});
    }
    if (fields.Text("leave", &text)) ++count, Add(at_us, event::PersonLeft{text, true});
    if (fields.Text("lose", &text)) ++count, Add(at_us, event::PersonLeft{text, false});
    if (fields.Bool("subscribe", &yes)) ++count, Add(at_us, event::OutputSubscribed{});
    if (fields.Text("chat", &text, {0, kMaxText})) {
      ++count;
      std::string from = "caller";
      fields.Text("from", &from);
      Add(at_us, event::Chat{from, text});
    }
    if (fields.Text("keys", &text, {1, 64})) {
      std::string from = "caller";
      fields.Text("from", &from);
      for (const char key : text) Add(at_us, event::Dtmf{from, key});
      ++count;
    }
    if (fields.Text("say", &text, {0, kMaxText})) {
      ++count;
      event::Say say{.text = text};
      fields.Bool("interruptible", &say.allow_interruptions);
      fields.Bool("more", &say.more);
      int clip_ms = 0;
      if (fields.Int("clip", &clip_ms, 1, kMaxMs)) say.clip = static_cast<uint64_t>(clip_ms);
      ReadHandle(fields, &say.handle, &say.priority);
      Add(at_us, say);
    }
    if (fields.Text("say_more", &text, {0, kMaxText})) {
      ++count;
      event::SayMore more{.text = text};
      session::Priority unused{};
      ReadHandle(fields, &more.handle, &unused);
      fields.Bool("last", &more.last);
      Add(at_us, more);
    }
    if (fields.Text("generate", &text, {0, kMaxText})) {
      ++count;
      event::GenerateReply generate{.instructions = text};
      ReadHandle(fields, &generate.handle, &generate.priority);
      Add(at_us, generate);
    }
    if (fields.Bool("interrupt", &yes)) {
      ++count;
      event::Interrupt interrupt;
      session::Priority unused{};
      ReadHandle(fields, &interrupt.handle, &unused);
      Add(at_us, interrupt);
    }
    if (fields.Bool("commit", &yes)) ++count, Add(at_us, event::CommitTurn{});
    if (fields.Bool("clear", &yes)) ++count, Add(at_us, event::ClearTurn{});
    if (fields.Text("detect", &text)) {
      ++count;
      event::SetTurnDetection set;
      bool known = false;
      for (const auto one : {session::TurnDetection::kVad, session::TurnDetection::kStt,
                             session::TurnDetection::kSemantic, session::TurnDetection::kManual}) {
        if (session::Name(one) != text) continue;
        set.detection = one;
        known = true;
      }
      if (!known) fields.Fail("detect", "\"{}\" is none of vad, stt, semantic, manual", text);
      Add(at_us, set);
    }
    if (fields.Text("agent", &text, {1, 63})) ++count, Add(at_us, event::SetAgent{text});
    if (fields.Text("task", &text, {1, 63})) {
      ++count, Add(at_us, event::SetAgent{text, session::SwitchKind::kBeginTask});
    }
    if (fields.Bool("task_over", &yes)) {
      ++count, Add(at_us, event::SetAgent{"", session::SwitchKind::kEndTask});
    }
    if (fields.Bool("shutdown", &yes)) ++count, Add(at_us, event::Shutdown{});
    if (fields.Bool("close_room", &yes)) ++count, Add(at_us, event::RoomClosed{});
    if (fields.Text("user_data", &text, {0, kMaxText})) {
      ++count, Add(at_us, event::SetUserData{text});
    }
    if (fields.Text("recogniser_fails", &text)) ++count, Add(at_us, event::SttFailed{0, text});
    if (fields.Text("model_fails", &text)) ++count, Add(at_us, event::LlmFailed{0, text});
    if (fields.Text("voice_fails", &text)) ++count, Add(at_us, event::TtsFailed{0, text});
    return count;
  }

  // ---- what must come of it ----

  void ReadExpectations(MapReader& map) {
    map.List("expect", kMaxEntries, [&](const Node& node, const std::string& path) {
      MapReader fields(node, path, errors_);
      Expectation one{.source_line = fields.line()};
      fields.Required("line");
      fields.Text("line", &one.line, {1, 4096});
      int64_t us = 0;
      if (Millis(fields, "at", &us)) one.at_us = us;
      Millis(fields, "within", &one.within_us);
      Millis(fields, "from", &one.from_us);
      if (Millis(fields, "to", &us)) one.to_us = us;
      int count = 0;
      if (fields.Int("count", &count, 0, 100'000)) one.count = count;
      bool never = false;
      if (fields.Bool("never", &never) && never) one.count = 0;
      if (one.at_us && one.count) fields.Fail("at", "stands with `count`: use `from` and `to`");
      fields.Finish();
      scenario_.expect.push_back(std::move(one));
    });
    std::vector<std::string> history;
    if (map.TextList("history", &history, kMaxEntries, {1, kMaxText})) {
      scenario_.history = std::move(history);
    }
    if (errors_.ok() && scenario_.expect.empty() && !scenario_.history) {
      map.Fail("", "expects nothing: it could not fail");
    }
  }

  registry::Errors errors_;
  Scenario scenario_;
};

}  // namespace

std::string Expectation::Text() const {
  std::string text = fmt::format("\"{}\"", line);
  if (at_us) text += fmt::format(" at {} ± {} ms", *at_us / 1000, within_us / 1000);
  if (from_us > 0) text += fmt::format(" from {} ms", from_us / 1000);
  if (to_us) text += fmt::format(" to {} ms", *to_us / 1000);
  if (count && *count == 0) text += " never";
  if (count && *count > 0) text += fmt::format(" {} times", *count);
  return text;
}

absl::StatusOr<Scenario> ParseScenario(std::string_view text, std::string_view source) {
  if (text.size() > kMaxScenarioBytes) {
    return InvalidArgument("{}: has {} bytes; at most {} are taken", source, text.size(),
                           kMaxScenarioBytes);
  }
  PARLEY_ASSIGN_OR_RETURN(const Node root, registry::ParseTree(text, source));
  return Parser(source).Parse(root);
}

absl::StatusOr<registry::AgentDefinition> AgentOf(const Scenario& scenario,
                                                  const std::string& agent_json) {
  json agent = {{"id", "scenario"}, {"llm", json::array({{{"engine", "scripted"}}})}};
  const std::string& given = agent_json.empty() ? scenario.agent_json : agent_json;
  if (!given.empty()) agent = json::parse(given, nullptr, false);
  if (!agent.is_object()) return InvalidArgument("{}: not an agent", scenario.source);
  if (!scenario.options_json.empty()) {
    agent.merge_patch(json::parse(scenario.options_json, nullptr, false));
  }
  auto definition =
      registry::ParseDefinition(agent.dump(-1, ' ', false, json::error_handler_t::replace),
                                scenario.source, {.allow_loopback = true});
  return definition;
}

}  // namespace parley::rehearsal
