#include "room/early_speech.h"

#include <atomic>

namespace parley::room {
namespace {

std::atomic<size_t> together{0};

}  // namespace

EarlySpeech::~EarlySpeech() { together -= bytes_; }

size_t EarlySpeech::CostOf(const Kept& kept) { return sizeof(Kept) + kept.data.size(); }

void EarlySpeech::DropOldest() {
  const size_t cost = CostOf(frames_.front());
  bytes_ -= cost;
  together -= cost;
  frames_.pop_front();
}

void EarlySpeech::Add(const Frame& frame) {
  const size_t cost = sizeof(Kept) + frame.data.size();
  while (!frames_.empty() && (frames_.size() >= kMostFrames || bytes_ + cost > kMostBytes)) {
    DropOldest();
  }
  if (together + cost > kMostBytesTogether) return;
  frames_.push_back({frame.timestamp, frame.level, std::string(frame.data)});
  bytes_ += cost;
  together += cost;
}

Frame EarlySpeech::At(size_t place) const {
  const Kept& kept = frames_[place];
  return {.timestamp = kept.timestamp, .level = kept.level, .data = kept.data};
}

}  // namespace parley::room
