// Providers that fail in five ways at random moments, before real gateways with the deadlines that
// they are shipped with: what is heard and said stays what it would have been, with little more
// silence, and a slow provider in good health is not left. PARLEY_FAULT_RUNS moments of each kind
// (100 in the full tier; a few of one kind in the fast one).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <map>
#include <random>
#include <set>
#include <span>

#include "audio/pcm.h"
#include "audio/resample.h"
#include "base/mutex.h"
#include "base/strings.h"
#include "deepgram_provider.h"
#include "engines/flite/flite.h"
#include "faulty_provider.h"
#include "gateway_fixture.h"
#include "parley/speech/v1/speech.grpc.pb.h"
#include "stt_gateway/stt_gateway.h"
#include "testing/word_errors.h"
#include "tts_gateway/tts_gateway.h"

namespace parley {
namespace {

using speech::v1::RecognizeRequest;
using speech::v1::RecognizeResponse;
using speech::v1::SynthesizeRequest;
using speech::v1::SynthesizeResponse;
using testing::DeepgramProvider;
using testing::Fault;
using testing::FaultyProvider;
using testing::RunningGateway;

constexpr int kRateHz = 24'000;  // of the engine openai: what it sends arrives sample by sample
constexpr const char* kGrammar =
    "#JSGF V1.0; grammar rooms; public <u> = how much is a (single | double | suite) room;";
constexpr const char* kQuestion = "how much is a double room";
constexpr const char* kSentences[] = {
    "The double room has a wide bed and a small table near the window.",
    "Breakfast is served every morning from seven until ten on the first floor.",
    "You can leave your heavy bags with the porter before the train goes.",
    "Our garden is open all day and the swimming pool closes after sunset."};

int Runs() {
  const char* text = std::getenv("PARLEY_FAULT_RUNS");
  return text == nullptr ? 3 : std::atoi(text);
}
std::vector<Fault> Kinds() {
  if (std::getenv("PARLEY_FAULT_RUNS") == nullptr) return {Fault::kHalfOpen};
  return {std::begin(testing::kFaults), std::end(testing::kFaults)};
}

int64_t NowMs() { return Clock::Real().MonotonicMicros() / 1000; }

struct Rendering {
  std::vector<int16_t> samples;  // at kRateHz
  std::vector<speech::WordTime> words;
};

// The provider's voice: another than the gateway's own, and slower.
const Rendering& Provided(const std::string& text) {
  static Mutex mutex;
  static auto* const known = new std::map<std::string, Rendering>;
  MutexLock lock(&mutex);
  auto& rendering = (*known)[text];
  if (!rendering.samples.empty()) return rendering;
  static engines::FliteEngine engine;
  speech::TtsConfig config;
  config.voice = "rms";
  config.rate = 0.9;
  const auto stream = engine.Open(config);
  EXPECT_TRUE(stream.ok()) << stream.status();
  std::vector<int16_t> samples;
  EXPECT_TRUE((*stream)
                  ->Speak(
                      text,
                      [&](std::span<const int16_t> piece, const auto& words) {
                        samples.insert(samples.end(), piece.begin(), piece.end());
                        rendering.words.insert(rendering.words.end(), words.begin(), words.end());
                        return true;
                      },
                      speech::Cancellation())
                  .ok());
  rendering.samples = *audio::Resample(samples, (*stream)->sample_rate_hz(), kRateHz);
  return rendering;
}

std::vector<std::string> WordsOf(std::string_view text) {
  std::string letters;
  for (const char c : text)
    letters +=
        std::isalpha(static_cast<unsigned char>(c)) ? static_cast<char>(std::tolower(c)) : ' ';
  std::vector<std::string> words;
  for (const std::string& word : Split(letters, ' '))
    if (!word.empty()) words.push_back(word);
  return words;
}

struct Tally {
  int runs = 0;
  int met = 0;  // the fault
  int words = 0;
  int errors = 0;
  int closed = 0;                  // sessions
  std::vector<double> silence_ms;  // more than without the fault

  double p(double share) const {
    std::vector<double> sorted = silence_ms;
    std::sort(sorted.begin(), sorted.end());
    return sorted.empty()
               ? 0
               : sorted[static_cast<size_t>(share * static_cast<double>(sorted.size() - 1))];
  }
  void Print(const char* what, const char* kind) const {
    std::cout << what << " " << kind << ": " << runs << " faults, " << met << " met, words equal "
              << 100.0 * (words - errors) / std::max(words, 1) << " %, added silence p50 " << p(0.5)
              << " p99 " << p(0.99) << " max " << p(1) << " ms, sessions closed " << closed << "\n";
  }
  void Add(const Tally& other) {
    runs += other.runs;
    met += other.met;
    words += other.words;
    errors += other.errors;
    closed += other.closed;
    silence_ms.insert(silence_ms.end(), other.silence_ms.begin(), other.silence_ms.end());
  }
};

// The short form asks for what holds on a loaded machine, too, and prints the figures.
void Judge(const char* what, const Tally& all) {
  all.Print(what, "in all");
  EXPECT_GE(all.met, all.runs * 95 / 100);
  EXPECT_EQ(all.closed, 0);
  EXPECT_LE(all.errors, all.runs) << "more than a word at a break";
  EXPECT_LE(all.p(0.5), 1000);
  // The long form has its machine alone.
  if (std::getenv("PARLEY_FAULT_RUNS") == nullptr) return;
  EXPECT_LE(all.errors, all.words / 100);
  EXPECT_LE(all.p(0.99), 500);
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

// ---- voices ----

// A session that says sentence after sentence.
class Speaker {
 public:
  explicit Speaker(RunningGateway<TtsGatewayConfig>& gateway)
      : call_(std::make_unique<grpc::ClientContext>()),
        stub_(speech::v1::TextToSpeechService::NewStub(gateway.channel())) {
    rpc::SetBearer(*call_, gateway.context().ServiceToken());
    stream_ = stub_->Synthesize(call_.get());
    SynthesizeRequest request;
    request.mutable_config()->set_sample_rate_hz(kRateHz);
    request.mutable_config()->add_voices()->set_engine("openai");
    request.mutable_config()->add_voices()->set_engine("flite");
    stream_->Write(request);
  }
  ~Speaker() {
    call_->TryCancel();
    stream_->Finish();
  }
  struct Said {
    bool whole = false;
    std::string engine;
    std::vector<int16_t> samples;
    std::vector<speech::v1::WordTiming> words;  // of the gateway's own voice
    double silence_ms = 0;  // of a listener: before the first sample and wherever none were left
  };
  Said Say(const std::string& text) {
    SynthesizeRequest request;
    request.set_text(text);
    stream_->Write(request);
    request.mutable_flush()->set_segment(++segment_);
    stream_->Write(request);
    Said said;
    const double start = static_cast<double>(NowMs());
    double plays_until = start;  // what there is
    SynthesizeResponse response;
    while (stream_->Read(&response)) {
      if (response.has_done()) {
        said.whole = true;
        said.engine = response.done().engine();
        break;
      }
      const double now = static_cast<double>(NowMs());
      said.silence_ms += std::max(0.0, now - plays_until);
      plays_until = std::max(plays_until, now) +
                    static_cast<double>(response.audio().data().size()) / 2 * 1000 / kRateHz;
      audio::AppendSamples(response.audio().data(), said.samples);
      for (const auto& word : response.audio().words()) said.words.push_back(word);
    }
    return said;
  }

 private:
  std::unique_ptr<grpc::ClientContext> call_;
  std::unique_ptr<speech::v1::TextToSpeechService::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<SynthesizeRequest, SynthesizeResponse>> stream_;
  uint64_t segment_ = 0;
};

// The words that a listener understood: of the provider those of which more than half was played,
// then those of the voice that went on.
std::vector<std::string> Understood(const Speaker::Said& said, const std::string& text) {
  const Rendering& provided = Provided(text);
  size_t same = 0;
  while (same < said.samples.size() && same < provided.samples.size() &&
         said.samples[same] == provided.samples[same]) {
    ++same;
  }
  const auto ms = static_cast<int64_t>(same * 1000 / kRateHz);
  std::vector<std::string> words;
  for (const speech::WordTime& word : provided.words)
    if ((word.start_ms + word.end_ms) / 2 < ms) words.push_back(ToLower(word.word));
  for (const auto& word : said.words) words.push_back(ToLower(word.word()));
  return words;
}

TtsGatewayConfig Voices(const FaultyProvider& provider) {
  TtsGatewayConfig config;
  config.openai.base_url = provider.url();
  config.openai.key = "key";
  config.openai.model = "voice";
  config.openai_voice = "anna";
  return config;
}

FaultyProvider::Options VoiceOptions() {
  FaultyProvider::Options options;
  if (Runs() < 12) options.speed = 12;  // the fast tier's time is short
  options.voice = [](const std::string& text) { return Provided(text).samples; };
  return options;
}

TEST(FaultShowTest, VoicesThatFailAreHeardToTheEnd) {
  for (const char* sentence : kSentences) Provided(sentence);
  FaultyProvider provider(VoiceOptions());
  RunningGateway<TtsGatewayConfig> gateway("tts-gateway", Voices(provider), tts_gateway::Run);
  Speaker speaker(gateway);
  // What it usually takes is learned from healthy sentences, by the gateway and by this test.
  std::vector<double> healthy;
  for (int i = 0; i < 9; ++i) {
    const Speaker::Said said = speaker.Say(kSentences[i % 4]);
    ASSERT_TRUE(said.whole);
    ASSERT_EQ(said.engine, "openai");
    EXPECT_EQ(testing::WordErrors(Understood(said, kSentences[i % 4]), WordsOf(kSentences[i % 4])),
              0);
    healthy.push_back(said.silence_ms);
  }
  std::mt19937 random(7);
  std::uniform_real_distribution<double> moment(0, 1);
  Tally all;
  for (const Fault kind : Kinds()) {
    Tally tally;
    for (int run = 0; run < Runs(); ++run) {
      const std::string text = kSentences[run % 4];
      provider.Plan(kind, moment(random));
      const Speaker::Said said = speaker.Say(text);
      ++tally.runs;
      tally.met += provider.met() ? 1 : 0;
      tally.closed += said.whole ? 0 : 1;
      ASSERT_TRUE(said.whole) << testing::NameOf(kind) << " " << run;
      tally.words += static_cast<int>(WordsOf(text).size());
      const int errors = testing::WordErrors(Understood(said, text), WordsOf(text));
      tally.errors += errors;
      if (errors > 0) {
        std::cout << testing::NameOf(kind) << " " << run << ":";
        for (const std::string& word : Understood(said, text)) std::cout << " " << word;
        std::cout << "\n";
      }
      tally.silence_ms.push_back(said.silence_ms - Median(healthy));
      // Two good ones between two faults: three failures in a row would be an outage, and then
      // nobody asks.
      for (int i = 0; i < 2; ++i) healthy.push_back(speaker.Say("Good day.").silence_ms);
    }
    tally.Print("voice", testing::NameOf(kind));
    all.Add(tally);
  }
  Judge("voice", all);
}

TEST(FaultShowTest, ASlowVoiceInGoodHealthIsNotLeft) {
  FaultyProvider::Options options = VoiceOptions();
  options.first_byte = absl::Milliseconds(800);
  FaultyProvider provider(options);
  RunningGateway<TtsGatewayConfig> gateway("tts-gateway", Voices(provider), tts_gateway::Run);
  Speaker speaker(gateway);
  const int most = Runs() > 12 ? 50 : 3;
  for (int i = 0; i < most; ++i) {
    const Speaker::Said said = speaker.Say("Good day.");
    ASSERT_TRUE(said.whole);
    EXPECT_EQ(said.engine, "openai") << i;
    EXPECT_TRUE(said.words.empty()) << "the other voice said something";
  }
}

// ---- ears ----

class Listener {
 public:
  Listener(RunningGateway<SttGatewayConfig>& gateway, const std::string& engine)
      : call_(std::make_unique<grpc::ClientContext>()),
        stub_(speech::v1::SpeechToTextService::NewStub(gateway.channel())) {
    rpc::SetBearer(*call_, gateway.context().ServiceToken());
    stream_ = stub_->Recognize(call_.get());
    RecognizeRequest request;
    request.mutable_config()->set_sample_rate_hz(kRateHz);
    request.mutable_config()->set_interim_results(true);
    request.mutable_config()->add_engines()->set_engine(engine);
    auto* second = request.mutable_config()->add_engines();
    second->set_engine("pocketsphinx");
    second->set_grammar(kGrammar);
    stream_->Write(request);
  }
  ~Listener() {
    call_->TryCancel();
    stream_->Finish();
  }
  struct Heard {
    bool whole = false;
    std::string text;
    std::set<std::string> engines;  // that began to serve
    double after_ms = 0;
  };
  // `speed`: times as fast as speech; 0 = at once.
  Heard Hear(std::span<const int16_t> samples, int speed = 0) {
    RecognizeRequest request;
    constexpr size_t kPiece = kRateHz / 10;
    for (; !samples.empty(); samples = samples.subspan(std::min(samples.size(), kPiece))) {
      request.set_audio(
          std::string(audio::AsBytes(samples.first(std::min(samples.size(), kPiece)))));
      stream_->Write(request);
      if (speed > 0) absl::SleepFor(absl::Milliseconds(100) / speed);
    }
    request.mutable_end_utterance()->set_utterance(++utterance_);
    stream_->Write(request);
    const double start = static_cast<double>(NowMs());
    Heard heard;
    RecognizeResponse response;
    while (stream_->Read(&response)) {
      if (response.has_started()) heard.engines.insert(response.started().engine());
      if (!response.has_final()) continue;
      EXPECT_EQ(response.final().utterance(), utterance_);
      heard.whole = true;
      heard.text = response.final().text();
      heard.after_ms = static_cast<double>(NowMs()) - start;
      break;
    }
    return heard;
  }

 private:
  std::unique_ptr<grpc::ClientContext> call_;
  std::unique_ptr<speech::v1::SpeechToTextService::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<RecognizeRequest, RecognizeResponse>> stream_;
  uint64_t utterance_ = 0;
};

SttGatewayConfig Ears(const FaultyProvider& provider) {
  SttGatewayConfig config;
  config.decoder = std::string(std::getenv("PARLEY_BIN_DIR")) + "/parley-stt-decoder";
  config.openai.base_url = provider.url();
  config.openai.key = "key";
  config.openai.model = "ear";
  return config;
}

// `hear(false)`: what is heard of the question; true: of a short one, to learn what is usual.
template <typename Peer>
void ShowEars(const char* what, Peer& provider, const std::function<Listener::Heard(bool)>& hear) {
  std::vector<double> healthy;
  for (int i = 0; i < 12; ++i) {
    const Listener::Heard heard = hear(false);
    ASSERT_TRUE(heard.whole);
    EXPECT_EQ(heard.text, kQuestion);
    healthy.push_back(heard.after_ms);
  }
  std::mt19937 random(7);
  std::uniform_real_distribution<double> moment(0, 1);
  Tally all;
  for (const Fault kind : Kinds()) {
    Tally tally;
    for (int run = 0; run < Runs(); ++run) {
      provider.Plan(kind, moment(random));
      const Listener::Heard heard = hear(false);
      ++tally.runs;
      tally.closed += heard.whole ? 0 : 1;
      ASSERT_TRUE(heard.whole) << testing::NameOf(kind) << " " << run;
      tally.words += static_cast<int>(WordsOf(kQuestion).size());
      const int errors = testing::WordErrors(WordsOf(heard.text), WordsOf(kQuestion));
      tally.errors += errors;
      if (errors > 0)
        std::cout << testing::NameOf(kind) << " " << run << ": " << heard.text << "\n";
      tally.silence_ms.push_back(heard.after_ms - Median(healthy));
      // Most utterances are answered in time: what is usual is learned from them.
      for (int i = 0; i < 10; ++i) healthy.push_back(hear(true).after_ms);
      tally.met += provider.met() ? 1 : 0;
    }
    tally.Print(what, testing::NameOf(kind));
    all.Add(tally);
  }
  Judge(what, all);
}

TEST(FaultShowTest, EarsThatFailHaveHeardEverything) {
  FaultyProvider::Options options;
  options.transcript = kQuestion;
  FaultyProvider provider(options);
  RunningGateway<SttGatewayConfig> gateway("stt-gateway", Ears(provider), stt_gateway::Run);
  Listener listener(gateway, "openai");
  ShowEars("ear", provider, [&](bool) { return listener.Hear(Provided(kQuestion).samples); });
}

SttGatewayConfig StreamingEars(const DeepgramProvider& provider) {
  SttGatewayConfig config;
  config.decoder = std::string(std::getenv("PARLEY_BIN_DIR")) + "/parley-stt-decoder";
  config.deepgram.base_url = provider.url();
  return config;
}

TEST(FaultShowTest, StreamingEarsThatFailHaveHeardEverything) {
  constexpr int kSpeed = 10;
  DeepgramProvider::Options options;
  options.transcript = kQuestion;
  DeepgramProvider provider(options);
  RunningGateway<SttGatewayConfig> gateway("stt-gateway", StreamingEars(provider),
                                           stt_gateway::Run);
  Listener listener(gateway, "deepgram");
  const std::span<const int16_t> question(Provided(kQuestion).samples);
  ShowEars("streaming ear", provider, [&](bool brief) {
    return listener.Hear(brief ? question.first(kRateHz * 3 / 10) : question, kSpeed);
  });
}

TEST(FaultShowTest, ASlowEarInGoodHealthIsNotLeft) {
  FaultyProvider::Options options;
  options.transcript = kQuestion;
  options.first_byte = absl::Milliseconds(800);
  FaultyProvider provider(options);
  RunningGateway<SttGatewayConfig> gateway("stt-gateway", Ears(provider), stt_gateway::Run);
  DeepgramProvider::Options streaming;
  streaming.transcript = kQuestion;
  streaming.partial_every_ms = 1500;
  streaming.delay = absl::Milliseconds(800);
  DeepgramProvider other(streaming);
  RunningGateway<SttGatewayConfig> another("stt-gateway", StreamingEars(other), stt_gateway::Run);
  Listener listener(gateway, "openai");
  Listener to_other(another, "deepgram");
  const int most = Runs() > 12 ? 50 : 3;
  for (int i = 0; i < most; ++i) {
    for (Listener* one : {&listener, &to_other}) {
      const Listener::Heard heard = one->Hear(Provided(kQuestion).samples, 4);
      ASSERT_TRUE(heard.whole);
      EXPECT_FALSE(heard.engines.contains("pocketsphinx")) << i;
      EXPECT_EQ(heard.text, kQuestion);
    }
  }
}

}  // namespace
}  // namespace parley
