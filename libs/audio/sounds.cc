#include "audio/sounds.h"

#include <cmath>
#include <numbers>
#include <utility>

namespace parley::audio {
namespace {

constexpr float kRate = kSoundRateHz;

class Noise {
 public:
  explicit Noise(uint32_t seed) : state_(seed * 2'654'435'761U | 1U) {}
  uint32_t Bits() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 17;
    state_ ^= state_ << 5;
    return state_;
  }
  float White() { return static_cast<float>(static_cast<int32_t>(Bits())) * 0x1p-31F; }
  float Between(float low, float high) {
    return low + (high - low) * static_cast<float>(Bits() >> 8) * 0x1p-24F;
  }

 private:
  uint32_t state_;
};

// What is left of noise under `hz`.
class LowPass {
 public:
  explicit LowPass(float hz) : share_(1 - std::exp(-2 * std::numbers::pi_v<float> * hz / kRate)) {}
  float operator()(float sample) { return value_ += share_ * (sample - value_); }

 private:
  const float share_;
  float value_ = 0;
};

// A tone that dies away, with a time constant in seconds.
class Ring {
 public:
  void Strike(float amplitude, float hz, float seconds) {
    amplitude_ = amplitude;
    step_ = 2 * std::numbers::pi_v<float> * hz / kRate;
    decay_ = std::exp(-1 / (seconds * kRate));
    phase_ = 0;
  }
  float Next() {
    if (amplitude_ < 1e-5F) return 0;
    amplitude_ *= decay_;
    phase_ += step_;
    return amplitude_ * std::sin(phase_);
  }

 private:
  float amplitude_ = 0;
  float step_ = 0;
  float decay_ = 0;
  float phase_ = 0;
};

int Samples(float seconds) { return static_cast<int>(seconds * kRate); }

class Room final : public Sound {
 public:
  explicit Room(uint32_t seed) : noise_(seed) {}
  float Next() override {
    const float white = noise_.White();
    return 0.06F * air_(white) + 0.012F * breath_(white);
  }

 private:
  Noise noise_;
  LowPass air_{120};
  LowPass breath_{900};
};

// A word's worth of keys, a pause, the next word.
class Keyboard final : public Sound {
 public:
  explicit Keyboard(uint32_t seed) : noise_(seed) {}
  float Next() override {
    if (--until_ <= 0) Press();
    click_ *= 0.990F;  // 4 ms
    const float white = noise_.White();
    return 0.16F * click_ * (white - dull_(white)) + body_.Next();
  }

 private:
  void Press() {
    click_ = noise_.Between(0.5F, 1);
    body_.Strike(0.06F * click_, noise_.Between(170, 260), 0.012F);
    if (keys_-- > 0) {
      until_ = Samples(noise_.Between(0.07F, 0.2F));
    } else {
      keys_ = static_cast<int>(noise_.Between(2, 11));
      until_ = Samples(noise_.Between(0.3F, 1.1F));
    }
  }
  Noise noise_;
  LowPass dull_{1'500};
  Ring body_;
  float click_ = 0;
  int until_ = 1;
  int keys_ = 6;
};

// Somebody talks too far away to be understood.
class Murmur final : public Sound {
 public:
  explicit Murmur(uint32_t seed) : noise_(seed) {}
  float Next() override {
    if (--until_ <= 0) {
      const bool pause = --syllables_ <= 0;
      if (pause) syllables_ = static_cast<int>(noise_.Between(4, 14));
      wanted_ = pause ? 0 : noise_.Between(0.3F, 1);
      until_ = Samples(pause ? noise_.Between(0.8F, 4) : noise_.Between(0.09F, 0.24F));
    }
    const float white = noise_.White();
    const float voice = upper_(white) - lower_(white);
    return voice * loud_(wanted_);
  }

 private:
  Noise noise_;
  LowPass lower_{250};
  LowPass upper_{700};
  LowPass loud_{8};
  float wanted_ = 0;
  int until_ = 1;
  int syllables_ = 3;
};

class Office final : public Sound {
 public:
  explicit Office(uint32_t seed) : room_(seed), keys_(seed + 1), one_(seed + 2), two_(seed + 3) {}
  float Next() override {
    return room_.Next() + 0.12F * wall_(keys_.Next()) + 0.025F * one_.Next() + 0.018F * two_.Next();
  }

 private:
  Room room_;
  Keyboard keys_;
  Murmur one_;
  Murmur two_;
  LowPass wall_{1'800};
};

class Rain final : public Sound {
 public:
  explicit Rain(uint32_t seed) : noise_(seed) {}
  float Next() override {
    if (--until_ <= 0) {
      drops_[next_].Strike(noise_.Between(0.002F, 0.02F), noise_.Between(1'400, 3'800), 0.004F);
      next_ = (next_ + 1) % drops_.size();
      until_ = Samples(noise_.Between(0.005F, 0.06F));
    }
    const float white = noise_.White();
    float sum = 0.012F * (soft_(white) - low_(white));
    for (Ring& drop : drops_) sum += drop.Next();
    return sum;
  }

 private:
  Noise noise_;
  LowPass low_{300};
  LowPass soft_{4'000};
  std::array<Ring, 4> drops_;
  size_t next_ = 0;
  int until_ = 1;
};

class Pulse final : public Sound {
 public:
  float Next() override {
    if (at_ == 0) first_.Strike(0.09F, 523.25F, 0.18F);
    if (at_ == Samples(0.16F)) second_.Strike(0.09F, 659.25F, 0.25F);
    at_ = (at_ + 1) % Samples(2.4F);
    return soft_(first_.Next() + second_.Next());
  }

 private:
  Ring first_;
  Ring second_;
  LowPass soft_{2'000};
  int at_ = 0;
};

class Loop final : public Sound {
 public:
  explicit Loop(std::vector<int16_t> samples) : samples_(std::move(samples)) {}
  float Next() override {
    if (samples_.empty()) return 0;
    const float sample = static_cast<float>(samples_[at_]) * 0x1p-15F;
    at_ = (at_ + 1) % samples_.size();
    return sample;
  }

 private:
  const std::vector<int16_t> samples_;
  size_t at_ = 0;
};

}  // namespace

std::unique_ptr<Sound> MakeSound(std::string_view name, uint32_t seed) {
  if (name == "room") return std::make_unique<Room>(seed);
  if (name == "office") return std::make_unique<Office>(seed);
  if (name == "rain") return std::make_unique<Rain>(seed);
  if (name == "keyboard") return std::make_unique<Keyboard>(seed);
  if (name == "pulse") return std::make_unique<Pulse>();
  return nullptr;
}

std::unique_ptr<Sound> LoopOf(std::vector<int16_t> samples) {
  return std::make_unique<Loop>(std::move(samples));
}

}  // namespace parley::audio
