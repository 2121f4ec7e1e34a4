#pragma once
// The sound of a call, for its recording: the caller left, the agent right, on one line of time.
#include <absl/status/statusor.h>

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "audio/opus.h"
#include "audio/resample.h"

namespace parley::agent {

// One thread. Each side comes in pieces with the time of their end; where a side is silent without
// saying so there is silence. Both are coded together 300 ms later, so that a piece may be late.
class CallSound {
 public:
  static constexpr int kRateHz = 24'000;
  // An Opus packet of 20 ms, stereo.
  using Sink = std::function<void(std::string_view packet)>;
  static absl::StatusOr<std::unique_ptr<CallSound>> Create(Sink sink);

  void Start(int64_t now_us) { start_us_ = now_us; }
  // 16 kHz.
  void OnCaller(std::span<const int16_t> samples, int64_t now_us);
  // 24 kHz.
  void OnAgent(std::span<const int16_t> samples, int64_t now_us);
  // Codes what is old enough; with `all`, everything that there is.
  void Advance(int64_t now_us, bool all = false);

 private:
  struct Side {
    std::deque<int16_t> samples;  // from `coded_` on
    int64_t end = 0;              // samples since the start
  };
  CallSound(Sink sink, audio::OpusEncoder encoder, audio::Resampler resampler);
  void Put(Side& side, std::span<const int16_t> samples, int64_t now_us);

  const Sink sink_;
  audio::OpusEncoder encoder_;
  audio::Resampler resampler_;
  std::vector<int16_t> wide_;
  int64_t start_us_ = 0;
  int64_t coded_ = 0;  // samples since the start
  Side caller_;
  Side agent_;
};

}  // namespace parley::agent
