#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace parley::caller {

// Both sides of a call at 48 kHz on one timeline that begins at 0. Not thread-safe.
class Recording {
 public:
  // At most this long; what comes later is left out.
  static constexpr int64_t kMaxSamples = int64_t{48'000} * 3600;

  // Samples from `at` (a sample number) on. What overlaps is mixed.
  void AddCaller(int64_t at, std::span<const int16_t> samples) { Add(caller_, at, samples); }
  void AddAgent(int64_t at, std::span<const int16_t> samples) { Add(agent_, at, samples); }

  std::span<const int16_t> caller() const { return caller_; }
  std::span<const int16_t> agent() const { return agent_; }

 private:
  static void Add(std::vector<int16_t>& channel, int64_t at, std::span<const int16_t> samples);
  std::vector<int16_t> caller_;
  std::vector<int16_t> agent_;
};

// Where the frames of one track belong on the timeline: right behind each other as their media
// clock says, but never before they arrived, and anew after a pause. Not thread-safe.
class Placement {
 public:
  // Sample number of a frame with media clock `timestamp` that arrived at sample `arrival`.
  int64_t Place(uint32_t timestamp, int64_t arrival);

 private:
  bool started_ = false;
  uint32_t timestamp_ = 0;  // of the frame before
  int64_t position_ = 0;
};

}  // namespace parley::caller
