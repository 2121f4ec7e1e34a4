#pragma once
#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "audio/opus.h"
#include "audio/pcm.h"

namespace parley::caller {

// Cuts queued samples into frames of 20 ms and encodes them, one frame for each tick of the caller.
// Not thread-safe.
class Microphone {
 public:
  // `silence`: a frame for every tick, also while nothing is queued.
  static absl::StatusOr<Microphone> Create(int opus_complexity, bool silence);

  void Queue(std::span<const int16_t> samples_48k);
  void Clear() { queue_.clear(), read_ = 0; }
  bool playing() const { return read_ < queue_.size(); }

  struct Frame {
    uint32_t timestamp = 0;  // 48 kHz media clock
    uint32_t level = 127;
    std::string_view packet;           // borrowed until the next call
    std::span<const int16_t> samples;  // likewise
    bool last = false;                 // of what was queued
  };
  // The next 20 ms. nullopt: nothing to send in this tick.
  std::optional<Frame> Next();

 private:
  Microphone(audio::OpusEncoder encoder, bool silence);

  audio::OpusEncoder encoder_;
  bool silence_;
  uint32_t timestamp_ = 0;
  std::vector<int16_t> queue_;
  size_t read_ = 0;
  std::vector<int16_t> frame_;
  std::vector<uint8_t> packet_;
  size_t packet_bytes_ = 0;
  int silent_frames_ = 0;
};

}  // namespace parley::caller
