// Engines within budgets and caps, with a real redis-server: what each kind takes, pays and is
// refused.
#include "gateway/metered.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "auth/token.h"
#include "gateway/gateway.h"
#include "speech/tts_chain.h"
#include "testing/redis_fixture.h"

namespace parley::gateway {
namespace {

using ::parley::testing::HasReason;
using ::parley::testing::IsOk;
using speech::Caller;
using speech::Cancellation;
using speech_redis::Budget;
using speech_redis::Ledger;

class Listener : public speech::SttEngine {
 public:
  Listener() { info_.name = "ear"; }
  const speech::SttEngineInfo& info() const override { return info_; }
  absl::StatusOr<std::unique_ptr<speech::SttStream>> Open(const speech::SttConfig&,
                                                          speech::SttSink) override {
    class Stream : public speech::SttStream {
      absl::Status Write(std::span<const int16_t>) override { return absl::OkStatus(); }
      absl::Status EndUtterance(uint64_t) override { return absl::OkStatus(); }
      absl::Status Reset() override { return absl::OkStatus(); }
    };
    return std::make_unique<Stream>();
  }
  speech::SttEngineInfo info_;
};

class Voice : public speech::TtsEngine {
 public:
  Voice(std::string name, bool embedded) : name_(std::move(name)), embedded_(embedded) {}
  std::string_view name() const override { return name_; }
  bool embedded() const override { return embedded_; }
  std::vector<speech::TtsVoiceInfo> Voices() const override { return {}; }
  absl::StatusOr<std::unique_ptr<speech::TtsStream>> Open(const speech::TtsConfig&) override {
    class Stream : public speech::TtsStream {
      int sample_rate_hz() const override { return 16'000; }
      absl::Status Speak(std::string_view sentence, const speech::TtsSink& sink,
                         const Cancellation&) override {
        if (sentence == "fail") return Unavailable("nothing was said");
        sink(std::vector<int16_t>(1600), {});
        return absl::OkStatus();
      }
    };
    return std::make_unique<Stream>();
  }

 private:
  const std::string name_;
  const bool embedded_;
};

class Model : public speech::LlmEngine {
 public:
  std::string_view name() const override { return "brain"; }
  bool embedded() const override { return false; }
  std::vector<speech::LlmModelInfo> Models() const override { return {}; }
  absl::StatusOr<speech::ChatDone> Chat(const speech::ChatPrompt&, const speech::ChatSink&,
                                        const Cancellation&) override {
    return speech::ChatDone{"stop", {30, 10, 5}, "m"};
  }
};

class MeteredTest : public testing::RedisTest {
 protected:
  void SetUp() override {
    RedisTest::SetUp();
    auto caps = speech_redis::SpendCap::ParseAll({"hotel/tts_characters/session=10",
                                                  "hotel/stt_seconds/session=2",
                                                  "hotel/tokens/session=60"});
    ASSERT_THAT(caps, IsOk());
    ledger_ = std::make_unique<Ledger>(pool(), "a", *caps, log::Logger());
    budget_ = MakeBudget("a", absl::Seconds(20));
  }
  std::unique_ptr<Budget> MakeBudget(const std::string& replica, absl::Duration wait) {
    speech_redis::BudgetOptions options;
    options.provider = "p";
    options.limits.streams = 1;
    options.wait = wait;
    return std::make_unique<Budget>(
        pool(), replica, options, [](std::string_view) { return 1; }, log::Logger());
  }
  void TearDown() override {
    budget_.reset();
    ledger_.reset();
    RedisTest::TearDown();
  }
  Meter meter() { return {.budget = budget_.get(), .ledger = ledger_.get()}; }
  int64_t Used(const std::string& unit) {
    const auto book = ledger_->Read("hotel", "AS_1");
    EXPECT_THAT(book, IsOk());
    return book.ok() && book->session.contains(unit) ? book->session.at(unit) : 0;
  }
  static bool Nothing(std::span<const int16_t>, const std::vector<speech::WordTime>&) {
    return true;
  }

  const Caller caller_ = {"hotel", "AS_1"};
  std::unique_ptr<Ledger> ledger_;
  std::unique_ptr<Budget> budget_;
};

TEST_F(MeteredTest, AVoiceHasAPlaceWhileItSpeaksAndPaysForWhatItSaid) {
  const auto voice = Metered(std::make_unique<Voice>("cloud", false), meter());
  speech::TtsConfig config;
  config.caller = caller_;
  PARLEY_ASSERT_OK_AND_ASSIGN(const auto stream, voice->Open(config));
  int held = 0;
  PARLEY_ASSERT_OK(stream->Speak(
      "hello",
      [&](std::span<const int16_t>, const std::vector<speech::WordTime>&) {
        held = budget_->stats().held;
        return true;
      },
      Cancellation()));
  EXPECT_EQ(held, 1);
  EXPECT_EQ(budget_->stats().held, 0);
  EXPECT_FALSE(stream->Speak("fail", Nothing, Cancellation()).ok());
  EXPECT_EQ(Used("tts_characters"), 5) << "what was not said is not paid for";
  EXPECT_EQ(Used("tts_characters:cloud"), 5);
}

TEST_F(MeteredTest, WhatWasBegunIsSaidTheNextTurnIsNot) {
  speech::EngineTable<speech::TtsEngine> engines("text-to-speech");
  engines.Add("cloud", Metered(std::make_unique<Voice>("cloud", false), meter()));
  engines.Add("own", Metered(std::make_unique<Voice>("own", true), meter()));
  speech::Breakers breakers(Clock::Real());
  const auto turn = [&](const std::vector<std::string>& sentences) {
    speech::TtsChain::Options options;
    for (const char* engine : {"cloud", "own"}) {
      options.voices.emplace_back().engine = engine;
      options.voices.back().caller = caller_;
    }
    options.serves = [](const std::string&, const absl::Status&) {};
    speech::TtsChain chain(engines, breakers, options);
    EXPECT_THAT(chain.Open(), IsOk());
    for (const std::string& sentence : sentences)
      EXPECT_THAT(chain.Speak(sentence, Nothing, Cancellation()), IsOk());
    return chain.engine();
  };
  EXPECT_EQ(turn({"hello there", "and again"}), "cloud") << "over its cap at the first sentence";
  EXPECT_EQ(turn({"next"}), "own");
  EXPECT_EQ(breakers.StateOf("cloud"), speech::Breakers::State::kClosed) << "it is not ill";
  EXPECT_EQ(Used("tts_characters"), 20);
  EXPECT_EQ(Used("tts_characters:own"), 4);
}

TEST_F(MeteredTest, ARecogniserHasAPlaceWhileItListens) {
  const auto ear = Metered(std::make_unique<Listener>(), meter());
  speech::SttConfig config;
  config.caller = caller_;
  auto stream = ear->Open(config, [](speech::SttEvent) {});
  PARLEY_ASSERT_OK(stream);
  const auto hasty = MakeBudget("b", absl::Milliseconds(500));
  const auto other =
      Metered(std::make_unique<Listener>(), Meter{.budget = hasty.get(), .ledger = ledger_.get()});
  EXPECT_THAT(other->Open(config, [](speech::SttEvent) {}), HasReason("BUDGET_FULL"));
  const std::vector<int16_t> second(16'000);
  PARLEY_ASSERT_OK((*stream)->Write(second));
  PARLEY_ASSERT_OK((*stream)->Write(second));
  PARLEY_ASSERT_OK((*stream)->Write(second)) << "the utterance is heard to its end";
  PARLEY_ASSERT_OK((*stream)->EndUtterance(1));
  EXPECT_EQ(Used("stt_ms"), 3000);
  EXPECT_THAT((*stream)->Write(second), HasReason("SPEND_CAP"));
  stream->reset();
  EXPECT_EQ(budget_->stats().held, 0);
  EXPECT_THAT(ear->Open(config, [](speech::SttEvent) {}), HasReason("SPEND_CAP"));
}

TEST_F(MeteredTest, AModelGoesOnAfterAToolWhateverItCost) {
  const auto model = Metered(std::make_unique<Model>(), meter());
  speech::ChatPrompt prompt;
  prompt.caller = caller_;
  prompt.items.emplace_back(speech::ChatMessage{"user", "how much?", false});
  const auto ask = [&] {
    return model->Chat(
        prompt, [](speech::ChatPiece) { return true; }, Cancellation());
  };
  PARLEY_ASSERT_OK(ask());
  PARLEY_ASSERT_OK(ask());
  EXPECT_EQ(Used("input_tokens"), 60);
  EXPECT_EQ(Used("cached_input_tokens"), 20);
  EXPECT_EQ(Used("output_tokens"), 10);
  EXPECT_THAT(ask(), HasReason("SPEND_CAP"));
  prompt.items.emplace_back(speech::ChatToolResult{"c1", "rate", "89", false});
  PARLEY_EXPECT_OK(ask());
}

TEST(CallerTest, AWorkersKeyDecidesItsProject) {
  service::CommonConfig config;
  config.dev = true;
  config.log_level = "error";
  auto context = service::Context::Create("tts-gateway", config);
  ASSERT_TRUE(context.ok()) << context.status();
  common::v1::CallContext call;
  call.set_project("other");
  call.set_session_id("AS_1");
  auth::Claims worker;
  worker.video.agent = true;
  const std::string token = auth::Sign(worker, (*context)->keys()->keys()[0], absl::Hours(1));
  PARLEY_ASSERT_OK_AND_ASSIGN(const Caller own, CallerOf(**context, token, call));
  EXPECT_EQ(own.project, "default");
  EXPECT_EQ(own.session, "AS_1");
  PARLEY_ASSERT_OK_AND_ASSIGN(const Caller named,
                              CallerOf(**context, (*context)->ServiceToken(), call));
  EXPECT_EQ(named.project, "other") << "our own services work for all";
  EXPECT_FALSE(CallerOf(**context, "", call).ok());
}

}  // namespace
}  // namespace parley::gateway
