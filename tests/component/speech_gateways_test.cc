// The speech gateways over real gRPC: flite and espeak speak, pocketsphinx listens.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>

#include "audio/level.h"
#include "audio/opus.h"
#include "audio/pcm.h"
#include "audio/resample.h"
#include "base/status.h"
#include "gateway_fixture.h"
#include "metrics/metrics.h"
#include "parley/speech/v1/speech.grpc.pb.h"
#include "provider.h"
#include "stt_gateway/stt_gateway.h"
#include "testing/matchers.h"
#include "tts_gateway/tts_gateway.h"

namespace parley {
namespace {

using speech::v1::RecognizeRequest;
using speech::v1::RecognizeResponse;
using speech::v1::SynthesizeRequest;
using speech::v1::SynthesizeResponse;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::Provider;
using testing::RunningGateway;
using testing::TextFile;

constexpr const char* kRooms =
    "#JSGF V1.0; grammar rooms; public <u> = how much is a <room> room | good day; "
    "<room> = single | double | suite;";

double MsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
      .count();
}

// Kills what this process started, and what that started, by the name of the program. How many.
int KillDescendants(std::string_view program) {
  std::map<pid_t, pid_t> parents;
  std::vector<pid_t> named;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const pid_t pid = std::atoi(entry.path().filename().c_str());
    std::ifstream file(entry.path() / "stat");
    std::string stat;
    if (pid == 0 || !std::getline(file, stat)) continue;
    const size_t open = stat.find('(');
    const size_t close = stat.rfind(')');
    parents[pid] = std::atoi(stat.c_str() + close + 4);
    if (std::string_view(stat).substr(open + 1, close - open - 1) == program.substr(0, 15))
      named.push_back(pid);
  }
  int killed = 0;
  for (const pid_t pid : named) {
    pid_t up = pid;
    while (up > 1 && up != getpid()) up = parents[up];
    if (up == getpid() && kill(pid, SIGKILL) == 0) ++killed;
  }
  return killed;
}

struct Spoken {
  std::vector<int16_t> samples;
  std::vector<speech::v1::WordTiming> words;
  std::vector<speech::v1::SegmentDone> done;
  std::vector<int> chunk_ms;
  double first_audio_ms = 0;
};

class TtsTest : public ::testing::Test {
 protected:
  static TtsGatewayConfig Config() {
    TtsGatewayConfig config;
    config.max_streams = 8;
    config.script = Script().path();
    return config;
  }
  static const TextFile& Script() {
    static const TextFile script(R"({"tts": {"delay": "30ms", "per_character": "50ms"}})");
    return script;
  }

  class Speaker {
   public:
    Speaker(RunningGateway<TtsGatewayConfig>& gateway, const std::string& engine,
            const std::string& voice, int rate = 16000,
            speech::v1::AudioEncoding encoding = speech::v1::AUDIO_ENCODING_PCM16,
            bool ssml = false)
        : rate_(rate), call_(gateway.Call()) {
      stub_ = speech::v1::TextToSpeechService::NewStub(gateway.channel());
      stream_ = stub_->Synthesize(call_.get());
      SynthesizeRequest request;
      auto* config = request.mutable_config();
      config->set_sample_rate_hz(rate);
      config->set_encoding(encoding);
      config->set_ssml(ssml);
      auto* chosen = config->add_voices();
      chosen->set_engine(engine);
      chosen->set_voice(voice);
      stream_->Write(request);
    }
    ~Speaker() {
      call_->TryCancel();
      if (!finished_) stream_->Finish();
    }
    void Text(const std::string& text) {
      SynthesizeRequest request;
      request.set_text(text);
      stream_->Write(request);
    }
    void Flush(uint64_t segment) {
      start_ = std::chrono::steady_clock::now();
      SynthesizeRequest request;
      request.mutable_flush()->set_segment(segment);
      stream_->Write(request);
    }
    void Cancel() {
      SynthesizeRequest request;
      request.mutable_cancel();
      stream_->Write(request);
    }
    void HalfClose() { stream_->WritesDone(); }
    bool Read(SynthesizeResponse* response) { return stream_->Read(response); }
    // Until `count` segments are done or the stream ended.
    Spoken Hear(size_t count) {
      Spoken spoken;
      SynthesizeResponse response;
      while (spoken.done.size() < count && stream_->Read(&response)) {
        if (response.has_done()) {
          spoken.done.push_back(response.done());
          continue;
        }
        if (spoken.samples.empty()) spoken.first_audio_ms = MsSince(start_);
        const size_t before = spoken.samples.size();
        audio::AppendSamples(response.audio().data(), spoken.samples);
        spoken.chunk_ms.push_back(
            static_cast<int>((spoken.samples.size() - before) * 1000 / static_cast<size_t>(rate_)));
        for (const auto& word : response.audio().words()) spoken.words.push_back(word);
      }
      return spoken;
    }
    absl::Status Finish() {
      finished_ = true;
      SynthesizeResponse rest;
      while (stream_->Read(&rest)) {
      }
      return rpc::FromGrpcStatus(stream_->Finish());
    }

   private:
    int rate_;
    bool finished_ = false;
    std::chrono::steady_clock::time_point start_;
    std::unique_ptr<grpc::ClientContext> call_;
    std::unique_ptr<speech::v1::TextToSpeechService::Stub> stub_;
    std::unique_ptr<grpc::ClientReaderWriter<SynthesizeRequest, SynthesizeResponse>> stream_;
  };

  RunningGateway<TtsGatewayConfig> gateway_{"tts-gateway", Config(), tts_gateway::Run};
};

TEST_F(TtsTest, FliteSpeaksInChunksWithWordTimesAndOneDonePerFlush) {
  Speaker speaker(gateway_, "flite", "slt", 48000);
  speaker.Text("Good day. A **single** room is ");
  speaker.Text("90 euros a night.");
  speaker.Flush(4);
  const Spoken spoken = speaker.Hear(1);
  ASSERT_EQ(spoken.done.size(), 1u);
  EXPECT_EQ(spoken.done[0].segment(), 4u);
  EXPECT_EQ(spoken.done[0].engine(), "flite");
  EXPECT_FALSE(spoken.done[0].cancelled());
  EXPECT_EQ(spoken.done[0].characters(), 48);
  const int ms = static_cast<int>(spoken.samples.size() / 48);
  EXPECT_NEAR(spoken.done[0].duration_ms(), ms, 2);
  EXPECT_GT(ms, 2000);
  EXPECT_LT(ms, 6000);
  EXPECT_GT(audio::LevelDbov(spoken.samples), -40);
  for (size_t i = 0; i + 1 < spoken.chunk_ms.size(); ++i) {
    EXPECT_GE(spoken.chunk_ms[i], 20);
    EXPECT_LE(spoken.chunk_ms[i], 400);
  }
  std::vector<std::string> words;
  int before = 0;
  for (const auto& word : spoken.words) {
    words.push_back(word.word());
    EXPECT_GE(word.start_ms(), before);
    before = word.start_ms();
    EXPECT_LE(word.end_ms(), ms);
  }
  EXPECT_THAT(words,
              ElementsAre("Good", "day", "A", "single", "room", "is", "90", "euros", "a", "night"));
  std::cout << "first audio of flite slt: " << spoken.first_audio_ms << " ms\n";
}

TEST_F(TtsTest, EveryVoiceSpeaksAndRateChangesTheLength) {
  size_t slow = 0;
  for (const char* voice : {"slt", "rms", "awb", "kal16", "kal"}) {
    Speaker speaker(gateway_, "flite", voice);
    speaker.Text("How much is a double room?");
    speaker.Flush(1);
    const Spoken spoken = speaker.Hear(1);
    EXPECT_GT(spoken.samples.size(), 16000u) << voice;
    EXPECT_GT(audio::LevelDbov(spoken.samples), -45) << voice;
    slow = spoken.samples.size();
  }
  SynthesizeRequest request;
  auto* config = request.mutable_config();
  config->set_sample_rate_hz(16000);
  auto* voice = config->add_voices();
  voice->set_engine("flite");
  voice->set_voice("kal");
  voice->set_rate(2);
  auto call = gateway_.Call();
  auto stub = speech::v1::TextToSpeechService::NewStub(gateway_.channel());
  auto stream = stub->Synthesize(call.get());
  stream->Write(request);
  request.set_text("How much is a double room?");
  stream->Write(request);
  stream->WritesDone();  // speaks the rest
  size_t fast = 0;
  SynthesizeResponse response;
  while (stream->Read(&response)) fast += response.audio().data().size() / 2;
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_GT(fast, slow / 3);
  EXPECT_LT(fast, slow * 2 / 3);
}

TEST_F(TtsTest, MarkedUpTextPausesAndChangesItsPace) {
  for (const std::string engine : {"flite", "espeak"}) {
    Speaker speaker(gateway_, engine, "", 16000, speech::v1::AUDIO_ENCODING_PCM16, true);
    auto said = [&speaker, segment = uint64_t{0}](const std::string& text) mutable {
      speaker.Text(text);
      speaker.Flush(++segment);
      return speaker.Hear(1);
    };
    const auto ms = [](const Spoken& spoken) {
      return static_cast<int>(spoken.samples.size() / 16);
    };
    const Spoken plain = said("Your room is ready now.");
    const Spoken slow =
        said("<speak><prosody rate='60%'>Your room is ready now.</prosody></speak>");
    EXPECT_GT(ms(slow), ms(plain) * 13 / 10) << engine;
    const Spoken apart =
        said("<speak>Your room<break time='1500ms'/>is ready now.<break time='500ms'/></speak>");
    EXPECT_NEAR(ms(apart), ms(plain) + 2000, 700) << engine;
    const std::span<const int16_t> all(apart.samples);
    EXPECT_LT(audio::LevelDbov(all.last(16 * 400)), -80) << engine << ": a pause at the end";
    // As before: nothing of it stays.
    const Spoken again = said("Your room is ready now.");
    EXPECT_NEAR(ms(again), ms(plain), 30) << engine;
    if (engine == "espeak") {  // says the same with the same samples
      EXPECT_EQ(again.samples, plain.samples);
      const Spoken high =
          said("<speak><prosody pitch='high'>Your room is ready now.</prosody></speak>");
      EXPECT_NE(high.samples, plain.samples);
      continue;
    }
    std::vector<std::string> words;
    for (const auto& word : apart.words) words.push_back(word.word());
    EXPECT_THAT(words, ElementsAre("Your", "room", "is", "ready", "now"));
    EXPECT_GT(apart.words[2].start_ms(), apart.words[1].end_ms() + 1400);
  }
  Speaker speaker(gateway_, "flite", "slt", 16000, speech::v1::AUDIO_ENCODING_PCM16, true);
  speaker.Text("<speak>Your room");
  speaker.Flush(1);
  EXPECT_THAT(Message(speaker.Finish()), HasSubstr("SSML"));
}

TEST_F(TtsTest, EspeakSpeaks) {
  Speaker speaker(gateway_, "espeak", "de");
  speaker.Text("Guten Tag! $(rm -rf /) `x`; -v");
  speaker.Flush(1);
  const Spoken spoken = speaker.Hear(1);
  ASSERT_EQ(spoken.done.size(), 1u);
  EXPECT_GT(spoken.samples.size(), 8000u);
  EXPECT_GT(audio::LevelDbov(spoken.samples), -40);
}

// Found by feeding the library noise: it wrote past its buffers.
TEST_F(TtsTest, OddTextDoesNoHarm) {
  Speaker speaker(gateway_, "flite", "kal16");
  uint64_t segment = 0;
  for (const std::string& text :
       {std::string(400, '.'), std::string(2000, 'x'), std::string(300, '1'),
        std::string("caf\u00e9"), std::string("\u4f60\u597d"),
        std::string("$1.,;:'\"-/%&$@+= ....... !!!??? a")}) {
    speaker.Text(text);
    speaker.Flush(++segment);
    EXPECT_EQ(speaker.Hear(1).done.size(), 1u) << segment;
  }
}

TEST_F(TtsTest, OpusComesInPacketsOfTwentyMilliseconds) {
  Speaker speaker(gateway_, "flite", "kal16", 48000, speech::v1::AUDIO_ENCODING_OPUS);
  speaker.Text("Good day.");
  speaker.Flush(1);
  auto decoder = audio::OpusDecoder::Create(48000);
  ASSERT_TRUE(decoder.ok());
  std::vector<int16_t> samples(audio::OpusDecoder::MaxSamples(48000));
  size_t packets = 0;
  SynthesizeResponse response;
  while (speaker.Read(&response) && !response.has_done()) {
    ++packets;
    const auto decoded = decoder->Decode(response.audio().data(), samples);
    ASSERT_TRUE(decoded.ok());
    EXPECT_EQ(*decoded, 960u);
  }
  EXPECT_GT(packets, 20u);
}

TEST_F(TtsTest, CancelDropsTheRestAndAnswersForEachFlush) {
  Speaker speaker(gateway_, "scripted", "");
  speaker.Text("one two three four five six seven eight nine ten. And another sentence.");
  speaker.Flush(1);
  speaker.Text("never spoken");
  speaker.Flush(2);
  speaker.Cancel();
  const Spoken cut = speaker.Hear(2);
  ASSERT_EQ(cut.done.size(), 2u);
  EXPECT_EQ(cut.done[0].segment(), 1u);
  EXPECT_EQ(cut.done[1].segment(), 2u);
  EXPECT_TRUE(cut.done[1].cancelled());
  speaker.Text("Spoken again.");
  speaker.Flush(3);
  const Spoken whole = speaker.Hear(1);
  ASSERT_EQ(whole.done.size(), 1u);
  EXPECT_EQ(whole.done[0].segment(), 3u);
  EXPECT_FALSE(whole.done[0].cancelled());
  EXPECT_NEAR(whole.done[0].duration_ms(), 13 * 50, 5);
  speaker.Cancel();
  EXPECT_TRUE(speaker.Hear(1).done.at(0).cancelled());
}

TEST_F(TtsTest, FlushOfNothingIsDoneAtOnce) {
  Speaker speaker(gateway_, "flite", "");
  speaker.Flush(1);
  speaker.Text(" *** ");
  speaker.Flush(2);
  const Spoken spoken = speaker.Hear(2);
  ASSERT_EQ(spoken.done.size(), 2u);
  EXPECT_EQ(spoken.done[1].duration_ms(), 0);
  speaker.HalfClose();
  EXPECT_TRUE(speaker.Finish().ok());
}

TEST_F(TtsTest, MistakesAreNamed) {
  const auto refusal = [this](const std::string& engine, const std::string& voice,
                              int rate = 16000) {
    return Speaker(gateway_, engine, voice, rate).Finish();
  };
  const absl::Status engine = refusal("nobody", "");
  EXPECT_EQ(engine.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReasonOf(engine).reason, "UNKNOWN_ENGINE");
  EXPECT_THAT(Message(engine), HasSubstr("espeak, flite, scripted"));
  const absl::Status voice = refusal("flite", "bob");
  EXPECT_EQ(ReasonOf(voice).reason, "UNKNOWN_VOICE");
  EXPECT_THAT(Message(voice), HasSubstr("slt, rms"));
  EXPECT_EQ(ReasonOf(refusal("espeak", "zz")).reason, "UNKNOWN_VOICE");
  EXPECT_EQ(refusal("flite", "slt", 1).code(), absl::StatusCode::kInvalidArgument);

  auto stub = speech::v1::TextToSpeechService::NewStub(gateway_.channel());
  grpc::ClientContext anonymous;
  auto stream = stub->Synthesize(&anonymous);
  SynthesizeRequest request;
  request.mutable_config()->add_voices()->set_engine("flite");
  stream->Write(request);
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAUTHENTICATED);
  auto call = gateway_.Call();
  stream = stub->Synthesize(call.get());
  request.set_text("too early");
  stream->Write(request);
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(TtsTest, ChainGoesOnToTheNextVoice) {
  SynthesizeRequest request;
  request.mutable_config()->add_voices()->set_engine("elsewhere");
  auto* second = request.mutable_config()->add_voices();
  second->set_engine("flite");
  auto call = gateway_.Call();
  auto stub = speech::v1::TextToSpeechService::NewStub(gateway_.channel());
  auto stream = stub->Synthesize(call.get());
  stream->Write(request);
  request.mutable_flush()->set_segment(1);
  stream->Write(request);
  SynthesizeResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.done().engine(), "flite");
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
}

// espeak speaks from a process of its own: killed in the middle, the chain's next voice says the
// rest, and the client sees one segment with no gap in it.
TEST_F(TtsTest, AVoiceKilledInsideASentenceIsReplacedInsideIt) {
  SynthesizeRequest request;
  request.mutable_config()->set_sample_rate_hz(16000);
  request.mutable_config()->add_voices()->set_engine("espeak");
  request.mutable_config()->add_voices()->set_engine("flite");
  auto call = gateway_.Call();
  auto stub = speech::v1::TextToSpeechService::NewStub(gateway_.channel());
  auto stream = stub->Synthesize(call.get());
  stream->Write(request);
  std::string text = "zero";
  for (int i = 0; i < 60; ++i) text += " one two three four five";
  request.set_text(text);
  stream->Write(request);
  request.mutable_flush()->set_segment(1);
  stream->Write(request);
  int killed = 0;
  double seconds = 0;
  SynthesizeResponse response;
  while (stream->Read(&response) && !response.has_done()) {
    if (killed == 0) killed = KillDescendants("espeak-ng");
    seconds += static_cast<double>(response.audio().data().size()) / 2 / 16000;
  }
  ASSERT_GT(killed, 0);
  EXPECT_THAT(metrics::Render(gateway_.context().registry()),
              HasSubstr("parley_tts_fallbacks_total 1"));
  // 301 words take either voice about two minutes.
  EXPECT_GT(seconds, 60);
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(TtsTest, FullGatewaySaysWhenToComeBack) {
  std::vector<std::unique_ptr<Speaker>> speakers;
  for (int i = 0; i < 8; ++i) {
    speakers.push_back(std::make_unique<Speaker>(gateway_, "flite", ""));
    speakers.back()->Flush(1);
    ASSERT_EQ(speakers.back()->Hear(1).done.size(), 1u);
  }
  const absl::Status full = Speaker(gateway_, "flite", "").Finish();
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(full).metadata.count("retry_after_ms"), 1u);
  EXPECT_THAT(metrics::Render(gateway_.context().registry()),
              HasSubstr("parley_tts_streams_active 8"));
}

// A stream that speaks when it is told to.
class OpenStream {
 public:
  OpenStream(const std::shared_ptr<grpc::Channel>& channel,
             std::unique_ptr<grpc::ClientContext> call)
      : call_(std::move(call)), stub_(speech::v1::TextToSpeechService::NewStub(channel)) {
    stream_ = stub_->Synthesize(call_.get());
    SynthesizeRequest request;
    request.mutable_config()->set_sample_rate_hz(16000);
    request.mutable_config()->add_voices()->set_engine("flite");
    stream_->Write(request);
  }
  ~OpenStream() {
    call_->TryCancel();
    stream_->Finish();
  }
  bool Speaks() {
    SynthesizeRequest request;
    request.set_text("Yes.");
    stream_->Write(request);
    request.mutable_flush()->set_segment(++segment_);
    stream_->Write(request);
    SynthesizeResponse response;
    while (stream_->Read(&response))
      if (response.has_done()) return true;
    return false;
  }

 private:
  std::unique_ptr<grpc::ClientContext> call_;
  std::unique_ptr<speech::v1::TextToSpeechService::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<SynthesizeRequest, SynthesizeResponse>> stream_;
  uint64_t segment_ = 0;
};

TEST(ReplicasTest, StreamsAreSpreadAndADrainingReplicaGetsNone) {
  RunningGateway<TtsGatewayConfig> one("tts-gateway", {}, tts_gateway::Run);
  RunningGateway<TtsGatewayConfig> other("tts-gateway", {}, tts_gateway::Run);
  const auto channel = rpc::MakeChannel("ipv4:127.0.0.1:" + std::to_string(one.port()) +
                                        ",127.0.0.1:" + std::to_string(other.port()));
  const auto serves = [](RunningGateway<TtsGatewayConfig>& gateway, int streams) {
    return metrics::Render(gateway.context().registry())
               .find("parley_tts_streams_active " + std::to_string(streams) + "\n") !=
           std::string::npos;
  };
  const auto open = [&] {
    auto stream = std::make_unique<OpenStream>(channel, one.Call());
    EXPECT_TRUE(stream->Speaks());
    return stream;
  };
  // Both must be connected before streams can take turns.
  EXPECT_TRUE(testing::Eventually([&] {
    std::vector<std::unique_ptr<OpenStream>> two;
    for (int i = 0; i < 2; ++i) two.push_back(open());
    return serves(one, 1) && serves(other, 1);
  }));
  EXPECT_TRUE(testing::Eventually([&] { return serves(one, 0) && serves(other, 0); }));
  std::vector<std::unique_ptr<OpenStream>> streams;
  for (int i = 0; i < 8; ++i) streams.push_back(open());
  EXPECT_TRUE(serves(one, 4) && serves(other, 4));
  one.context().RequestStop();
  // It says so within a moment.
  EXPECT_TRUE(testing::Eventually([&] {
    std::vector<std::unique_ptr<OpenStream>> two;
    for (int i = 0; i < 2; ++i) {
      two.push_back(std::make_unique<OpenStream>(channel, one.Call()));
      if (!two.back()->Speaks()) return false;  // in that moment
    }
    return serves(other, 6);
  }));
  for (int i = 0; i < 4; ++i) streams.push_back(open());
  EXPECT_TRUE(testing::Eventually([&] { return serves(other, 8); }))
      << metrics::Render(other.context().registry());
}

TEST_F(TtsTest, VoicesAreListed) {
  auto call = gateway_.Call();
  speech::v1::ListVoicesResponse response;
  auto stub = speech::v1::TextToSpeechService::NewStub(gateway_.channel());
  ASSERT_TRUE(stub->ListVoices(call.get(), {}, &response).ok());
  EXPECT_GT(response.voices_size(), 50);
}

class SttTest : public ::testing::Test {
 protected:
  static SttGatewayConfig Config() {
    SttGatewayConfig config;
    config.decoder = std::string(std::getenv("PARLEY_BIN_DIR")) + "/parley-stt-decoder";
    config.max_decoders = 4;
    config.script = Script().path();
    return config;
  }
  static const TextFile& Script() {
    static const TextFile script(
        R"({"stt": {"delay": "10ms", "partials": true, "utterances": ["one two", "three"]}})");
    return script;
  }
  // What flite says, 48 kHz as rooms have it.
  static const std::vector<int16_t>& Question() {
    static const std::vector<int16_t> samples = [] {
      RunningGateway<TtsGatewayConfig> tts("tts-gateway", {}, tts_gateway::Run);
      auto call = tts.Call();
      auto stub = speech::v1::TextToSpeechService::NewStub(tts.channel());
      auto stream = stub->Synthesize(call.get());
      SynthesizeRequest request;
      request.mutable_config()->set_sample_rate_hz(48000);
      request.mutable_config()->add_voices()->set_engine("flite");
      stream->Write(request);
      request.set_text("How much is a double room?");
      stream->Write(request);
      stream->WritesDone();
      std::vector<int16_t> spoken(12000);
      SynthesizeResponse response;
      while (stream->Read(&response)) audio::AppendSamples(response.audio().data(), spoken);
      stream->Finish();
      spoken.resize(spoken.size() + 12000);
      return spoken;
    }();
    return samples;
  }

  class Listener {
   public:
    Listener(RunningGateway<SttGatewayConfig>& gateway, const std::string& engine,
             const std::string& grammar, int rate = 48000,
             speech::v1::AudioEncoding encoding = speech::v1::AUDIO_ENCODING_PCM16)
        : call_(gateway.Call()) {
      stub_ = speech::v1::SpeechToTextService::NewStub(gateway.channel());
      stream_ = stub_->Recognize(call_.get());
      RecognizeRequest request;
      auto* config = request.mutable_config();
      config->set_sample_rate_hz(rate);
      config->set_encoding(encoding);
      config->set_interim_results(true);
      auto* chosen = config->add_engines();
      chosen->set_engine(engine);
      chosen->set_grammar(grammar);
      stream_->Write(request);
    }
    ~Listener() {
      call_->TryCancel();
      if (!finished_) stream_->Finish();
    }
    void Audio(std::string_view bytes) {
      RecognizeRequest request;
      request.set_audio(std::string(bytes));
      if (!finished_) stream_->Write(request);
    }
    void Feed(std::span<const int16_t> samples) {
      for (; !samples.empty(); samples = samples.subspan(std::min<size_t>(samples.size(), 960)))
        Audio(audio::AsBytes(samples.first(std::min<size_t>(samples.size(), 960))));
    }
    void EndUtterance(uint64_t utterance) {
      RecognizeRequest request;
      request.mutable_end_utterance()->set_utterance(utterance);
      if (!finished_) stream_->Write(request);
    }
    void HalfClose() { stream_->WritesDone(); }
    bool Read(RecognizeResponse* response) { return stream_->Read(response); }
    // Reads on to the next final.
    speech::v1::Transcript Final() {
      RecognizeResponse response;
      while (!finished_ && stream_->Read(&response)) {
        if (response.has_partial()) ++partials;
        if (response.has_final()) return response.final();
      }
      if (!finished_) ADD_FAILURE() << "no final: " << Finish();
      return {};
    }
    absl::Status Finish() {
      finished_ = true;
      RecognizeResponse rest;
      while (stream_->Read(&rest)) {
      }
      return rpc::FromGrpcStatus(stream_->Finish());
    }
    int partials = 0;

   private:
    bool finished_ = false;
    std::unique_ptr<grpc::ClientContext> call_;
    std::unique_ptr<speech::v1::SpeechToTextService::Stub> stub_;
    std::unique_ptr<grpc::ClientReaderWriter<RecognizeRequest, RecognizeResponse>> stream_;
  };

  RunningGateway<SttGatewayConfig> gateway_{"stt-gateway", Config(), stt_gateway::Run};
};

TEST_F(SttTest, PocketsphinxUnderstandsFlite) {
  Listener listener(gateway_, "pocketsphinx", kRooms);
  RecognizeResponse started;
  ASSERT_TRUE(listener.Read(&started));
  EXPECT_EQ(started.started().engine(), "pocketsphinx");
  for (uint64_t turn = 1; turn <= 2; ++turn) {
    listener.Feed(Question());
    const auto start = std::chrono::steady_clock::now();
    listener.EndUtterance(turn);
    const speech::v1::Transcript final = listener.Final();
    std::cout << "final after " << MsSince(start) << " ms (audio sent faster than it was spoken)\n";
    EXPECT_EQ(final.text(), "how much is a double room");
    EXPECT_EQ(final.utterance(), turn);
    EXPECT_EQ(final.words_size(), 6);
  }
  EXPECT_GT(listener.partials, 0);
  listener.HalfClose();
  RecognizeResponse usage;
  ASSERT_TRUE(listener.Read(&usage));
  EXPECT_NEAR(usage.usage().audio_seconds(), 2.0 * static_cast<double>(Question().size()) / 48000,
              0.01);
  EXPECT_TRUE(listener.Finish().ok());
}

// The recogniser's processes are killed at five moments of an utterance: the words are those of the
// undisturbed run.
TEST_F(SttTest, ARecogniserKilledInsideAnUtteranceLosesNoWord) {
  Listener listener(gateway_, "pocketsphinx", kRooms);
  RecognizeResponse started;
  ASSERT_TRUE(listener.Read(&started));
  const std::span<const int16_t> question(Question());
  for (uint64_t moment = 0; moment < 5; ++moment) {
    const size_t cut = question.size() * moment / 5;
    listener.Feed(question.first(cut));
    ASSERT_GT(KillDescendants("parley-stt-decoder"), 0);
    listener.Feed(question.subspan(cut));
    listener.EndUtterance(moment + 1);
    const speech::v1::Transcript final = listener.Final();
    EXPECT_EQ(final.text(), "how much is a double room") << "killed at " << moment << "/5";
    EXPECT_EQ(final.utterance(), moment + 1);
  }
}

TEST_F(SttTest, HalfClosingAsksForTheLastFinal) {
  Listener listener(gateway_, "pocketsphinx", kRooms);
  listener.Feed(Question());
  listener.HalfClose();
  EXPECT_EQ(listener.Final().text(), "how much is a double room");
  EXPECT_TRUE(listener.Finish().ok());
}

TEST_F(SttTest, OpusIsUnderstood) {
  Listener listener(gateway_, "pocketsphinx", kRooms, 48000, speech::v1::AUDIO_ENCODING_OPUS);
  auto encoder = audio::OpusEncoder::Create();
  ASSERT_TRUE(encoder.ok());
  std::span<const int16_t> rest(Question());
  std::array<uint8_t, audio::OpusEncoder::kMaxPacketBytes> packet;
  for (; rest.size() >= 960; rest = rest.subspan(960)) {
    const auto bytes = encoder->Encode(rest.first(960), packet);
    ASSERT_TRUE(bytes.ok());
    listener.Audio({reinterpret_cast<const char*>(packet.data()), *bytes});
  }
  listener.EndUtterance(1);
  EXPECT_EQ(listener.Final().text(), "how much is a double room");
}

TEST_F(SttTest, ScriptedEngineAnswersFromItsScript) {
  Listener listener(gateway_, "scripted", "");
  const std::vector<int16_t> second(48000);
  for (const char* text : {"one two", "three", "one two"}) {
    listener.Feed(second);
    listener.EndUtterance(1);
    EXPECT_EQ(listener.Final().text(), text);
  }
  listener.EndUtterance(2);
  EXPECT_EQ(listener.Final().text(), "");
  EXPECT_GT(listener.partials, 0);
}

TEST_F(SttTest, PartialsThatSayNothingNewAreNotSent) {
  Listener listener(gateway_, "scripted", "");
  const std::vector<int16_t> second(48000);  // the engine says what it has ten times
  listener.Feed(second);
  listener.EndUtterance(1);
  EXPECT_EQ(listener.Final().text(), "one two");
  EXPECT_GE(listener.partials, 2);
  EXPECT_LE(listener.partials, 3) << "one may have crossed the end of its utterance";
  listener.partials = 0;
  listener.Feed(second);
  listener.EndUtterance(2);
  EXPECT_EQ(listener.Final().text(), "three");
  EXPECT_GE(listener.partials, 1);
  EXPECT_LE(listener.partials, 2);
}

TEST_F(SttTest, MistakesAreNamed) {
  const auto refusal = [this](const std::string& engine, const std::string& grammar, int rate) {
    return Listener(gateway_, engine, grammar, rate).Finish();
  };
  const absl::Status engine = refusal("nobody", "", 16000);
  EXPECT_EQ(engine.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReasonOf(engine).reason, "UNKNOWN_ENGINE");
  EXPECT_EQ(refusal("pocketsphinx", kRooms, 100).code(), absl::StatusCode::kInvalidArgument);
  const absl::Status grammar = refusal("pocketsphinx", "#JSGF V1.0; nonsense", 16000);
  EXPECT_EQ(ReasonOf(grammar).reason, "GRAMMAR_REFUSED");
  Listener odd(gateway_, "pocketsphinx", kRooms);
  odd.Audio("abc");
  EXPECT_THAT(Message(odd.Finish()), HasSubstr("whole samples"));
  Listener noise(gateway_, "pocketsphinx", kRooms, 48000, speech::v1::AUDIO_ENCODING_OPUS);
  noise.Audio(std::string(2000, '\xff'));
  EXPECT_EQ(noise.Finish().code(), absl::StatusCode::kInvalidArgument);
  Listener early(gateway_, "pocketsphinx", kRooms);
  early.HalfClose();
  EXPECT_TRUE(early.Finish().ok());
}

TEST_F(SttTest, SilentStreamsAreClosed) {
  SttGatewayConfig config = Config();
  config.idle_timeout = absl::Seconds(1);
  RunningGateway<SttGatewayConfig> gateway("stt-gateway", config, stt_gateway::Run);
  Listener listener(gateway, "pocketsphinx", kRooms);
  const absl::Status status = listener.Finish();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(Message(status), HasSubstr("no audio"));
}

TEST_F(SttTest, StreamsAreBoundedAndTheirPlacesGivenBack) {
  std::vector<std::unique_ptr<Listener>> listeners;
  for (int i = 0; i < 4; ++i) {
    listeners.push_back(std::make_unique<Listener>(gateway_, "pocketsphinx", kRooms));
    RecognizeResponse started;
    ASSERT_TRUE(listeners.back()->Read(&started));
  }
  const absl::Status full = Listener(gateway_, "pocketsphinx", kRooms).Finish();
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(full).metadata.count("retry_after_ms"), 1u);
  for (auto& listener : listeners) listener->HalfClose();
  for (auto& listener : listeners) EXPECT_TRUE(listener->Finish().ok());
  listeners.clear();
  absl::Status again = full;
  for (int i = 0; i < 50 && !again.ok(); ++i) {
    Listener listener(gateway_, "pocketsphinx", kRooms);
    listener.HalfClose();
    again = listener.Finish();
  }
  EXPECT_TRUE(again.ok()) << again;
}

TEST_F(SttTest, EnginesAreListed) {
  auto call = gateway_.Call();
  speech::v1::ListEnginesResponse response;
  auto stub = speech::v1::SpeechToTextService::NewStub(gateway_.channel());
  ASSERT_TRUE(stub->ListEngines(call.get(), {}, &response).ok());
  ASSERT_EQ(response.engines_size(), 2);
  EXPECT_EQ(response.engines(0).name(), "pocketsphinx");
  EXPECT_TRUE(response.engines(0).embedded());
  grpc::ClientContext anonymous;
  EXPECT_EQ(stub->ListEngines(&anonymous, {}, &response).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
}

// What a provider may do to a call, and what a healthy one answers with `body`.
struct Behaviour {
  const char* name;
  std::vector<std::string> pieces;
  absl::Duration pause = absl::ZeroDuration();
};
std::string Ok(size_t length, const char* type) {
  return "HTTP/1.1 200 OK\r\nContent-Type: " + std::string(type) +
         "\r\nContent-Length: " + std::to_string(length) + "\r\nConnection: close\r\n\r\n";
}
std::vector<Behaviour> Faults(const std::string& body, const char* type) {
  const std::string half = body.substr(0, body.size() / 2);
  return {{"killed", {Ok(body.size(), type) + half}},
          {"half open", {""}, absl::Seconds(20)},
          {"slow drip", {Ok(body.size(), type) + body.substr(0, 2), "", ""}, absl::Seconds(5)},
          {"empty success", {Ok(0, type)}},
          {"429",
           {"HTTP/1.1 429 Too Many\r\nContent-Length: 0\r\nRetry-After: 1\r\n"
            "Connection: close\r\n\r\n"}},
          {"500",
           {"HTTP/1.1 500 Oops\r\nContent-Length: 5\r\nConnection: close\r\n\r\n"
            "sorry"}}};
}

TtsGatewayConfig RemoteVoice(const Provider& provider) {
  TtsGatewayConfig config;
  config.openai.base_url = provider.url();
  config.openai.key = "secret-key";
  config.openai.model = "voice-1";
  config.openai_voice = "anna";
  config.openai_first_audio = absl::Milliseconds(500);
  return config;
}

// What the chain openai, flite says to `text`.
Spoken Say(RunningGateway<TtsGatewayConfig>& gateway, const std::string& text) {
  SynthesizeRequest request;
  request.mutable_config()->set_sample_rate_hz(24000);
  request.mutable_config()->add_voices()->set_engine("openai");
  request.mutable_config()->add_voices()->set_engine("flite");
  auto call = gateway.Call();
  auto stub = speech::v1::TextToSpeechService::NewStub(gateway.channel());
  auto stream = stub->Synthesize(call.get());
  stream->Write(request);
  request.set_text(text);
  stream->Write(request);
  request.mutable_flush()->set_segment(1);
  stream->Write(request);
  Spoken spoken;
  SynthesizeResponse response;
  while (spoken.done.empty() && stream->Read(&response)) {
    if (response.has_done()) spoken.done.push_back(response.done());
    audio::AppendSamples(response.audio().data(), spoken.samples);
  }
  stream->WritesDone();
  EXPECT_TRUE(rpc::FromGrpcStatus(stream->Finish()).ok());
  return spoken;
}

TEST(RemoteTtsTest, SpeaksWhatTheProviderSends) {
  std::string pcm;
  for (int i = 0; i < 24000; ++i) pcm += {static_cast<char>(i % 50), 3};
  // An odd cut: half a sample in each piece.
  const Provider provider({Ok(pcm.size(), "audio/pcm") + pcm.substr(0, 1001), pcm.substr(1001)},
                          absl::Milliseconds(20));
  RunningGateway<TtsGatewayConfig> gateway("tts-gateway", RemoteVoice(provider), tts_gateway::Run);
  const Spoken spoken = Say(gateway, "Good day.");
  ASSERT_EQ(spoken.done.size(), 1u);
  EXPECT_EQ(spoken.done[0].engine(), "openai");
  std::vector<int16_t> expected;
  audio::AppendSamples(pcm, expected);
  EXPECT_EQ(spoken.samples, expected);
  const std::string asked = provider.asked();
  EXPECT_THAT(asked, HasSubstr("POST /v1/audio/speech HTTP/1.1"));
  EXPECT_THAT(asked, HasSubstr("authorization: Bearer secret-key"));
  EXPECT_THAT(asked, HasSubstr(R"("input":"Good day.","model":"voice-1","response_format":"pcm",)"
                               R"("voice":"anna")"));
}

TEST(RemoteTtsTest, WhateverItDoesTheNextVoiceGoesOn) {
  for (const Behaviour& fault : Faults(std::string(96000, 1), "audio/pcm")) {
    const Provider provider(fault.pieces, fault.pause);
    RunningGateway<TtsGatewayConfig> gateway("tts-gateway", RemoteVoice(provider),
                                             tts_gateway::Run);
    const Spoken spoken = Say(gateway, "How much is a double room, please?");
    ASSERT_EQ(spoken.done.size(), 1u) << fault.name;
    EXPECT_EQ(spoken.done[0].engine(), "flite") << fault.name;
    EXPECT_GT(spoken.samples.size(), 24000u) << fault.name;
  }
}

SttGatewayConfig RemoteEar(const Provider& provider) {
  SttGatewayConfig config;
  config.decoder = std::string(std::getenv("PARLEY_BIN_DIR")) + "/parley-stt-decoder";
  config.max_decoders = 2;
  // The models are there before the first call: loading them would run against its open_timeout.
  config.preload = true;
  config.openai.base_url = provider.url();
  config.openai.key = "secret-key";
  config.openai.model = "ear-1";
  config.openai_timeout = absl::Seconds(1);
  return config;
}

class RemoteSttTest : public SttTest {
 protected:
  // What the chain openai, pocketsphinx hears in Question().
  static RecognizeResponse Hear(RunningGateway<SttGatewayConfig>& gateway, std::string* engine) {
    RecognizeRequest request;
    request.mutable_config()->set_sample_rate_hz(48000);
    auto* first = request.mutable_config()->add_engines();
    first->set_engine("openai");
    first->set_language("en-US");
    first->add_phrases("double room");
    auto* second = request.mutable_config()->add_engines();
    second->set_engine("pocketsphinx");
    second->set_grammar(kRooms);
    auto call = gateway.Call();
    auto stub = speech::v1::SpeechToTextService::NewStub(gateway.channel());
    auto stream = stub->Recognize(call.get());
    stream->Write(request);
    request.set_audio(std::string(audio::AsBytes(Question())));
    stream->Write(request);
    request.mutable_end_utterance()->set_utterance(7);
    stream->Write(request);
    RecognizeResponse response;
    while (stream->Read(&response) && !response.has_final()) {
      if (response.has_started()) *engine = response.started().engine();
    }
    call->TryCancel();
    return response;
  }
};

TEST_F(RemoteSttTest, SendsEachUtteranceWhole) {
  const std::string body = R"({"text": "a double room"})";
  const Provider provider({Ok(body.size(), "application/json") + body});
  RunningGateway<SttGatewayConfig> gateway("stt-gateway", RemoteEar(provider), stt_gateway::Run);
  std::string engine;
  const RecognizeResponse heard = Hear(gateway, &engine);
  EXPECT_EQ(engine, "openai");
  EXPECT_EQ(heard.final().text(), "a double room");
  EXPECT_EQ(heard.final().utterance(), 7u);
  const std::string asked = provider.asked();
  EXPECT_THAT(asked, HasSubstr("POST /v1/audio/transcriptions HTTP/1.1"));
  for (const char* part : {"name=\"model\"\r\n\r\near-1\r\n", "name=\"language\"\r\n\r\nen\r\n",
                           "name=\"prompt\"\r\n\r\ndouble room\r\n", "RIFF"}) {
    EXPECT_THAT(asked, HasSubstr(part));
  }
  // All of it, at 16 kHz.
  EXPECT_GT(asked.size(), Question().size() / 3 * 2);
}

TEST_F(RemoteSttTest, WhateverItDoesTheNextEngineHearsTheUtterance) {
  for (const Behaviour& fault : Faults(R"({"text": "a double room"})", "application/json")) {
    const Provider provider(fault.pieces, fault.pause);
    RunningGateway<SttGatewayConfig> gateway("stt-gateway", RemoteEar(provider), stt_gateway::Run);
    std::string engine;
    const RecognizeResponse heard = Hear(gateway, &engine);
    EXPECT_EQ(engine, "pocketsphinx") << fault.name;
    EXPECT_EQ(heard.final().text(), "how much is a double room") << fault.name;
  }
}

}  // namespace
}  // namespace parley
