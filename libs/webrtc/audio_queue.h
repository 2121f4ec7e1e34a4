#pragma once
// Packets on their way from any thread to the engine's: a ring of fixed slots, so that nothing is
// allocated for a packet. Thread-safe. Internal to `webrtc`.
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>

#include "base/mutex.h"
#include "webrtc/receive_stream.h"

namespace parley::webrtc {

class AudioQueue {
 public:
  static constexpr size_t kSlots = 1024;  // 20 ms of a thousand listeners

  struct Item {
    uint64_t peer = 0;
    uint32_t track = 0;
    uint32_t timestamp = 0;
    uint32_t level = 0;
    uint32_t size = 0;
    std::array<char, ReceiveStream::kMaxPayload> payload;
  };

  enum class Outcome { kFirst, kQueued, kFull };
  // kFirst: the queue had been empty, so wake the reader.
  Outcome Push(uint64_t peer, uint32_t track, uint32_t timestamp, uint32_t level,
               std::string_view payload) {
    if (payload.empty() || payload.size() > ReceiveStream::kMaxPayload) return Outcome::kFull;
    MutexLock lock(&mutex_);
    if (count_ == kSlots) return Outcome::kFull;
    Item& item = (*slots_)[(first_ + count_) % kSlots];
    item.peer = peer;
    item.track = track;
    item.timestamp = timestamp;
    item.level = level;
    item.size = static_cast<uint32_t>(payload.size());
    std::memcpy(item.payload.data(), payload.data(), payload.size());
    return count_++ == 0 ? Outcome::kFirst : Outcome::kQueued;
  }
  // False: empty.
  bool Pop(Item* out) {
    MutexLock lock(&mutex_);
    if (count_ == 0) return false;
    const Item& item = (*slots_)[first_];
    out->peer = item.peer;
    out->track = item.track;
    out->timestamp = item.timestamp;
    out->level = item.level;
    out->size = item.size;
    std::memcpy(out->payload.data(), item.payload.data(), item.size);
    first_ = (first_ + 1) % kSlots;
    --count_;
    return true;
  }

 private:
  mutable Mutex mutex_;
  const std::unique_ptr<std::array<Item, kSlots>> slots_ =
      std::make_unique<std::array<Item, kSlots>>();
  size_t first_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t count_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace parley::webrtc
