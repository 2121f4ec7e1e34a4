// Sessions are recorded and run again, to the byte.
#include "session/recording.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "base/status.h"
#include "rehearsal/stage.h"
#include "session/text.h"

namespace parley::rehearsal {
namespace {

using ::testing::HasSubstr;
constexpr int64_t kMs = 1000;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint32_t kCalls = 10, kStalls = 50;  // all kinds are in them; each takes 30 times as long
#else
constexpr uint32_t kCalls = 100, kStalls = 500;
#endif

// A call of about a minute: questions, talking over the agent, coughs, engines that fail, delays
// that vary.
Scenario RandomCall(uint32_t seed) {
  std::mt19937 random(seed);
  const auto between = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  Scenario scenario;
  scenario.steps = {{0, session::event::PersonJoined{{.identity = "caller"}}},
                    {0, session::event::OutputSubscribed{}}};
  int64_t at_us = 500 * kMs;
  while (at_us < 60'000 * kMs) {
    at_us += between(100, 6'000) * kMs;
    Sound sound{.start_us = at_us};
    const int words = between(0, 6);
    for (int i = 0; i < words; ++i) sound.words.push_back("word" + std::to_string(between(1, 50)));
    sound.end_us = at_us + between(80, 2'000) * kMs;
    if (words == 0 || between(0, 9) == 0) sound.heard = "";
    at_us = sound.end_us;
    scenario.sounds.push_back(std::move(sound));
    if (between(0, 9) == 0) scenario.steps.push_back({at_us, session::event::SttFailed{0, "lost"}});
    if (between(0, 9) == 0) scenario.steps.push_back({at_us, session::event::TtsFailed{0, "lost"}});
    if (between(0, 9) == 0)
      scenario.steps.push_back({at_us, session::event::Say{.text = "By the way."}});
  }
  for (int i = 0; i < 200; ++i) {
    ModelAnswer answer{.after_us = between(5, 900) * kMs, .per_word_us = between(0, 60) * kMs};
    for (int n = between(2, 30); n > 0; --n)
      answer.text += "say" + std::to_string(n) + (n % 7 == 0 ? ". " : " ");
    if (between(0, 9) == 0) answer.fails = "overloaded";
    if (between(0, 9) == 0) answer.calls = {{"look", "{}"}};
    scenario.model.push_back(std::move(answer));
  }
  scenario.tools["look"] = {.output = "found", .after_us = between(5, 3'000) * kMs};
  scenario.recogniser.final_after_us = between(5, 700) * kMs;
  scenario.voice.after_us = between(5, 400) * kMs;
  scenario.jitter_us = between(0, 80) * kMs;
  scenario.jitter_seed = seed;
  scenario.end_us = 65'000 * kMs;
  return scenario;
}

TEST(RecordingTest, AHundredCallsAreDecidedAgainToTheByte) {
  Cast cast{.character = {.instructions = "Be brief.", .tools = {{.name = "look"}}}};
  cast.options.max_errors = 1000;
  int64_t talked_us = 0;
  int barge_ins = 0;
  size_t faults = 0;
  std::chrono::steady_clock::duration took{};
  for (uint32_t seed = 1; seed <= kCalls; ++seed) {
    constexpr session::TurnDetection kKinds[] = {session::TurnDetection::kVad,
                                                 session::TurnDetection::kStt,
                                                 session::TurnDetection::kSemantic};
    cast.options.turn_detection = kKinds[seed % 3];
    cast.options.preemptive_generation = seed % 2 == 0;
    cast.options.dynamic_endpointing = seed % 5 == 0;
    std::string recording;
    session::Recorder recorder([&](std::string_view line) { recording += line; });
    const Scenario scenario = RandomCall(seed);
    const Outcome outcome = Perform(scenario, cast, &recorder);
    ASSERT_GT(outcome.turns.size(), 2u) << seed;
    for (const Outcome::Line& line : outcome.log) barge_ins += line.text == "pause" ? 1 : 0;
    for (const Step& step : scenario.steps) {
      faults += std::holds_alternative<session::event::SttFailed>(step.event) ||
                        std::holds_alternative<session::event::TtsFailed>(step.event)
                    ? 1
                    : 0;
    }
    for (int twice = 0; twice < 2; ++twice) {
      const auto begin = std::chrono::steady_clock::now();
      const auto replayed = session::Replay(recording);
      took += std::chrono::steady_clock::now() - begin;
      ASSERT_TRUE(replayed.ok()) << replayed.status();
      EXPECT_TRUE(replayed->complete && replayed->identical) << seed;
      std::string log;
      for (const std::string& line : replayed->log) log += line + "\n";
      ASSERT_EQ(log, outcome.LogText()) << seed;
      talked_us += replayed->duration_us;
    }
  }
  const double seconds = std::chrono::duration<double>(took).count();
  const double speed = static_cast<double>(talked_us) / 1e6 / seconds;
  fmt::print("{:.0f} s of talk in {:.2f} s: {:.0f} times real time\n",
             static_cast<double>(talked_us) / 1e6, seconds, speed);
  EXPECT_GE(speed, 20);
  fmt::print("the caller spoke over the agent {} times, {} engines were lost\n", barge_ins, faults);
  EXPECT_GE(barge_ins, static_cast<int>(kCalls));
  EXPECT_GE(faults, kCalls);
}

// 500 stalls at random stages: each is named within a second of silence and a tick, the turn goes
// on without what was stuck, and the next question is answered.
TEST(WatchdogTest, WhateverHangsIsNamedAndTheCallGoesOn) {
  constexpr const char* kStages[] = {"recogniser", "model", "tool", "voice", "playout"};
  std::map<std::string, int> seen;
  for (uint32_t seed = 1; seed <= kStalls; ++seed) {
    std::mt19937 random(seed);
    const auto between = [&](int low, int high) {
      return std::uniform_int_distribution<int>(low, high)(random);
    };
    const std::string stage = kStages[between(0, 4)];
    ++seen[stage];
    Scenario scenario;
    scenario.steps = {{0, session::event::PersonJoined{{.identity = "caller"}}},
                      {0, session::event::OutputSubscribed{}}};
    const auto speak = [&](int64_t at_us) {
      Sound sound{.start_us = at_us, .end_us = at_us + between(400, 2'000) * kMs};
      for (int n = between(1, 5); n > 0; --n) sound.words.push_back("word");
      scenario.sounds.push_back(std::move(sound));
    };
    speak(between(500, 3'000) * kMs);
    const int64_t asked_us = scenario.sounds.back().end_us;
    speak(asked_us + 30'000 * kMs);
    const int64_t again_us = scenario.sounds.back().end_us;
    scenario.end_us = again_us + 15'000 * kMs;
    scenario.model = {
        {.text = "one two three four five six seven.", .after_us = between(5, 800) * kMs},
        {.text = "eight nine.", .again = true}};
    scenario.voice.after_us = between(5, 400) * kMs;
    scenario.recogniser.final_after_us = between(5, 400) * kMs;
    scenario.recogniser.partials = between(0, 1) == 1;
    if (stage == "recogniser") scenario.recogniser.silent_times = 1;
    if (stage == "model") scenario.model[0].silent = true;
    if (stage == "tool") {
      scenario.model[0].calls = {{"look", "{}"}};
      scenario.tools["look"].silent = true;
    }
    if (stage == "voice") scenario.voice.silent_times = 1;
    if (stage == "playout") scenario.voice.played_us = between(1, 1'500) * kMs;
    Cast cast{.character = {.tools = {{.name = "look", .timeout = absl::Seconds(5)}}}};
    cast.options.llm_timeout = absl::Milliseconds(between(2'000, 8'000));
    cast.options.tts_timeout = absl::Milliseconds(between(2'000, 8'000));
    std::string recording;
    session::Recorder recorder([&](std::string_view line) { recording += line; });
    const Outcome outcome = Perform(scenario, cast, &recorder);

    const auto find = [&](const std::string& begin, int64_t from_us) -> const Outcome::Line* {
      for (const Outcome::Line& line : outcome.log) {
        if (line.at_us >= from_us && line.text.starts_with(begin)) return &line;
      }
      return nullptr;
    };
    const Outcome::Line* slow = find("slow " + stage, 0);
    const Outcome::Line* gave_up = find("gave up " + stage, 0);
    ASSERT_TRUE(slow != nullptr && gave_up != nullptr) << seed << "\n" << outcome.LogText();
    // "slow model after 1000 ms": how long it had stood still by then.
    const std::string waited = slow->text.substr(slow->text.rfind("after ") + 6);
    EXPECT_LE(std::stoi(waited), 1'100) << seed << " " << slow->text;
    // Within two seconds the caller hears something again, or it is the caller's turn.
    const Outcome::Line* after = nullptr;
    for (const Outcome::Line& line : outcome.log) {
      const bool answers = line.text.starts_with("play ") || line.text == "agent listening";
      if (after == nullptr && answers && line.at_us >= gave_up->at_us) after = &line;
    }
    ASSERT_NE(after, nullptr) << seed << "\n" << outcome.LogText();
    EXPECT_LE(after->at_us - gave_up->at_us, 2'000 * kMs) << seed;
    EXPECT_NE(find("play ", again_us), nullptr) << seed << " the next question is answered\n"
                                                << outcome.LogText();
    EXPECT_EQ(find("end error", 0), nullptr) << seed;
    const auto replayed = session::Replay(recording);
    ASSERT_TRUE(replayed.ok()) << replayed.status();
    EXPECT_TRUE(replayed->identical) << seed;
  }
  for (const auto& [stage, count] : seen) {
    fmt::print("{}: {} stalls\n", stage, count);
    EXPECT_GT(count, static_cast<int>(kStalls / 10)) << stage;
  }
}

// A call in which a stage stands still the first time it is needed: the caller asks, and asks again
// at `again_us`.
constexpr const char* kAllStages[] = {"recogniser", "model", "tool", "voice", "playout", "program"};
// … where one model hears and speaks.
constexpr const char* kRealtimeStages[] = {"model", "tool", "playout"};
struct StalledCall {
  std::string stage;
  Scenario scenario;
  Cast cast;
  int64_t asked_us = 0;  // the end of the first question

  explicit StalledCall(uint32_t seed, bool realtime = false) : random_(seed) {
    stage = realtime ? kRealtimeStages[Between(0, 2)] : kAllStages[Between(0, 5)];
    cast.options.realtime = realtime;
    scenario.steps = {{0, session::event::PersonJoined{{.identity = "caller"}}},
                      {0, session::event::OutputSubscribed{}}};
    Speak(Between(500, 3'000) * kMs);
    asked_us = scenario.sounds.back().end_us;
    scenario.model = {
        {.text = "one two three four five six seven.", .after_us = Between(5, 300) * kMs},
        {.text = "eight nine.", .after_us = Between(5, 300) * kMs, .again = true}};
    scenario.voice.after_us = Between(5, 200) * kMs;
    scenario.recogniser.final_after_us = Between(5, 300) * kMs;
    scenario.recogniser.partials = Between(0, 1) == 1;
    if (stage == "recogniser") scenario.recogniser.silent_times = 1;
    if (stage == "model") scenario.model[0].silent = true;
    if (stage == "tool") {
      scenario.model[0].calls = {{"look", "{}"}};
      scenario.tools["look"].silent = true;
      // Half of them before a word was said.
      if (Between(0, 1) == 1) scenario.model[0].text.clear();
    }
    if (stage == "voice") {
      if (Between(0, 1) == 1) {  // in the middle
        scenario.voice.silent_from = 2;
        scenario.model[0].text = "one two three four. five six seven.";
      }
      scenario.voice.silent_times = 1;
    }
    if (stage == "playout") scenario.voice.played_us = Between(1, 1'500) * kMs;
    if (stage == "program") scenario.silent_reviews = 1;
    cast.character.tools = {{.name = "look"}};
    if (stage == "program") cast.options.review_timeout = absl::Seconds(5);
  }
  int Between(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }
  void Speak(int64_t at_us) {
    Sound sound{.start_us = at_us, .end_us = at_us + Between(700, 2'000) * kMs};
    for (int n = Between(1, 5); n > 0; --n) sound.words.push_back("word");
    scenario.sounds.push_back(std::move(sound));
    scenario.end_us = scenario.sounds.back().end_us + 5'000 * kMs;
  }

 private:
  std::mt19937 random_;
};

// The first line from then on that begins so; null: there is none.
const Outcome::Line* LineFrom(const Outcome& outcome, int64_t from_us, const std::string& begin) {
  for (const Outcome::Line& line : outcome.log) {
    if (line.at_us >= from_us && line.text.starts_with(begin)) return &line;
  }
  return nullptr;
}

// From when it stood still on, whatever stands still is named within a second, its turn is given
// up `given_up_ms` after it began to, and within two seconds the caller hears the agent or has the
// word; and what they then ask is answered within two seconds of its end.
void ExpectThePromise(const std::function<void(session::Options&)>& change, int64_t given_up_ms,
                      bool realtime = false) {
  std::map<std::string, std::vector<int64_t>> back_ms;
  std::map<std::string, int> spoken;  // the caller hears the agent, and need not guess
  int64_t answer_us = 0;
  for (uint32_t seed = 1; seed <= kStalls; ++seed) {
    StalledCall call(seed, realtime);
    change(call.cast.options);
    const Outcome first = Perform(call.scenario, call.cast);
    const Outcome::Line* slow = LineFrom(first, 0, "slow " + call.stage);
    ASSERT_NE(slow, nullptr) << seed << "\n" << first.LogText();
    const int waited_ms = std::stoi(slow->text.substr(slow->text.rfind("after ") + 6));
    const int64_t since_us = slow->at_us - waited_ms * kMs;
    EXPECT_GE(since_us, call.asked_us - 2 * kMs) << seed;
    EXPECT_LE(slow->at_us - since_us, 1'000 * kMs) << seed;
    const Outcome::Line* gave_up = LineFrom(first, slow->at_us, "gave up " + call.stage);
    ASSERT_NE(gave_up, nullptr) << seed << "\n" << first.LogText();
    EXPECT_LE(gave_up->at_us - since_us, (given_up_ms + 20) * kMs) << seed;
    const Outcome::Line* play = LineFrom(first, gave_up->at_us, "play ");
    const Outcome::Line* listening = LineFrom(first, gave_up->at_us, "agent listening");
    // An answer that goes on after a tool is no new one.
    const Outcome::Line* speaking = LineFrom(first, gave_up->at_us, "agent speaking");
    int64_t back_us = INT64_MAX;
    for (const Outcome::Line* one : {play, listening, speaking}) {
      if (one != nullptr) back_us = std::min(back_us, one->at_us);
    }
    EXPECT_LE(back_us - since_us, 2'000 * kMs) << seed << "\n" << first.LogText();
    back_ms[call.stage].push_back((back_us - since_us) / kMs);
    if (play != nullptr && play->at_us - since_us <= 2'000 * kMs) ++spoken[call.stage];

    // The same call up to there, and then another question.
    call.Speak(back_us + call.Between(0, 2'000) * kMs);
    const int64_t again_us = call.scenario.sounds.back().end_us;
    std::string recording;
    session::Recorder recorder([&](std::string_view line) { recording += line; });
    const Outcome second = Perform(call.scenario, call.cast, &recorder);
    const Outcome::Line* answer = LineFrom(second, again_us, "play ");
    ASSERT_NE(answer, nullptr) << seed << "\n" << second.LogText();
    EXPECT_LE(answer->at_us - again_us, 2'000 * kMs) << seed << "\n" << second.LogText();
    answer_us = std::max(answer_us, answer->at_us - again_us);
    EXPECT_EQ(LineFrom(second, 0, "end error"), nullptr) << seed;
    const auto replayed = session::Replay(recording);
    ASSERT_TRUE(replayed.ok()) << replayed.status();
    EXPECT_TRUE(replayed->identical) << seed;
  }
  for (auto& [stage, all] : back_ms) {
    std::sort(all.begin(), all.end());
    fmt::print("{}: {} stalls; back after p50 {}, max {} ms; the agent was heard after {}\n", stage,
               all.size(), all[all.size() / 2], all.back(), spoken[stage]);
    EXPECT_GT(all.size(), kStalls / 12) << stage;
    if (stage == "model") {
      EXPECT_EQ(spoken[stage], static_cast<int>(all.size()));
    }
  }
  fmt::print("the next question was answered within {} ms\n", answer_us / kMs);
}

TEST(WatchdogTest, AsShippedNobodyWaitsTwoSeconds) {
  ExpectThePromise([](session::Options&) {}, 1'300);
}

TEST(WatchdogTest, AsShippedNobodyWaitsTwoSecondsForAModelThatHears) {
  ExpectThePromise([](session::Options&) {}, 1'300, /*realtime=*/true);
}

TEST(WatchdogTest, ASecondAtMostForWhateverStandsStill) {
  ExpectThePromise([](session::Options& options) { options.max_stall = absl::Seconds(1); }, 1'000);
}

// What takes long in good health is not cut off: its answer is heard, late the first time.
TEST(WatchdogTest, SlowOnesInGoodHealthAreHeard) {
  for (uint32_t seed = 1; seed <= 100; ++seed) {
    std::mt19937 random(seed);
    const auto between = [&](int low, int high) {
      return std::uniform_int_distribution<int>(low, high)(random);
    };
    Scenario scenario;
    scenario.steps = {{0, session::event::PersonJoined{{.identity = "caller"}}},
                      {0, session::event::OutputSubscribed{}}};
    int64_t at_us = 1'000 * kMs;
    for (int turn = 0; turn < 4; ++turn) {
      Sound sound{.start_us = at_us, .end_us = at_us + 900 * kMs};
      sound.words = {"question", std::to_string(turn)};
      scenario.sounds.push_back(std::move(sound));
      at_us += 12'000 * kMs;
    }
    scenario.end_us = at_us;
    scenario.model = {{.text = "answer number one.", .after_us = between(1'500, 2'800) * kMs}};
    scenario.model[0].again = true;
    scenario.voice.after_us = between(50, 1'600) * kMs;
    scenario.recogniser.partials = false;
    scenario.recogniser.final_after_us = between(50, 1'900) * kMs;
    const Outcome outcome = Perform(scenario, Cast{});
    EXPECT_EQ(outcome.turns.size(), 4u) << seed << "\n" << outcome.LogText();
    int answers = 0;
    for (const std::string& line : outcome.history)
      answers += line == "assistant: answer number one.";
    EXPECT_EQ(answers, 4) << seed << "\n" << outcome.LogText();
    EXPECT_EQ(LineFrom(outcome, 0, "log warn"), nullptr) << seed << "\n" << outcome.LogText();
    // From the second turn on what they take is known.
    int asked = 0;
    for (const Outcome::Line& line : outcome.log) {
      if (line.text.ends_with(": One moment, please.")) ++asked;
    }
    EXPECT_LE(asked, 2) << seed << "\n" << outcome.LogText();
  }
}

// With the limits that stages have by themselves (up to 15 s): whoever asks again while one stands
// still does not wait for it.
TEST(WatchdogTest, WhoAsksAgainDoesNotWaitForWhatStandsStill) {
  int64_t answer_us = 0;
  for (uint32_t seed = 1; seed <= kStalls; ++seed) {
    StalledCall call(seed);
    call.Speak(call.asked_us + call.Between(1'700, 2'900) * kMs);
    const int64_t again_us = call.scenario.sounds.back().end_us;
    const Outcome outcome = Perform(call.scenario, call.cast);
    const Outcome::Line* answer = LineFrom(outcome, again_us, "play ");
    ASSERT_NE(answer, nullptr) << seed << " " << call.stage << "\n" << outcome.LogText();
    EXPECT_LE(answer->at_us - again_us, 2'000 * kMs) << seed << " " << call.stage << "\n"
                                                     << outcome.LogText();
    answer_us = std::max(answer_us, answer->at_us - again_us);
  }
  fmt::print("answered within {} ms\n", answer_us / kMs);
}

std::string OneCall() {
  std::string recording;
  session::Recorder recorder([&](std::string_view line) { recording += line; });
  Perform(RandomCall(7), {.character = {.tools = {{.name = "look"}}}}, &recorder);
  return recording;
}

TEST(RecordingTest, WhatWouldHaveBeenDecidedOtherwiseShows) {
  const std::string recording = OneCall();
  const auto same = session::Replay(recording);
  const auto quicker = session::Replay(recording, {{"endpointing.min_delay", "300ms"}});
  ASSERT_TRUE(same.ok() && quicker.ok()) << same.status() << quicker.status();
  EXPECT_TRUE(same->identical);
  EXPECT_TRUE(quicker->complete);
  EXPECT_FALSE(quicker->identical);
  EXPECT_NE(quicker->log, same->log);
}

TEST(RecordingTest, ACallCutOffByACrashStillReplays) {
  std::string recording = OneCall();
  recording.resize(recording.size() / 2);
  const auto replayed = session::Replay(recording);
  ASSERT_TRUE(replayed.ok()) << replayed.status();
  EXPECT_FALSE(replayed->complete);
  EXPECT_GT(replayed->log.size(), 10u);
}

TEST(RecordingTest, NonsenseIsRefusedByItsLine) {
  const std::string recording = OneCall();
  const std::string head = recording.substr(0, recording.find('\n') + 1);
  const auto error = [](const std::string& text,
                        const std::map<std::string, std::string>& set = {}) {
    return std::string(Message(session::Replay(text, set).status()));
  };
  EXPECT_EQ(error(""), "the recording is empty");
  EXPECT_THAT(error("{\"recording\": 1}\n"), HasSubstr("not a recording of version 2"));
  EXPECT_THAT(error(head + "[1,99,[]]\n"), HasSubstr("line 2: "));
  EXPECT_THAT(error(head + "[1,22,[\"a\",true,0,77]]\n"), HasSubstr("line 2: "));
  EXPECT_THAT(error(recording, {{"endpoint", "1s"}}), HasSubstr("there is no option endpoint"));
  EXPECT_THAT(error(recording, {{"turn_detection", "luck"}}), HasSubstr("is no value for it"));
}

}  // namespace
}  // namespace parley::rehearsal
