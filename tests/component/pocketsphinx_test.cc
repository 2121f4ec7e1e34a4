// The embedded recogniser as it runs: its program, its forks, its models, on synthesised speech and
// on recordings of people.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "audio/resample.h"
#include "audio/wav.h"
#include "base/mutex.h"
#include "base/status.h"
#include "engines/flite/flite.h"
#include "engines/pocketsphinx/engine.h"

namespace parley::engines {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kRooms =
    "#JSGF V1.0; grammar rooms; public <u> = how much is a <room> room | good day; "
    "<room> = single | double | suite;";
constexpr const char* kAlsa =
    "#JSGF V1.0; grammar alsa; public <u> = (front | rear | side) (left | right | center);";

// Collects what a stream says.
class Ear {
 public:
  speech::SttSink sink() {
    return [this](speech::SttEvent event) {
      MutexLock lock(&mutex_);
      if (auto* partial = std::get_if<speech::SttPartial>(&event))
        partials_.push_back(partial->transcript.text);
      if (auto* final = std::get_if<speech::SttFinal>(&event)) finals_.push_back(final->transcript);
      if (auto* failed = std::get_if<speech::SttFailed>(&event)) failure_ = failed->status;
      changed_.SignalAll();
    };
  }
  // The n-th final; an empty one after 30 s.
  speech::SttTranscript Final(size_t n) {
    MutexLock lock(&mutex_);
    for (int i = 0; i < 300 && finals_.size() <= n && failure_.ok(); ++i)
      changed_.WaitFor(&mutex_, absl::Milliseconds(100));
    if (!failure_.ok()) ADD_FAILURE() << failure_;
    return n < finals_.size() ? finals_[n] : speech::SttTranscript();
  }
  absl::Status Failure() {
    MutexLock lock(&mutex_);
    for (int i = 0; i < 300 && failure_.ok(); ++i)
      changed_.WaitFor(&mutex_, absl::Milliseconds(100));
    return failure_;
  }
  std::vector<std::string> partials() {
    MutexLock lock(&mutex_);
    return partials_;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::vector<std::string> partials_;
  std::vector<speech::SttTranscript> finals_;
  absl::Status failure_;
};

std::vector<int16_t> Spoken(const std::string& text, const std::string& voice) {
  static FliteEngine flite;
  speech::TtsConfig config;
  config.voice = voice;
  auto stream = flite.Open(config);
  std::vector<int16_t> samples(4000);  // silence before, as VAD leaves it
  speech::Cancellation cancel;
  EXPECT_TRUE((*stream)
                  ->Speak(
                      text,
                      [&](std::span<const int16_t> piece, const auto&) {
                        samples.insert(samples.end(), piece.begin(), piece.end());
                        return true;
                      },
                      cancel)
                  .ok());
  samples.resize(samples.size() + 4000);
  return samples;
}

std::vector<int16_t> Recording(const std::string& path) {
  auto samples = audio::ReadSpeech(path, 16000);
  EXPECT_TRUE(samples.ok()) << samples.status();
  if (!samples.ok()) return {};
  samples->resize(samples->size() + 4000);
  return *samples;
}

class PocketsphinxTest : public ::testing::Test {
 protected:
  static PocketsphinxOptions Options() {
    PocketsphinxOptions options;
    options.decoder = std::string(std::getenv("PARLEY_BIN_DIR")) + "/parley-stt-decoder";
    return options;
  }
  std::string Hear(const std::string& grammar, const std::vector<int16_t>& samples,
                   std::vector<std::string> phrases = {}) {
    speech::SttConfig config;
    config.grammar = grammar;
    config.phrases = std::move(phrases);
    Ear ear;
    auto stream = engine_.Open(config, ear.sink());
    EXPECT_TRUE(stream.ok()) << stream.status();
    if (!stream.ok()) return {};
    Feed(**stream, samples);
    EXPECT_TRUE((*stream)->EndUtterance(1).ok());
    return ear.Final(0).text;
  }
  static void Feed(speech::SttStream& stream, std::span<const int16_t> samples) {
    while (!samples.empty()) {
      const auto piece = samples.first(std::min<size_t>(samples.size(), 320));
      samples = samples.subspan(piece.size());
      ASSERT_TRUE(stream.Write(piece).ok());
    }
  }
  absl::Status Refusal(const std::string& grammar) {
    speech::SttConfig config;
    config.grammar = grammar;
    return engine_.Open(config, [](speech::SttEvent) {}).status();
  }

  PocketsphinxEngine engine_{Options()};
};

TEST_F(PocketsphinxTest, UnderstandsSynthesisedSpeechWithAGrammarExactly) {
  for (const char* voice : {"slt", "rms", "awb"}) {
    EXPECT_EQ(Hear(kRooms, Spoken("How much is a double room?", voice)),
              "how much is a double room")
        << voice;
    EXPECT_EQ(Hear(kRooms, Spoken("Good day!", voice)), "good day") << voice;
  }
}

TEST_F(PocketsphinxTest, UnderstandsTheClipsOfAlsaUtils) {
  const std::filesystem::path folder = "/usr/share/sounds/alsa";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "alsa-utils is not installed";
  for (const std::string name : {"Front_Center", "Front_Left", "Front_Right", "Rear_Center",
                                 "Rear_Left", "Rear_Right", "Side_Left", "Side_Right"}) {
    std::string said = name;
    std::replace(said.begin(), said.end(), '_', ' ');
    std::transform(said.begin(), said.end(), said.begin(), ::tolower);
    const std::string heard = Hear(kAlsa, Recording(folder / (name + ".wav")));
    std::cout << "said: " << said << "  heard: " << heard << "\n";
    EXPECT_EQ(heard, said);
  }
}

TEST_F(PocketsphinxTest, UnderstandsPeople) {
  const char* folder = std::getenv("PARLEY_TEST_AUDIO");
  if (folder == nullptr) GTEST_SKIP() << "PARLEY_TEST_AUDIO is not set: no recordings";
  const std::string cards =
      "#JSGF V1.0; grammar cards; <n> = ace | two | three | four | five | six | seven | eight | "
      "nine | ten | jack | queen | king; <s> = clubs | diamonds | hearts | spades; "
      "<card> = <n> of <s>; public <u> = <n>* <card>;";
  const std::string moves =
      "#JSGF V1.0; grammar moves; public <u> = go (forward | backward) "
      "(one | two | three | five | ten | twenty) (meter | meters);";
  struct Clip {
    std::string file, said, grammar;
  };
  int right = 0;
  for (const Clip& clip : {Clip{"go-forward-ten-meters.wav", "go forward ten meters", moves},
                           Clip{"cards-001.wav", "ten of clubs", cards},
                           Clip{"cards-002.wav", "four queen of clubs", cards},
                           Clip{"cards-003.wav", "seven of clubs", cards}}) {
    const std::string heard = Hear(clip.grammar, Recording(std::string(folder) + "/" + clip.file));
    std::cout << "said: " << clip.said << "  heard: " << heard << "\n";
    right += heard.find(clip.said) != std::string::npos ? 1 : 0;
  }
  EXPECT_EQ(right, 4);
}

TEST_F(PocketsphinxTest, StreamServesUtteranceAfterUtteranceWithPartialsAndWordTimes) {
  speech::SttConfig config;
  config.grammar = kRooms;
  config.interim_results = true;
  Ear ear;
  auto stream = engine_.Open(config, ear.sink());
  ASSERT_TRUE(stream.ok()) << stream.status();
  const std::vector<int16_t> first = Spoken("How much is a single room?", "slt");
  Feed(**stream, first);
  ASSERT_TRUE((*stream)->EndUtterance(7).ok());
  const speech::SttTranscript one = ear.Final(0);
  EXPECT_EQ(one.text, "how much is a single room");
  EXPECT_EQ(one.utterance, 7u);
  ASSERT_EQ(one.words.size(), 6u);
  EXPECT_EQ(one.words[4].word, "single");
  EXPECT_LT(one.words[0].start_ms, one.words[5].end_ms);
  EXPECT_LE(one.words[5].end_ms, static_cast<int>(first.size() / 16) + 50);
  EXPECT_FALSE(ear.partials().empty());

  Feed(**stream, Spoken("How much is a suite room?", "slt"));
  ASSERT_TRUE((*stream)->Reset().ok());
  Feed(**stream, Spoken("Good day!", "slt"));
  ASSERT_TRUE((*stream)->EndUtterance(8).ok());
  const speech::SttTranscript two = ear.Final(1);
  EXPECT_EQ(two.text, "good day");
  EXPECT_GT(two.words.at(0).start_ms, static_cast<int>(first.size() / 16));
  ASSERT_TRUE((*stream)->EndUtterance(9).ok());
  EXPECT_EQ(ear.Final(2).text, "");
  EXPECT_EQ(ear.Final(2).utterance, 9u);
}

TEST_F(PocketsphinxTest, FreeSpeechIsUnderstoodRoughlyAndHintsHelp) {
  const std::string heard = Hear("", Spoken("I would like to go to the station.", "slt"));
  std::cout << "heard: " << heard << "\n";
  EXPECT_THAT(heard, HasSubstr("station"));
  const std::string hinted =
      Hear("", Spoken("Call doctor Dashwood.", "slt"), {"call doctor dashwood"});
  std::cout << "with a hint: " << hinted << "\n";
  EXPECT_THAT(hinted, HasSubstr("dashwood"));
}

TEST_F(PocketsphinxTest, BadGrammarsAreRefusedByCause) {
  const absl::Status syntax = Refusal("#JSGF V1.0;\ngrammar g;\npublic <u> = (good | day;\n");
  EXPECT_THAT(Message(syntax), HasSubstr("grammar refused: "));
  std::cout << syntax << "\n" << Refusal("hello") << "\n";
  EXPECT_EQ(Refusal("hello").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(Refusal("#JSGF V1.0; grammar g; <u> = good day;")), HasSubstr("public rule"));
  EXPECT_THAT(Message(Refusal("#JSGF V1.0; grammar g; import <etc.passwd>; public <u> = day;")),
              HasSubstr("imports"));
  const absl::Status missing =
      Refusal("#JSGF V1.0; grammar g; public <u> = good xyzzyq | 42 | day;");
  EXPECT_EQ(missing.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(missing).reason, "GRAMMAR_REFUSED");
  EXPECT_THAT(Message(missing), HasSubstr("\"42\", \"xyzzyq\""));
  EXPECT_THAT(Message(Refusal(std::string(70'000, ' '))), HasSubstr("65536"));
}

TEST_F(PocketsphinxTest, ExplodingGrammarIsBoundedAndTheNextStreamWorks) {
  std::string grammar = "#JSGF V1.0; grammar g; public <r0> = <r1> <r1>;\n";
  for (int i = 1; i < 40; ++i)
    grammar += fmt::format("<r{}> = <r{}> <r{}> | day;\n", i, i + 1, i + 1);
  grammar += "<r40> = good;\n";
  const absl::Status refused = Refusal(grammar);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  // Sanitizers meet the end of memory in their own way: it is the time limit that ends it.
  EXPECT_FALSE(refused.ok());
#else
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument) << refused;
  EXPECT_EQ(ReasonOf(refused).reason, "GRAMMAR_REFUSED");
#endif
  std::cout << refused << "\n";
  const absl::Status deep =
      Refusal("#JSGF V1.0; grammar g; public <r> = " + std::string(30'000, '(') + "day" +
              std::string(30'000, ')') + ";");
  EXPECT_FALSE(deep.ok());
  std::cout << deep << "\n";
  EXPECT_EQ(Hear(kRooms, Spoken("Good day!", "slt")), "good day");
}

TEST_F(PocketsphinxTest, KilledDecoderFailsItsStreamOnly) {
  speech::SttConfig config;
  config.grammar = kRooms;
  Ear first;
  Ear second;
  auto one = engine_.Open(config, first.sink());
  auto two = engine_.Open(config, second.sink());
  ASSERT_TRUE(one.ok() && two.ok());
  const pid_t victim = engine_.DecoderPidForTest(**one);
  ASSERT_GT(victim, 0);
  kill(victim, SIGKILL);
  const absl::Status failure = first.Failure();
  EXPECT_EQ(failure.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(failure).reason, "DECODER_LOST");
  EXPECT_FALSE((*one)->EndUtterance(1).ok());
  Feed(**two, Spoken("Good day!", "slt"));
  ASSERT_TRUE((*two)->EndUtterance(1).ok());
  EXPECT_EQ(second.Final(0).text, "good day");
}

TEST_F(PocketsphinxTest, KilledProgramIsStartedAgain) {
  ASSERT_TRUE(engine_.Load().ok());
  speech::SttConfig config;
  config.grammar = kRooms;
  Ear ear;
  auto stream = engine_.Open(config, ear.sink());
  ASSERT_TRUE(stream.ok());
  kill(engine_.program_pid(), SIGKILL);
  EXPECT_EQ(ear.Failure().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Hear(kRooms, Spoken("Good day!", "slt")), "good day");
}

TEST_F(PocketsphinxTest, StreamsAreBoundedAndGivenBack) {
  PocketsphinxOptions options = Options();
  options.max_streams = 1;
  PocketsphinxEngine engine(options);
  speech::SttConfig config;
  config.grammar = kRooms;
  auto one = engine.Open(config, [](speech::SttEvent) {});
  ASSERT_TRUE(one.ok()) << one.status();
  const auto two = engine.Open(config, [](speech::SttEvent) {});
  EXPECT_EQ(two.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(two.status()).metadata.count("retry_after_ms"), 1u);
  one->reset();
  EXPECT_TRUE(engine.Open(config, [](speech::SttEvent) {}).ok());
}

TEST_F(PocketsphinxTest, MissingModelOrProgramSaysWhatToDo) {
  PocketsphinxOptions options = Options();
  options.model_dir = "/nowhere";
  PocketsphinxEngine engine(options);
  EXPECT_THAT(Message(engine.Load()), HasSubstr("pocketsphinx-en-us"));
  options = Options();
  options.decoder = "/nowhere/parley-stt-decoder";
  PocketsphinxEngine other(options);
  EXPECT_THAT(Message(other.Load()), HasSubstr("/nowhere/parley-stt-decoder"));
}

}  // namespace
}  // namespace parley::engines
