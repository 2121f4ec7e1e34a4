// Fallback chains: engines that fail at every moment, and breakers on a clock of the test's own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/strings.h"
#include "speech/breakers.h"
#include "speech/stt_chain.h"
#include "speech/tts_chain.h"
#include "testing/fake_clock.h"

namespace parley::speech {
namespace {

using parley::testing::FakeClock;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(BreakersTest, OpenAfterThreeFailuresInARowAndLetOneProbeThrough) {
  FakeClock clock;
  Breakers breakers(clock);
  const absl::Status down = Unavailable("down");
  breakers.Report("a", down);
  breakers.Report("a", down);
  breakers.Report("a", absl::OkStatus());
  breakers.Report("a", down);
  breakers.Report("a", down);
  EXPECT_TRUE(breakers.Allow("a"));
  breakers.Report("a", down);
  EXPECT_FALSE(breakers.Allow("a"));
  EXPECT_TRUE(breakers.Allow("b"));
  EXPECT_EQ(breakers.StateOf("a"), Breakers::State::kOpen);

  clock.Advance(absl::Seconds(5));
  EXPECT_EQ(breakers.StateOf("a"), Breakers::State::kHalfOpen);
  EXPECT_TRUE(breakers.Allow("a"));
  EXPECT_FALSE(breakers.Allow("a")) << "one probe at a time";
  breakers.Report("a", down);
  clock.Advance(absl::Seconds(9));
  EXPECT_FALSE(breakers.Allow("a")) << "twice as long after a failed probe";
  clock.Advance(absl::Seconds(1));
  EXPECT_TRUE(breakers.Allow("a"));
  breakers.Report("a", absl::OkStatus());
  EXPECT_EQ(breakers.StateOf("a"), Breakers::State::kClosed);
}

TEST(BreakersTest, RequestsOwnErrorsAndLostProbesCloseNothingForEver) {
  FakeClock clock;
  Breakers breakers(clock);
  for (int i = 0; i < 10; ++i) breakers.Report("a", InvalidArgument("bad grammar"));
  EXPECT_TRUE(breakers.Allow("a"));
  for (int i = 0; i < 3; ++i) breakers.Report("a", Unavailable("down"));
  clock.Advance(absl::Seconds(5));
  EXPECT_TRUE(breakers.Allow("a"));
  clock.Advance(absl::Seconds(29));
  EXPECT_FALSE(breakers.Allow("a"));
  clock.Advance(absl::Seconds(1));
  EXPECT_TRUE(breakers.Allow("a")) << "the probe was forgotten";
  breakers.Report("a", ResourceExhausted("full"));
  EXPECT_TRUE(breakers.Allow("a")) << "a full engine may be asked again";
}

// Hears numbers: the final is the samples since the last final, so that a lost or doubled one
// shows.
class Hearing : public SttEngine {
 public:
  explicit Hearing(std::string name, bool embedded = false) {
    info_.name = std::move(name);
    info_.embedded = embedded;
  }
  const SttEngineInfo& info() const override { return info_; }
  absl::StatusOr<std::unique_ptr<SttStream>> Open(const SttConfig&, SttSink sink) override {
    ++opens;
    if (down) return Unavailable("{} is down", info_.name);
    sink_ = std::move(sink);
    return std::make_unique<Stream>(*this);
  }
  void Start(int32_t at_ms) { sink_(SttActivity{true, at_ms}); }
  void Break() { sink_(SttFailed{Unavailable("{} broke", info_.name)}); }

  bool down = false;
  bool mute = false;             // takes questions, gives no final
  int writes_before_error = -1;  // then Write fails
  int opens = 0;

 private:
  class Stream : public SttStream {
   public:
    explicit Stream(Hearing& engine) : engine_(engine) {}
    absl::Status Write(std::span<const int16_t> samples) override {
      if (engine_.writes_before_error == 0) return Unavailable("{} broke", engine_.info_.name);
      if (engine_.writes_before_error > 0) --engine_.writes_before_error;
      for (const int16_t sample : samples) {
        if (!text_.empty()) text_ += " ";
        text_ += std::to_string(sample);
      }
      samples_ += samples.size();
      return absl::OkStatus();
    }
    absl::Status EndUtterance(uint64_t utterance) override {
      if (engine_.mute) return absl::OkStatus();
      SttFinal final;
      final.transcript.text = std::exchange(text_, "");
      final.transcript.utterance = utterance;
      final.transcript.words = {{"end", 0, static_cast<int32_t>(samples_ / 16)}};
      engine_.sink_(std::move(final));
      return absl::OkStatus();
    }
    absl::Status Reset() override {
      text_.clear();
      return absl::OkStatus();
    }

   private:
    Hearing& engine_;
    std::string text_;
    size_t samples_ = 0;
  };

  SttEngineInfo info_;
  SttSink sink_;
};

class SttChainTest : public ::testing::Test {
 protected:
  SttChainTest() {
    for (const char* name : {"first", "second"}) {
      auto engine = std::make_unique<Hearing>(name);
      (name == std::string("first") ? first_ : second_) = engine.get();
      table_.Add(name, std::move(engine));
    }
    SttChain::Options options;
    options.engines = {{.engine = "first"}, {.engine = "second"}};
    options.final_timeout = absl::Seconds(5);
    options.pace = &pace_;
    SttChain::Listener listener;
    listener.serves = [this](const std::string& engine, const absl::Status&) {
      served_.push_back(engine);
    };
    listener.event = [this](SttEvent event) {
      if (auto* final = std::get_if<SttFinal>(&event)) {
        finals_.push_back(final->transcript.text);
        last_end_ms_ = final->transcript.words.at(0).end_ms;
      }
      if (auto* activity = std::get_if<SttActivity>(&event)) started_ms_ = activity->at_ms;
      if (auto* failed = std::get_if<SttFailed>(&event)) failed_ = failed->status;
    };
    listener.deliver = [this](uint64_t generation, SttEvent event) {
      events_.emplace_back(generation, std::move(event));
    };
    chain_.emplace(table_, breakers_, clock_, std::move(options), std::move(listener));
  }

  void Deliver() {
    while (!events_.empty()) {
      auto [generation, event] = std::move(events_.front());
      events_.pop_front();
      chain_->OnEvent(generation, std::move(event));
    }
  }
  void Hear(std::vector<int16_t> samples) { EXPECT_TRUE(chain_->Write(samples).ok()); }
  void End(uint64_t utterance) { EXPECT_TRUE(chain_->EndUtterance(utterance).ok()); }

  FakeClock clock_;
  EngineTable<SttEngine> table_{"speech-to-text"};
  Hearing* first_ = nullptr;
  Hearing* second_ = nullptr;
  Breakers breakers_{clock_};
  Pace pace_;
  std::optional<SttChain> chain_;
  std::deque<std::pair<uint64_t, SttEvent>> events_;
  std::vector<std::string> served_;
  std::vector<std::string> finals_;
  int32_t last_end_ms_ = 0;
  int32_t started_ms_ = 0;
  absl::Status failed_;
};

TEST_F(SttChainTest, WhatWasHeardBeforeTheFailureIsReplayed) {
  ASSERT_TRUE(chain_->Open().ok());
  Hear({1, 2});
  End(1);
  Deliver();
  Hear({3});
  first_->Break();
  Deliver();
  Hear({4});
  End(2);
  Deliver();
  EXPECT_THAT(finals_, ElementsAre("1 2", "3 4"));
  EXPECT_THAT(served_, ElementsAre("first", "second"));
}

TEST_F(SttChainTest, OpenQuestionsAreAskedAgainOnceEach) {
  first_->mute = true;
  ASSERT_TRUE(chain_->Open().ok());
  Hear({1});
  End(1);
  Hear({2, 3});
  End(2);
  Hear({4});
  first_->Break();
  Deliver();
  End(3);
  Deliver();
  EXPECT_THAT(finals_, ElementsAre("1", "2 3", "4"));
}

TEST_F(SttChainTest, FailureInsideWriteLosesNoSample) {
  ASSERT_TRUE(chain_->Open().ok());
  first_->writes_before_error = 1;
  Hear({1});
  Hear({2});
  Hear({3});
  End(1);
  Deliver();
  EXPECT_THAT(finals_, ElementsAre("1 2 3"));
}

TEST_F(SttChainTest, AStalledEngineIsReplacedAndItsLateFinalDropped) {
  first_->mute = true;
  ASSERT_TRUE(chain_->Open().ok());
  Hear({7});
  End(1);
  clock_.Advance(absl::Seconds(4));
  chain_->CheckStalled();
  EXPECT_THAT(served_, ElementsAre("first"));
  clock_.Advance(absl::Seconds(1));
  chain_->CheckStalled();
  events_.emplace_front(1, SttFinal{});  // of the first engine, too late
  Deliver();
  EXPECT_THAT(finals_, ElementsAre("7"));
  EXPECT_THAT(served_, ElementsAre("first", "second"));
}

TEST(PaceTest, WaitsAsLongAsIsUsualAndForgetsWhatWasNot) {
  Pace pace;
  const auto patience = [&pace] {
    return pace.Patience("a", absl::Milliseconds(100), absl::Seconds(4));
  };
  for (int i = 0; i < 7; ++i) pace.Learn("a", absl::Milliseconds(50));
  EXPECT_EQ(patience(), absl::Seconds(4)) << "too little is known";
  pace.Learn("a", absl::Milliseconds(50));
  EXPECT_EQ(patience(), absl::Milliseconds(150));
  pace.Learn("a", absl::Seconds(3));
  EXPECT_EQ(patience(), absl::Milliseconds(150)) << "one bad answer changes nothing";
  // It has become slow for good: after a few that were given up it is waited for again.
  for (int i = 0; i < 4; ++i) pace.LearnLate("a", patience());
  EXPECT_GT(patience(), absl::Milliseconds(300));
  for (int i = 0; i < 9; ++i) pace.LearnLate("a", absl::Seconds(9));
  EXPECT_EQ(patience(), absl::Seconds(4)) << "never longer than without it";
  EXPECT_EQ(pace.Patience("b", absl::Milliseconds(100), absl::Seconds(2)), absl::Seconds(2));
}

// An engine that usually takes 100 ms.
class RivalTest : public SttChainTest {
 protected:
  void SetUp() override {
    ASSERT_TRUE(chain_->Open().ok());
    for (uint64_t i = 1; i <= 8; ++i) {
      Hear({1});
      End(i);
      clock_.Advance(absl::Milliseconds(100));
      Deliver();
    }
    finals_.clear();
    first_->mute = true;
    Hear({1, 2});
    End(9);
    EXPECT_EQ(chain_->CheckAfter(), absl::Milliseconds(200));
    clock_.Advance(absl::Milliseconds(199));
    chain_->CheckStalled();
    EXPECT_EQ(second_->opens, 0);
    clock_.Advance(absl::Milliseconds(1));
    chain_->CheckStalled();
    EXPECT_EQ(second_->opens, 1);
    EXPECT_EQ(chain_->CheckAfter(), absl::InfiniteDuration());
  }
};

TEST_F(RivalTest, ServesWhenItsFinalIsTheFirst) {
  EXPECT_THAT(served_, ElementsAre("first"));
  Deliver();
  EXPECT_THAT(finals_, ElementsAre("1 2"));
  EXPECT_THAT(served_, ElementsAre("first", "second"));
  // The preferred one is asked again at the next utterance.
  first_->mute = false;
  Hear({3});
  End(10);
  Deliver();
  EXPECT_THAT(finals_, ElementsAre("1 2", "3"));
  EXPECT_EQ(chain_->engine(), "first");
}

TEST_F(RivalTest, IsForgottenWhenTheLateOneComesFirst) {
  SttFinal late;
  late.transcript.text = "late";
  late.transcript.words = {{"late", 0, 1}};
  events_.emplace_front(1, late);
  Deliver();
  EXPECT_THAT(finals_, ElementsAre("late"));
  EXPECT_THAT(served_, ElementsAre("first"));
}

TEST_F(RivalTest, HearsWhatComesMeanwhileAndServesAtOnceWhenTheOtherBreaks) {
  events_.clear();  // its own final is on the way
  Hear({3});
  End(10);
  first_->Break();
  Deliver();
  EXPECT_EQ(second_->opens, 1);
  EXPECT_EQ(chain_->engine(), "second");
  EXPECT_TRUE(failed_.ok());
}

TEST_F(SttChainTest, ResetIsNotReplayed) {
  ASSERT_TRUE(chain_->Open().ok());
  Hear({1});
  ASSERT_TRUE(chain_->Reset().ok());
  Hear({2});
  first_->Break();
  Deliver();
  End(1);
  Deliver();
  EXPECT_THAT(finals_, ElementsAre("2"));
}

TEST_F(SttChainTest, WordTimesGoOnFromTheStreamsStart) {
  ASSERT_TRUE(chain_->Open().ok());
  Hear(std::vector<int16_t>(16'000, 5));  // one second, answered by the first
  End(1);
  Deliver();
  Hear(std::vector<int16_t>(1'600, 6));
  first_->Break();
  Deliver();
  second_->Start(20);
  End(2);
  Deliver();
  EXPECT_EQ(last_end_ms_, 1'100);
  EXPECT_EQ(started_ms_, 1'020);
}

TEST_F(SttChainTest, PreferredEngineIsBackAtTheNextUtterance) {
  first_->down = true;
  ASSERT_TRUE(chain_->Open().ok());
  Hear({1});
  first_->down = false;
  Hear({2});
  End(1);
  Deliver();
  Hear({3});
  End(2);
  Deliver();
  EXPECT_THAT(finals_, ElementsAre("1 2", "3"));
  EXPECT_THAT(served_, ElementsAre("second", "first"));
}

TEST_F(SttChainTest, ADownEngineIsLeftAloneWhileItsBreakerIsOpen) {
  first_->down = true;
  ASSERT_TRUE(chain_->Open().ok());
  for (int i = 0; i < 20; ++i) {
    Hear({1});
    End(1);
    Deliver();
  }
  EXPECT_EQ(first_->opens, 3);
  clock_.Advance(absl::Seconds(5));
  Hear({1});
  EXPECT_EQ(first_->opens, 4);
}

TEST_F(SttChainTest, FailsNamingAllEnginesWhenNoneIsLeft) {
  ASSERT_TRUE(chain_->Open().ok());
  Hear({1});
  first_->down = true;
  second_->down = true;
  first_->Break();
  Deliver();
  EXPECT_EQ(failed_.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(failed_.ToString(), HasSubstr("first broke"));
  EXPECT_THAT(failed_.ToString(), HasSubstr("second is down"));
  EXPECT_FALSE(chain_->Write(std::vector<int16_t>{2}).ok());
}

TEST_F(SttChainTest, ALongUtteranceIsKeptToItsEnd) {
  ASSERT_TRUE(chain_->Open().ok());
  for (int second = 0; second < 100; ++second) Hear(std::vector<int16_t>(16'000, 1));
  Hear({42});
  first_->Break();
  Deliver();
  End(1);
  Deliver();
  ASSERT_EQ(finals_.size(), 1u);
  EXPECT_TRUE(finals_[0].ends_with("1 42"));
  EXPECT_LE(finals_[0].size(), 2 * 16'000 * 68u);
}

// Speaks a second for each word, in ten chunks of samples that are its first letter, and breaks
// where it is told to.
class Speaking : public TtsEngine {
 public:
  Speaking(std::string name, bool words) : name_(std::move(name)), words_(words) {}
  std::string_view name() const override { return name_; }
  bool embedded() const override { return false; }
  std::vector<TtsVoiceInfo> Voices() const override { return {}; }
  absl::StatusOr<std::unique_ptr<TtsStream>> Open(const TtsConfig&) override {
    if (down) return Unavailable("{} is down", name_);
    return std::make_unique<Stream>(*this);
  }

  bool down = false;
  int break_after_chunks = -1;
  absl::Duration delay;  // before its first audio, on `clock`
  FakeClock* clock = nullptr;
  std::vector<std::string> asked;

 private:
  class Stream : public TtsStream {
   public:
    explicit Stream(Speaking& engine) : engine_(engine) {}
    int sample_rate_hz() const override { return 8000; }
    absl::Status Speak(std::string_view sentence, const TtsSink& sink,
                       const Cancellation&) override {
      engine_.asked.emplace_back(sentence);
      for (absl::Duration waited; waited < engine_.delay; waited += absl::Milliseconds(50)) {
        engine_.clock->Advance(absl::Milliseconds(50));
        if (!sink({}, {})) return absl::OkStatus();
      }
      int32_t word_ms = 0;
      for (const std::string& word : Split(sentence, ' ')) {
        for (int chunk = 0; chunk < 10; ++chunk) {
          if (engine_.break_after_chunks == 0) {
            engine_.break_after_chunks = -1;
            return Unavailable("{} broke", engine_.name_);
          }
          if (engine_.break_after_chunks > 0) --engine_.break_after_chunks;
          std::vector<WordTime> begun;
          if (chunk == 0 && engine_.words_) begun.push_back({word, word_ms, word_ms + 1000});
          const auto value = static_cast<int16_t>(word[0]);
          if (!sink(std::vector<int16_t>(800, value), begun)) return absl::OkStatus();
        }
        word_ms += 1000;
      }
      return absl::OkStatus();
    }

   private:
    Speaking& engine_;
  };

  const std::string name_;
  const bool words_;
};

class TtsChainTest : public ::testing::Test {
 protected:
  void Make(bool words) {
    for (const char* name : {"first", "second"}) {
      auto engine = std::make_unique<Speaking>(name, words);
      engine->clock = &clock_;
      (name == std::string("first") ? first_ : second_) = engine.get();
      table_.Add(name, std::move(engine));
    }
    TtsChain::Options options;
    options.voices = {{.engine = "first"}, {.engine = "second"}};
    options.pace = &pace_;
    options.clock = &clock_;
    options.serves = [this](const std::string& engine, const absl::Status&) {
      served_.push_back(engine);
    };
    chain_.emplace(table_, breakers_, std::move(options));
    ASSERT_TRUE(chain_->Open().ok());
  }
  absl::Status Speak(std::string_view sentence) {
    heard_.clear();
    words_.clear();
    return chain_->Speak(
        sentence,
        [this](std::span<const int16_t> samples, const std::vector<WordTime>& words) {
          for (const int16_t sample : samples) heard_ += static_cast<char>(sample);
          for (const WordTime& word : words)
            words_.push_back(word.word + "@" + std::to_string(word.start_ms));
          return true;
        },
        cancel_);
  }
  // What was heard, a letter for each tenth of a second.
  std::string Heard() const {
    std::string letters;
    for (size_t i = 0; i < heard_.size(); i += 800) letters += heard_[i];
    return letters;
  }

  FakeClock clock_;
  EngineTable<TtsEngine> table_{"text-to-speech"};
  Speaking* first_ = nullptr;
  Speaking* second_ = nullptr;
  Breakers breakers_{clock_};
  Pace pace_;
  std::optional<TtsChain> chain_;
  Cancellation cancel_;
  std::string heard_;
  std::vector<std::string> words_;
  std::vector<std::string> served_;
};

TEST_F(TtsChainTest, EveryWordIsHeardOnceWhereverTheVoiceBreaks) {
  Make(/*words=*/true);
  for (int chunks = 0; chunks <= 29; ++chunks) {
    first_->break_after_chunks = chunks;
    ASSERT_TRUE(Speak("apples bring cheer").ok());
    EXPECT_EQ(Heard(), std::string(10, 'a') + std::string(10, 'b') + std::string(10, 'c'))
        << "broken after " << chunks;
    EXPECT_THAT(words_, ElementsAre("apples@0", "bring@1000", "cheer@2000"));
    clock_.Advance(absl::Minutes(2));
  }
}

TEST_F(TtsChainTest, TheNextVoiceIsAskedForTheRestOnly) {
  Make(/*words=*/true);
  first_->break_after_chunks = 15;
  ASSERT_TRUE(Speak("apples bring cheer").ok());
  EXPECT_THAT(second_->asked, ElementsAre("bring cheer"));
  EXPECT_THAT(served_, ElementsAre("first", "second"));
}

TEST_F(TtsChainTest, WithoutWordTimesTheRestIsEstimated) {
  Make(/*words=*/false);
  first_->break_after_chunks = 10;
  ASSERT_TRUE(Speak("one two three four five").ok());
  // One second at 155 words a minute is two words and a half.
  EXPECT_THAT(second_->asked, ElementsAre("three four five"));
}

TEST_F(TtsChainTest, AVoiceThatIsLaterThanUsualIsLeftAndOneThatIsAlwaysSlowIsNot) {
  Make(/*words=*/true);
  first_->delay = absl::Milliseconds(800);
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(Speak("apples").ok());
  EXPECT_THAT(served_, ElementsAre("first"));
  first_->delay = absl::Seconds(60);
  const int64_t before_us = clock_.MonotonicMicros();
  ASSERT_TRUE(Speak("bring cheer").ok());
  EXPECT_THAT(words_, ElementsAre("bring@0", "cheer@1000"));
  EXPECT_THAT(served_, ElementsAre("first", "second"));
  EXPECT_EQ(clock_.MonotonicMicros() - before_us, 1'100'000) << "800 ms, 250 more, a look each 50";
}

TEST_F(TtsChainTest, ThePreferredVoiceIsBackAtTheNextSentence) {
  Make(/*words=*/true);
  first_->break_after_chunks = 0;
  ASSERT_TRUE(Speak("apples").ok());
  ASSERT_TRUE(Speak("bring").ok());
  EXPECT_THAT(served_, ElementsAre("first", "second", "first"));
  EXPECT_THAT(second_->asked, ElementsAre("apples"));
}

TEST_F(TtsChainTest, FailsNamingAllVoicesWhenNoneIsLeft) {
  Make(/*words=*/true);
  first_->break_after_chunks = 5;
  first_->down = second_->down = true;
  const absl::Status status = Speak("apples");
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(status.ToString(), HasSubstr("first broke"));
  EXPECT_THAT(status.ToString(), HasSubstr("second is down"));
}

}  // namespace
}  // namespace parley::speech
