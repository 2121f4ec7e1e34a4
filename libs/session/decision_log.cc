#include "session/decision_log.h"

#include <fmt/format.h>

#include <string_view>

namespace parley::session {
namespace {

// FNV-1a: the same on every machine and in every version, which std::hash need not be.
class Hash {
 public:
  void Add(std::string_view text) {
    for (const unsigned char byte : text) value_ = (value_ ^ byte) * 0x100000001b3;
    value_ = (value_ ^ 0xff) * 0x100000001b3;  // a border: "ab"+"c" is not "a"+"bc"
  }
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0xcbf29ce484222325;
};

std::string OneLine(std::string_view text) {
  std::string line;
  for (const char c : text) {
    if (c == '\n') {
      line += "\\n";
    } else if (c == '\r') {
      line += "\\r";
    } else {
      line += c;
    }
  }
  return line;
}

void AddItem(Hash& hash, const ChatItem& item) {
  hash.Add(std::to_string(static_cast<int>(item.kind)));
  for (const std::string& text :
       {item.role, item.text, item.call_id, item.name, item.arguments_json}) {
    hash.Add(text);
  }
  hash.Add(item.interrupted ? "i" : "");
  hash.Add(item.is_error ? "e" : "");
}

std::string As(const std::string& agent) { return agent.empty() ? "" : " as " + agent; }

struct Line {
  using S = std::string;
  S operator()(const command::Link& c) const {
    return c.identity.empty() ? "unlink" : "link " + c.identity;
  }
  S operator()(const command::SttOpen& c) const {
    if (c.items.empty()) return fmt::format("stt open {}", c.stream);
    Hash hash;
    for (const ChatItem& item : c.items) AddItem(hash, item);
    return fmt::format("stt open {}{}: {} items {:016x}", c.stream, As(c.agent), c.items.size(),
                       hash.value());
  }
  S operator()(const command::SttStart& c) const {
    return fmt::format("stt start {} preroll {} ms", c.stream,
                       absl::ToInt64Milliseconds(c.preroll));
  }
  S operator()(const command::SttEnd& c) const {
    return fmt::format("stt end {} utterance {}", c.stream, c.utterance);
  }
  S operator()(const command::SttClose& c) const { return fmt::format("stt close {}", c.stream); }
  S operator()(const command::ReviewTurn& c) const {
    return fmt::format("review {}: {}", c.review, c.text);
  }
  S operator()(const command::LlmChat& c) const {
    Hash hash;
    for (const ChatItem& item : c.items) AddItem(hash, item);
    return fmt::format("think {} turn {}{}{}: {} items {:016x}", c.stream,
                       c.turn_id.empty() ? "-" : c.turn_id, As(c.agent),
                       c.allow_tools ? " with tools" : "", c.items.size(), hash.value());
  }
  S operator()(const command::Respond& c) const {
    Hash hash;
    for (const ChatItem& item : c.items) AddItem(hash, item);
    hash.Add(c.instructions);
    return fmt::format("respond {} speech {} turn {}{}: {} items {:016x}", c.stream, c.speech,
                       c.turn_id.empty() ? "-" : c.turn_id, c.allow_tools ? " with tools" : "",
                       c.items.size(), hash.value());
  }
  S operator()(const command::SttForget& c) const {
    return fmt::format("stt forget {} from utterance {}", c.stream, c.from);
  }
  S operator()(const command::Truncate& c) const {
    return fmt::format("truncate {} after {} ms", c.stream, c.heard_us / 1000);
  }
  S operator()(const command::LlmCancel& c) const {
    return fmt::format("think cancel {}", c.stream);
  }
  S operator()(const command::CallTool& c) const {
    return fmt::format("tool {} {} {}", c.call, c.name, c.arguments_json);
  }
  S operator()(const command::CancelTool& c) const { return fmt::format("tool cancel {}", c.call); }
  S operator()(const command::TtsOpen& c) const {
    return fmt::format("voice open {} speech {}{}", c.stream, c.speech, As(c.agent));
  }
  S operator()(const command::TtsText& c) const {
    return fmt::format("voice text {} segment {}: {}", c.stream, c.segment, c.text);
  }
  S operator()(const command::TakeClip& c) const {
    return fmt::format("clip {} for speech {} segment {}", c.clip, c.speech, c.segment);
  }
  S operator()(const command::TtsFinish& c) const {
    return fmt::format("voice finish {}", c.stream);
  }
  S operator()(const command::TtsCancel& c) const {
    return fmt::format("voice cancel {}", c.stream);
  }
  S operator()(const command::PlayStart& c) const { return fmt::format("play {}", c.speech); }
  S operator()(const command::PlayPause&) const { return "pause"; }
  S operator()(const command::PlayResume&) const { return "resume"; }
  S operator()(const command::PlayClear&) const { return "clear"; }
  S operator()(const command::SetState& c) const { return fmt::format("agent {}", Name(c.state)); }
  S operator()(const command::SetUserState& c) const {
    return fmt::format("user {}", Name(c.state));
  }
  S operator()(const command::UserText& c) const {
    return fmt::format("heard {}{}: {}", c.segment_id, c.final ? " final" : "", c.text);
  }
  S operator()(const command::AgentText& c) const {
    return fmt::format("said {}{}: {}", c.segment_id, c.final ? " final" : "", c.delta);
  }
  S operator()(const command::ItemAdded& c) const { return "item " + LineOf(c.item); }
  S operator()(const command::AgentChanged& c) const {
    static constexpr const char* kHow[] = {"handoff", "task", "task over,"};
    return fmt::format("{} {} to {}", kHow[static_cast<int>(c.how)], c.from, c.to);
  }
  S operator()(const command::Stalled& c) const {
    return fmt::format("{} {}{}{} after {} ms", c.given_up ? "gave up" : "slow", Name(c.stage),
                       c.detail.empty() ? "" : " ", c.detail, absl::ToInt64Milliseconds(c.waited));
  }
  S operator()(const command::TurnDone& c) const {
    const TurnReport& r = c.report;
    return fmt::format(
        "turn {}{}: endpointing {} transcript {} llm {} tts {} output {} total {} us, {} tools",
        r.turn_id, r.interrupted ? " cut" : "", r.endpointing_us, r.transcript_us, r.llm_us,
        r.tts_us, r.output_us, r.total_us, r.tool_calls);
  }
  S operator()(const command::SpeechDone& c) const {
    return fmt::format("speech {} {}: {}", c.handle, c.interrupted ? "cut" : "done", c.heard);
  }
  S operator()(const command::FalseInterruption&) const { return "false interruption"; }
  S operator()(const command::SaveCheckpoint& c) const {
    Hash hash;
    hash.Add(c.blob);
    return fmt::format("checkpoint {} bytes {:016x}", c.blob.size(), hash.value());
  }
  S operator()(const command::Log& c) const {
    static constexpr const char* kLevels[] = {"info", "warn", "error"};
    return fmt::format("log {}: {}{}{}", kLevels[static_cast<int>(c.level)], c.message,
                       c.detail.empty() ? "" : ": ", c.detail);
  }
  S operator()(const command::End& c) const {
    return fmt::format("end {}{}{}", Name(c.reason), c.error.empty() ? "" : ": ", c.error);
  }
};

}  // namespace

std::string Describe(const Command& command) { return OneLine(std::visit(Line(), command)); }

std::string DecisionLine(int64_t since_start_us, const Command& command) {
  return fmt::format("{:4}.{:06} {}", since_start_us / 1'000'000, since_start_us % 1'000'000,
                     Describe(command));
}

}  // namespace parley::session
