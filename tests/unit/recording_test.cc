// Sessions are recorded and run again, to the byte.
#include "session/recording.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <string>

#include "base/status.h"
#include "rehearsal/stage.h"
#include "session/text.h"

namespace parley::rehearsal {
namespace {

using ::testing::HasSubstr;
constexpr int64_t kMs = 1000;

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
  scenario.end_us = 65'000 * kMs;
  return scenario;
}

TEST(RecordingTest, AHundredCallsAreDecidedAgainToTheByte) {
  Cast cast{.character = {.instructions = "Be brief.", .tools = {{.name = "look"}}}};
  cast.options.max_errors = 1000;
  int64_t talked_us = 0;
  std::chrono::steady_clock::duration took{};
  for (uint32_t seed = 1; seed <= 100; ++seed) {
    constexpr session::TurnDetection kKinds[] = {session::TurnDetection::kVad,
                                                 session::TurnDetection::kStt,
                                                 session::TurnDetection::kSemantic};
    cast.options.turn_detection = kKinds[seed % 3];
    cast.options.preemptive_generation = seed % 2 == 0;
    cast.options.dynamic_endpointing = seed % 5 == 0;
    std::string recording;
    session::Recorder recorder([&](std::string_view line) { recording += line; });
    const Outcome outcome = Perform(RandomCall(seed), cast, &recorder);
    ASSERT_GT(outcome.turns.size(), 2u) << seed;
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
