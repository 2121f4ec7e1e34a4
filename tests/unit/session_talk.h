#pragma once
// A conversation on paper: a session with scripted engines, a room and a clock, all in one thread
// and without waiting.
#include <absl/time/time.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "session/session.h"
#include "session/text.h"

namespace parley::session {

struct Answer {
  std::string text;
  std::vector<std::pair<std::string, std::string>> calls;  // tool, arguments
  int after_ms = 0;
  std::string error;
  bool silent = false;  // never answers
};
struct Heard {
  std::string text;
  int after_ms = 10;
  bool silent = false;
};

class Talk {
 public:
  static constexpr int64_t kMs = 1000;
  static constexpr int64_t kWordUs = 200'000;  // what a word takes to say

  explicit Talk(Options options = {}, Character character = {.instructions = "Be brief."})
      : session_(std::move(options), std::move(character)) {}

  // What the engines will answer, in order.
  std::vector<Heard> finals;
  std::vector<Answer> answers;
  std::map<std::string, std::string> tools;  // results; a tool that is not here never answers
  std::map<std::string, std::string> failing_tools;
  bool tts_fails = false;
  bool tts_silent = false;
  int tts_after_ms = 0;
  bool word_times = true;

  void Start() {
    session_.Start(now_us_);
    Collect();
  }
  // Somebody is there, and hears the agent.
  void StartWith(const std::string& identity) {
    Start();
    Send(event::Joined{{{.identity = identity}}});
    Send(event::OutputSubscribed{});
  }
  void Send(const Event& event) {
    session_.Handle(event, now_us_);
    Collect();
  }
  void Speak(int ms) { Frames(ms, true); }
  void Quiet(int ms) { Frames(ms, false); }
  void Wait(int ms) { RunUntil(now_us_ + ms * kMs); }

  template <typename T>
  std::vector<T> All() const {
    std::vector<T> found;
    for (const auto& [at, command] : log) {
      if (const T* one = std::get_if<T>(&command)) found.push_back(*one);
    }
    return found;
  }
  template <typename T>
  int Count() const {
    return static_cast<int>(All<T>().size());
  }
  // When the first / last of them came, in ms since the beginning; -1: never.
  template <typename T>
  int64_t FirstAt() const {
    for (const auto& [at, command] : log) {
      if (std::holds_alternative<T>(command)) return at / kMs;
    }
    return -1;
  }
  template <typename T>
  int64_t LastAt() const {
    int64_t found = -1;
    for (const auto& [at, command] : log) {
      if (std::holds_alternative<T>(command)) found = at / kMs;
    }
    return found;
  }
  std::vector<std::string> States() const {
    std::vector<std::string> states;
    for (const auto& one : All<command::SetState>()) states.emplace_back(Name(one.state));
    return states;
  }
  // "role: text" (interrupted ones end in "--"), "call name args", "result text" or "error text".
  std::vector<std::string> History() const {
    std::vector<std::string> lines;
    for (const ChatItem& item : session_.history().items()) {
      if (item.kind == ChatItem::Kind::kMessage) {
        lines.push_back(item.role + ": " + item.text + (item.interrupted ? " --" : ""));
      } else if (item.kind == ChatItem::Kind::kToolCall) {
        lines.push_back("call " + item.name + " " + item.arguments_json);
      } else {
        lines.push_back((item.is_error ? "error " : "result ") + item.text);
      }
    }
    return lines;
  }
  std::string AgentSaid() const {
    std::string text;
    for (const auto& one : All<command::AgentText>()) text += one.delta + (one.final ? "|" : "");
    return text;
  }
  Session& session() { return session_; }
  int64_t now_ms() const { return now_us_ / kMs; }

  std::vector<std::pair<int64_t, Command>> log;

 private:
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

  void Frames(int ms, bool speech) {
    for (int64_t end_us = now_us_ + ms * kMs; now_us_ < end_us;) {
      RunUntil(now_us_ + 20 * kMs);
      Send(event::Voice{speech});
    }
  }

  void RunUntil(int64_t end_us) {
    while (true) {
      const int64_t due_us = queue_.empty() ? kNever : queue_.begin()->first;
      const int64_t next_us = std::min({due_us, session_.deadline_us(), next_frame_us_});
      if (next_us > end_us) break;
      now_us_ = std::max(now_us_, next_us);
      if (next_us == due_us) {
        const Event event = queue_.begin()->second;
        queue_.erase(queue_.begin());
        Send(event);
      } else if (next_us == next_frame_us_) {
        PlayFrame();
      } else {
        session_.Tick(now_us_);
        Collect();
        if (session_.deadline_us() <= now_us_ && ++stuck_ > 100)
          throw std::runtime_error("deadline never passes");
        continue;
      }
      stuck_ = 0;
    }
    now_us_ = end_us;
  }

  void Later(int ms, Event event) { queue_.emplace(now_us_ + ms * kMs, std::move(event)); }

  void PlayFrame() {
    next_frame_us_ += 20 * kMs;
    if (paused_ || position_us_ >= buffered_us_) return;
    position_us_ = std::min(position_us_ + 20 * kMs, buffered_us_);
    Send(event::Played{playing_, position_us_});
  }

  void Collect() {
    for (Command& command : session_.Take()) {
      log.emplace_back(now_us_, command);
      std::visit([this](const auto& one) { Do(one); }, command);
    }
  }

  template <typename T>
  void Do(const T&) {}
  void Do(const command::SttEnd& end) {
    const Heard heard = finals.empty() ? Heard{} : finals.front();
    if (!finals.empty()) finals.erase(finals.begin());
    if (!heard.silent)
      Later(heard.after_ms, event::SttFinal{end.stream, end.utterance, heard.text});
  }
  void Do(const command::LlmChat& chat) {
    const Answer answer = answers.empty() ? Answer{.silent = true} : answers.front();
    if (!answers.empty()) answers.erase(answers.begin());
    if (answer.silent) return;
    if (!answer.error.empty())
      return Later(answer.after_ms, event::LlmFailed{chat.stream, answer.error});
    for (const std::string& word : Words(answer.text)) {
      Later(answer.after_ms, event::LlmText{chat.stream, word + " "});
    }
    for (const auto& [name, arguments] : answer.calls) {
      Later(answer.after_ms, event::LlmToolCall{chat.stream, "", name, arguments});
    }
    Later(answer.after_ms, event::LlmDone{chat.stream, 10, 5});
  }
  void Do(const command::CallTool& call) {
    if (tools.contains(call.name)) Later(5, event::ToolDone{call.call, tools[call.name], false});
    if (failing_tools.contains(call.name))
      Later(5, event::ToolDone{call.call, failing_tools[call.name], true});
  }
  void Do(const command::TtsText& text) {
    if (tts_silent) return;
    if (tts_fails) return Later(0, event::TtsFailed{text.stream, "no voice"});
    event::TtsAudio audio{text.stream, text.segment, 0, {}};
    for (const std::string& word : Words(text.text)) {
      audio.words.push_back({word, audio.duration_us, audio.duration_us + kWordUs});
      audio.duration_us += kWordUs;
    }
    if (!word_times) audio.words.clear();
    // The output hears of the audio before the session does, as in a job.
    Later(tts_after_ms, audio);
    Later(tts_after_ms, event::TtsSegmentDone{text.stream, text.segment});
    buffered_us_ += audio.duration_us;
  }
  void Do(const command::TtsOpen&) { buffered_us_ = position_us_ = 0; }
  void Do(const command::PlayStart& start) {
    playing_ = start.speech;
    paused_ = false;
    next_frame_us_ = now_us_;
  }
  void Do(const command::PlayPause&) { paused_ = true; }
  void Do(const command::PlayResume&) { paused_ = false; }
  void Do(const command::PlayClear&) {
    next_frame_us_ = kNever;
    paused_ = false;
  }

  Session session_;
  int64_t now_us_ = 1'000'000'000;
  int64_t next_frame_us_ = kNever;
  int stuck_ = 0;
  std::multimap<int64_t, Event> queue_;
  uint64_t playing_ = 0;
  int64_t buffered_us_ = 0;
  int64_t position_us_ = 0;
  bool paused_ = false;
};

}  // namespace parley::session
