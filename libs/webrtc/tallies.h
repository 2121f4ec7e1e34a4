#pragma once
// Counters of an engine: written on its thread, read on any. Internal to `webrtc`.
#include <atomic>
#include <cstdint>

namespace parley::webrtc {

struct Tallies {
  std::atomic<uint64_t> connections{0};
  std::atomic<uint64_t> packets_in{0};
  std::atomic<uint64_t> packets_out{0};
  std::atomic<uint64_t> packets_skipped{0};
  std::atomic<uint64_t> resent{0};
  std::atomic<uint64_t> refused{0};
  std::atomic<uint64_t> dropped{0};
};

}  // namespace parley::webrtc
