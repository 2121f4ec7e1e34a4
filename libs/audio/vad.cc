#include "audio/vad.h"

#include <webrtc/modules/audio_processing/include/audio_processing.h>
#include <webrtc/modules/interface/module_common_types.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "audio/level.h"
#include "audio/pcm.h"
#include "base/check.h"

namespace parley::audio {
namespace {

constexpr size_t kStepSamples = kVoiceRateHz / 100;  // the detector works in steps of 10 ms

// The lowest level of the last 1.5 to 2 s: speech falls to the room's noise between syllables and
// words, noise and hum never do. Kept as minima of half-second blocks.
class NoiseFloor {
 public:
  void Add(float level_dbov) {
    block_min_ = std::min(block_min_, level_dbov);
    if (++in_block_ < kBlockSteps) return;
    minima_[next_] = block_min_;
    next_ = (next_ + 1) % minima_.size();
    block_min_ = 0;
    in_block_ = 0;
  }
  float dbov() const {
    return std::min(block_min_, *std::min_element(minima_.begin(), minima_.end()));
  }

 private:
  static constexpr int kBlockSteps = 50;
  std::array<float, 3> minima_{0, 0, 0};
  size_t next_ = 0;
  float block_min_ = 0;
  int in_block_ = 0;
};

// Tones (DTMF, dial tones, hum) keep one level; voiced speech moves by more within 100 ms.
class Steadiness {
 public:
  void Add(float level_dbov) {
    levels_[next_] = level_dbov;
    next_ = (next_ + 1) % levels_.size();
  }
  bool steady() const {
    const auto [low, high] = std::minmax_element(levels_.begin(), levels_.end());
    return *high - *low < kSpreadDb;
  }

 private:
  static constexpr float kSpreadDb = 1.6F;
  std::array<float, 6> levels_{};  // all zero at first: as good as a tone
  size_t next_ = 0;
};

class WebrtcVad final : public Vad {
 public:
  explicit WebrtcVad(const WebrtcVadOptions& options) : options_(options) { Reset(); }

  VadFrame Process(std::span<const int16_t> frame) override {
    PARLEY_CHECK(frame.size() == kStepSamples || frame.size() == 2 * kStepSamples);
    VadFrame result;
    float speech_steps = 0;
    const size_t steps = frame.size() / kStepSamples;
    for (size_t i = 0; i < steps; ++i) {
      result.speech = Step(frame.subspan(i * kStepSamples, kStepSamples));
      if (result.speech) ++speech_steps;
    }
    result.level_dbov = LevelDbov(frame);
    result.probability = speech_steps / static_cast<float>(steps);
    return result;
  }

  void Reset() override {
    processing_.reset(webrtc::AudioProcessing::Create());
    PARLEY_CHECK(processing_ != nullptr);
    webrtc::VoiceDetection* detection = processing_->voice_detection();
    PARLEY_CHECK(detection->set_likelihood(webrtc::VoiceDetection::kLowLikelihood) == 0);
    PARLEY_CHECK(detection->Enable(true) == 0);
    floor_ = {};
    steadiness_ = {};
    last_ = 0;
    power_ = -1;
    audio_.sample_rate_hz_ = kVoiceRateHz;
    audio_.num_channels_ = 1;
    audio_.samples_per_channel_ = kStepSamples;
  }

 private:
  bool Step(std::span<const int16_t> samples) {
    const float level = Smoothed(Emphasized(samples));
    floor_.Add(level);
    steadiness_.Add(level);
    // What can be told without it costs a tenth of the detector, and callers are silent mostly.
    if (LevelDbov(samples) < options_.min_level_dbov) return false;
    std::memcpy(audio_.data_, samples.data(), samples.size_bytes());
    PARLEY_CHECK(processing_->ProcessStream(&audio_) == 0);
    return processing_->voice_detection()->stream_has_voice() &&
           level >= floor_.dbov() + options_.above_noise_db && !steadiness_.steady();
  }

  // Power of the first difference, which noise of rooms, roads and fans (most of it low) has little
  // of.
  double Emphasized(std::span<const int16_t> samples) {
    double power = 0;
    for (const int16_t sample : samples) {
      const double difference = sample - 0.95 * last_;
      power += difference * difference;
      last_ = sample;
    }
    return power / static_cast<double>(samples.size());
  }
  // In dB over about 30 ms: shorter pieces of noise differ too much in power.
  float Smoothed(double power) {
    power_ = power_ < 0 ? power : power_ + (power - power_) / 3;
    return static_cast<float>(10 * std::log10(power_ + 1));
  }

  const WebrtcVadOptions options_;
  std::unique_ptr<webrtc::AudioProcessing> processing_;
  webrtc::AudioFrame audio_;
  double last_ = 0;
  double power_ = -1;  // nothing heard yet
  NoiseFloor floor_;
  Steadiness steadiness_;
};

}  // namespace

std::unique_ptr<Vad> NewWebrtcVad(const WebrtcVadOptions& options) {
  return std::make_unique<WebrtcVad>(options);
}

}  // namespace parley::audio
