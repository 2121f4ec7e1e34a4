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

class PacketQueue {
 public:
  static constexpr size_t kSlots = 1024;  // 20 ms of a thousand listeners

  struct Head {
    uint64_t peer = 0;
    uint32_t track = 0;
    uint32_t timestamp = 0;
    uint32_t level = 0;  // of audio
    // Of video.
    bool video = false;
    uint16_t sequence = 0;
    uint8_t layer = 0;
    bool marker = false;
    bool key = false;
  };
  struct Item {
    Head head;
    uint32_t size = 0;
    std::array<char, ReceiveStream::kMaxPayload> payload;
    std::string_view data() const { return {payload.data(), size}; }
  };

  enum class Outcome { kFirst, kQueued, kFull };
  // kFirst: the queue had been empty, so wake the reader.
  Outcome Push(const Head& head, std::string_view payload) {
    if (payload.empty() || payload.size() > ReceiveStream::kMaxPayload) return Outcome::kFull;
    MutexLock lock(&mutex_);
    if (count_ == kSlots) return Outcome::kFull;
    Item& item = (*slots_)[(first_ + count_) % kSlots];
    item.head = head;
    item.size = static_cast<uint32_t>(payload.size());
    std::memcpy(item.payload.data(), payload.data(), payload.size());
    return count_++ == 0 ? Outcome::kFirst : Outcome::kQueued;
  }
  // False: empty.
  bool Pop(Item* out) {
    MutexLock lock(&mutex_);
    if (count_ == 0) return false;
    const Item& item = (*slots_)[first_];
    out->head = item.head;
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
