#pragma once
// Messages for data channels that are not open yet. Internal to `webrtc`. One thread.
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <utility>

#include "webrtc/bytes.h"

namespace parley::webrtc {

class EarlyData {
 public:
  static constexpr size_t kMostBytes = 256 << 10;  // then new ones are lost
  // The other side is about to open its channels, or never does so and wants no data.
  static constexpr int64_t kKeptUs = 10'000'000;

  struct Message {
    std::string label;
    std::string bytes;
    int64_t said_us;
  };

  void Add(std::string_view label, Bytes message, int64_t said_us) {
    if (bytes_ + message.size() > kMostBytes) return;
    bytes_ += message.size();
    messages_.push_back({std::string(label), std::string(Text(message)), said_us});
  }
  // Forgets what was said too long ago.
  void Tick(int64_t now_us) {
    while (!messages_.empty() && now_us - messages_.front().said_us > kKeptUs) {
      bytes_ -= messages_.front().bytes.size();
      messages_.pop_front();
    }
  }
  // All that is kept, the oldest first.
  std::deque<Message> Take() {
    bytes_ = 0;
    return std::exchange(messages_, {});
  }

 private:
  std::deque<Message> messages_;
  size_t bytes_ = 0;
};

}  // namespace parley::webrtc
