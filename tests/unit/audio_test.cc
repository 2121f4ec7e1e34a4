#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sndfile.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <numbers>
#include <random>

#include "audio/level.h"
#include "audio/ogg_opus.h"
#include "audio/opus.h"
#include "audio/pcm.h"
#include "audio/resample.h"
#include "audio/sounds.h"
#include "audio/vad.h"
#include "audio/wav.h"

namespace parley::audio {
namespace {

using ::testing::HasSubstr;

std::vector<int16_t> Sine(double hz, int rate_hz, double seconds, double amplitude = 10'000) {
  std::vector<int16_t> samples(static_cast<size_t>(rate_hz * seconds));
  for (size_t i = 0; i < samples.size(); ++i) {
    const double phase = 2 * std::numbers::pi * hz * static_cast<double>(i) / rate_hz;
    samples[i] = static_cast<int16_t>(amplitude * std::sin(phase));
  }
  return samples;
}

std::vector<int16_t> Noise(double seconds, double amplitude) {
  std::mt19937 random(7);
  std::normal_distribution<double> normal(0, amplitude);
  std::vector<int16_t> samples(static_cast<size_t>(kVoiceRateHz * seconds));
  for (int16_t& sample : samples) sample = static_cast<int16_t>(normal(random));
  return samples;
}

double SpeechShare(Vad& vad, std::span<const int16_t> samples) {
  int speech = 0;
  int frames = 0;
  for (size_t at = 0; at + kVoiceFrameSamples <= samples.size(); at += kVoiceFrameSamples) {
    if (vad.Process(samples.subspan(at, kVoiceFrameSamples)).speech) ++speech;
    ++frames;
  }
  return static_cast<double>(speech) / frames;
}

std::string File(std::string_view name) {
  return (std::filesystem::temp_directory_path() / fmt::format("parley-{}-{}", getpid(), name))
      .string();
}

std::string Bytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(LevelTest, IsLoudnessBelowFullScale) {
  EXPECT_EQ(Level({}), 127U);
  EXPECT_EQ(Level(std::vector<int16_t>(960)), 127U);
  EXPECT_EQ(Level(std::vector<int16_t>(960, -32768)), 0U);
  EXPECT_NEAR(LevelDbov(Sine(440, 48'000, 0.1, 32'767)), -3.0F, 0.1F);
  EXPECT_EQ(Level(Sine(440, 48'000, 0.1, 3'276.7)), 23U);
}

TEST(PcmTest, BytesBecomeWholeSamples) {
  const std::vector<int16_t> samples = {1, -2, 300};
  std::vector<int16_t> back = {7};
  AppendSamples(std::string(AsBytes(samples)) + "x", back);
  EXPECT_EQ(back, (std::vector<int16_t>{7, 1, -2, 300}));
}

TEST(PcmTest, ChannelsComeApart) {
  const std::vector<int16_t> stereo = {1, 3, 5, 7};
  EXPECT_EQ(Channel(stereo, 2, 1), (std::vector<int16_t>{3, 7}));
  EXPECT_EQ(MixDown(stereo, 2), (std::vector<int16_t>{2, 6}));
}

TEST(OpusTest, SoundSurvivesAtBothRates) {
  auto encoder = OpusEncoder::Create({.bitrate_bps = 32'000, .complexity = 0});
  auto wide = OpusDecoder::Create(48'000);
  auto voice = OpusDecoder::Create(16'000);
  ASSERT_TRUE(encoder.ok() && wide.ok() && voice.ok());
  const std::vector<int16_t> tone = Sine(440, 48'000, 0.4);
  std::vector<uint8_t> packet(OpusEncoder::kMaxPacketBytes);
  std::vector<int16_t> out(OpusDecoder::MaxSamples(48'000));
  float wide_level = -127;
  float voice_level = -127;
  for (size_t at = 0; at < tone.size(); at += kRoomFrameSamples) {
    const auto bytes = encoder->Encode(std::span(tone).subspan(at, kRoomFrameSamples), packet);
    ASSERT_TRUE(bytes.ok());
    const std::string_view sent(reinterpret_cast<const char*>(packet.data()), *bytes);
    ASSERT_EQ(wide->Decode(sent, out).value(), 960U);
    wide_level = LevelDbov(std::span(out).first(960));
    ASSERT_EQ(voice->Decode(sent, out).value(), 320U);
    voice_level = LevelDbov(std::span(out).first(320));
  }
  EXPECT_NEAR(wide_level, LevelDbov(tone), 2);
  EXPECT_NEAR(voice_level, LevelDbov(tone), 2);
  EXPECT_EQ(wide->Conceal(std::span(out).first(960)).value(), 960U);
}

// A voice-like sound whose pitch moves: what is made up for a lost frame misses it.
TEST(OpusTest, LostFrameIsRecoveredFromTheNext) {
  auto encoder = OpusEncoder::Create({.rate_hz = 16'000, .expected_loss_percent = 20});
  auto plain = OpusEncoder::Create({.rate_hz = 16'000});
  ASSERT_TRUE(encoder.ok() && plain.ok());
  std::vector<int16_t> voice;
  double phase = 0;
  for (int i = 0; i < 16'000; ++i) {
    phase += 2 * M_PI * (120 + 60 * std::sin(i / 900.0)) / 16'000;
    double sum = 0;
    for (int harmonic = 1; harmonic < 8; ++harmonic) sum += std::sin(phase * harmonic) / harmonic;
    voice.push_back(static_cast<int16_t>(5'000 * sum * (0.6 + 0.4 * std::sin(i / 700.0))));
  }
  // Every fourth packet is lost. How far what is heard instead is from what was sent, on average.
  const auto error_of = [&](OpusEncoder& from, bool recover) {
    auto reference = OpusDecoder::Create(16'000);
    auto lossy = OpusDecoder::Create(16'000);
    std::vector<uint8_t> packet(OpusEncoder::kMaxPacketBytes);
    std::vector<int16_t> sent(OpusDecoder::MaxSamples(16'000));
    std::vector<int16_t> heard(sent);
    std::vector<int16_t> lost_frame;
    double error = 0;
    for (size_t at = 0; at + 320 <= voice.size(); at += 320) {
      const auto bytes = from.Encode(std::span(voice).subspan(at, 320), packet);
      const std::string_view view(reinterpret_cast<const char*>(packet.data()), *bytes);
      EXPECT_EQ(reference->Decode(view, sent).value(), 320U);
      if (at / 320 % 4 == 3) {
        lost_frame.assign(sent.begin(), sent.begin() + 320);
        continue;
      }
      if (!lost_frame.empty()) {
        const auto count = recover ? lossy->Recover(view, std::span(heard).first(320))
                                   : lossy->Conceal(std::span(heard).first(320));
        EXPECT_EQ(count.value(), 320U);
        for (size_t i = 0; i < 320; ++i) error += std::pow(heard[i] - lost_frame[i], 2);
        lost_frame.clear();
      }
      EXPECT_EQ(lossy->Decode(view, heard).value(), 320U);
    }
    return error;
  };
  const double recovered = error_of(*encoder, true);
  encoder->Reset();
  EXPECT_LT(recovered, error_of(*encoder, false) / 2);
  EXPECT_GT(error_of(*plain, true), 0) << "without such a copy it is made up";
}

TEST(OpusTest, SaysWhatIsWrong) {
  EXPECT_THAT(OpusEncoder::Create({.bitrate_bps = 1}).status().message(), HasSubstr("6000"));
  EXPECT_THAT(OpusEncoder::Create({.complexity = 11}).status().message(), HasSubstr("0 to 10"));
  EXPECT_FALSE(OpusEncoder::Create({.expected_loss_percent = 101}).ok());
  EXPECT_FALSE(OpusDecoder::Create(44'100).ok());
  auto encoder = OpusEncoder::Create();
  std::vector<uint8_t> packet(OpusEncoder::kMaxPacketBytes);
  EXPECT_FALSE(encoder->Encode(std::vector<int16_t>(480), packet).ok());
  auto decoder = OpusDecoder::Create(16'000);
  std::vector<int16_t> out(OpusDecoder::MaxSamples(16'000));
  EXPECT_FALSE(decoder->Decode("", out).ok());
  EXPECT_FALSE(decoder->Decode(std::string(3, '\xff'), out).ok());
  EXPECT_FALSE(decoder->Conceal(std::span(out).first(7)).ok());
  EXPECT_FALSE(decoder->Recover("", std::span(out).first(320)).ok());
}

TEST(ResampleTest, KeepsLengthAndLoudness) {
  const std::vector<int16_t> tone = Sine(440, 48'000, 0.5);
  const auto voice = Resample(tone, 48'000, 16'000);
  ASSERT_TRUE(voice.ok());
  EXPECT_EQ(voice->size(), tone.size() / 3);
  EXPECT_NEAR(LevelDbov(*voice), LevelDbov(tone), 0.3);
  const auto odd = Resample(tone, 44'100, 16'000);
  EXPECT_EQ(odd->size(), tone.size() * 16'000 / 44'100);
}

TEST(ResampleTest, StreamsInPiecesOfAnySize) {
  auto whole = Resampler::Create(22'050, 48'000);
  auto pieces = Resampler::Create(22'050, 48'000);
  const std::vector<int16_t> tone = Sine(300, 22'050, 0.5);
  std::vector<int16_t> once;
  whole->Append(tone, once);
  std::vector<int16_t> many;
  for (size_t at = 0, size = 1; at < tone.size(); at += size, size = size % 97 + 1) {
    pieces->Append(std::span(tone).subspan(at, std::min(size, tone.size() - at)), many);
  }
  EXPECT_EQ(once, many);
  EXPECT_NEAR(static_cast<double>(once.size()), 24'000, 100);
}

TEST(ResampleTest, EqualRatesCopyAndBadOnesAreRefused) {
  auto same = Resampler::Create(16'000, 16'000);
  std::vector<int16_t> out;
  same->Append(std::vector<int16_t>{1, 2, 3}, out);
  EXPECT_EQ(out, (std::vector<int16_t>{1, 2, 3}));
  EXPECT_FALSE(Resampler::Create(0, 16'000).ok());
  EXPECT_FALSE(Resampler::Create(16'000, 16'000, 11).ok());
}

TEST(WavTest, WrittenIsRead) {
  const std::string path = File("stereo.wav");
  const std::vector<int16_t> left = {1, 2, 3};
  const std::vector<int16_t> right = {-1};
  ASSERT_TRUE(WriteStereoWav(path, 16'000, left, right).ok());
  const auto wav = ReadWav(path);
  ASSERT_TRUE(wav.ok()) << wav.status();
  EXPECT_EQ(wav->rate_hz, 16'000);
  EXPECT_EQ(wav->samples, (std::vector<int16_t>{1, -1, 2, 0, 3, 0}));
  std::filesystem::remove(path);
}

TEST(WavTest, EachKindOfBadFileHasItsWord) {
  const std::string path = File("good.wav");
  ASSERT_TRUE(
      WriteWav(path, {.rate_hz = 16'000, .channels = 1, .samples = Sine(440, 16'000, 0.1)}).ok());
  const std::string good = Bytes(path);
  std::filesystem::remove(path);
  EXPECT_THAT(ParseWav("").status().message(), HasSubstr("empty"));
  EXPECT_THAT(ParseWav("ID3 not audio at all").status().message(), HasSubstr("not a WAV"));
  EXPECT_THAT(ParseWav(good.substr(0, 20)).status().message(), HasSubstr("cut short"));
  EXPECT_THAT(ParseWav(good.substr(0, good.size() - 100)).status().message(),
              HasSubstr("cut short"));
  EXPECT_THAT(ParseWav(good.substr(0, 44)).status().message(), HasSubstr("no audio"));
  std::string mulaw = good;
  mulaw[20] = 7;  // the format tag
  mulaw[34] = 8;
  EXPECT_THAT(ParseWav(mulaw).status().message(), HasSubstr("not PCM"));
  EXPECT_THAT(ReadWav("/nonexistent.wav").status().message(), HasSubstr("cannot open"));
  EXPECT_FALSE(ReadWav("/tmp").ok());
  EXPECT_FALSE(WriteWav("/nonexistent/x.wav", {.rate_hz = 16'000, .channels = 1}).ok());
}

TEST(SoundsTest, EachIsItsOwnSofterThanSpeechAndNeverTheSame) {
  constexpr size_t kSamples = size_t{20} * kSoundRateHz;
  std::map<std::string, float> levels;
  for (const std::string_view name : kSoundNames) {
    const auto sound = MakeSound(name, 1);
    const auto same = MakeSound(name, 1);
    const auto other = MakeSound(name, 2);
    ASSERT_NE(sound, nullptr) << name;
    std::vector<int16_t> samples(kSamples);
    bool differs = false;
    for (int16_t& sample : samples) {
      const float value = sound->Next();
      ASSERT_EQ(value, same->Next()) << name;
      ASSERT_LT(std::abs(value), 0.5F) << name << " at its loudest";
      differs = differs || value != other->Next();
      sample = static_cast<int16_t>(value * 32'767);
    }
    EXPECT_EQ(differs, name != "pulse") << name;
    levels[std::string(name)] = LevelDbov(samples);
    fmt::print("{}: {:.1f} dBov\n", name, levels[std::string(name)]);
    EXPECT_GT(levels[std::string(name)], -65) << name;
    EXPECT_LT(levels[std::string(name)], -28) << name;
    // No hole, and no step: it may be played for hours.
    for (size_t second = 0; second < 20; second += 5) {
      const auto part = std::span(samples).subspan(second * kSoundRateHz, size_t{5} * kSoundRateHz);
      EXPECT_NEAR(LevelDbov(part), levels[std::string(name)], 6) << name;
    }
  }
  EXPECT_GT(levels["keyboard"], levels["office"]) << "the office's keys are far away";
  EXPECT_EQ(MakeSound("casino", 1), nullptr);
}

TEST(SoundsTest, ALoopGoesRoundAndAnEmptyOneIsSilent) {
  const auto loop = LoopOf({16'384, -16'384});
  EXPECT_FLOAT_EQ(loop->Next(), 0.5F);
  EXPECT_FLOAT_EQ(loop->Next(), -0.5F);
  EXPECT_FLOAT_EQ(loop->Next(), 0.5F);
  EXPECT_EQ(LoopOf({})->Next(), 0);
}

TEST(VadTest, SteadySoundsAreNotSpeech) {
  const auto vad = NewWebrtcVad();
  EXPECT_LT(SpeechShare(*vad, std::vector<int16_t>(kVoiceRateHz * 2)), 0.01) << "silence";
  vad->Reset();
  EXPECT_LT(SpeechShare(*vad, Noise(4, 800)), 0.02) << "white noise";
  vad->Reset();
  EXPECT_LT(SpeechShare(*vad, Sine(120, kVoiceRateHz, 4)), 0.02) << "hum";
  vad->Reset();
  EXPECT_LT(SpeechShare(*vad, Sine(1'000, kVoiceRateHz, 4)), 0.02) << "tone";
}

// Recordings of people and of noise that Debian's alsa-utils ships.
class VadRecordingTest : public ::testing::Test {
 protected:
  static std::vector<int16_t> Clip(std::string_view name) {
    auto samples = ReadSpeech(fmt::format("/usr/share/sounds/alsa/{}.wav", name), kVoiceRateHz);
    return samples.ok() ? *samples : std::vector<int16_t>();
  }
};

TEST_F(VadRecordingTest, HearsPeopleAndNotPinkNoise) {
  for (const char* name : {"Front_Center", "Front_Left", "Rear_Right", "Side_Left"}) {
    const std::vector<int16_t> clip = Clip(name);
    if (clip.empty()) GTEST_SKIP() << "alsa-utils is not installed";
    const auto vad = NewWebrtcVad();
    EXPECT_GT(SpeechShare(*vad, clip), 0.4) << name;
  }
  const auto vad = NewWebrtcVad();
  EXPECT_LT(SpeechShare(*vad, Clip("Noise")), 0.05);
}

TEST_F(VadRecordingTest, HearsSpeechOverNoise) {
  std::vector<int16_t> clip = Clip("Front_Center");
  if (clip.empty()) GTEST_SKIP() << "alsa-utils is not installed";
  const std::vector<int16_t> noise =
      Noise(static_cast<double>(clip.size()) / kVoiceRateHz + 3, 150);
  const auto vad = NewWebrtcVad();
  EXPECT_LT(SpeechShare(*vad, std::span(noise).first(kVoiceRateHz * 3)), 0.05);
  for (size_t i = 0; i < clip.size(); ++i) {
    clip[i] =
        static_cast<int16_t>(std::clamp(clip[i] + noise[i + kVoiceRateHz * 3], -32'768, 32'767));
  }
  EXPECT_GT(SpeechShare(*vad, clip), 0.3);
}

// What a second of silence, a second of a tone on the right and a crash leave, as a player sees it.
TEST(OggOpusTest, AFileCutOffIsPlayedToItsLastPage) {
  auto encoder = OpusEncoder::Create({.rate_hz = 24'000, .channels = 2, .bitrate_bps = 48'000});
  ASSERT_TRUE(encoder.ok()) << encoder.status();
  std::string whole;
  size_t after_page = 0;
  OggOpusWriter writer({.channels = 2, .pre_skip = encoder->pre_skip()},
                       [&](std::string_view bytes) { whole += bytes; });
  std::vector<uint8_t> packet(OpusEncoder::kMaxPacketBytes);
  for (int frame = 0; frame < 120; ++frame) {
    std::vector<int16_t> samples(2 * 480);
    for (int i = 0; i < 480 && frame >= 50; ++i) {
      const double t = (frame * 480 + i) / 24'000.0;
      samples[2 * i + 1] = static_cast<int16_t>(8'000 * std::sin(2 * M_PI * 440 * t));
    }
    const auto bytes = encoder->Encode(samples, packet);
    ASSERT_TRUE(bytes.ok());
    writer.Append({reinterpret_cast<const char*>(packet.data()), *bytes});
    if (frame == 110) after_page = whole.size();
  }
  writer.End();
  const std::string path = ::testing::TempDir() + "call-" + std::to_string(getpid()) + ".ogg";
  const auto play = [&](size_t bytes) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << whole.substr(0, bytes);
    SF_INFO info{};
    std::vector<float> samples;
    SNDFILE* file = sf_open(path.c_str(), SFM_READ, &info);
    if (file == nullptr) return std::make_pair(std::vector<float>(), 0.0);
    EXPECT_EQ(info.channels, 2);
    EXPECT_EQ(info.samplerate, 48'000);
    samples.resize(size_t{2} * 48'000 * 3);
    samples.resize(2 * static_cast<size_t>(sf_readf_float(file, samples.data(), 48'000 * 3)));
    sf_close(file);
    return std::make_pair(samples, static_cast<double>(samples.size()) / 2 / 48'000);
  };
  const auto [samples, seconds] = play(whole.size());
  EXPECT_NEAR(seconds, 2.4, 0.02);
  double left = 0;
  double right = 0;
  for (size_t i = 2 * 48'000 * 12 / 10; i + 1 < samples.size(); i += 2) {
    left += samples[i] * samples[i];
    right += samples[i + 1] * samples[i + 1];
  }
  EXPECT_GT(right, 100 * left + 1);
  // A crash: two pages of sound are there, the third is not begun.
  EXPECT_NEAR(play(after_page).second, 2.0, 0.02);
  // The disk was full in the middle of a page.
  const double cut = play(after_page - 100).second;
  EXPECT_GE(cut, 1.0);
  EXPECT_LT(cut, 1.95);
  std::remove(path.c_str());
}

}  // namespace
}  // namespace parley::audio
