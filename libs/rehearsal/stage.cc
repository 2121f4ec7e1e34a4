#include "rehearsal/stage.h"

#include <algorithm>
#include <limits>
#include <random>
#include <utility>
#include <variant>

#include "base/status.h"
#include "base/strings.h"
#include "rehearsal/check.h"
#include "session/decision_log.h"
#include "session/text.h"

namespace parley::rehearsal {
namespace {

namespace command = session::command;
namespace event = session::event;
using session::ChatItem;
using session::Event;

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
constexpr int64_t kFrameUs = 20'000;
// The stage's clock begins here: a session takes time 0 for "not yet".
constexpr int64_t kBeginUs = 1'000'000'000;
constexpr int kMaxIdleTicks = 1'000;

std::vector<session::Character> AllOf(const Cast& cast) {
  std::vector<session::Character> all = {cast.character};
  all.insert(all.end(), cast.others.begin(), cast.others.end());
  return all;
}

class Stage {
 public:
  Stage(const Scenario& scenario, const Cast& cast)
      : scenario_(scenario),
        cast_(cast),
        session_(cast.options, AllOf(cast)),
        used_(scenario.model.size()),
        taken_(scenario.sounds.size()) {}

  Outcome Run(session::Recorder* recorder) {
    if (recorder != nullptr) session_.RecordTo(recorder);
    session_.Start(now_us_);
    Collect();
    Send(event::Joined{});
    while (!ended_ && Advance()) {
    }
    if (recorder != nullptr && !ended_) {
      Send(event::Shutdown{session::EndReason::kTerminated, ""});
    }
    for (const ChatItem& item : session_.history().items()) {
      outcome_.history.push_back(session::LineOf(item));
    }
    outcome_.played_us = now_us_ - kBeginUs;
    Check(scenario_, outcome_);
    return std::move(outcome_);
  }

 private:
  int64_t clock_us() const { return now_us_ - kBeginUs; }

  // One thing happens; false when nothing does before the end.
  bool Advance() {
    const int64_t step_us =
        step_ < scenario_.steps.size() ? kBeginUs + scenario_.steps[step_].at_us : kNever;
    const int64_t due_us = queue_.empty() ? kNever : queue_.begin()->first;
    const int64_t tick_us = session_.deadline_us();
    const int64_t next_us = std::min({step_us, due_us, tick_us, next_frame_us_, next_play_us_});
    if (next_us > kBeginUs + scenario_.end_us) return false;
    idle_ticks_ = next_us <= now_us_ && next_us == tick_us ? idle_ticks_ + 1 : 0;
    if (idle_ticks_ > kMaxIdleTicks) {
      outcome_.failures.push_back("the session asks to be called again and again at one time");
      return false;
    }
    now_us_ = std::max(now_us_, next_us);
    if (next_us == step_us) {
      Send(Now(scenario_.steps[step_++].event));
    } else if (next_us == due_us) {
      const auto happen = std::move(queue_.begin()->second);
      queue_.erase(queue_.begin());
      happen();
    } else if (next_us == next_frame_us_) {
      const int64_t end_us = frame_end_us_ - kBeginUs;
      frame_end_us_ += kFrameUs;
      next_frame_us_ = std::max(frame_end_us_ + Jitter(), now_us_);
      const bool sounds = Sounds(end_us - kFrameUs, end_us);
      Send(event::Voice{sounds});
      if (cast_.options.turn_detection == session::TurnDetection::kRealtime) Detect(sounds);
    } else if (next_us == next_play_us_) {
      PlayFrame();
    } else {
      session_.Tick(now_us_);
      Collect();
    }
    return true;
  }

  // An engine's failure is one of the stream in use.
  Event Now(Event event) const {
    if (auto* stt = std::get_if<event::SttFailed>(&event)) stt->stream = stt_stream_;
    if (auto* llm = std::get_if<event::LlmFailed>(&event)) llm->stream = llm_stream_;
    if (auto* tts = std::get_if<event::TtsFailed>(&event)) tts->stream = tts_stream_;
    return event;
  }

  void Send(const Event& event) {
    if (ended_) return;
    session_.Handle(event, now_us_);
    Collect();
  }
  int64_t Jitter() {
    return scenario_.jitter_us == 0 ? 0
                                    : static_cast<int64_t>(random_()) % (scenario_.jitter_us + 1);
  }
  void Later(int64_t us, std::function<void()> happen) {
    queue_.emplace(now_us_ + us, std::move(happen));
  }
  void Collect() {
    for (const session::Command& one : session_.Take()) {
      outcome_.log.push_back({clock_us(), session::Describe(one)});
      std::visit([this](const auto& command) { Do(command); }, one);
    }
  }
  void Fail(std::string what) {
    outcome_.failures.push_back(
        fmt::format("{}: at {} ms: {}", scenario_.source, clock_us() / 1000, what));
  }

  // ---- the caller ----

  bool Sounds(int64_t from_us, int64_t to_us) const {
    return std::any_of(scenario_.sounds.begin(), scenario_.sounds.end(), [&](const Sound& one) {
      const int64_t shared = std::min(to_us, one.end_us) - std::max(from_us, one.start_us);
      return shared >= kFrameUs / 2;
    });
  }

  // ---- the recogniser ----

  static int64_t WordEnd(const Sound& sound, size_t word) {
    const auto count = static_cast<int64_t>(sound.words.size());
    return sound.start_us +
           (sound.end_us - sound.start_us) * (static_cast<int64_t>(word) + 1) / count;
  }
  static int64_t WordMiddle(const Sound& sound, size_t word) {
    const auto count = static_cast<int64_t>(sound.words.size());
    return WordEnd(sound, word) - (sound.end_us - sound.start_us) / count / 2;
  }

  // Words whose middle lies in what was fed, and that ended by `until_us`.
  std::string Understood(int64_t until_us) const {
    std::string text;
    for (const Sound& sound : scenario_.sounds) {
      if (sound.heard) continue;
      for (size_t i = 0; i < sound.words.size(); ++i) {
        const int64_t middle_us = WordMiddle(sound, i);
        if (middle_us < fed_from_us_ || WordEnd(sound, i) > until_us) continue;
        text = session::JoinText(text, sound.words[i]);
      }
    }
    return text;
  }

  std::string Final() {
    std::string text;
    for (size_t n = 0; n < scenario_.sounds.size(); ++n) {
      const Sound& sound = scenario_.sounds[n];
      if (sound.heard) {
        const bool fed = sound.start_us < clock_us() && sound.end_us > fed_from_us_;
        if (fed && !taken_[n]) text = session::JoinText(text, *sound.heard);
        taken_[n] = taken_[n] || fed;
        continue;
      }
      for (size_t i = 0; i < sound.words.size(); ++i) {
        const int64_t middle_us = WordMiddle(sound, i);
        if (middle_us >= fed_from_us_ && middle_us < clock_us())
          text = session::JoinText(text, sound.words[i]);
      }
    }
    fed_to_us_ = clock_us();
    return text;
  }

  void Do(const command::SttOpen& open) {
    stt_stream_ = open.stream;
    utterances_ = 0;
  }
  void Do(const command::SttStart& start) {
    fed_from_us_ = std::max(fed_to_us_, clock_us() - absl::ToInt64Microseconds(start.preroll));
    ++feeding_;
    TellPauses();
    if (!scenario_.recogniser.partials || cast_.options.realtime) return;
    for (const Sound& sound : scenario_.sounds) {
      if (sound.heard) continue;
      for (size_t i = 0; i < sound.words.size(); ++i) {
        if (WordMiddle(sound, i) < fed_from_us_) continue;
        const int64_t shown_us = WordEnd(sound, i) + scenario_.recogniser.partial_after_us;
        Later(std::max<int64_t>(shown_us - clock_us(), 0), [this, feeding = feeding_] {
          if (feeding != feeding_) return;
          const std::string text = Understood(clock_us() - scenario_.recogniser.partial_after_us);
          if (!text.empty()) Send(event::SttPartial{stt_stream_, text});
        });
      }
    }
  }
  // It listens for pauses as long as it is fed: after each stretch of words, of this feeding.
  void TellPauses() {
    const int64_t after_us = scenario_.recogniser.pause_after_us;
    if (after_us == 0) return;
    Later(0, [this] { Send(event::SttActivity{stt_stream_, true}); });
    for (const Sound& sound : scenario_.sounds) {
      const bool words = sound.heard ? !sound.heard->empty() : !sound.words.empty();
      const int64_t at_us = sound.end_us + after_us;
      if (!words || at_us < clock_us()) continue;
      const bool goes_on =
          std::any_of(scenario_.sounds.begin(), scenario_.sounds.end(), [&](const Sound& other) {
            return !other.words.empty() && other.start_us >= sound.end_us && other.start_us < at_us;
          });
      if (goes_on) continue;
      Later(at_us - clock_us(), [this, feeding = feeding_] {
        if (feeding == feeding_) Send(event::SttActivity{stt_stream_, false});
      });
    }
  }
  void Do(const command::SttEnd& end) {
    ++feeding_;
    std::string text = Final();
    if (cast_.options.realtime) return Understand(end.utterance, text);
    if (scenario_.recogniser.silent || ++finals_ <= scenario_.recogniser.silent_times) return;
    Later(scenario_.recogniser.final_after_us + Jitter(), [this, end, text = std::move(text)] {
      if (end.stream == stt_stream_) Send(event::SttFinal{end.stream, end.utterance, text});
    });
  }

  // ---- the program ----

  void Do(const command::ReviewTurn& turn) {
    if (++reviews_ <= scenario_.silent_reviews) return;
    Later(0, [this, turn] { Send(event::TurnReviewed{.review = turn.review, .text = turn.text}); });
  }

  // ---- a model that hears and speaks ----

  void Do(const command::SttForget&) {
    ++feeding_;
    Final();
    said_.clear();
  }

  // It knows what was said at once, and tells it later.
  void Understand(uint64_t utterance, const std::string& text) {
    said_ = session::JoinText(said_, text);
    if (scenario_.recogniser.silent) return;
    Later(scenario_.recogniser.final_after_us + Jitter(),
          [this, stream = stt_stream_, utterance, text] {
            Send(event::ModelTranscript{stream, utterance, text, true});
          });
  }

  // Its own detection: 100 ms of sound begin speech, min_delay of silence ends it.
  void Detect(bool sounds) {
    constexpr int kFirstFrames = 5;
    sounding_ = sounds ? sounding_ + 1 : 0;
    silent_us_ = sounds ? 0 : silent_us_ + kFrameUs;
    if (!detected_ && sounding_ >= kFirstFrames) {
      detected_ = true;
      fed_from_us_ = std::max(fed_to_us_, clock_us() - 500'000);
      Send(event::ModelSpeech{stt_stream_, true, ++utterances_});
    } else if (detected_ &&
               silent_us_ >= absl::ToInt64Microseconds(cast_.options.min_endpointing_delay)) {
      detected_ = false;
      Understand(utterances_, Final());
      Send(event::ModelSpeech{stt_stream_, false, utterances_});
    }
  }

  void Do(const command::Respond& respond) {
    llm_stream_ = response_ = respond.stream;
    if (respond.first) buffered_us_ = position_us_ = 0;
    constexpr std::string_view kWordForWord = ": ";
    absl::StatusOr<ModelAnswer> answer = ModelAnswer();
    if (respond.instructions.starts_with("Say exactly")) {
      answer->text = respond.instructions.substr(respond.instructions.find(kWordForWord) + 2);
    } else {
      command::LlmChat chat{.items = respond.items};
      if (chat.items.empty()) {
        const std::string& asked = said_.empty() ? respond.instructions : said_;
        chat.items.push_back({.role = "user", .text = asked});
      }
      said_.clear();
      answer = Answer(chat);
    }
    if (!answer.ok()) return Fail(std::string(Message(answer.status())));
    Tell(*answer, respond.stream, /*speaks=*/true);
  }
  void Do(const command::LlmCancel& cancel) {
    if (cancel.stream == response_) response_ = 0;
  }

  // ---- the model and its tools ----

  static std::string Last(const std::vector<ChatItem>& items) {
    for (auto item = items.rbegin(); item != items.rend(); ++item) {
      if (item->kind == ChatItem::Kind::kToolResult) return item->name + " " + item->text;
      if (item->kind == ChatItem::Kind::kMessage) return item->text;
    }
    return "";
  }

  absl::StatusOr<ModelAnswer> Answer(const command::LlmChat& chat) {
    const std::string last = ToLower(Last(chat.items));
    for (size_t i = 0; i < scenario_.model.size(); ++i) {
      const ModelAnswer& one = scenario_.model[i];
      if (used_[i] || last.find(ToLower(one.when)) == std::string::npos) continue;
      used_[i] = !one.again;
      return one;
    }
    if (cast_.model) {
      absl::StatusOr<ModelAnswer> answer = cast_.model(chat.agent, chat.items, chat.allow_tools);
      if (answer.ok() || !absl::IsNotFound(answer.status())) return answer;
    }
    return NotFound("the model was asked \"{}\" and has no answer", last);
  }

  void Do(const command::LlmChat& chat) {
    llm_stream_ = chat.stream;
    const absl::StatusOr<ModelAnswer> answer = Answer(chat);
    if (!answer.ok()) return Fail(std::string(Message(answer.status())));
    Tell(*answer, chat.stream, /*speaks=*/false);
  }

  void Tell(const ModelAnswer& answer, uint32_t stream, bool speaks) {
    if (answer.silent) return;
    int64_t at_us = answer.after_us;
    for (const std::string& word : session::Words(answer.text)) {
      Later(at_us, [this, stream, word] { Send(event::LlmText{stream, word + " "}); });
      if (speaks) {
        Later(at_us, [this, stream] {
          if (stream != response_) return;
          buffered_us_ += scenario_.voice.per_word_us;
          Send(event::LlmAudio{stream, scenario_.voice.per_word_us});
        });
      }
      at_us += answer.per_word_us;
    }
    if (!answer.fails.empty()) {
      return Later(at_us, [this, stream, error = answer.fails] {
        Send(event::LlmFailed{stream, error});
      });
    }
    for (const ModelAnswer::Call& call : answer.calls) {
      Later(at_us, [this, stream, call] {
        Send(event::LlmToolCall{stream, "", call.name, call.arguments_json});
      });
    }
    Later(at_us, [this, stream] { Send(event::LlmDone{stream, 0, 0}); });
  }

  void Do(const command::CallTool& call) {
    if (const auto real = cast_.tools.find(call.name); real != cast_.tools.end()) {
      const absl::StatusOr<std::string> result = real->second(call.arguments_json);
      const std::string output = result.ok() ? *result : std::string(Message(result.status()));
      return Later(0, [this, call, output, bad = !result.ok()] {
        Send(event::ToolDone{call.call, output, bad});
      });
    }
    const auto tool = scenario_.tools.find(call.name);
    if (tool == scenario_.tools.end()) {
      return Fail(fmt::format("tool {} was called and has no answer", call.name));
    }
    if (tool->second.silent) return;
    Later(tool->second.after_us, [this, call, answer = tool->second] {
      Send(event::ToolDone{call.call, answer.output, answer.is_error, answer.handoff});
    });
  }

  // ---- the voice ----

  void Do(const command::TtsOpen& open) {
    tts_stream_ = open.stream;
    buffered_us_ = position_us_ = 0;
  }
  void Do(const command::TtsCancel& cancel) {
    if (cancel.stream == tts_stream_) tts_stream_ = 0;
  }
  // A clip is as long as its number says, in ms.
  void Do(const command::TakeClip& take) {
    tts_stream_ = take.stream;
    position_us_ = 0;
    buffered_us_ = static_cast<int64_t>(take.clip) * 1000;
    Later(0, [this, take] {
      Send(event::TtsAudio{take.stream, take.segment, buffered_us_, {}});
      Send(event::TtsSegmentDone{take.stream, take.segment});
    });
  }
  void Do(const command::TtsText& text) {
    const Scenario::Voice& voice = scenario_.voice;
    const int since = ++sentences_ - std::max(voice.silent_from, 1);
    const bool begun = voice.silent_from > 0 && since >= 0;
    if (voice.silent || (begun && voice.silent_times == 0)) return;
    if (since >= 0 && since < voice.silent_times) return;
    if (!voice.fails.empty()) {
      return Later(voice.after_us, [this, text] {
        Send(event::TtsFailed{text.stream, scenario_.voice.fails});
      });
    }
    event::TtsAudio audio{text.stream, text.segment, 0, {}};
    for (const std::string& word : session::Words(text.text)) {
      const int64_t end_us = audio.duration_us + voice.per_word_us;
      if (voice.word_times) audio.words.push_back({word, audio.duration_us, end_us});
      audio.duration_us = end_us;
    }
    Later(voice.after_us, [this, audio = std::move(audio)] {
      if (audio.stream != tts_stream_) return;
      buffered_us_ += audio.duration_us;
      Send(audio);
      Send(event::TtsSegmentDone{audio.stream, audio.segment});
    });
  }

  // ---- the room ----

  void PlayFrame() {
    next_play_us_ += kFrameUs;
    if (paused_ || position_us_ >= buffered_us_) return;
    const int64_t stop_us = scenario_.voice.played_us;
    if (stop_us > 0 && playing_ == first_played_ && position_us_ >= stop_us) return;
    position_us_ = std::min(position_us_ + kFrameUs, buffered_us_);
    Send(event::Played{playing_, position_us_});
  }
  void Do(const command::PlayStart& start) {
    playing_ = start.speech;
    if (first_played_ == 0) first_played_ = playing_;
    paused_ = false;
    next_play_us_ = now_us_;
  }
  void Do(const command::PlayPause&) { paused_ = true; }
  void Do(const command::PlayResume&) { paused_ = false; }
  void Do(const command::PlayClear&) {
    next_play_us_ = kNever;
    paused_ = false;
  }
  void Do(const command::TurnDone& done) { outcome_.turns.push_back(done.report); }
  void Do(const command::End&) { ended_ = true; }
  template <typename T>
  void Do(const T&) {}

  const Scenario& scenario_;
  const Cast& cast_;
  session::Session session_;
  Outcome outcome_;
  int64_t now_us_ = kBeginUs;
  std::mt19937 random_{scenario_.jitter_seed};
  int64_t frame_end_us_ = kBeginUs + kFrameUs;
  int64_t next_frame_us_ = kBeginUs + kFrameUs;
  int64_t next_play_us_ = kNever;
  size_t step_ = 0;
  std::multimap<int64_t, std::function<void()>> queue_;  // insertion order within one time
  int idle_ticks_ = 0;
  bool ended_ = false;

  uint32_t stt_stream_ = 0;
  int64_t fed_from_us_ = 0;
  int64_t fed_to_us_ = 0;
  uint64_t feeding_ = 0;  // counts beginnings and ends
  uint32_t llm_stream_ = 0;
  // Of a model that hears and speaks:
  std::string said_;       // to it, since it last spoke
  uint32_t response_ = 0;  // whose audio is played
  uint64_t utterances_ = 0;
  bool detected_ = false;
  int sounding_ = 0;  // frames
  int64_t silent_us_ = 0;
  std::vector<bool> used_;
  std::vector<bool> taken_;
  uint32_t tts_stream_ = 0;
  uint64_t playing_ = 0;
  uint64_t first_played_ = 0;
  int finals_ = 0;
  int sentences_ = 0;
  int reviews_ = 0;
  int64_t buffered_us_ = 0;
  int64_t position_us_ = 0;
  bool paused_ = false;
};

}  // namespace

std::string Outcome::LogText() const {
  std::string text;
  for (const Line& line : log) {
    text +=
        fmt::format("{:4}.{:06} {}\n", line.at_us / 1'000'000, line.at_us % 1'000'000, line.text);
  }
  return text;
}

Outcome Perform(const Scenario& scenario, const Cast& cast, session::Recorder* recorder) {
  return Stage(scenario, cast).Run(recorder);
}

}  // namespace parley::rehearsal
