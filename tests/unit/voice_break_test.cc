// A voice without word times that breaks or stalls anywhere in a sentence: what a listener
// understands is the sentence. On a clock of the test's own, with flite's voices as the provider's
// and as the reference. PARLEY_BREAKS: moments in each sentence (default 8).
#include <gtest/gtest.h>

#include <cctype>
#include <cstdlib>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/strings.h"
#include "engines/flite/flite.h"
#include "speech/breakers.h"
#include "speech/tts_chain.h"
#include "testing/fake_clock.h"
#include "testing/word_errors.h"

namespace parley::speech {
namespace {

using parley::testing::FakeClock;

constexpr const char* kSentences[] = {
    "The double room has a wide bed and a small table near the window.",
    "Breakfast is served every morning from seven until ten on the first floor.",
    "You can leave your heavy bags with the porter before the train goes.",
    "Our garden is open all day and the swimming pool closes after sunset."};

struct Rendering {
  std::vector<int16_t> samples;
  std::vector<WordTime> words;
};

// Another voice than the reference, and slower. 16 kHz.
const Rendering& Provided(const std::string& text) {
  static auto* const known = new std::map<std::string, Rendering>;
  Rendering& rendering = (*known)[text];
  if (!rendering.samples.empty()) return rendering;
  static engines::FliteEngine engine;
  TtsConfig config;
  config.voice = "rms";
  config.rate = 0.9;
  const auto stream = engine.Open(config);
  EXPECT_TRUE(stream.ok()) << stream.status();
  EXPECT_TRUE((*stream)
                  ->Speak(
                      text,
                      [&](std::span<const int16_t> piece, const auto& words) {
                        rendering.samples.insert(rendering.samples.end(), piece.begin(),
                                                 piece.end());
                        rendering.words.insert(rendering.words.end(), words.begin(), words.end());
                        return true;
                      },
                      Cancellation())
                  .ok());
  return rendering;
}

std::vector<std::string> WordsOf(std::string_view text) {
  std::string letters;
  for (const char c : text) letters += std::isalpha(static_cast<unsigned char>(c)) ? c : ' ';
  std::vector<std::string> words;
  for (const std::string& word : Split(ToLower(letters), ' '))
    if (!word.empty()) words.push_back(word);
  return words;
}

enum class End { kNone, kBreak, kStall };

// The provider: four times as fast as speech.
class Remote : public TtsEngine {
 public:
  explicit Remote(FakeClock& clock) : clock_(clock) {}
  std::string_view name() const override { return "remote"; }
  bool embedded() const override { return false; }
  std::vector<TtsVoiceInfo> Voices() const override { return {}; }
  absl::StatusOr<std::unique_ptr<TtsStream>> Open(const TtsConfig&) override {
    return std::make_unique<Stream>(*this);
  }
  End end = End::kNone;
  double moment = 1;

 private:
  class Stream : public TtsStream {
   public:
    explicit Stream(Remote& engine) : engine_(engine) {}
    int sample_rate_hz() const override { return 16'000; }
    absl::Status Speak(std::string_view sentence, const TtsSink& sink,
                       const Cancellation&) override {
      constexpr size_t kPiece = 16 * 40;  // 40 ms, every 10
      const std::span<const int16_t> all(Provided(std::string(sentence)).samples);
      const auto until =
          engine_.end == End::kNone
              ? all.size()
              : static_cast<size_t>(engine_.moment * static_cast<double>(all.size()));
      for (size_t at = 0; at < until; at += kPiece) {
        engine_.clock_.Advance(absl::Milliseconds(10));
        if (!sink(all.subspan(at, std::min(kPiece, until - at)), {})) return absl::OkStatus();
      }
      if (engine_.end == End::kBreak) return Unavailable("broke");
      while (engine_.end == End::kStall) {
        engine_.clock_.Advance(absl::Milliseconds(50));
        if (!sink({}, {})) return absl::OkStatus();
      }
      return absl::OkStatus();
    }

   private:
    Remote& engine_;
  };
  FakeClock& clock_;
};

// Goes on, and remembers with what.
class Rest : public TtsEngine {
 public:
  std::string_view name() const override { return "rest"; }
  bool embedded() const override { return true; }
  std::vector<TtsVoiceInfo> Voices() const override { return {}; }
  absl::StatusOr<std::unique_ptr<TtsStream>> Open(const TtsConfig&) override {
    return std::make_unique<Stream>(*this);
  }
  std::string asked;
  bool begun = false;

 private:
  class Stream : public TtsStream {
   public:
    explicit Stream(Rest& engine) : engine_(engine) {}
    int sample_rate_hz() const override { return 16'000; }
    absl::Status Speak(std::string_view sentence, const TtsSink& sink,
                       const Cancellation&) override {
      engine_.asked = sentence;
      engine_.begun = true;
      sink(std::vector<int16_t>(160), {});
      return absl::OkStatus();
    }

   private:
    Rest& engine_;
  };
};

class VoiceBreakTest : public ::testing::Test {
 protected:
  VoiceBreakTest() {
    auto remote = std::make_unique<Remote>(clock_);
    auto rest = std::make_unique<Rest>();
    remote_ = remote.get();
    rest_ = rest.get();
    table_.Add("remote", std::move(remote));
    table_.Add("rest", std::move(rest));
    TtsChain::Options options;
    options.voices = {{.engine = "remote"}, {.engine = "rest"}};
    options.reference = &reference_;
    options.clock = &clock_;
    options.serves = [](const std::string&, const absl::Status&) {};
    chain_.emplace(table_, breakers_, std::move(options));
    // Its pace and its pauses are learned from sentences that it says whole.
    for (const char* sentence : kSentences) EXPECT_EQ(Say(sentence, End::kNone, 1), 0);
  }
  // Words that are missing, doubled or others. A word is understood when more than half of it was
  // played.
  int Say(const std::string& text, End end, double moment) {
    remote_->end = end;
    remote_->moment = moment;
    rest_->asked.clear();
    rest_->begun = false;
    size_t played = 0;
    const absl::Status said = chain_->Speak(
        text,
        [&](std::span<const int16_t> samples, const std::vector<WordTime>&) {
          if (!rest_->begun) played += samples.size();
          return true;
        },
        Cancellation());
    EXPECT_TRUE(said.ok()) << said;
    EXPECT_EQ(rest_->begun, end != End::kNone);
    std::vector<std::string> words;
    for (const WordTime& word : Provided(text).words)
      if ((word.start_ms + word.end_ms) / 2 < static_cast<int64_t>(played) / 16)
        words.push_back(ToLower(word.word));
    for (const std::string& word : WordsOf(rest_->asked)) words.push_back(word);
    const int errors = testing::WordErrors(words, WordsOf(text));
    if (errors > 0) {
      std::cout << (end == End::kBreak ? "break" : "stall") << " at " << moment << ": ";
      for (const std::string& word : words) std::cout << word << " ";
      std::cout << "\n";
    }
    clock_.Advance(absl::Minutes(2));  // the preferred voice is asked again
    return errors;
  }
  void Show(End end) {
    const char* wished = std::getenv("PARLEY_BREAKS");
    const int moments = wished == nullptr ? 8 : std::atoi(wished);
    int errors = 0;
    int words = 0;
    for (const char* sentence : kSentences) {
      for (int i = 0; i < moments; ++i) {
        errors += Say(sentence, end, 0.02 + 0.97 * i / moments);
        words += static_cast<int>(WordsOf(sentence).size());
      }
    }
    std::cout << words - errors << " of " << words << " words as without the fault\n";
    EXPECT_LE(errors, words / 100 + 1);
  }

  FakeClock clock_;
  engines::FliteEngine reference_;
  EngineTable<TtsEngine> table_{"text-to-speech"};
  Remote* remote_ = nullptr;
  Rest* rest_ = nullptr;
  Breakers breakers_{clock_};
  std::optional<TtsChain> chain_;
};

TEST_F(VoiceBreakTest, WhatBreaksIsGoneOnWithAtTheRightWord) { Show(End::kBreak); }
TEST_F(VoiceBreakTest, WhatStallsIsGoneOnWithAtTheRightWord) { Show(End::kStall); }

}  // namespace
}  // namespace parley::speech
