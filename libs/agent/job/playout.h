#pragma once
// The agent's voice on its way out: samples are kept, encoded and handed over frame by frame, each
// 20 ms of absolute time after the one before.
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "audio/opus.h"
#include "event/loop.h"

namespace parley::agent {

// Loop thread only. Allocates only to hold more samples than ever before.
class Playout {
 public:
  static constexpr int kRateHz = 24'000;
  static constexpr size_t kFrameSamples = kRateHz / 50;

  struct Sinks {
    // A packet of 20 ms, its time on the 48 kHz media clock, its level in -dBov.
    std::function<void(std::string_view packet, uint32_t timestamp, uint32_t level)> frame;
    // So much of the speech has been handed over.
    std::function<void(uint64_t speech, int64_t position_us)> progress;
  };
  // Room audio at little cost; 48 kbit/s while the agent speaks.
  static absl::StatusOr<audio::OpusEncoder> MakeEncoder() {
    return audio::OpusEncoder::Create(
        {.rate_hz = kRateHz, .bitrate_bps = 48'000, .complexity = 0, .low_delay = true});
  }
  Playout(event::Loop& loop, audio::OpusEncoder encoder, Sinks sinks);

  // A new speech: what was kept for the last one is forgotten.
  void Begin();
  void Append(std::span<const int16_t> samples);
  // Plays what there is and what comes. The first frame goes out at once.
  void Start(uint64_t speech);
  void Pause();
  void Resume();
  void Clear();
  bool running() const { return running_; }

 private:
  void Run();
  void Tick();

  event::Loop& loop_;
  audio::OpusEncoder encoder_;
  Sinks sinks_;
  event::Timer timer_;
  std::vector<int16_t> samples_;
  size_t next_ = 0;      // in samples_
  int64_t played_ = 0;   // samples of this speech
  uint64_t speech_ = 0;  // 0: not started
  bool running_ = false;
  bool starved_ = false;  // running, with nothing to play: the timer rests
  uint32_t timestamp_ = 0;
  int64_t last_frame_us_ = 0;
};

}  // namespace parley::agent
