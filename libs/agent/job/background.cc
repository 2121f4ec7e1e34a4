#include "agent/job/background.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "audio/wav.h"
#include "base/status.h"

namespace parley::agent {
namespace {

constexpr int64_t kFrameUs = 20'000;
constexpr uint32_t kFrameTicks = 960;
constexpr uint32_t kTicksPerMs = 48;
// What is still handed over when more is made.
constexpr int64_t kCushionUs = 2 * kFrameUs;
constexpr float kFadeStep = 1 / (0.15F * audio::kSoundRateHz);
constexpr double kLoudest = 4;
constexpr size_t kMostSamples = size_t{60} * audio::kSoundRateHz;

absl::Status CheckSound(std::string_view what, const BackgroundSound& one) {
  const auto& names = audio::kSoundNames;
  if (!one.name.empty() && std::ranges::find(names, one.name) == names.end()) {
    return InvalidArgument("background: {}: there is no sound \"{}\"", what, one.name);
  }
  if (one.samples.size() > kMostSamples) {
    return InvalidArgument("background: {}: a loop lasts a minute at most", what);
  }
  if (!(one.volume >= 0 && one.volume <= kLoudest)) {
    return InvalidArgument("background: {}: the volume is outside 0 to {}", what, kLoudest);
  }
  return absl::OkStatus();
}

std::unique_ptr<audio::Sound> SoundOf(const BackgroundSound& one, uint32_t seed) {
  if (!one.name.empty()) return audio::MakeSound(one.name, seed);
  return one.samples.empty() ? nullptr : audio::LoopOf(one.samples);
}

}  // namespace

absl::StatusOr<std::vector<int16_t>> ReadSound(const std::string& path) {
  return audio::ReadSpeech(path, audio::kSoundRateHz);
}

absl::Status BackgroundPlayer::Check(const Background& sounds) {
  PARLEY_RETURN_IF_ERROR(CheckSound("ambient", sounds.ambient));
  return CheckSound("thinking", sounds.thinking);
}

absl::StatusOr<std::unique_ptr<BackgroundPlayer>> BackgroundPlayer::Create(event::Loop& loop,
                                                                           const Background& sounds,
                                                                           Sink sink,
                                                                           absl::Duration ahead) {
  PARLEY_RETURN_IF_ERROR(Check(sounds));
  PARLEY_ASSIGN_OR_RETURN(audio::OpusEncoder encoder,
                          audio::OpusEncoder::Create({.rate_hz = audio::kSoundRateHz,
                                                      .bitrate_bps = 32'000,
                                                      .complexity = 0,
                                                      .low_delay = true}));
  std::unique_ptr<BackgroundPlayer> made(
      new BackgroundPlayer(loop, std::move(encoder), std::move(sink), ahead));
  uint32_t seed = 1;
  for (const auto& [source, one] : {std::pair(&made->sources_[0], &sounds.ambient),
                                    std::pair(&made->sources_[1], &sounds.thinking)}) {
    source->sound = SoundOf(*one, seed++);
    source->volume = static_cast<float>(one->volume);
  }
  return made;
}

BackgroundPlayer::BackgroundPlayer(event::Loop& loop, audio::OpusEncoder encoder, Sink sink,
                                   absl::Duration ahead)
    : loop_(loop),
      encoder_(std::move(encoder)),
      sink_(std::move(sink)),
      ahead_us_(absl::ToInt64Microseconds(std::max(ahead, absl::ZeroDuration()))),
      timer_(loop) {}

void BackgroundPlayer::Play(bool ambient, bool thinking) {
  sources_[0].wanted = ambient;
  sources_[1].wanted = thinking;
  if (running_ || std::ranges::none_of(sources_, &Source::sounds)) return;
  running_ = true;
  const int64_t now_us = loop_.NowMicros();
  // The media clock goes on while nothing is heard.
  const int64_t gap_us = next_due_us_ == 0 ? 0 : std::max<int64_t>(now_us - next_due_us_, 0);
  timestamp_ += static_cast<uint32_t>(gap_us / kFrameUs) * kFrameTicks;
  next_due_us_ = std::max(next_due_us_, now_us);
  encoder_.Reset();
  Run();
}

void BackgroundPlayer::Run() {
  const int64_t now_us = loop_.NowMicros();
  // A process that stood still does not hurry after its time.
  if (const int64_t late_us = now_us - next_due_us_; late_us > 5 * kFrameUs) {
    timestamp_ += static_cast<uint32_t>(late_us / 1000) * kTicksPerMs;
    next_due_us_ = now_us;
  }
  while (next_due_us_ <= now_us + ahead_us_) {
    running_ = std::ranges::any_of(sources_, &Source::sounds);
    if (!running_) return timer_.Stop();
    MakeFrame(now_us);
  }
  const int64_t cushion_us = std::min(kCushionUs, ahead_us_);
  timer_.StartOnce(absl::Microseconds(std::max<int64_t>(next_due_us_ - cushion_us - now_us, 0)),
                   [this] { Run(); });
}

void BackgroundPlayer::MakeFrame(int64_t now_us) {
  std::array<int16_t, kFrameSamples> frame;
  std::array<uint8_t, audio::OpusEncoder::kMaxPacketBytes> packet;
  for (int16_t& sample : frame) {
    float sum = 0;
    for (Source& source : sources_) {
      if (!source.sounds()) continue;
      const float step = source.wanted ? kFadeStep : -kFadeStep;
      source.gain = std::clamp(source.gain + step, 0.0F, 1.0F);
      sum += source.gain * source.volume * source.sound->Next();
    }
    sample = static_cast<int16_t>(std::lround(std::clamp(sum, -1.0F, 1.0F) * 32'767.0F));
  }
  const size_t bytes = encoder_.Encode(frame, packet).value_or(0);
  const int64_t due_us = std::exchange(next_due_us_, next_due_us_ + kFrameUs);
  timestamp_ += kFrameTicks;
  sink_({.packet = {reinterpret_cast<const char*>(packet.data()), bytes},
         .timestamp = timestamp_,
         .due_us = due_us > now_us ? due_us : 0,
         .more =
             next_due_us_ <= now_us + ahead_us_ && std::ranges::any_of(sources_, &Source::sounds)});
}

}  // namespace parley::agent
