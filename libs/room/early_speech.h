#pragma once
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>

#include "room/types.h"

namespace parley::room {

// What was said on a track before the agent that was asked for is there to hear it: the last ten
// seconds. Guarded by its room's lock. A frame of Opus costs its 80 to 160 bytes and about 60 more,
// so a track about 100 KiB; what all rooms of this process keep is bounded.
class EarlySpeech {
 public:
  static constexpr size_t kMostFrames = 500;              // of 20 ms
  static constexpr size_t kMostBytes = 1 << 20;           // of one track: ten seconds of PCM16
  static constexpr size_t kMostBytesTogether = 64 << 20;  // of this process; beyond it, no new ones
  static constexpr size_t kMostTracks = 4;                // of one room

  EarlySpeech() = default;
  ~EarlySpeech();
  EarlySpeech(const EarlySpeech&) = delete;
  EarlySpeech& operator=(const EarlySpeech&) = delete;

  // Allocates.
  void Add(const Frame& frame);
  size_t size() const { return frames_.size(); }
  // The oldest is 0. Valid until the next Add.
  Frame At(size_t place) const;

 private:
  struct Kept {
    uint32_t timestamp = 0;
    uint32_t level = 0;
    std::string data;
  };
  static size_t CostOf(const Kept& kept);
  void DropOldest();

  std::deque<Kept> frames_;
  size_t bytes_ = 0;
};

}  // namespace parley::room
