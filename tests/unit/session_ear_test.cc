// The voice detector and the gate together, on recordings of people: what the recogniser would get.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "audio/opus.h"
#include "audio/pcm.h"
#include "audio/vad.h"
#include "audio/wav.h"
#include "session/gate.h"

namespace parley::session {
namespace {

struct Utterance {
  int64_t start_ms = 0;
  int64_t end_ms = 0;
};

constexpr int kLeadMs = 500;

// As in a room: half a second of quiet, the recording, a second of quiet, through Opus.
std::vector<Utterance> Listen(const std::vector<int16_t>& recording) {
  std::vector<int16_t> samples(kLeadMs * 48);
  samples.insert(samples.end(), recording.begin(), recording.end());
  samples.resize(samples.size() + 48'000);
  auto encoder = audio::OpusEncoder::Create({.complexity = 0});
  auto decoder = audio::OpusDecoder::Create(16'000);
  const auto vad = audio::NewWebrtcVad();
  SpeechGate gate{Options{}};
  std::vector<uint8_t> packet(audio::OpusEncoder::kMaxPacketBytes);
  std::vector<int16_t> frame(audio::OpusDecoder::MaxSamples(16'000));
  std::vector<Utterance> heard;
  int64_t now_us = 0;
  for (size_t at = 0; at + 960 <= samples.size(); at += 960) {
    const size_t bytes = encoder->Encode(std::span(samples).subspan(at, 960), packet).value();
    const size_t count =
        decoder->Decode({reinterpret_cast<const char*>(packet.data()), bytes}, frame).value();
    now_us += SpeechGate::kFrameUs;
    const bool speech = vad->Process(std::span(frame).first(count)).speech;
    switch (gate.Add(speech, now_us)) {
      case SpeechGate::Edge::kStarted:
        heard.push_back({.start_ms = gate.start_us() / 1000});
        break;
      case SpeechGate::Edge::kStopped:
        heard.back().end_ms = gate.last_speech_us() / 1000;
        break;
      case SpeechGate::Edge::kNone:
        break;
    }
  }
  return heard;
}

TEST(EarTest, APhraseIsOneUtterance) {
  for (const char* name : {"Front_Center", "Front_Left", "Front_Right", "Rear_Center", "Rear_Left",
                           "Rear_Right", "Side_Left", "Side_Right"}) {
    const auto clip =
        audio::ReadSpeech(std::string("/usr/share/sounds/alsa/") + name + ".wav", 48'000);
    if (!clip.ok()) GTEST_SKIP() << "alsa-utils is not installed";
    const std::vector<Utterance> heard = Listen(*clip);
    for (const Utterance& one : heard) {
      std::printf("%-14s %5ld to %5ld ms of %zu\n", name, static_cast<long>(one.start_ms - kLeadMs),
                  static_cast<long>(one.end_ms - kLeadMs), clip->size() / 48);
    }
    ASSERT_EQ(heard.size(), 1U) << name;
    // With the pre-roll of 400 ms the recogniser has it from its first sound on.
    EXPECT_LT(heard[0].start_ms - kLeadMs, 400) << name;
    EXPECT_GT(heard[0].end_ms - kLeadMs, 1'000) << name;
  }
}

TEST(EarTest, NoiseIsNoUtterance) {
  const auto clip = audio::ReadSpeech("/usr/share/sounds/alsa/Noise.wav", 48'000);
  if (!clip.ok()) GTEST_SKIP() << "alsa-utils is not installed";
  std::vector<int16_t> minute;
  while (minute.size() < 48'000 * 20) minute.insert(minute.end(), clip->begin(), clip->end());
  int64_t speech_ms = 0;
  for (const Utterance& one : Listen(minute)) speech_ms += one.end_ms - one.start_ms;
  EXPECT_LT(speech_ms, 1'000);
}

// Recordings that are not shipped: the folder named by PARLEY_TEST_AUDIO, where there is one.
TEST(EarTest, CommandsAreOneUtterance) {
  const char* folder = std::getenv("PARLEY_TEST_AUDIO");
  if (folder == nullptr) GTEST_SKIP() << "PARLEY_TEST_AUDIO is not set";
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename();
    if (!name.starts_with("cards") && !name.starts_with("go-")) continue;
    const auto clip = audio::ReadSpeech(entry.path(), 48'000);
    ASSERT_TRUE(clip.ok()) << clip.status();
    const std::vector<Utterance> heard = Listen(*clip);
    for (const Utterance& one : heard) {
      std::printf("%-30s %5ld to %5ld ms of %zu\n", name.c_str(),
                  static_cast<long>(one.start_ms - kLeadMs),
                  static_cast<long>(one.end_ms - kLeadMs), clip->size() / 48);
    }
    EXPECT_EQ(heard.size(), 1U) << name;
  }
}

}  // namespace
}  // namespace parley::session
