// Streaming recognition as Deepgram has it: the engine and the gateway against a provider written
// from the documentation.
#include "engines/deepgram/deepgram.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "audio/pcm.h"
#include "auth/token.h"
#include "deepgram_provider.h"
#include "engines/deepgram/messages.h"
#include "engines/flite/flite.h"
#include "gateway_fixture.h"
#include "parley/speech/v1/speech.grpc.pb.h"
#include "speech/cancel.h"
#include "stt_gateway/stt_gateway.h"
#include "testing/matchers.h"
#include "testing/process.h"
#include "testing/redis_fixture.h"

namespace parley {
namespace {

using speech::v1::RecognizeRequest;
using speech::v1::RecognizeResponse;
using ::testing::AllOf;
using testing::DeepgramProvider;
using ::testing::ElementsAre;
using testing::Eventually;
using testing::Fault;
using testing::HasCode;
using testing::HasReason;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::RunningGateway;

constexpr int kRateHz = 16'000;
constexpr const char* kQuestion = "how much is a double room";
constexpr const char* kGrammar =
    "#JSGF V1.0; grammar rooms; public <u> = how much is a (single | double | suite) room;";

std::vector<int16_t> Loud(int ms) {
  return std::vector<int16_t>(static_cast<size_t>(ms) * kRateHz / 1000, 5000);
}
std::vector<int16_t> Quiet(int ms) {
  return std::vector<int16_t>(static_cast<size_t>(ms) * kRateHz / 1000, 3);
}

// A stream of the engine and all that it says.
class Ear {
 public:
  Ear(speech::SttEngine& engine, speech::SttConfig config) {
    auto stream = engine.Open(config, [this](speech::SttEvent event) {
      MutexLock lock(&mutex_);
      if (auto* partial = std::get_if<speech::SttPartial>(&event))
        partials_.push_back(partial->transcript);
      if (auto* final = std::get_if<speech::SttFinal>(&event)) finals_.push_back(final->transcript);
      if (auto* activity = std::get_if<speech::SttActivity>(&event)) activity_.push_back(*activity);
      if (auto* failed = std::get_if<speech::SttFailed>(&event)) failed_ = failed->status;
    });
    status = stream.status();
    if (stream.ok()) stream_ = *std::move(stream);
  }
  // In frames of 20 ms, as calls have it.
  void Feed(const std::vector<int16_t>& samples) {
    for (size_t at = 0; at < samples.size(); at += 320)
      PARLEY_EXPECT_OK(stream_->Write(std::span<const int16_t>(samples).subspan(
          at, std::min<size_t>(320, samples.size() - at))));
  }
  // The final of what was fed.
  speech::SttTranscript Final(uint64_t utterance, absl::Duration limit = absl::Seconds(5)) {
    const size_t before = finals().size();
    PARLEY_EXPECT_OK(stream_->EndUtterance(utterance));
    EXPECT_TRUE(Eventually([&] { return finals().size() > before; }, limit)) << failed();
    return finals().size() > before ? finals().back() : speech::SttTranscript();
  }
  speech::SttStream& stream() { return *stream_; }
  std::vector<speech::SttTranscript> partials() const {
    MutexLock lock(&mutex_);
    return partials_;
  }
  std::vector<speech::SttTranscript> finals() const {
    MutexLock lock(&mutex_);
    return finals_;
  }
  std::vector<speech::SttActivity> activity() const {
    MutexLock lock(&mutex_);
    return activity_;
  }
  absl::Status failed() const {
    MutexLock lock(&mutex_);
    return failed_;
  }
  bool FailsWithin(absl::Duration limit) const {
    return Eventually([&] { return !failed().ok(); }, limit);
  }
  absl::Status status;  // of opening

 private:
  mutable Mutex mutex_;
  std::vector<speech::SttTranscript> partials_ ABSL_GUARDED_BY(mutex_);
  std::vector<speech::SttTranscript> finals_ ABSL_GUARDED_BY(mutex_);
  std::vector<speech::SttActivity> activity_ ABSL_GUARDED_BY(mutex_);
  absl::Status failed_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<speech::SttStream> stream_;
};

std::unique_ptr<engines::DeepgramStt> Engine(const DeepgramProvider& provider,
                                             const std::string& key = "the-key") {
  engines::DeepgramOptions options;
  options.base_url = provider.url();
  options.keys = key;
  auto engine = engines::DeepgramStt::Create(options);
  EXPECT_TRUE(engine.ok()) << engine.status();
  return *std::move(engine);
}

DeepgramProvider::Options WithKey() {
  DeepgramProvider::Options options;
  options.key = "the-key";
  return options;
}

speech::SttConfig Partials() {
  speech::SttConfig config;
  config.interim_results = true;
  return config;
}

TEST(DeepgramTest, PartialsFinalsWordTimesActivityAndLanguage) {
  DeepgramProvider::Options options = WithKey();
  options.language = "en";
  DeepgramProvider provider(options);
  const auto engine = Engine(provider);
  Ear ear(*engine, Partials());
  PARLEY_ASSERT_OK(ear.status);
  ear.Feed(Loud(1300));
  EXPECT_TRUE(Eventually(
      [&] { return !ear.partials().empty() && ear.partials().back().text == kQuestion; }));
  EXPECT_EQ(ear.partials().front().text, "how");
  EXPECT_GE(ear.partials().size(), 8u);
  const speech::SttTranscript final = ear.Final(7);
  EXPECT_EQ(final.text, kQuestion);
  EXPECT_EQ(final.utterance, 7u);
  EXPECT_EQ(final.language, "en");
  EXPECT_NEAR(final.confidence, 0.9, 0.01);
  ASSERT_EQ(final.words.size(), 6u);
  EXPECT_EQ(final.words[4].word, "double");
  EXPECT_EQ(final.words[4].start_ms, 800);
  EXPECT_EQ(final.words[4].end_ms, 1000);
  // From the start of the stream's audio, which is 1.3 s old.
  ear.Feed(Loud(1300));
  EXPECT_EQ(ear.Final(8).words[0].start_ms, 1300);
  const auto activity = ear.activity();
  ASSERT_EQ(activity.size(), 4u);
  EXPECT_TRUE(activity[0].speech);
  EXPECT_EQ(activity[0].at_ms, 0);
  EXPECT_FALSE(activity[1].speech);
  EXPECT_EQ(activity[1].at_ms, 1200);
  EXPECT_TRUE(activity[2].speech);
  EXPECT_EQ(activity[2].at_ms, 1300);
  EXPECT_EQ(activity[3].at_ms, 2500);
  PARLEY_EXPECT_OK(ear.failed());
}

TEST(DeepgramTest, TellsTheProviderWhatItIsAsked) {
  DeepgramProvider provider(WithKey());
  const auto engine = Engine(provider);
  speech::SttConfig config;
  config.model = "nova-3-medical";
  config.language = "de-CH";
  config.phrases = {"Zimmer & Frühstück"};
  config.options = {{"endpointing", "300"}, {"smart_format", "true"}};
  {
    Ear ear(*engine, config);
    PARLEY_ASSERT_OK(ear.status);
    ear.Feed(Loud(400));
    EXPECT_EQ(ear.Final(1).text, kQuestion);
    EXPECT_TRUE(ear.partials().empty()) << "nobody asked for them";
  }
  ASSERT_EQ(provider.asked().size(), 1u);
  const DeepgramProvider::Asked asked = provider.asked()[0];
  EXPECT_EQ(asked.authorization, "Token the-key");
  const std::map<std::string, std::string> wanted = {
      {"encoding", "linear16"},    {"sample_rate", "16000"}, {"channels", "1"},
      {"model", "nova-3-medical"}, {"language", "de-CH"},    {"keyterm", "Zimmer & Frühstück"},
      {"interim_results", "true"}, {"vad_events", "true"},   {"endpointing", "300"},
      {"smart_format", "true"}};
  EXPECT_EQ(asked.query, wanted);
  EXPECT_EQ(provider.audio_ms(), 400);
  EXPECT_EQ(provider.controls("Finalize"), 1);
  EXPECT_TRUE(Eventually([&] { return provider.controls("CloseStream") == 1; })) << "it says bye";

  config.options = {{"callback", "https://example.com"}};
  EXPECT_THAT(Ear(*engine, config).status, HasCode(absl::StatusCode::kInvalidArgument));
  config.options.clear();
  config.grammar = kGrammar;
  EXPECT_THAT(Ear(*engine, config).status, HasCode(absl::StatusCode::kInvalidArgument));
  const auto url = engines::deepgram::ListenUrl("wss://x/v1", "nova-2",
                                                {.phrases = {"one", "two words"}}, kRateHz);
  PARLEY_ASSERT_OK(url);
  EXPECT_THAT(*url, HasSubstr("&keywords=one&keywords=two%20words"));
  EXPECT_THAT(
      engines::deepgram::ListenUrl("wss://x/v1", "nova-3",
                                   {.phrases = std::vector<std::string>(900, "a phrase")}, kRateHz),
      HasCode(absl::StatusCode::kInvalidArgument));
}

TEST(DeepgramTest, PiecesBecomeOneUtteranceAndWhatIsResetIsForgotten) {
  DeepgramProvider::Options options = WithKey();
  options.segment_words = 2;
  DeepgramProvider provider(options);
  const auto engine = Engine(provider);
  Ear ear(*engine, Partials());
  PARLEY_ASSERT_OK(ear.status);
  ear.Feed(Loud(1000));
  const speech::SttTranscript final = ear.Final(1);
  EXPECT_EQ(final.text, kQuestion);
  ASSERT_EQ(final.words.size(), 6u);
  for (size_t i = 0; i < 6; ++i) EXPECT_EQ(final.words[i].start_ms, 200 * static_cast<int>(i));
  EXPECT_EQ(ear.partials().back().text.substr(0, 15), "how much is a d");
  int ends = 0;
  for (const speech::SttActivity& activity : ear.activity()) ends += activity.speech ? 0 : 1;
  EXPECT_EQ(ends, 3) << "each pause, once";

  ear.Feed(Loud(500));
  PARLEY_ASSERT_OK(ear.stream().Reset());
  ear.Feed(Loud(1300));
  EXPECT_EQ(ear.Final(2).text, kQuestion) << "not what was before the reset, too";
  // Several questions at once: each its answer, in order.
  for (uint64_t utterance = 3; utterance <= 5; ++utterance) {
    ear.Feed(Loud(1300));
    PARLEY_ASSERT_OK(ear.stream().EndUtterance(utterance));
  }
  ASSERT_TRUE(Eventually([&] { return ear.finals().size() == 5; }));
  for (size_t i = 2; i < 5; ++i) {
    EXPECT_EQ(ear.finals()[i].utterance, i + 1);
    EXPECT_EQ(ear.finals()[i].text, kQuestion);
  }
}

TEST(DeepgramTest, AFinalizeOfSilenceMayStayWithoutAnAnswer) {
  DeepgramProvider::Options options = WithKey();
  options.segment_words = 6;
  options.confirms = false;
  DeepgramProvider provider(options);
  const auto engine = Engine(provider);
  Ear ear(*engine, Partials());
  PARLEY_ASSERT_OK(ear.status);
  ear.Feed(Loud(1200));
  ear.Feed(Quiet(450));
  ASSERT_TRUE(Eventually([&] { return !ear.activity().empty() && !ear.activity().back().speech; }));
  EXPECT_EQ(ear.Final(1, absl::Seconds(2)).text, kQuestion);
  // Where something was said that no answer has covered yet, it is waited for.
  ear.Feed(Loud(500));
  EXPECT_EQ(ear.Final(2).text, kQuestion);
}

TEST(DeepgramTest, WhoIsRefusedIsToldWhy) {
  DeepgramProvider provider(WithKey());
  const auto engine = Engine(provider);
  provider.Plan(Fault::kBusy, 0);
  const absl::Status busy = Ear(*engine, Partials()).status;
  EXPECT_THAT(busy, HasCode(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(busy, HasReason("PROVIDER_BUSY"));
  const auto names_it = HasSubstr(std::string("request there ") + DeepgramProvider::kRequestId);
  EXPECT_THAT(busy.ToString(), names_it);
  EXPECT_TRUE(Eventually([&] { return Ear(*engine, Partials()).status.ok(); }));
  const absl::Status refused = Ear(*Engine(provider, "another"), Partials()).status;
  EXPECT_THAT(refused, HasReason("PROVIDER_KEY_REFUSED"));
  EXPECT_THAT(refused.ToString(), names_it);
  EXPECT_THAT(refused.ToString(), ::testing::Not(HasSubstr("another"))) << "no key in errors";
  provider.gate().SetFlow(testing::TcpGate::Flow::kRefused);
  EXPECT_THAT(Ear(*engine, Partials()).status, HasCode(absl::StatusCode::kUnavailable));
  // Accepts, and says nothing.
  provider.gate().SetFlow(testing::TcpGate::Flow::kStalled);
  const absl::Time start = absl::Now();
  EXPECT_THAT(Ear(*engine, Partials()).status, HasCode(absl::StatusCode::kUnavailable));
  EXPECT_LT(absl::Now() - start, absl::Seconds(3));
  provider.gate().SetFlow(testing::TcpGate::Flow::kOpen);
  PARLEY_EXPECT_OK(Ear(*engine, Partials()).status);
}

TEST(DeepgramTest, HowItEndsIsSaid) {
  DeepgramProvider provider(WithKey());
  const auto engine = Engine(provider);
  const auto ends = [&](const std::function<void()>& plan) {
    EXPECT_TRUE(Eventually([&] { return provider.idle(); }));
    plan();
    Ear ear(*engine, Partials());
    PARLEY_EXPECT_OK(ear.status);
    PARLEY_EXPECT_OK(ear.stream().Write(Loud(300)));
    EXPECT_TRUE(ear.FailsWithin(absl::Seconds(5)));
    EXPECT_THAT(ear.failed(), HasCode(absl::StatusCode::kUnavailable));
    return ear.failed().ToString();
  };
  EXPECT_THAT(ends([&] { provider.CloseNext(1011, "NET-0001"); }), HasSubstr("1011 NET-0001"));
  EXPECT_THAT(ends([&] { provider.CloseNext(1008, "DATA-0000"); }), HasSubstr("1008 DATA-0000"));
  EXPECT_THAT(ends([&] { provider.CloseNext(1000, ""); }), HasSubstr("closed the stream (1000)"));
  EXPECT_THAT(ends([&] { provider.Plan(Fault::kKill, 0); }), HasSubstr("lost"));
  // Words came with the stream's id.
  EXPECT_TRUE(Eventually([&] { return provider.idle(); }));
  provider.Plan(Fault::kKill, 0.4);
  Ear ear(*engine, Partials());
  PARLEY_EXPECT_OK(ear.stream().Write(Loud(300)));
  EXPECT_TRUE(Eventually([&] { return !ear.partials().empty(); }));
  PARLEY_EXPECT_OK(ear.stream().Write(Loud(300)));
  EXPECT_TRUE(ear.FailsWithin(absl::Seconds(5)));
  EXPECT_THAT(ear.failed().ToString(),
              AllOf(HasSubstr("lost"), HasSubstr(DeepgramProvider::kRequestId)));
  // Names go on, sentences do not: they may quote what somebody said.
  EXPECT_THAT(
      ends([&] {
        provider.SayNext(R"({"type":"Error","description":"no such model","variant":"NO_MODEL"})");
      }),
      AllOf(HasSubstr("NO_MODEL"), Not(HasSubstr("no such"))));
  EXPECT_THAT(ends([&] { provider.SayNext(std::string(1000, '[')); }), HasSubstr("nests too deep"));
  EXPECT_THAT(ends([&] { provider.SayNext("I am no JSON"); }), HasSubstr("not a JSON object"));
}

TEST(DeepgramTest, SilenceIsBridgedAndAConnectionThatIsGoneIsNoticed) {
  DeepgramProvider idle(WithKey());
  DeepgramProvider gone(WithKey());
  const auto engine = Engine(idle);
  const auto other = Engine(gone);
  Ear waits(*engine, Partials());
  Ear talks(*other, Partials());
  PARLEY_ASSERT_OK(waits.status);
  PARLEY_ASSERT_OK(talks.status);
  PARLEY_ASSERT_OK(talks.stream().Write(Loud(300)));
  gone.gate().SetFlow(testing::TcpGate::Flow::kStalled);  // half-open: nobody says so
  EXPECT_TRUE(talks.FailsWithin(absl::Seconds(8)));
  EXPECT_THAT(talks.failed().ToString(), HasSubstr("nothing was heard"));
  EXPECT_TRUE(Eventually([&] { return idle.controls("KeepAlive") >= 1; }));
  PARLEY_EXPECT_OK(waits.failed());
  waits.Feed(Loud(1300));
  EXPECT_EQ(waits.Final(1).text, kQuestion);
}

// ---- through the gateway ----

// What flite says.
const std::vector<int16_t>& Question() {
  static const std::vector<int16_t> samples = [] {
    std::vector<int16_t> spoken(kRateHz / 4);
    engines::FliteEngine flite;
    const auto stream = flite.Open(speech::TtsConfig());
    EXPECT_TRUE(stream.ok()) << stream.status();
    EXPECT_TRUE((*stream)
                    ->Speak(
                        "How much is a double room?",
                        [&](std::span<const int16_t> piece, const auto&) {
                          spoken.insert(spoken.end(), piece.begin(), piece.end());
                          return true;
                        },
                        speech::Cancellation())
                    .ok());
    spoken.resize(spoken.size() + kRateHz / 4);
    return spoken;
  }();
  return samples;
}

struct Heard {
  std::string engine;  // that served last
  speech::v1::Transcript final;
  absl::Status status;
  int started = 0;  // activity
  int ended = 0;
};

// What the chain deepgram, pocketsphinx makes of the question.
Heard Hear(const std::shared_ptr<grpc::Channel>& channel, grpc::ClientContext& call,
           bool fallback = true) {
  RecognizeRequest request;
  request.mutable_config()->set_sample_rate_hz(kRateHz);
  auto* first = request.mutable_config()->add_engines();
  first->set_engine("deepgram");
  first->set_language("en-US");
  first->add_phrases("double room");
  if (fallback) {
    auto* second = request.mutable_config()->add_engines();
    second->set_engine("pocketsphinx");
    second->set_grammar(kGrammar);
  }
  auto stub = speech::v1::SpeechToTextService::NewStub(channel);
  auto stream = stub->Recognize(&call);
  stream->Write(request);
  const std::string_view all = audio::AsBytes(Question());
  for (size_t at = 0; at < all.size(); at += 3200) {
    request.set_audio(std::string(all.substr(at, 3200)));
    stream->Write(request);
  }
  request.mutable_end_utterance()->set_utterance(7);
  stream->Write(request);
  Heard heard;
  RecognizeResponse response;
  while (stream->Read(&response) && !response.has_final()) {
    if (response.has_started()) heard.engine = response.started().engine();
    if (response.activity().kind() == speech::v1::Activity::KIND_SPEECH_STARTED) ++heard.started;
    if (response.activity().kind() == speech::v1::Activity::KIND_SPEECH_ENDED) ++heard.ended;
  }
  heard.final = response.final();
  call.TryCancel();
  heard.status = rpc::FromGrpcStatus(stream->Finish());
  return heard;
}

TEST(DeepgramGatewayTest, WhateverItDoesTheNextEngineHearsTheUtterance) {
  DeepgramProvider::Options options;
  options.transcript = "in other words";
  DeepgramProvider provider(options);
  SttGatewayConfig config;
  config.decoder = std::string(std::getenv("PARLEY_BIN_DIR")) + "/parley-stt-decoder";
  config.final_timeout = absl::Seconds(3);  // on a busy machine the next engine needs a second, too
  config.deepgram.base_url = provider.url();
  RunningGateway<SttGatewayConfig> gateway("stt-gateway", config, stt_gateway::Run);
  for (const Fault fault : testing::kFaults) {
    const Heard healthy = Hear(gateway.channel(), *gateway.Call());
    EXPECT_EQ(healthy.engine, "deepgram") << "back after whatever was before";
    EXPECT_EQ(healthy.final.text(), "in other words");
    EXPECT_EQ(healthy.final.language(), "en-US");
    EXPECT_EQ(healthy.final.utterance(), 7u);
    EXPECT_EQ(healthy.started, 1);
    EXPECT_EQ(healthy.ended, 1);
    provider.Plan(fault, 0.5);
    const Heard heard = Hear(gateway.channel(), *gateway.Call());
    EXPECT_EQ(heard.engine, "pocketsphinx") << testing::NameOf(fault);
    EXPECT_EQ(heard.final.text(), kQuestion) << testing::NameOf(fault);
    EXPECT_TRUE(provider.met()) << testing::NameOf(fault);
  }
}

// The flags of the real program.
TEST(DeepgramGatewayTest, IsConfiguredByFlagsAndAKeyFile) {
  DeepgramProvider provider(WithKey());
  const testing::TemporaryDirectory directory;
  auto redis = redis::PrivateServer::Start(directory.path());
  PARLEY_ASSERT_OK(redis);
  std::ofstream(directory.path() + "/key") << "the-key\n";
  auto process = testing::Process::Start(
      {std::string(std::getenv("PARLEY_BIN_DIR")) + "/parley-stt-gateway", "--dev", "--grpc-port",
       "0", "--admin-port", "0", "--stt-preload", "false", "--redis-address", (*redis)->address(),
       "--stt-deepgram-base-url", provider.url() + "/", "--stt-deepgram-key-file",
       directory.path() + "/key", "--stt-deepgram-model", "nova-2-phonecall",
       "--stt-deepgram-max-streams", "1"},
      directory.path() + "/log");
  PARLEY_ASSERT_OK(process);
  const auto line = (*process)->WaitForLine("\"msg\":\"serving\"", absl::Seconds(30));
  PARLEY_ASSERT_OK(line);
  const size_t at = line->find("\"grpc_port\":");
  ASSERT_NE(at, std::string::npos);
  const auto channel =
      rpc::MakeChannel("127.0.0.1:" + std::to_string(std::atoi(line->c_str() + at + 12)));
  auth::Claims claims;
  claims.identity = "test";
  claims.video.agent = true;
  const std::string token =
      auth::Sign(claims, auth::KeyRing::Development()->keys()[0], absl::Hours(1));
  const auto hear = [&] {
    grpc::ClientContext call;
    rpc::SetBearer(call, token);
    rpc::SetTimeout(call, absl::Seconds(20));
    return Hear(channel, call, false);
  };
  // Its replica has to have met Redis before it begins anything with a limited engine.
  Heard heard;
  EXPECT_TRUE(
      Eventually([&] { return (heard = hear()).final.text() == kQuestion; }, absl::Seconds(10)))
      << heard.status;
  ASSERT_FALSE(provider.asked().empty());
  EXPECT_EQ(provider.asked().back().authorization, "Token the-key");
  EXPECT_EQ(provider.asked().back().query["model"], "nova-2-phonecall");
  EXPECT_EQ(provider.asked().back().query["keywords"], "double room");
  EXPECT_EQ((*process)->Log().find("the-key"), std::string::npos);
}

}  // namespace
}  // namespace parley
