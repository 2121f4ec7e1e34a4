#include "agent/job/playout.h"

#include <algorithm>
#include <array>
#include <utility>

#include "audio/level.h"
#include "audio/pcm.h"

namespace parley::agent {
namespace {

constexpr int64_t kFrameUs = 20'000;
constexpr uint32_t kFrameTicks = 960;

}  // namespace

Playout::Playout(event::Loop& loop, audio::OpusEncoder encoder, Sinks sinks)
    : loop_(loop), encoder_(std::move(encoder)), sinks_(std::move(sinks)), timer_(loop) {}

void Playout::Begin() {
  Clear();
  encoder_.Reset();
}

void Playout::Append(std::span<const int16_t> samples) {
  if (next_ > 0) {
    samples_.erase(samples_.begin(), samples_.begin() + static_cast<std::ptrdiff_t>(next_));
    next_ = 0;
  }
  samples_.insert(samples_.end(), samples.begin(), samples.end());
  if (starved_ && !samples.empty()) Run();
}

void Playout::Start(uint64_t speech) {
  speech_ = speech;
  Run();
}

void Playout::Pause() {
  running_ = false;
  starved_ = false;
  timer_.Stop();
}

void Playout::Resume() {
  if (speech_ != 0 && !running_) Run();
}

void Playout::Clear() {
  Pause();
  samples_.clear();
  next_ = 0;
  played_ = 0;
  speech_ = 0;
}

void Playout::Run() {
  running_ = true;
  starved_ = false;
  // The media clock goes on while nothing is said.
  const int64_t now_us = loop_.NowMicros();
  const int64_t frames = last_frame_us_ == 0 ? 0 : (now_us - last_frame_us_) / kFrameUs;
  timestamp_ += static_cast<uint32_t>(frames) * kFrameTicks;
  timer_.StartRepeating(absl::Microseconds(kFrameUs), [this] { Tick(); });
  Tick();
}

void Playout::Tick() {
  const size_t count = std::min(samples_.size() - next_, kFrameSamples);
  if (count == 0) {  // said, or more is on its way: no reason to wake up until then
    timer_.Stop();
    starved_ = true;
    return;
  }
  timestamp_ += kFrameTicks;
  last_frame_us_ = loop_.NowMicros();
  std::array<int16_t, kFrameSamples> frame{};  // a last piece ends in silence
  std::copy_n(samples_.begin() + static_cast<std::ptrdiff_t>(next_), count, frame.begin());
  next_ += count;
  played_ += static_cast<int64_t>(count);
  std::array<uint8_t, audio::OpusEncoder::kMaxPacketBytes> packet;
  const auto bytes = encoder_.Encode(frame, packet);
  if (bytes.ok()) {
    sinks_.frame({reinterpret_cast<const char*>(packet.data()), *bytes}, timestamp_,
                 audio::Level(frame));
  }
  // Last: it may end the speech, and with it this playing.
  sinks_.progress(speech_, audio::SamplesToMicros(played_, kRateHz));
}

}  // namespace parley::agent
