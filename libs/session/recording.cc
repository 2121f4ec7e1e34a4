#include "session/recording.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/status.h"
#include "base/strings.h"
#include "session/decision_log.h"
#include "session/session.h"

namespace parley::session {
namespace {

using nlohmann::json;

constexpr int kVersion = 2;

// ---- options: one table of their names ----

// Calls `visit(name, member)` for each option.
template <typename O, typename Visit>
void EachOption(O& o, Visit visit) {
  visit("vad.min_speech", o.min_speech);
  visit("vad.min_silence", o.min_silence);
  visit("vad.preroll", o.preroll);
  visit("vad.max_utterance", o.max_utterance);
  visit("turn_detection", o.turn_detection);
  visit("realtime", o.realtime);
  visit("endpointing.min_delay", o.min_endpointing_delay);
  visit("endpointing.max_delay", o.max_endpointing_delay);
  visit("endpointing.dynamic", o.dynamic_endpointing);
  visit("endpointing.alpha", o.endpointing_alpha);
  visit("preemptive_generation", o.preemptive_generation);
  visit("interruption.enabled", o.allow_interruptions);
  visit("interruption.min_duration", o.min_interruption);
  visit("interruption.min_words", o.min_interruption_words);
  visit("interruption.resume_false_after", o.resume_false_after);
  visit("interruption.ignore_backchannels", o.ignore_backchannels);
  visit("interruption.backchannel_boundary", o.backchannel_boundary);
  visit("review_timeout", o.review_timeout);
  visit("dtmf_pause", o.dtmf_pause);
  visit("listen_only", o.listen_only);
  visit("turn_by_turn", o.turn_by_turn);
  visit("max_tool_steps", o.max_tool_steps);
  visit("close_on_disconnect", o.close_on_disconnect);
  visit("away_after", o.away_after);
  visit("subscribe_wait", o.subscribe_wait);
  visit("llm_timeout", o.llm_timeout);
  visit("tts_timeout", o.tts_timeout);
  visit("tool_timeout", o.tool_timeout);
  visit("filler_after", o.filler_after);
  visit("playout_timeout", o.playout_timeout);
  visit("slow_after", o.slow_after);
  visit("patience", o.patience);
  visit("hold", o.hold);
  visit("max_stall", o.max_stall);
  visit("max_duration", o.max_duration);
  visit("max_errors", o.max_errors);
  visit("apology", o.apology);
}

std::string TextOf(absl::Duration value) {
  // Whole microseconds: DurationText may round.
  if (value == absl::InfiniteDuration()) return "forever";
  return std::to_string(absl::ToInt64Microseconds(value)) + "us";
}
std::string TextOf(bool value) { return value ? "true" : "false"; }
std::string TextOf(int value) { return std::to_string(value); }
std::string TextOf(double value) { return json(value).dump(); }
std::string TextOf(const std::string& value) { return value; }
std::string TextOf(TurnDetection value) { return std::string(Name(value)); }

template <typename Number>
bool NumberFrom(const std::string& text, Number& value) {
  const json number = json::parse(text, nullptr, false);
  if (!number.is_number()) return false;
  value = number.get<Number>();
  return true;
}
bool ReadInto(const std::string& text, int& value) { return NumberFrom(text, value); }
bool ReadInto(const std::string& text, double& value) { return NumberFrom(text, value); }
bool ReadInto(const std::string& text, absl::Duration& value) {
  if (text == "forever") {
    value = absl::InfiniteDuration();
    return true;
  }
  int64_t us = 0;
  if (text.ends_with("us") && NumberFrom(text.substr(0, text.size() - 2), us)) {
    value = absl::Microseconds(us);
    return true;
  }
  const std::optional<absl::Duration> parsed = ParseDuration(text);
  if (parsed) value = *parsed;
  return parsed.has_value();
}
bool ReadInto(const std::string& text, bool& value) {
  value = text == "true";
  return value || text == "false";
}
bool ReadInto(const std::string& text, std::string& value) {
  value = text;
  return true;
}
bool ReadInto(const std::string& text, TurnDetection& value) {
  for (const TurnDetection one :
       {TurnDetection::kVad, TurnDetection::kStt, TurnDetection::kSemantic, TurnDetection::kManual,
        TurnDetection::kRealtime}) {
    if (Name(one) != text) continue;
    value = one;
    return true;
  }
  return false;
}

absl::Status SetOption(Options& options, const std::string& name, const std::string& text) {
  bool known = false;
  bool taken = false;
  EachOption(options, [&](const char* one, auto& value) {
    if (name != one) return;
    known = true;
    taken = ReadInto(text, value);
  });
  if (!known) return InvalidArgument("there is no option {}", name);
  if (!taken) return InvalidArgument("{}: \"{}\" is no value for it", name, text);
  return absl::OkStatus();
}

template <typename T>
T At(const json& fields, size_t index) {
  return fields.at(index).get<T>();
}

json Json(const Character& character) {
  json tools = json::array();
  for (const ToolSpec& tool : character.tools)
    tools.push_back({tool.name, TextOf(tool.timeout), tool.filler, tool.confirm_duplicates});
  return {{"name", character.name},
          {"instructions", character.instructions},
          {"greeting", character.greeting},
          {"tools", std::move(tools)},
          {"farewell", character.farewell},
          {"handoffs", character.handoffs},
          {"context", Name(character.context)}};
}

Character CharacterFrom(const json& in) {
  Character character{.name = in.at("name").get<std::string>(),
                      .instructions = in.at("instructions").get<std::string>(),
                      .greeting = in.at("greeting").get<std::string>()};
  for (const json& one : in.at("tools")) {
    ToolSpec tool{.name = At<std::string>(one, 0)};
    if (!ReadInto(At<std::string>(one, 1), tool.timeout)) throw std::out_of_range("timeout");
    tool.filler = At<std::string>(one, 2);
    tool.confirm_duplicates = one.size() > 3 && At<bool>(one, 3);
    character.tools.push_back(std::move(tool));
  }
  character.farewell = in.at("farewell").get<std::string>();
  character.handoffs = in.at("handoffs").get<std::vector<std::string>>();
  // Older recordings only say whether it is fresh.
  const std::string context = in.contains("context")       ? in["context"].get<std::string>()
                              : in.at("fresh").get<bool>() ? "fresh"
                                                           : "whole";
  for (const Context one : {Context::kFresh, Context::kSummary}) {
    if (context == Name(one)) character.context = one;
  }
  return character;
}

// ---- events: a list of their fields ----

json Fields(const event::Joined& e) {
  json people = json::array();
  for (const Person& one : e.people) people.push_back({one.identity, one.name});
  return people;
}
json Fields(const event::PersonJoined& e) { return {e.person.identity, e.person.name}; }
json Fields(const event::PersonLeft& e) { return {e.identity, e.for_good}; }
json Fields(const event::OutputSubscribed&) { return json::array(); }
json Fields(const event::RoomClosed& e) { return {static_cast<int>(e.reason), e.error}; }
json Fields(const event::Voice& e) {
  if (!e.speech || e.quiet_us == 0) return json::array({e.speech ? 1 : 0});
  return json::array({1, e.quiet_us});
}
json Fields(const event::SttPartial& e) { return {e.stream, e.text}; }
json Fields(const event::SttFinal& e) { return {e.stream, e.utterance, e.text}; }
json Fields(const event::SttActivity& e) { return {e.stream, e.speech}; }
json Fields(const event::SttUsage& e) { return {e.stream, e.audio_seconds}; }
json Fields(const event::SttFailed& e) { return {e.stream, e.error}; }
json Fields(const event::LlmText& e) { return {e.stream, e.text}; }
json Fields(const event::LlmToolCall& e) { return {e.stream, e.call_id, e.name, e.arguments_json}; }
json Fields(const event::LlmDone& e) { return {e.stream, e.input_tokens, e.output_tokens}; }
json Fields(const event::LlmFailed& e) { return {e.stream, e.error}; }
json Fields(const event::TtsAudio& e) {
  json words = json::array();
  for (const WordTime& one : e.words) words.push_back({one.word, one.start_us, one.end_us});
  return {e.stream, e.segment, e.duration_us, words};
}
json Fields(const event::TtsSegmentDone& e) { return {e.stream, e.segment}; }
json Fields(const event::TtsClosed& e) { return json::array({e.stream}); }
json Fields(const event::TtsFailed& e) { return {e.stream, e.error}; }
json Fields(const event::ToolDone& e) { return {e.call, e.output, e.is_error, e.handoff}; }
json Fields(const event::Played& e) { return {e.speech, e.position_us}; }
json Fields(const event::Chat& e) { return {e.identity, e.text}; }
json Fields(const event::Say& e) {
  return {e.text, e.allow_interruptions, e.handle, static_cast<int>(e.priority), e.more, e.clip};
}
json Fields(const event::GenerateReply& e) {
  return {e.instructions, e.handle, static_cast<int>(e.priority), e.allow_interruptions};
}
json Fields(const event::Interrupt& e) { return json::array({e.handle}); }
json Fields(const event::SetTurnDetection& e) {
  return json::array({static_cast<int>(e.detection)});
}
json Fields(const event::CommitTurn&) { return json::array(); }
json Fields(const event::ClearTurn&) { return json::array(); }
json Fields(const event::TurnReviewed& e) { return {e.review, e.text, e.instructions, e.answer}; }
json Fields(const event::SetUserData& e) { return json::array({e.data}); }
json Fields(const event::Shutdown& e) { return {static_cast<int>(e.reason), e.error}; }
json Fields(const event::AddAgent& e) { return json::array({Json(e.character)}); }
json Fields(const event::SetAgent& e) { return {e.name, static_cast<int>(e.how)}; }
json Fields(const event::SayMore& e) { return {e.handle, e.text, e.last}; }
json Fields(const event::LlmAudio& e) { return {e.stream, e.duration_us}; }
json Fields(const event::ModelSpeech& e) { return {e.stream, e.started, e.utterance}; }
json Fields(const event::ModelTranscript& e) { return {e.stream, e.utterance, e.text, e.final}; }

json Fields(const event::Overheard& e) { return {e.person.identity, e.person.name, e.text}; }
json Fields(const event::Dtmf& e) { return {e.identity, static_cast<int>(e.key)}; }

// An enumeration with values from 0 to `last`; priorities have gaps, which do no harm.
template <typename T>
T EnumAt(const json& fields, size_t index, T last) {
  const int value = At<int>(fields, index);
  if (value < 0 || value > static_cast<int>(last)) throw std::out_of_range("value");
  return static_cast<T>(value);
}

void Fill(const json& f, event::Joined& e) {
  for (const json& one : f) e.people.push_back({At<std::string>(one, 0), At<std::string>(one, 1)});
}
void Fill(const json& f, event::PersonJoined& e) {
  e.person = {At<std::string>(f, 0), At<std::string>(f, 1)};
}
void Fill(const json& f, event::PersonLeft& e) { e = {At<std::string>(f, 0), At<bool>(f, 1)}; }
void Fill(const json&, event::OutputSubscribed&) {}
void Fill(const json& f, event::RoomClosed& e) {
  e = {EnumAt(f, 0, EndReason::kError), At<std::string>(f, 1)};
}
void Fill(const json& f, event::Voice& e) {
  e.speech = At<int>(f, 0) != 0;
  // Not in older recordings.
  if (f.size() > 1) e.quiet_us = std::clamp<int64_t>(At<int64_t>(f, 1), 0, 1'000'000);
}
void Fill(const json& f, event::SttPartial& e) { e = {At<uint32_t>(f, 0), At<std::string>(f, 1)}; }
void Fill(const json& f, event::SttFinal& e) {
  e = {At<uint32_t>(f, 0), At<uint64_t>(f, 1), At<std::string>(f, 2)};
}
void Fill(const json& f, event::SttActivity& e) { e = {At<uint32_t>(f, 0), At<bool>(f, 1)}; }
void Fill(const json& f, event::SttUsage& e) { e = {At<uint32_t>(f, 0), At<double>(f, 1)}; }
void Fill(const json& f, event::SttFailed& e) { e = {At<uint32_t>(f, 0), At<std::string>(f, 1)}; }
void Fill(const json& f, event::LlmText& e) { e = {At<uint32_t>(f, 0), At<std::string>(f, 1)}; }
void Fill(const json& f, event::LlmToolCall& e) {
  e = {At<uint32_t>(f, 0), At<std::string>(f, 1), At<std::string>(f, 2), At<std::string>(f, 3)};
}
void Fill(const json& f, event::LlmDone& e) {
  e = {At<uint32_t>(f, 0), At<int64_t>(f, 1), At<int64_t>(f, 2)};
}
void Fill(const json& f, event::LlmFailed& e) { e = {At<uint32_t>(f, 0), At<std::string>(f, 1)}; }
// Times out of any range would overflow sums of them.
constexpr int64_t kDayUs = int64_t{86'400} * 1'000'000;

void Fill(const json& f, event::TtsAudio& e) {
  e = {At<uint32_t>(f, 0), At<uint64_t>(f, 1), At<int64_t>(f, 2), {}};
  e.duration_us = std::clamp<int64_t>(e.duration_us, 0, kDayUs);
  for (const json& one : f.at(3)) {
    e.words.push_back({At<std::string>(one, 0), std::clamp<int64_t>(At<int64_t>(one, 1), 0, kDayUs),
                       std::clamp<int64_t>(At<int64_t>(one, 2), 0, kDayUs)});
  }
}
void Fill(const json& f, event::TtsSegmentDone& e) { e = {At<uint32_t>(f, 0), At<uint64_t>(f, 1)}; }
void Fill(const json& f, event::TtsClosed& e) { e = {At<uint32_t>(f, 0)}; }
void Fill(const json& f, event::TtsFailed& e) { e = {At<uint32_t>(f, 0), At<std::string>(f, 1)}; }
void Fill(const json& f, event::ToolDone& e) {
  e = {At<uint32_t>(f, 0), At<std::string>(f, 1), At<bool>(f, 2), At<std::string>(f, 3)};
}
void Fill(const json& f, event::Played& e) { e = {At<uint64_t>(f, 0), At<int64_t>(f, 1)}; }
void Fill(const json& f, event::Chat& e) { e = {At<std::string>(f, 0), At<std::string>(f, 1)}; }
void Fill(const json& f, event::Say& e) {
  e = {At<std::string>(f, 0),         At<bool>(f, 1), At<uint64_t>(f, 2),
       EnumAt(f, 3, Priority::kHigh), At<bool>(f, 4), At<uint64_t>(f, 5)};
}
void Fill(const json& f, event::GenerateReply& e) {
  e = {At<std::string>(f, 0), At<uint64_t>(f, 1), EnumAt(f, 2, Priority::kHigh)};
  if (f.size() > 3) e.allow_interruptions = At<bool>(f, 3);
}
void Fill(const json& f, event::Interrupt& e) { e = {At<uint64_t>(f, 0)}; }
void Fill(const json& f, event::SetTurnDetection& e) {
  e = {EnumAt(f, 0, TurnDetection::kRealtime)};
}
void Fill(const json&, event::CommitTurn&) {}
void Fill(const json&, event::ClearTurn&) {}
void Fill(const json& f, event::TurnReviewed& e) {
  e = {At<uint64_t>(f, 0), At<std::string>(f, 1), At<std::string>(f, 2), At<bool>(f, 3)};
}
void Fill(const json& f, event::SetUserData& e) { e = {At<std::string>(f, 0)}; }
void Fill(const json& f, event::Shutdown& e) {
  e = {EnumAt(f, 0, EndReason::kError), At<std::string>(f, 1)};
}
void Fill(const json& f, event::AddAgent& e) { e.character = CharacterFrom(f.at(0)); }
void Fill(const json& f, event::SetAgent& e) {
  e.name = At<std::string>(f, 0);
  if (f.size() > 1) e.how = EnumAt(f, 1, SwitchKind::kEndTask);
}
void Fill(const json& f, event::SayMore& e) {
  e = {At<uint64_t>(f, 0), At<std::string>(f, 1), At<bool>(f, 2)};
}

void Fill(const json& f, event::LlmAudio& e) {
  e = {At<uint32_t>(f, 0), std::clamp<int64_t>(At<int64_t>(f, 1), 0, kDayUs)};
}
void Fill(const json& f, event::ModelSpeech& e) {
  e = {At<uint32_t>(f, 0), At<bool>(f, 1), At<uint64_t>(f, 2)};
}
void Fill(const json& f, event::ModelTranscript& e) {
  e = {At<uint32_t>(f, 0), At<uint64_t>(f, 1), At<std::string>(f, 2), At<bool>(f, 3)};
}

void Fill(const json& f, event::Overheard& e) {
  e = {{At<std::string>(f, 0), At<std::string>(f, 1)}, At<std::string>(f, 2)};
}
void Fill(const json& f, event::Dtmf& e) {
  e = {At<std::string>(f, 0), static_cast<char>(At<int>(f, 1))};
}

// Events are numbered by their place in the variant: a new one goes to its end.
template <size_t index = 0>
Event MakeEvent(size_t kind, const json& fields) {
  if constexpr (index < std::variant_size_v<Event>) {
    if (kind != index) return MakeEvent<index + 1>(kind, fields);
    std::variant_alternative_t<index, Event> event;
    Fill(fields, event);
    return event;
  } else {
    throw std::out_of_range("event");
  }
}

std::string Dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

uint64_t AddTo(uint64_t hash, std::string_view text) {
  for (const unsigned char byte : text) hash = (hash ^ byte) * 0x100000001b3;
  return (hash ^ 0xff) * 0x100000001b3;
}

// Reads a recording line by line into a new session.
class Player {
 public:
  absl::Status Begin(const json& head, const std::map<std::string, std::string>& changes) {
    if (!head.is_object() || head.at("recording").get<int>() != kVersion) {
      return InvalidArgument("not a recording of version {}", kVersion);
    }
    Options options;
    for (const auto& [name, value] : head.at("options").items()) {
      PARLEY_RETURN_IF_ERROR(SetOption(options, name, value.get<std::string>()));
    }
    for (const auto& [name, value] : changes) {
      PARLEY_RETURN_IF_ERROR(SetOption(options, name, value));
    }
    std::vector<Character> agents;
    for (const json& one : head.at("agents")) agents.push_back(CharacterFrom(one));
    if (agents.empty()) return InvalidArgument("a recording without an agent");
    session_.emplace(std::move(options), std::move(agents));
    return absl::OkStatus();
  }

  void Next(const json& line) {
    if (line.is_object()) {
      if (line.contains("restored")) {
        (void)session_->Restore(line["restored"].get<std::string>());
        return;
      }
      out_.complete = true;
      out_.identical = line.at("decisions").get<uint64_t>() == out_.log.size() &&
                       line.at("hash").get<uint64_t>() == hash_;
      return;
    }
    constexpr int64_t kYearUs = int64_t{366} * 86'400 * 1'000'000;
    const int64_t at_us = std::clamp<int64_t>(At<int64_t>(line, 0), 0, 100 * kYearUs);
    const std::string kind = line.at(1).is_string() ? At<std::string>(line, 1) : "";
    if (kind == "start") {
      started_us_ = at_us;
      session_->Start(at_us);
    } else if (kind == "tick") {
      session_->Tick(at_us);
    } else {
      session_->Handle(MakeEvent(At<size_t>(line, 1), line.at(2)), at_us);
    }
    // As in the session: a time before an earlier one counts as that one.
    now_us_ = std::max(now_us_, at_us);
    out_.duration_us = std::max<int64_t>(now_us_ - started_us_, 0);
    for (const Command& command : session_->Take()) {
      out_.log.push_back(DecisionLine(out_.duration_us, command));
      hash_ = AddTo(hash_, out_.log.back());
    }
  }

  Replayed Take() { return std::move(out_); }

 private:
  std::optional<Session> session_;
  Replayed out_;
  int64_t started_us_ = 0;
  int64_t now_us_ = 0;
  uint64_t hash_ = 0xcbf29ce484222325;
};

}  // namespace

void Recorder::Begin(const Options& options, const std::vector<Character>& agents) {
  json named = json::object();
  EachOption(options, [&](const char* name, const auto& value) { named[name] = TextOf(value); });
  json all = json::array();
  for (const Character& one : agents) all.push_back(Json(one));
  sink_(Dump({{"recording", kVersion}, {"options", std::move(named)}, {"agents", std::move(all)}}));
}

void Recorder::Restored(std::string_view checkpoint) {
  sink_(Dump({{"restored", std::string(checkpoint)}}));
}

void Recorder::Started(int64_t now_us) {
  started_us_ = now_us;
  sink_(Dump(json::array({now_us, "start"})));
}

void Recorder::Happened(const Event& event, int64_t now_us) {
  json fields = std::visit([](const auto& one) { return Fields(one); }, event);
  sink_(Dump(json::array({now_us, event.index(), std::move(fields)})));
}

void Recorder::Ticked(int64_t now_us) { sink_(Dump(json::array({now_us, "tick"}))); }

void Recorder::Decided(int64_t now_us, const Command& command) {
  ++decisions_;
  hash_ = AddTo(hash_, DecisionLine(std::max<int64_t>(now_us - started_us_, 0), command));
  if (!std::holds_alternative<command::End>(command)) return;
  sink_(Dump({{"decisions", decisions_}, {"hash", hash_}}));
}

absl::StatusOr<Replayed> Replay(std::string_view recording,
                                const std::map<std::string, std::string>& changes) {
  if (recording.size() > kMaxRecordingBytes) {
    return InvalidArgument("the recording has {} bytes; at most {} are read", recording.size(),
                           kMaxRecordingBytes);
  }
  Player player;
  size_t number = 0;
  try {
    // A last line without its line feed was cut off by a crash.
    for (size_t end = recording.find('\n'); end != std::string_view::npos;
         end = recording.find('\n')) {
      const std::string_view text = recording.substr(0, end);
      recording.remove_prefix(end + 1);
      ++number;
      if (!JsonNestsWithin(text, 8)) return InvalidArgument("line {}: nests too deep", number);
      const json line = json::parse(text);
      if (number > 1) {
        player.Next(line);
      } else if (absl::Status begun = player.Begin(line, changes); !begun.ok()) {
        return Annotate(begun, "line 1");
      }
    }
  } catch (const std::exception& error) {
    return InvalidArgument("line {}: {}", number, error.what());
  }
  if (number == 0) return InvalidArgument("the recording is empty");
  return player.Take();
}

}  // namespace parley::session
