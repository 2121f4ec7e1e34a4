// Recorded speech over several replicas: made once, found by all, gone when it must be.
// PARLEY_CACHE_REQUESTS: how many requests the crowd makes (default 2000).
#include "tts_gateway/speech_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "audio/opus.h"
#include "audio/pcm.h"
#include "gateway_fixture.h"
#include "metered_provider.h"
#include "parley/speech/v1/cache.grpc.pb.h"
#include "parley/speech/v1/speech.grpc.pb.h"
#include "testing/redis_fixture.h"
#include "tts_gateway/packer.h"
#include "tts_gateway/tts_gateway.h"

namespace parley {
namespace {

namespace fs = std::filesystem;
using speech::Cancellation;
using testing::Eventually;
using testing::MeteredProvider;
using testing::RunningGateway;
using testing::TemporaryDirectory;

speech::Phrase Tone(size_t samples = 16'000) {
  speech::Phrase phrase;
  phrase.sample_rate_hz = 16'000;
  for (size_t i = 0; i < samples; ++i)
    phrase.samples.push_back(static_cast<int16_t>(8000 * std::sin(static_cast<double>(i) * 0.172)));
  phrase.words = {{"good", 0, 400}, {"day", 400, 900}};
  return phrase;
}

// Recordings on disk, whoever's they are.
std::vector<fs::path> Files(const std::string& directory) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(directory))
    if (entry.is_regular_file() && entry.path().filename() != "lock") files.push_back(entry.path());
  return files;
}

class SpeechCacheTest : public testing::RedisTest {
 protected:
  using Making = std::unique_ptr<SpeechCache::Making>;

  std::unique_ptr<SpeechCache> Replica(const std::string& address,
                                       SpeechCache::Options options = {}) {
    options.directory = directory_.path();
    auto cache = SpeechCache::Open(
        options, pool(),
        [this](const std::string& at, const std::string& project, const std::string& phrase,
               const std::string& id) -> absl::StatusOr<std::string> {
          ++fetches_;
          const auto it = replicas_.find(at);
          if (it == replicas_.end()) return Unavailable("nobody is at {}", at);
          return it->second->Lend(project, phrase, id);
        },
        log::Logger());
    EXPECT_TRUE(cache.ok()) << cache.status();
    (*cache)->SetAddress(address);
    replicas_[address] = cache->get();
    return *std::move(cache);
  }
  static bool Make(SpeechCache& cache, const std::string& phrase,
                   const speech::Phrase& recording = Tone()) {
    auto found = cache.Find("p", phrase, Cancellation());
    if (!std::holds_alternative<Making>(found)) return false;
    std::get<Making>(found)->Finish(recording);
    return true;
  }
  static std::shared_ptr<const speech::Phrase> Hit(SpeechCache& cache, const std::string& phrase,
                                                   const std::string& project = "p") {
    auto found = cache.Find(project, phrase, Cancellation());
    return std::holds_alternative<SpeechCache::Hit>(found)
               ? std::get<SpeechCache::Hit>(found).phrase
               : nullptr;
  }

  const TemporaryDirectory directory_;
  std::map<std::string, SpeechCache*> replicas_;
  std::atomic<int> fetches_ = 0;
};

TEST_F(SpeechCacheTest, MadeOnceHeardByAllAndCopiedOnce) {
  const auto a = Replica("a:1");
  const auto b = Replica("b:1");
  ASSERT_TRUE(Make(*a, "hello"));
  for (SpeechCache* cache : {a.get(), b.get(), b.get()}) {
    const auto phrase = Hit(*cache, "hello");
    ASSERT_NE(phrase, nullptr);
    EXPECT_EQ(phrase->samples, Tone().samples);
    ASSERT_EQ(phrase->words.size(), 2u);
    EXPECT_EQ(phrase->words[1].word, "day");
    EXPECT_EQ(phrase->opus.size(), 50u) << "a second in packets of 20 ms";
  }
  EXPECT_EQ(fetches_.load(), 1);
  EXPECT_TRUE(Make(*b, "other")) << "another phrase is another recording";
}

TEST_F(SpeechCacheTest, WhoIsInterruptedLeavesNothing) {
  const auto a = Replica("a:1");
  for (int i = 0; i < 200; ++i) {
    auto found = a->Find("p", "phrase" + std::to_string(i), Cancellation());
    ASSERT_TRUE(std::holds_alternative<Making>(found));
  }  // each is given up
  EXPECT_EQ(a->size(), 0u);
  EXPECT_THAT(Files(directory_.path()), ::testing::IsEmpty());
  PARLEY_ASSERT_OK_AND_ASSIGN(const redis::Reply keys, pool().Command({"KEYS", "*phrase*"}));
  EXPECT_THAT(keys.elements, ::testing::IsEmpty());
  EXPECT_TRUE(Make(*a, "phrase7"));
}

TEST_F(SpeechCacheTest, CallersOfOnePhraseWaitForOneMaker) {
  const auto a = Replica("a:1");
  const auto b = Replica("b:1");
  std::atomic<int> made = 0;
  std::atomic<int> heard = 0;
  std::vector<std::thread> callers;
  for (int i = 0; i < 20; ++i) {
    callers.emplace_back([&, i] {
      auto found = (i % 2 == 0 ? *a : *b).Find("p", "hello", Cancellation());
      if (auto* making = std::get_if<Making>(&found)) {
        ++made;
        absl::SleepFor(absl::Milliseconds(100));
        (*making)->Finish(Tone());
      }
      heard += std::holds_alternative<SpeechCache::Hit>(found) ? 1 : 0;
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(made.load(), 1);
  EXPECT_EQ(heard.load(), 19);
}

TEST_F(SpeechCacheTest, NobodyWaitsForEver) {
  SpeechCache::Options options;
  options.wait = absl::Milliseconds(100);
  const auto a = Replica("a:1", options);
  auto making = a->Find("p", "hello", Cancellation());
  ASSERT_TRUE(std::holds_alternative<Making>(making));
  auto other = a->Find("p", "hello", Cancellation());
  EXPECT_TRUE(std::holds_alternative<SpeechCache::Pass>(other));
}

TEST_F(SpeechCacheTest, TheOldestUnusedGoesWhenThereIsNoRoom) {
  SpeechCache::Options options;
  const auto size = static_cast<int64_t>(speech::EncodePhrase(Tone()).size());
  options.max_bytes = size * 4;  // Opus is kept, too
  const auto a = Replica("a:1", options);
  ASSERT_TRUE(Make(*a, "one"));
  ASSERT_TRUE(Make(*a, "two"));
  ASSERT_TRUE(Make(*a, "three"));
  ASSERT_NE(Hit(*a, "one"), nullptr);
  ASSERT_TRUE(Make(*a, "four"));
  EXPECT_LE(a->bytes(), options.max_bytes);
  EXPECT_EQ(Files(directory_.path()).size(), a->size());
  EXPECT_NE(Hit(*a, "one"), nullptr) << "used lately";
  EXPECT_TRUE(Make(*a, "two")) << "gone, here and from the index";
}

TEST_F(SpeechCacheTest, DamagedRecordingsAreMadeAgain) {
  const auto a = Replica("a:1");
  ASSERT_TRUE(Make(*a, "hello"));
  const auto files = Files(directory_.path());
  ASSERT_EQ(files.size(), 1u);
  {
    std::fstream file(files[0], std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(1000);
    file.put('x');
  }
  EXPECT_TRUE(Make(*a, "hello"));
  EXPECT_NE(Hit(*a, "hello"), nullptr);
}

TEST_F(SpeechCacheTest, AReplicaThatIsGoneIsForgotten) {
  auto a = Replica("a:1");
  const auto b = Replica("b:1");
  ASSERT_TRUE(Make(*a, "hello"));
  replicas_.erase("a:1");
  a.reset();
  EXPECT_TRUE(Make(*b, "hello"));
  EXPECT_NE(Hit(*b, "hello"), nullptr);
  EXPECT_EQ(Files(directory_.path()).size(), 1u) << "it took its files with it";
}

TEST_F(SpeechCacheTest, FilesOfAProcessThatWasKilledAreRemovedByTheNext) {
  const std::string orphan = directory_.path() + "/speech-0123456789abcdef";
  fs::create_directories(orphan);
  std::ofstream(orphan + "/lock");
  std::ofstream(orphan + "/hello-1") << "what was said";
  const auto a = Replica("a:1");
  EXPECT_FALSE(fs::exists(orphan));
  const auto b = Replica("b:1");
  EXPECT_TRUE(Make(*a, "hello")) << "whose folder is in use";
}

TEST_F(SpeechCacheTest, FlushedAndOutlivedRecordingsAreNotFound) {
  SpeechCache::Options options;
  options.lifetime = absl::Milliseconds(300);
  const auto a = Replica("a:1", options);
  const auto b = Replica("b:1", options);
  ASSERT_TRUE(Make(*a, "hello"));
  ASSERT_NE(Hit(*b, "hello"), nullptr);
  PARLEY_ASSERT_OK(a->Flush("p"));
  EXPECT_THAT(Files(directory_.path()), ::testing::SizeIs(1)) << "b's, which is found no more";
  ASSERT_TRUE(Make(*b, "hello"));
  EXPECT_TRUE(Eventually([&] { return Make(*a, "hello"); })) << "it has outlived its time";
}

TEST_F(SpeechCacheTest, WithoutRedisNothingIsKeptAndNobodyWaits) {
  const auto a = Replica("a:1");
  ASSERT_TRUE(Make(*a, "hello"));
  server().Kill();
  const absl::Time start = absl::Now();
  for (int i = 0; i < 50; ++i) {
    auto found = a->Find("p", "hello", Cancellation());
    EXPECT_TRUE(std::holds_alternative<SpeechCache::Pass>(found));
  }
  EXPECT_LT(absl::Now() - start, absl::Seconds(1)) << "Redis is asked once, not with each sentence";
}

TEST(PackerTest, KeptOpusIsNotMadeAgain) {
  speech::Phrase phrase = Tone();
  phrase.opus = {"packet one", "packet two"};
  auto packer = AudioPacker::Create(speech::v1::AUDIO_ENCODING_OPUS, 48'000, 16'000);
  ASSERT_TRUE(packer.ok());
  packer->Add(std::vector<int16_t>(100, 7), {});  // less than a packet of the sentence before
  packer->EndSentence();
  const auto out = packer->AddPhrase(phrase);
  ASSERT_EQ(out.size(), 3u);
  EXPECT_EQ(out[1].data(), "packet one");
  EXPECT_EQ(out[2].data(), "packet two");
  ASSERT_EQ(out[1].words_size(), 2);
  EXPECT_EQ(out[1].words(0).start_ms(), 20) << "after the sentence before";
  EXPECT_EQ(packer->MsSoFar(), 60);
}

TEST(PackerTest, KeptOpusComesAsItIsToWhoeverTakesBoth) {
  speech::Phrase phrase = Tone();
  phrase.opus.assign(22, "packet");
  auto packer = AudioPacker::Create(speech::v1::AUDIO_ENCODING_PCM16, 24'000, 16'000, true);
  ASSERT_TRUE(packer.ok());
  const auto out = packer->AddPhrase(phrase);
  ASSERT_EQ(out.size(), 3u) << "one, twenty, and the rest";
  EXPECT_EQ(out[0].packets_size(), 1) << "the first as soon as may be";
  EXPECT_EQ(out[1].packets_size(), 20);
  EXPECT_EQ(out[2].packets(0), "packet");
  EXPECT_EQ(out[1].levels().size(), 20u);
  EXPECT_LT(static_cast<uint8_t>(out[0].levels()[0]), 60) << "a tone";
  EXPECT_TRUE(out[0].data().empty());
  ASSERT_EQ(out[0].words_size(), 2);
  EXPECT_EQ(packer->MsSoFar(), 440);
  packer->EndSentence();
  phrase.opus.clear();
  const auto plain = packer->AddPhrase(phrase);
  ASSERT_FALSE(plain.empty());
  EXPECT_EQ(plain[0].packets_size(), 0) << "what is not kept as Opus comes as samples";
  EXPECT_FALSE(plain[0].data().empty());
  EXPECT_EQ(plain[0].words(0).start_ms(), 440) << "after the sentence before";
}

TEST(PackerTest, MessagesGrowWhileTheEngineIsAhead) {
  auto packer = AudioPacker::Create(speech::v1::AUDIO_ENCODING_PCM16, 24'000, 24'000);
  ASSERT_TRUE(packer.ok());
  constexpr size_t kPiece = 480;  // 20 ms
  std::vector<size_t> frames;     // in each message
  const auto hear = [&](const std::vector<speech::v1::SynthesizedAudio>& messages) {
    for (const auto& message : messages) {
      frames.push_back(message.data().size() / kPiece / sizeof(int16_t));
    }
  };
  for (int i = 0; i < 100; ++i) hear(packer->Add(std::vector<int16_t>(kPiece, 7), {}));
  hear(packer->EndSegment());
  EXPECT_EQ(frames[0], 1u) << "the first as soon as may be";
  EXPECT_LE(frames[1], 3u);
  EXPECT_EQ(*std::max_element(frames.begin(), frames.end()), 20u);
  EXPECT_EQ(std::accumulate(frames.begin(), frames.end(), size_t{0}), 100u);
  EXPECT_LE(frames.size(), 14u) << "two seconds";
  // An engine that is only just in time.
  frames.clear();
  for (int i = 0; i < 20; ++i) {
    hear(packer->Add(std::vector<int16_t>(kPiece, 7), {}));
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EXPECT_LE(*std::max_element(frames.begin(), frames.end()), 3u);
}

TEST(PhraseDigestTest, EverythingThatIsHeardCounts) {
  speech::TtsConfig voice;
  voice.engine = "flite";
  voice.caller.project = "p";
  std::set<std::string> digests = {PhraseDigest(voice, "1", "hello")};
  const auto add = [&](const speech::TtsConfig& one, const char* version, const char* text) {
    EXPECT_TRUE(digests.insert(PhraseDigest(one, version, text)).second);
  };
  add(voice, "2", "hello");
  add(voice, "1", "hello ");
  for (auto change : std::vector<std::function<void(speech::TtsConfig&)>>{
           [](auto& v) { v.engine = "espeak"; }, [](auto& v) { v.voice = "slt"; },
           [](auto& v) { v.language = "en"; }, [](auto& v) { v.rate = 1.1; },
           [](auto& v) { v.pitch = 1.1; }, [](auto& v) { v.options["model"] = "x"; },
           [](auto& v) { v.caller.project = "q"; }}) {
    speech::TtsConfig other = voice;
    change(other);
    add(other, "1", "hello");
  }
  voice.caller.session = "AS_other";
  EXPECT_TRUE(digests.contains(PhraseDigest(voice, "1", "hello")));
}

// ---- three gateways ----

class CachedGatewaysTest : public testing::RedisTest {
 protected:
  static constexpr int kGateways = 3;

  void Start(const MeteredProvider& provider) {
    for (int i = 0; i < kGateways; ++i) {
      TtsGatewayConfig config;
      config.shared.redis.address = PoolConfig().address;
      config.common.cluster_key = "0123456789abcdef0123456789abcdef";  // one cluster
      config.cache_dir = directory_.path();
      config.openai.base_url = provider.url();
      config.openai.model = "voice-1";
      config.openai_voice = "anna";
      using Server = RunningGateway<TtsGatewayConfig>;
      gateways_.push_back(std::make_unique<Server>("tts-gateway", config,
                                                   static_cast<Server::RunFn>(tts_gateway::Run)));
    }
  }
  struct Heard {
    bool done = false;
    bool cancelled = false;
    size_t bytes = 0;
    double first_ms = 0;
  };
  Heard Say(size_t gateway, const std::string& project, const std::string& text,
            const std::map<std::string, std::string>& options = {}, bool interrupt = false) {
    RunningGateway<TtsGatewayConfig>& server = *gateways_[gateway];
    auto stub = speech::v1::TextToSpeechService::NewStub(server.channel());
    auto call = server.Call();
    auto stream = stub->Synthesize(call.get());
    speech::v1::SynthesizeRequest request;
    request.mutable_config()->mutable_context()->set_project(project);
    request.mutable_config()->set_sample_rate_hz(24'000);
    auto* voice = request.mutable_config()->add_voices();
    voice->set_engine("openai");
    voice->mutable_options()->insert(options.begin(), options.end());
    stream->Write(request);
    request.set_text(text);
    stream->Write(request);
    const absl::Time start = absl::Now();
    request.mutable_flush()->set_segment(1);
    stream->Write(request);
    Heard heard;
    speech::v1::SynthesizeResponse response;
    while (!heard.done && stream->Read(&response)) {
      if (response.has_audio() && heard.bytes == 0) {
        heard.first_ms = absl::ToDoubleMilliseconds(absl::Now() - start);
        if (interrupt) {
          request.mutable_cancel();
          stream->Write(request);
        }
      }
      heard.bytes += response.audio().data().size();
      heard.done = response.has_done();
      heard.cancelled = response.done().cancelled();
    }
    stream->WritesDone();
    while (stream->Read(&response)) {
    }
    EXPECT_TRUE(stream->Finish().ok());
    return heard;
  }

  const TemporaryDirectory directory_;
  std::vector<std::unique_ptr<RunningGateway<TtsGatewayConfig>>> gateways_;
};

TEST_F(CachedGatewaysTest, EachPhraseOfAProjectIsMadeOnce) {
  constexpr int kPhrases = 500;
  constexpr int kCallers = 16;
  const char* wished = std::getenv("PARLEY_CACHE_REQUESTS");
  const int requests = wished == nullptr ? 2000 : std::atoi(wished);
  MeteredProvider provider(0, absl::Milliseconds(20));
  Start(provider);
  // Zipf: the n-th phrase is asked for in proportion to 1/n.
  std::vector<double> weights;
  for (int n = 1; n <= kPhrases; ++n) weights.push_back(1.0 / n);
  Mutex mutex;
  std::set<std::string> asked;
  std::atomic<int> next = 0;
  std::vector<std::thread> callers;
  for (int i = 0; i < kCallers; ++i) {
    callers.emplace_back([&, i] {
      std::mt19937 random(static_cast<unsigned>(i));
      std::discrete_distribution<int> zipf(weights.begin(), weights.end());
      for (int n = next++; n < requests; n = next++) {
        const std::string project = n % 5 == 0 ? "other" : "hotel";
        const std::string text = project + ": sentence " + std::to_string(zipf(random));
        const Heard heard = Say(static_cast<size_t>(random()) % kGateways, project, text);
        EXPECT_TRUE(heard.done);
        EXPECT_EQ(heard.bytes, 9600u);
        MutexLock lock(&mutex);
        asked.insert(text);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  // The crowd fills the machine; what a hit costs is told by one caller after it.
  std::vector<double> hit_ms;
  std::mt19937 random(99);
  for (const std::string& text : asked) {
    const std::string project = text.substr(0, text.find(':'));
    hit_ms.push_back(Say(static_cast<size_t>(random()) % kGateways, project, text).first_ms);
  }
  const auto made = provider.asked();
  EXPECT_EQ(made.size(), asked.size());
  for (const auto& [text, times] : made) EXPECT_EQ(times, 1) << text;
  std::sort(hit_ms.begin(), hit_ms.end());
  const auto at = [&](double part) {
    return hit_ms[static_cast<size_t>(part * static_cast<double>(hit_ms.size() - 1))];
  };
  std::cout << requests << " requests, " << asked.size() << " phrases of two projects, made "
            << made.size() << "; first byte of what is kept, n = " << hit_ms.size() << ": p50 "
            << at(0.5) << " ms, p99 " << at(0.99) << " ms\n";
  // The fast tier shares its machine: times are judged in the long form, which has it alone.
  if (wished != nullptr) {
    EXPECT_LE(at(0.99), 10);
  }
}

TEST_F(CachedGatewaysTest, InterruptionsLeaveNoPartialEntry) {
  MeteredProvider provider(0, absl::Milliseconds(60), 48'000);
  Start(provider);
  std::vector<std::thread> callers;
  std::atomic<int> cut = 0;
  for (int i = 0; i < 8; ++i) {
    callers.emplace_back([&, i] {
      for (int n = 0; n < 25; ++n) {
        const std::string text = "p: sentence " + std::to_string(i) + " of " + std::to_string(n);
        cut += Say(static_cast<size_t>(n) % kGateways, "p", text, {}, true).cancelled ? 1 : 0;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  std::cout << cut.load() << " of 200 were cut inside\n";
  EXPECT_GT(cut.load(), 150);
  // Whoever was cut after its sentence was made may leave it behind: whole.
  for (const fs::path& path : Files(directory_.path())) {
    std::ifstream file(path, std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(file)),
                            std::istreambuf_iterator<char>());
    const auto phrase = speech::DecodePhrase(bytes);
    ASSERT_TRUE(phrase.ok()) << phrase.status();
    EXPECT_EQ(phrase->samples.size(), 24'000u);
  }
  for (int n = 0; n < 25; ++n) {
    const std::string text = "p: sentence 3 of " + std::to_string(n);
    EXPECT_EQ(Say(1, "p", text).bytes, 48'000u) << "all of it";
  }
}

TEST_F(CachedGatewaysTest, WhoWantsNothingKeptIsHeardAnew) {
  MeteredProvider provider(0, absl::Milliseconds(1));
  Start(provider);
  for (size_t i = 0; i < 3; ++i) Say(i, "p", "p: my name", {{"cache", "false"}});
  EXPECT_EQ(provider.asked()["p: my name"], 3);
  EXPECT_THAT(Files(directory_.path()), ::testing::IsEmpty());
}

TEST_F(CachedGatewaysTest, FlushedByAnAdmin) {
  MeteredProvider provider(0, absl::Milliseconds(1));
  Start(provider);
  Say(0, "p", "p: hello");
  Say(1, "p", "p: hello");
  EXPECT_EQ(provider.asked()["p: hello"], 1);
  auto stub = speech::v1::SpeechCacheService::NewStub(gateways_[2]->channel());
  speech::v1::FlushRequest request;
  request.set_project("p");
  speech::v1::FlushResponse response;
  grpc::ClientContext anonymous;
  EXPECT_EQ(stub->Flush(&anonymous, request, &response).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_TRUE(stub->Flush(gateways_[2]->Call().get(), request, &response).ok());
  Say(0, "p", "p: hello");
  EXPECT_EQ(provider.asked()["p: hello"], 2);
}

}  // namespace
}  // namespace parley
