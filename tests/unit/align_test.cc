// Where words are in another voice's speech.
#include "speech/align.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iostream>

#include "engines/flite/flite.h"

namespace parley::speech {
namespace {

constexpr const char* kSentences[] = {
    "The double room has a wide bed and a small table near the window.",
    "Breakfast is served every morning from seven until ten on the first floor.",
    "You can leave your heavy bags with the porter before the train goes.",
    "Our garden is open all day and the swimming pool closes after sunset."};

struct Said {
  std::vector<int16_t> samples;
  std::vector<WordTime> words;
  int rate_hz = 0;
  Speech part(double share) const {
    return {std::span<const int16_t>(samples).first(
                static_cast<size_t>(share * static_cast<double>(samples.size()))),
            rate_hz};
  }
};

Said Say(const std::string& text, const std::string& voice, double rate) {
  engines::FliteEngine engine;
  TtsConfig config;
  config.voice = voice;
  config.rate = rate;
  const auto stream = engine.Open(config);
  EXPECT_TRUE(stream.ok()) << stream.status();
  Said said;
  said.rate_hz = (*stream)->sample_rate_hz();
  EXPECT_TRUE((*stream)
                  ->Speak(
                      text,
                      [&](std::span<const int16_t> piece, const std::vector<WordTime>& words) {
                        said.samples.insert(said.samples.end(), piece.begin(), piece.end());
                        said.words.insert(said.words.end(), words.begin(), words.end());
                        return true;
                      },
                      Cancellation())
                  .ok());
  return said;
}

TEST(AlignTest, FindsWordsInAnotherVoice) {
  std::vector<double> errors;  // ms
  int missed = 0;
  for (const char* text : kSentences) {
    const Said reference = Say(text, "slt", 1);
    for (const auto& [voice, rate] :
         std::vector<std::pair<const char*, double>>{{"rms", 0.9}, {"awb", 1.1}, {"kal16", 1}}) {
      const Said heard = Say(text, voice, rate);
      const double slower = static_cast<double>(heard.samples.size()) / heard.rate_hz /
                            (static_cast<double>(reference.samples.size()) / reference.rate_hz);
      for (const double share : {0.35, 0.5, 0.65, 0.8, 1.0}) {
        const Speech part = heard.part(share);
        const double end_ms = 1000.0 * static_cast<double>(part.samples.size()) / heard.rate_hz;
        const std::vector<int32_t> starts =
            AlignWords({reference.samples, reference.rate_hz}, reference.words, part, slower);
        for (size_t i = 0; i < heard.words.size(); ++i) {
          const bool there = heard.words[i].start_ms < end_ms - 150;
          if (there && i >= starts.size()) ++missed;
          if (heard.words[i].start_ms < end_ms && i < starts.size())
            errors.push_back(std::abs(starts[i] - heard.words[i].start_ms));
        }
      }
    }
  }
  std::sort(errors.begin(), errors.end());
  const auto p = [&](double share) {
    return errors[static_cast<size_t>(share * static_cast<double>(errors.size() - 1))];
  };
  std::cout << errors.size() << " borders: p50 " << p(0.5) << " p90 " << p(0.9) << " p99 "
            << p(0.99) << " ms, " << missed << " missed\n";
  EXPECT_LE(p(0.5), 40);
  EXPECT_LE(p(0.9), 200);
  EXPECT_LE(missed, static_cast<int>(errors.size()) / 50);
}

TEST(AlignTest, TooLittleOrNothingIsNoAnswer) {
  const Said reference = Say(kSentences[0], "slt", 1);
  const Speech said = {reference.samples, reference.rate_hz};
  EXPECT_TRUE(AlignWords(said, reference.words, {{}, 16000}, 1).empty());
  EXPECT_TRUE(AlignWords(said, reference.words, reference.part(0.005), 1).empty());
  EXPECT_TRUE(AlignWords({{}, 16000}, {}, said, 0).empty());
  const std::vector<int16_t> silence(16000);
  static_cast<void>(
      AlignWords(said, reference.words, {silence, 16000}, 0));  // anything but a crash
}

}  // namespace
}  // namespace parley::speech
